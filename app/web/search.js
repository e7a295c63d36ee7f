// Searching: the passages that are nearest to a question.
import { api } from "/web/client.js";
import { $, clickable, counted, dotted, element, faulty } from "/web/dom.js";
import { withoutMarks } from "/web/marks.js";
import { openPassage, under } from "/web/passage.js";
import { notYet, underWay } from "/web/queue.js";
import { beneath, tell } from "/web/route.js";
import { refresh, scope } from "/web/scope.js";

const LIMITS = [20, 50, 100];
const SNIPPET = 420;
let within;
let running = null;
let shownFor = new URLSearchParams(); // What the hits were found for, as the terms of an address.

export function start() {
  within = scope($("search-scope"));
  $("search-form").onsubmit = (event) => {
    event.preventDefault();
    shownFor = new URLSearchParams([["q", $("query").value], ...within.said()]);
    tell("search", shownFor, { anew: true });
    find(0);
  };
}

export function shown(terms, entered) {
  if (entered) {
    $("query").focus();
    refresh();
  }
  if (terms.get("q") === null) {
    tell("search", shownFor);
  } else if (beneath(terms).toString() !== shownFor.toString()) {
    shownFor = beneath(terms);
    $("query").value = terms.get("q");
    within.take(terms);
    find(0);
  }
}

// What the page is called while it is shown, where bookmarks and the list of visited pages name it.
export function title() {
  return shownFor.get("q");
}

// Only the latest search is shown, whichever is answered last.
async function find(step) {
  running?.abort();
  running = new AbortController();
  const [{ signal }, query, limit] = [running, $("query").value, LIMITS[step]];
  $("search-note").textContent = "Searching…";
  $("search-reading").replaceChildren();
  try {
    const reading = underWay();
    const { hits, degraded } = await api("POST", "/v1/search", { query, limit, ...within.wanted() }, { signal });
    if (signal.aborted) return;
    reading.then((found) => { if (!signal.aborted) $("search-reading").replaceChildren(...notYet(found)); });
    const words = wordsOf(query);
    $("hits").replaceChildren(...hits.map((hit) => shownHit(hit, words)));
    $("search-note").textContent = [told(hits, words, limit), degraded.length && `Without: ${degraded.join(", ")}.`].filter(Boolean).join(" ");
    $("search-more").replaceChildren(...(hits.length === limit && LIMITS[step + 1] ? [clickable("Show more", () => find(step + 1))] : []));
    if (step) $("hits").children[LIMITS[step - 1]]?.querySelector("button").focus();
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
  const name = found.title || found.document_id;
  const button = element("button", { type: "button", className: "few-lines", dir: "auto", title: name, textContent: name, onclick: () => openPassage(found) });
  const where = dotted([under(found), found.page && `page ${found.page}`, found.collection]);
  return element("li", {}, element("h2", { dir: "auto" }, button), element("p", { className: "hint" }, ...where), element("p", { dir: "auto" }, ...highlighted(snippet(withoutMarks(found.text), words), words)));
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
