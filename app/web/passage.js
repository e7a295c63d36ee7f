// The dialog that shows where something stands: a cited passage in its document, or a whole document.
import { api } from "/web/client.js";
import { $, clickable, counted, element } from "/web/dom.js";

const PIECE = 20_000;

// The headings above a passage, without a first one that only repeats the title.
export function under(source) {
  const path = (source.heading ?? "").split(" > ");
  return (path[0] === source.title ? path.slice(1) : path).join(" > ");
}

export function place(source) {
  return [source.title, under(source), source.page && `page ${source.page}`].filter(Boolean).join(" · ");
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

// What is asked for may come when another passage is open by now.
let opened = 0;

function open(title, where, id, page) {
  $("passage-title").textContent = title;
  $("passage-place").textContent = where;
  $("passage-text").replaceChildren();
  $("passage-note").replaceChildren();
  $("passage-original").hidden = $("passage-summarize").hidden = !id;
  $("passage-original").onclick = () => openOriginal(id, page).catch(complain);
  $("passage-summarize").onclick = () => {
    $("passage").close();
    dispatchEvent(new CustomEvent("summarize", { detail: { id, title } }));
  };
  if (!$("passage").open) $("passage").showModal();
  $("passage-text").scrollTop = 0;
  opened += 1;
  return opened;
}

function complain(error) {
  $("passage-note").replaceChildren(element("p", { className: "notice error", textContent: error.message }));
}

function textOf(id, start, end, more = {}) {
  return api("GET", `/v1/documents/${encodeURIComponent(id)}/text?${new URLSearchParams({ start, end, ...more })}`);
}

export async function openPassage(source, span) {
  const id = source.document_id;
  const number = open(source.title || id, [under(source), source.page && `Page ${source.page}`, id].filter(Boolean).join(" · "), id, source.page);
  $("passage-text").replaceChildren(...withMark(source, span));
  if (!id) return;
  const at = span ?? source.span;
  try {
    const found = await textOf(id, at.start, at.end, { chunk_id: source.chunk_id });
    if (number !== opened) return;
    $("passage-text").replaceChildren(...inPlace(found, source));
    const [box, mark] = [$("passage-text"), $("passage-text").querySelector("mark")];
    box.scrollTop = mark.offsetTop - Math.max(0, (box.clientHeight - mark.offsetHeight) / 2);
  } catch (error) {
    if (number !== opened) return;
    complain(error);
    if (error.status !== 404) return;
    // It was deleted or replaced: what may no longer be seen is not left standing.
    $("passage-text").replaceChildren();
    $("passage-original").hidden = $("passage-summarize").hidden = true;
  }
}

export async function openDocument(document_) {
  const facts = [document_.collection, document_.media_type, size(document_.size), counted(document_.chunks, "passage"), document_.id];
  const number = open(document_.title || document_.id, facts.filter(Boolean).join(" · "), document_.id, 1);
  if (document_.visible) return addText(document_.id, 0, number);
  $("passage-summarize").hidden = true;
  complain(new Error(document_.error?.message ?? "It has not been read yet."));
}

async function addText(id, start, number) {
  try {
    const found = await textOf(id, start, start + PIECE, { around: 1 });
    if (number !== opened) return;
    $("passage-text").append(found.text);
    $("passage-note").replaceChildren(...(found.after ? [clickable("Show more", () => addText(id, found.span.end, number))] : []));
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
