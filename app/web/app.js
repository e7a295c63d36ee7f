// The page: views over the public API and nothing else. Everything that comes from documents or models is set
// as text, never as markup. Releases have a file of their own.
import { api, ask, upload, watch } from "/web/client.js";
import { $, clickable, drawn, element } from "/web/dom.js";
import { follow } from "/web/releases.js";

const views = ["ask", "search", "documents", "releases"];

// ---- views

function show() {
  const name = views.includes(location.hash.slice(1)) ? location.hash.slice(1) : "ask";
  for (const view of views) $(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  follow(name === "releases");
  if (name === "documents") listDocuments();
  if (name === "ask") $("question").focus();
  if (name === "search") $("query").focus();
}

async function showStatus() {
  try {
    const ready = await api("GET", "/health/ready", undefined, { accept: [503] });
    const doubt = ready.release_forced ? `, forced: ${ready.release_forced}` : ready.release_state === "bootstrap" ? ", not evaluated yet" : "";
    $("status").textContent = ready.down?.length ? `Not reachable: ${ready.down.join(", ")}` : `release ${ready.release}${doubt}`;
    $("status").classList.toggle("doubtful", Boolean(doubt));
  } catch {
    $("status").textContent = "The service does not answer.";
  }
}

// ---- asking

const history = [];
let conversation = null;
let running = null;

// The headings above a passage, without a first one that only repeats the title.
function under(source) {
  const path = (source.heading ?? "").split(" > ");
  return (path[0] === source.title ? path.slice(1) : path).join(" > ");
}

function place(source) {
  return [source.title, under(source), source.page && `page ${source.page}`].filter(Boolean).join(" · ");
}

// Text with its markers as buttons. `spans` are the places that bear the sentence out.
function marked(text, byNumber, spans) {
  return text.split(/(\[\d{1,4}\])/).map((piece) => {
    const source = byNumber.get(Number(piece.match(/^\[(\d+)\]$/)?.[1]));
    if (!source) return piece;
    const button = element("button", { className: "cite", type: "button", textContent: source.number, title: place(source) });
    button.setAttribute("aria-label", `Source ${source.number}: ${place(source)}`);
    button.onclick = () => openPassage(source, spans.find((span) => span.chunk_id === source.chunk_id));
    return button;
  });
}

const verdicts = { weak: "This may not be what the source says", unsupported: "The source does not bear this out", uncited: "No source is named for this" };
const whys = { number: "a number or date is not in it", denial: "one of the two denies it", direction: "it speaks of less where this speaks of more, or the other way round", name: "a name is not in it", unlike: "the words are far apart", words: "only some of the words are there", meaning: "it is said in other words" };

function doubt(verdict) {
  const why = whys[verdict.reason] ? `${verdicts[verdict.verdict]}: ${whys[verdict.reason]}.` : `${verdicts[verdict.verdict]}.`;
  const mark = element("span", { className: "doubt", textContent: "?", title: why, tabIndex: 0 });
  mark.setAttribute("role", "note");
  mark.setAttribute("aria-label", why);
  return mark;
}

// Places are counted in characters as Python counts them, not in UTF-16.
function fillAnswer(target, text, sources, support) {
  const byNumber = new Map(sources.map((source) => [source.number, source]));
  const characters = Array.from(text);
  const slice = (start, end) => characters.slice(start, end).join("");
  const pieces = [];
  let at = 0;
  for (const verdict of support) {
    pieces.push(...marked(slice(at, verdict.start), byNumber, []));
    const sentence = element("span", { className: `claim ${verdict.verdict}` }, ...marked(slice(verdict.start, verdict.end), byNumber, verdict.spans));
    pieces.push(sentence, ...(verdict.verdict === "supported" ? [] : [doubt(verdict)]));
    at = verdict.end;
  }
  target.replaceChildren(...pieces, ...marked(slice(at), byNumber, []));
}

function sourceList(citations) {
  return element("ul", { className: "sources" }, ...citations.map((source) => {
    const button = element("button", { type: "button", textContent: `${source.number}. ${place(source)}` });
    button.onclick = () => openPassage(source);
    return element("li", {}, button);
  }));
}

const reasons = { dense: "similarity search was out", keyword: "keyword search was out", visibility: "documents were changing", rewrite: "the conversation could not be considered", cache: "outputs cannot be cached now", support: "the sources could not be compared in full", query_truncated: "the question was shortened for the search" };

function notices(final) {
  const words = (final.degraded ?? []).map((name) => name === "model:none" ? "no model could answer, these are the nearest passages" : name.startsWith("model:") ? `the first model was out, ${name.slice(6)} answered` : reasons[name] ?? name);
  return words.length ? [element("p", { className: "notice", textContent: `Note: ${words.join("; ")}.` })] : [];
}

async function onAsk(event) {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  const answer = element("p", { className: "answer waiting" });
  const turn = element("article", { className: "turn" }, element("p", { className: "asked", textContent: question }), answer);
  $("conversation").append(turn);
  turn.scrollIntoView({ block: "nearest" });
  running = new AbortController();
  toggleRunning(true);
  let text = "";
  try {
    const final = await ask([...history, { role: "user", content: question }], conversation, running.signal, (piece) => {
      text += piece;
      answer.textContent = text;
    });
    conversation = final.conversation ?? conversation;
    answer.classList.toggle("declined", final.answered === false);
    fillAnswer(answer, text, final.citations ?? [], final.support ?? []);
    if (final.citations?.length) turn.append(sourceList(final.citations));
    turn.append(...notices(final), ...(final.id ? [feedback(final.id)] : []));
    history.push({ role: "user", content: question }, { role: "assistant", content: text });
  } catch (error) {
    const stopped = error.name === "AbortError";
    turn.append(element("p", { className: stopped ? "notice" : "notice error", textContent: stopped ? "Stopped." : error.message }));
  } finally {
    answer.classList.remove("waiting");
    running = null;
    toggleRunning(false);
  }
}

const THUMB = "M3 9h3v8H3zM6 9l4-7c1.4 0 2.2.9 2 2.2L11.5 8H16a1.6 1.6 0 0 1 1.6 1.9l-1.1 5.8A1.6 1.6 0 0 1 14.9 17H6";
const flaws = { wrong: "wrong", unsupported: "not in the sources", incomplete: "incomplete", outdated: "outdated", unsafe: "unsafe", slow: "slow", other: "something else" };

// Thumbs up and down, and after a thumb down what is wrong; the latest word counts.
function feedback(id) {
  const note = element("span", { className: "hint", role: "status" });
  const thumbs = { up: clickable("", () => rate("up"), "thumb"), down: clickable("", () => rate("down"), "thumb down") };
  for (const thumb of Object.values(thumbs)) thumb.append(drawn("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, drawn("path", { d: THUMB })));
  thumbs.up.setAttribute("aria-label", "This answer helped");
  thumbs.down.setAttribute("aria-label", "This answer is no good");
  const why = element("select", { hidden: true, onchange: () => rate("down", why.value) }, element("option", { value: "", textContent: "What is wrong?" }), ...Object.entries(flaws).map(([value, textContent]) => element("option", { value, textContent })));
  why.setAttribute("aria-label", "What is wrong with this answer");
  const rate = async (rating, reason) => {
    try {
      await api("POST", "/v1/feedback", { id, rating, ...(reason ? { reason } : {}) });
      for (const [name, thumb] of Object.entries(thumbs)) thumb.setAttribute("aria-pressed", name === rating);
      why.hidden = rating !== "down";
      note.textContent = "Thank you.";
    } catch (error) {
      note.textContent = error.message;
    }
  };
  return element("div", { className: "feedback" }, thumbs.up, thumbs.down, why, note);
}

function toggleRunning(on) {
  $("ask-button").hidden = on;
  $("stop-button").hidden = !on;
  $("new-conversation").hidden = on || !$("conversation").children.length;
  if (!on) $("question").focus();
}

// ---- the cited passage

// A passage with the part that bears a sentence out marked; all of it where none is known. What stands before
// the passage's own place are the names of a table's columns, said again.
function withMark(source, span) {
  const characters = Array.from(source.text);
  const at = source.span.start - (characters.length - (source.span.end - source.span.start));
  const start = span ? span.start - at : 0;
  const end = span ? span.end - at : characters.length;
  const slice = (from, to) => characters.slice(from, to).join("");
  return [slice(0, start), element("mark", { textContent: slice(start, end) }), slice(end)];
}

// The marked place as it stands in its document, what is not of the passage in a softer colour.
function inPlace(found, source) {
  const soft = (text) => text ? [element("span", { className: "around", textContent: text })] : [];
  const [before, after] = [Array.from(found.before), Array.from(found.after)];
  const first = Math.max(0, before.length - Math.max(0, found.span.start - source.span.start));
  const last = Math.max(0, source.span.end - found.span.end);
  const text = (characters, from, to) => characters.slice(from, to).join("");
  return [...soft(text(before, 0, first)), text(before, first), element("mark", { textContent: found.text }), text(after, 0, last), ...soft(text(after, last))];
}

async function openPassage(source, span) {
  $("passage-title").textContent = source.title;
  $("passage-place").textContent = [under(source), source.page && `Page ${source.page}`, source.document_id].filter(Boolean).join(" · ");
  $("passage-text").replaceChildren(...withMark(source, span));
  $("passage-original").hidden = !source.document_id;
  $("passage-original").onclick = () => openOriginal(source).catch((error) => $("passage-text").append(element("p", { className: "notice error", textContent: error.message })));
  $("passage").showModal();
  if (!source.document_id) return;
  const place = span ?? source.span;
  const asked = new URLSearchParams({ start: place.start, end: place.end, chunk_id: source.chunk_id });
  try {
    const found = await api("GET", `/v1/documents/${encodeURIComponent(source.document_id)}/text?${asked}`);
    $("passage-text").replaceChildren(...inPlace(found, source));
    $("passage-text").querySelector("mark").scrollIntoView({ block: "center" });
  } catch (error) {
    $("passage-text").append(element("p", { className: "notice error", textContent: error.message }));
  }
}

// Only a PDF is opened; anything else is saved, since an uploaded page must not run as one of ours.
async function openOriginal(source) {
  const blob = await api("GET", `/v1/documents/${encodeURIComponent(source.document_id)}/content`, undefined, { blob: true });
  const address = URL.createObjectURL(blob);
  const link = element("a", { href: address });
  if (blob.type === "application/pdf") Object.assign(link, { href: `${address}#page=${source.page ?? 1}`, target: "_blank", rel: "noopener" });
  else link.download = source.document_id;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

// ---- searching

async function onSearch(event) {
  event.preventDefault();
  $("search-note").textContent = "Searching…";
  try {
    const found = await api("POST", "/v1/search", { query: $("query").value, limit: 20 });
    $("hits").replaceChildren(...found.hits.map(hit));
    $("search-note").textContent = found.hits.length ? `${found.hits.length} passages` : "Nothing was found.";
  } catch (error) {
    $("hits").replaceChildren();
    $("search-note").replaceChildren(element("span", { className: "error", textContent: error.message }));
  }
}

function hit(found) {
  const button = element("button", { type: "button", textContent: found.title || found.document_id });
  button.onclick = () => openPassage(found);
  const where = [under(found), found.page && `page ${found.page}`].filter(Boolean).join(" · ");
  return element("li", {}, element("h2", {}, button), element("p", { className: "hint", textContent: where }), element("p", {}, ...highlighted(found.text, $("query").value)));
}

function highlighted(text, query) {
  const short = text.length > 420 ? `${text.slice(0, 420)}…` : text;
  const words = [...new Set(query.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) ?? [])];
  if (!words.length) return [short];
  const pattern = new RegExp(`(${words.join("|")})`, "giu");
  return short.split(pattern).map((piece, index) => index % 2 ? element("mark", { textContent: piece }) : piece);
}

// ---- documents

let cursor = null;

async function listDocuments(more = false) {
  try {
    const query = more && cursor ? `?limit=50&after=${encodeURIComponent(cursor)}` : "?limit=50";
    const page = await api("GET", `/v1/documents${query}`);
    cursor = page.next ?? null;
    const rows = page.documents.map(row);
    if (more) $("rows").append(...rows);
    else $("rows").replaceChildren(...rows);
    $("more").hidden = !cursor;
    $("documents-note").textContent = $("rows").children.length ? "" : "No documents yet.";
  } catch (error) {
    $("documents-note").replaceChildren(element("span", { className: "error", textContent: error.message }));
  }
}

function row(document_) {
  const remove = element("button", { type: "button", className: "plain", textContent: "Delete" });
  remove.setAttribute("aria-label", `Delete ${document_.title}`);
  remove.onclick = () => removeDocument(document_, remove);
  const cells = [document_.title || document_.id, document_.collection];
  return element("tr", {}, ...cells.map((text) => element("td", { textContent: text })), element("td", {}, ...stateOf(document_)),
    element("td", { className: "number", textContent: document_.chunks }), element("td", { className: "number", textContent: size(document_.size) }),
    element("td", { className: "when", textContent: new Date(document_.updated_at).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" }) }), element("td", {}, remove));
}

// Whether it can be found, and what became of its newest version if that is not what is found.
function stateOf(document_) {
  const { visible, status, error } = document_;
  if (error && !["queued", "running"].includes(status)) {
    const said = element("span", { className: "error", textContent: visible ? `Not replaced: ${error.message}` : error.message });
    return visible ? ["searchable", element("br"), said] : [said];
  }
  const changing = { queued: "waiting", running: "being read" }[status];
  if (visible) return [changing ? `searchable, newer version ${changing}` : "searchable"];
  return [changing ?? status ?? "waiting"];
}

function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${Math.round(bytes / 1024)} KB` : `${(bytes / 1048576).toFixed(1)} MB`;
}

async function removeDocument(document_, button) {
  if (!confirm(`Delete “${document_.title || document_.id}”? Answers will stop using it at once.`)) return;
  button.disabled = true;
  try {
    await api("DELETE", `/v1/documents/${encodeURIComponent(document_.id)}`);
    button.closest("tr").remove();
  } catch (error) {
    button.disabled = false;
    $("documents-note").replaceChildren(element("span", { className: "error", textContent: error.message }));
  }
}

async function addFiles(files) {
  for (const file of files) {
    const bar = element("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", `Progress of ${file.name}`);
    const note = element("span", { textContent: "sending" });
    const item = element("li", {}, element("span", { textContent: file.path ?? file.name }), note, bar);
    $("uploads").prepend(item);
    addFile(file, note, bar).catch((error) => {
      note.textContent = error.message;
      note.className = "error";
      bar.remove();
    });
  }
}

async function addFile(file, note, bar) {
  const [job] = (await upload(file)).jobs;
  try {
    await watch(job.id, (state) => {
      note.textContent = progressOf(state);
      if (state.total) bar.value = state.done / state.total;
      if (["failed", "quarantined", "cancelled"].includes(state.status)) throw new Error(state.error?.message ?? state.status);
    });
  } finally {
    listDocuments();
  }
  note.textContent = "searchable";
  bar.value = 1;
}

// How far a job is, in words: what it waits for, what it does, whether it gets on, how long it will take.
function progressOf(job) {
  const left = job.eta_seconds === null ? "" : `, about ${duration(job.eta_seconds)} left`;
  if (job.status === "queued") return (job.position ? `waiting, ${job.position} ahead` : "waiting") + left;
  if (job.pulse === "slow" || job.pulse === "lost") return `${job.stage}, ${job.pulse}`;
  if (job.part) return job.part + left;
  return (job.total ? `${job.stage} ${job.done} of ${job.total}` : job.stage ?? job.status) + left;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

async function filesOf(items) {
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push(Object.assign(file, { path: path + file.name }));
    } else {
      const reader = entry.createReader();
      for (;;) {
        const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!entries.length) break;
        for (const child of entries) await walk(child, `${path}${entry.name}/`);
      }
    }
  };
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of entries) await walk(entry, "");
  return found;
}

// ---- start

$("ask-form").onsubmit = onAsk;
$("question").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask-form").requestSubmit(); } };
$("question").oninput = (event) => { event.target.rows = Math.min(8, event.target.value.split("\n").length); };
$("stop-button").onclick = () => running?.abort();
$("new-conversation").onclick = () => { history.length = 0; conversation = null; $("conversation").replaceChildren(); toggleRunning(false); };
$("search-form").onsubmit = onSearch;
$("more").onclick = () => listDocuments(true);
$("files").onchange = (event) => { addFiles(event.target.files); event.target.value = ""; };
$("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  addFiles(await filesOf(event.dataTransfer.items));
};
window.onhashchange = show;
show();
showStatus();
setInterval(showStatus, 15000);
