// The dialog that shows where something stands: a cited passage in its document, or a whole document. What is open
// is in the address.
import { api } from "/web/client.js";
import { $, clickable, copier, counted, dotted, element } from "/web/dom.js";
import { drawnAs, looks } from "/web/marks.js";
import { beneath, here, tell } from "/web/route.js";

const PIECE = 20_000;
const PLACE = /^([\d-]*):(\d+)-(\d+)$/;

// The headings above a passage, without a first one that only repeats the title.
export function under(source) {
  const path = (source.heading ?? "").split(" > ");
  return (path[0] === source.title ? path.slice(1) : path).join(" > ");
}

function parts(source) {
  return [source.title, under(source), source.page && `page ${source.page}`];
}

export function place(source) {
  return parts(source).filter(Boolean).join(" · ");
}

// The same, where every part may run another way.
export function placed(source) {
  return dotted(parts(source));
}

export function size(bytes) {
  return bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${Math.round(bytes / 1024)} KB` : `${(bytes / 1048576).toFixed(1)} MB`;
}

// A passage with the part that bears a sentence out marked; all of it where none is known. What stands before
// the passage's own place are the names of a table's columns, said again.
function withMark(source, span) {
  const characters = Array.from(source.text);
  const at = source.span.start - (characters.length - (source.span.end - source.span.start));
  const start = span ? span.start - at : 0;
  const end = span ? span.end - at : characters.length;
  const slice = (from, to) => characters.slice(from, to).join("");
  return [["", slice(0, start)], ["mark", slice(start, end)], ["", slice(end)]];
}

// The marked place as it stands in its document, what is not of the passage in a softer colour.
function inPlace(found, source) {
  const [before, after] = [Array.from(found.before), Array.from(found.after)];
  const first = Math.max(0, before.length - Math.max(0, found.span.start - source.span.start));
  const last = Math.max(0, source.span.end - found.span.end);
  const text = (characters, from, to) => characters.slice(from, to).join("");
  return [["around", text(before, 0, first)], ["", text(before, first)], ["mark", found.text], ["", text(after, 0, last)], ["around", text(after, last)]];
}

// The texts one after the other, each of its kind. Those of a Markdown file are shown as its readers see them.
function shown(texts, markdown) {
  const whole = texts.map(([, text]) => text).join("");
  const look = markdown ? looks(whole).look : new Uint8Array(whole.length);
  let at = 0;
  return texts.flatMap(([kind, text]) => {
    const nodes = drawnAs(whole, look, at, at += text.length);
    return kind === "mark" ? [element("mark", {}, ...nodes)] : kind ? [element("span", { className: kind }, ...nodes)] : nodes;
  });
}

// What is asked for may come when another passage is open by now.
let opened = 0;

function open(title, facts, id, page) {
  $("passage-title").textContent = title;
  $("passage-place").replaceChildren(...dotted(facts));
  $("passage-text").replaceChildren();
  $("passage-note").replaceChildren();
  $("passage-copy").replaceChildren(copier(() => ($("passage-text").querySelector("mark") ?? $("passage-text")).innerText.trim(), "Copy the text"));
  $("passage-original").hidden = $("passage-summarize").hidden = !id;
  $("passage-link").hidden = !id;
  $("passage-copy").hidden = false;
  $("passage-original").onclick = () => openOriginal(id, page).catch(complain);
  $("passage-summarize").onclick = () => {
    // The view below is left for good: closing the dialog must not go back to it.
    const { view, terms } = here();
    tell(view, beneath(terms));
    $("passage").close();
    dispatchEvent(new CustomEvent("summarize", { detail: { id, title: $("passage-title").textContent } }));
  };
  if (!$("passage").open) $("passage").showModal();
  $("passage-text").scrollTop = 0;
  opened += 1;
  return opened;
}

// Says in the address what is open; an entry of its own, so that Back closes the dialog.
function remember(id, at) {
  const { view, terms } = here();
  const anew = !terms.has("open");
  const over = anew || history.state?.over === true;
  terms.set("open", id);
  terms.delete("at");
  if (at) terms.set("at", at);
  tell(view, terms, { anew, state: { over } });
}

export function start() {
  $("passage-link").append(copier(() => location.href, "Copy the link"));
  $("passage").onclose = () => {
    const { view, terms } = here();
    if (!terms.has("open")) return;
    if (history.state?.over) history.back();
    else tell(view, beneath(terms));
  };
}

// Opens what the address says is open, closes what it does not.
export function follow(terms) {
  const [id, at] = [terms.get("open"), terms.get("at")];
  if (!id) $("passage").close();
  else if (!$("passage").open || $("passage").dataset.open !== `${id} ${at}`) openNamed(id, at);
}

async function openNamed(id, at) {
  $("passage").dataset.open = `${id} ${at}`;
  const [, chunk, start, end] = PLACE.exec(at ?? "") ?? [];
  const number = open(id, [], id, 1);
  try {
    if (end === undefined) return showDocument(await known(id));
    const span = { start: Number(start), end: Number(end) };
    const source = { document_id: id, chunk_id: chunk, span };
    const [found, about] = await Promise.all([textOf(id, span, chunk), known(id)]);
    if (number === opened) showPlace({ ...source, ...found }, found, about);
  } catch (error) {
    if (number === opened) gone(error);
  }
}

function gone(error) {
  complain(error);
  if (error.status !== 404) return;
  // It was deleted or replaced: what may no longer be seen is not left standing.
  $("passage-text").replaceChildren();
  for (const part of ["copy", "link", "original", "summarize"]) $(`passage-${part}`).hidden = true;
}

function complain(error) {
  $("passage-note").replaceChildren(element("p", { className: "notice error", textContent: error.message }));
}

function known(id) {
  return api("GET", `/v1/documents/${encodeURIComponent(id)}`);
}

function textOf(id, { start, end }, chunk, more = {}) {
  return api("GET", `/v1/documents/${encodeURIComponent(id)}/text?${new URLSearchParams({ start, end, ...(chunk ? { chunk_id: chunk } : {}), ...more })}`);
}

const isMarkdown = (about) => about.media_type === "text/markdown";

function facts(source) {
  return [under(source), source.page && `Page ${source.page}`, source.document_id];
}

export async function openPassage(source, span) {
  const id = source.document_id;
  const number = open(source.title || id, facts(source), id, source.page);
  $("passage-text").replaceChildren(...shown(withMark(source, span), false));
  if (!id) return;
  const at = span ?? source.span;
  const spot = `${source.chunk_id ?? ""}:${at.start}-${at.end}`;
  $("passage").dataset.open = `${id} ${spot}`;
  remember(id, spot);
  try {
    const [found, about] = await Promise.all([textOf(id, at, source.chunk_id), known(id)]);
    if (number === opened) showPlace(source, found, about);
  } catch (error) {
    if (number === opened) gone(error);
  }
}

function showPlace(source, found, about) {
  $("passage-title").textContent = source.title || source.document_id;
  $("passage-place").replaceChildren(...dotted(facts(source)));
  $("passage-text").replaceChildren(...shown(inPlace(found, source), isMarkdown(about)));
  const [box, mark] = [$("passage-text"), $("passage-text").querySelector("mark")];
  box.scrollTop = mark.offsetTop - Math.max(0, (box.clientHeight - mark.offsetHeight) / 2);
}

export function openDocument(document_) {
  $("passage").dataset.open = `${document_.id} null`;
  remember(document_.id);
  showDocument(document_);
}

function showDocument(document_) {
  const told = [document_.collection, document_.media_type, size(document_.size), counted(document_.chunks, "passage"), document_.id];
  const number = open(document_.title || document_.id, told, document_.id, 1);
  if (document_.visible) {
    addText(document_, 0, number, false);
    return;
  }
  $("passage-summarize").hidden = $("passage-copy").hidden = true;
  complain(new Error(document_.error?.message ?? "It has not been read yet."));
}

// `fenced` says that what comes next goes on with a block of code.
async function addText(document_, start, number, fenced) {
  try {
    const found = await textOf(document_.id, { start, end: start + PIECE }, null, { around: 1 });
    if (number !== opened) return;
    const seen = isMarkdown(document_) ? looks(found.text, fenced) : { look: new Uint8Array(found.text.length), fenced };
    $("passage-text").append(...drawnAs(found.text, seen.look));
    $("passage-note").replaceChildren(...(found.after ? [clickable("Show more", () => addText(document_, found.span.end, number, seen.fenced))] : []));
  } catch (error) {
    if (number === opened) complain(error);
  }
}

// Only a PDF is opened; anything else is saved, since an uploaded page must not run as one of ours.
async function openOriginal(id, page) {
  const blob = await api("GET", `/v1/documents/${encodeURIComponent(id)}/content`, undefined, { blob: true });
  const address = URL.createObjectURL(blob);
  const link = element("a", { href: address });
  if (blob.type === "application/pdf") Object.assign(link, { href: `${address}#page=${page ?? 1}`, target: "_blank", rel: "noopener" });
  else link.download = id;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
