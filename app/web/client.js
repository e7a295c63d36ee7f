// The HTTP side of the page: errors become sentences, streams become callbacks.

function key() {
  return sessionStorage.getItem("plumbline-key");
}

function headers(extra = {}) {
  return key() ? { Authorization: `Bearer ${key()}`, ...extra } : extra;
}

async function failure(response) {
  const body = await response.json().catch(() => null);
  return new Error(body?.error?.message ?? `The service answered ${response.status}.`);
}

function askForKey() {
  const dialog = document.getElementById("key");
  const input = document.getElementById("key-value");
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (input.value) sessionStorage.setItem("plumbline-key", input.value);
      resolve(Boolean(input.value));
    };
    input.value = "";
    if (!dialog.open) dialog.showModal();
  });
}

// Fetch with the key; asks for one, once, where the service wants it.
async function call(path, options, retry = true) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer. Is it running?");
  }
  if (response.status === 401 && retry && (await askForKey())) return call(path, options, false);
  return response;
}

export async function api(method, path, body, { accept = [], blob = false } = {}) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await call(path, options);
  if (!response.ok && !accept.includes(response.status)) throw await failure(response);
  return blob ? response.blob() : response.status === 204 ? null : response.json();
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data) yield data;
    }
  }
}

// Streams an answer; calls `onText` with each piece and returns the final `plumbline` object with the answer's `id`.
export async function ask(messages, conversation, signal, onText) {
  const response = await call("/v1/chat/completions", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "plumbline", stream: true, messages, plumbline: conversation ? { conversation } : {} }),
  });
  if (!response.ok) throw await failure(response);
  let final = {};
  let complete = false;
  for await (const data of events(response)) {
    if (data === "[DONE]") {
      complete = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) onText(piece);
    if (chunk.plumbline) final = { ...chunk.plumbline, id: chunk.id };
  }
  if (!complete) throw new Error("The answer was cut off. Ask again.");
  return final;
}

export async function upload(file) {
  const form = new FormData();
  form.append("files", file, file.path ?? file.name);
  const response = await call("/v1/documents", { method: "POST", body: form, headers: {} });
  if (!response.ok) throw await failure(response);
  return response.json();
}

// Follows a job until it ends; `onState` may throw to stop with an error.
export async function watch(id, onState) {
  const response = await call(`/v1/jobs/${id}/events`, { headers: { Accept: "text/event-stream" } });
  if (!response.ok) throw await failure(response);
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    onState(JSON.parse(data));
  }
}
