// The HTTP side of the page: errors become sentences, streams become callbacks.
import { $ } from "/web/dom.js";

const KEY = "plumbline-key";

function headers(extra = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}`, ...extra } : extra;
}

async function failure(response) {
  const body = await response.json().catch(() => null);
  const after = Number(response.headers.get("Retry-After")) || null;
  return Object.assign(new Error(body?.error?.message ?? `The service answered ${response.status}.`), { status: response.status, after, code: body?.error?.code });
}

// What the key may not do is hidden: the parts of the page that need it name it in `data-needs`. Until it is known
// everything is shown, and the service refuses. Whoever goes by it hears of `rights`.
export async function learnRights() {
  let key = { id: null, tenant: "", groups: null, scopes: ["read", "write", "operate"] };
  let without = false;
  try {
    key = await api("GET", "/v1/key", undefined, { quiet: true, within: 10 });
  } catch (error) {
    without = error.status === 401;
  }
  document.body.dataset.without = ["read", "write", "operate"].filter((scope) => !key.scopes.includes(scope)).join(" ");
  dispatchEvent(new CustomEvent("rights", { detail: { ...key, refused: without } }));
}

export function may(scope) {
  return !(document.body.dataset.without ?? "").split(" ").includes(scope);
}

let asked = null;
let refused = null; // The key that was not accepted.

// Whether a key was given. Whoever needs one meanwhile waits for the same dialog.
export function askForKey() {
  asked ??= new Promise((resolve) => {
    const [dialog, input] = [$("key"), $("key-value")];
    const held = sessionStorage.getItem(KEY);
    $("key-title").textContent = held ? "Use another key" : "This service needs a key";
    $("key-refused").hidden = held === null || held !== refused;
    input.value = dialog.returnValue = "";
    dialog.onclose = () => {
      asked = null;
      const given = dialog.returnValue === "use" && input.value.trim() !== "";
      if (given) {
        sessionStorage.setItem(KEY, input.value.trim());
        learnRights();
      }
      resolve(given);
    };
    dialog.showModal();
  });
  return asked;
}

export function keyHeld() {
  return sessionStorage.getItem(KEY) !== null;
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

// Fetch with the key. Where the service wants one it is asked for, once; not for what nobody clicked (`quiet`).
async function call(path, { quiet = false, ...options }) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    dispatchEvent(new Event("away"));
    throw new Error(navigator.onLine ? "The service does not answer. Is it running?" : "This device is offline.");
  }
  if (response.status === 401) refused = sessionStorage.getItem(KEY);
  if (response.status === 401 && !quiet && (await askForKey())) return call(path, { ...options, quiet: true });
  return response;
}

// `within` is in seconds.
export async function api(method, path, body, { accept = [], blob = false, quiet = false, within, signal } = {}) {
  const options = { method, headers: {}, quiet, signal: within ? AbortSignal.timeout(1000 * within) : signal };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await call(path, options);
  if (!response.ok && !accept.includes(response.status)) throw await failure(response);
  return blob ? response.blob() : response.status === 204 ? null : response.json();
}

// A connection that breaks ends what is read from it; whoever reads knows whether it was complete.
function cutOff(error) {
  if (error.name === "AbortError") throw error;
  return { done: true };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(cutOff);
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

async function stream(path, body, signal, onEvent) {
  const response = await call(path, { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ...body, stream: true }) });
  if (!response.ok) throw await failure(response);
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const told = JSON.parse(data);
    if (told.error) throw new Error(told.error.message);
    onEvent(told);
  }
  throw new Error("It was cut off before it was complete.");
}

// Streams an answer; calls `onText` with each piece and returns the final `plumbline` object with the answer's `id`.
export async function ask(messages, extra, signal, onText) {
  let final = {};
  await stream("/v1/chat/completions", { model: "plumbline", messages, plumbline: extra }, signal, (told) => {
    const piece = told.choices?.[0]?.delta?.content;
    if (piece) onText(piece);
    if (told.plumbline) final = { ...told.plumbline, id: told.id };
  });
  return final;
}

// Streams a summary; calls `onText` with each piece, `onProgress` with how far reading is, and returns the summary.
export async function summarize(wanted, signal, onText, onProgress) {
  let final = {};
  await stream("/v1/summarize", wanted, signal, (told) => {
    if (told.object === "summary.delta") onText(told.delta);
    if (told.object === "summary.progress") onProgress(told);
    if (told.object === "summary") final = told;
  });
  return final;
}

export async function upload(file, name, { collection, groups }) {
  const form = new FormData();
  form.append("collection", collection);
  if (groups) form.append("groups", groups);
  form.append("files", file, name);
  const response = await call("/v1/documents", { method: "POST", body: form, headers: {} });
  if (!response.ok) throw await failure(response);
  return response.json();
}
