// Searching: the passages that are nearest to a question.
import { api } from "/web/client.js";
import { $, clickable, counted, element, faulty } from "/web/dom.js";
import { openPassage, under } from "/web/passage.js";
import { refresh, scope } from "/web/scope.js";

const LIMITS = [20, 50, 100];
const SNIPPET = 420;
let within;
let running = null;

export function start() {
  within = scope($("search-scope"));
  $("search-form").onsubmit = (event) => {
    event.preventDefault();
    find(0);
  };
}

export function shown() {
  $("query").focus();
  refresh();
}

// Only the latest search is shown, whichever is answered last.
async function find(step) {
  running?.abort();
  running = new AbortController();
  const [{ signal }, query, limit] = [running, $("query").value, LIMITS[step]];
  $("search-note").textContent = "Searching…";
  try {
    const { hits, degraded } = await api("POST", "/v1/search", { query, limit, ...within() }, { signal });
    if (signal.aborted) return;
    const words = wordsOf(query);
    $("hits").replaceChildren(...hits.map((hit) => shownHit(hit, words)));
    $("search-note").textContent = [told(hits, words, limit), degraded.length && `Without: ${degraded.join(", ")}.`].filter(Boolean).join(" ");
    $("search-more").replaceChildren(...(hits.length === limit && LIMITS[step + 1] ? [clickable("Show more", () => find(step + 1))] : []));
  } catch (error) {
    if (error.name === "AbortError") return;
    $("hits").replaceChildren();
    $("search-more").replaceChildren();
    $("search-note").replaceChildren(faulty(error));
  }
}

function told(hits, words, limit) {
  if (!hits.length) return "Nothing was found.";
  const number = hits.length === limit ? `The nearest ${counted(hits.length, "passage")}.` : `${counted(hits.length, "passage")}.`;
  const said = words && hits.some((hit) => words.test(`${hit.title} ${hit.heading} ${hit.text}`));
  return said ? number : `${number} None of them has a word of yours: they are only the nearest in meaning.`;
}

function wordsOf(query) {
  const words = [...new Set(query.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) ?? [])];
  return words.length ? new RegExp(`(${words.join("|")})`, "iu") : null;
}

function shownHit(found, words) {
  const button = element("button", { type: "button", textContent: found.title || found.document_id, onclick: () => openPassage(found) });
  const where = [under(found), found.page && `page ${found.page}`, found.collection].filter(Boolean).join(" · ");
  return element("li", {}, element("h2", {}, button), element("p", { className: "hint", textContent: where }), element("p", { dir: "auto" }, ...highlighted(snippet(readable(found.text), words), words)));
}

// Without the marks of Markdown: where links lead, emphasis and backslashes are for the opened document.
function readable(text) {
  return text
    .replace(/!?\[([^[\]]{0,300})\]\((?:[^()\s]|\([^()\s]*\)|\{[{%][^{}]*\}){0,2000}(?:\s+"[^"]*")?\)/g, "$1")
    .replace(/(\*\*|__|`)(?=\S)(.{1,300}?)\1/g, "$2")
    .replace(/(?<![\w*])\*(?=[^\s*])([^*]{1,300})\*(?![\w*])/g, "$1")
    .replace(/^#{1,6}\s+/gm, "")
    .replace(/\\([\\`*_{}[\]()#+\-.!|<>~])/g, "$1");
}

// A part of the passage that begins shortly before the first of the words.
function snippet(text, words) {
  if (text.length <= SNIPPET) return text;
  const at = words ? text.search(words) : 0;
  const from = at < SNIPPET / 2 ? 0 : text.indexOf(" ", Math.min(at - 80, text.length - SNIPPET)) + 1;
  const to = from + SNIPPET < text.length ? text.lastIndexOf(" ", from + SNIPPET) : text.length;
  const end = to > from ? to : from + SNIPPET;
  return `${from ? "…" : ""}${text.slice(from, end)}${end < text.length ? "…" : ""}`;
}

function highlighted(text, words) {
  if (!words) return [text];
  return text.split(new RegExp(words.source, "giu")).map((piece, index) => index % 2 ? element("mark", { textContent: piece }) : piece);
}
