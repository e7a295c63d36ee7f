// The documents that there are: what became of each, opening, summarizing and deleting them.
import { api, may } from "/web/client.js";
import { $, clickable, counted, day, dotted, element, faulty, moment } from "/web/dom.js";
import { openDocument, size } from "/web/passage.js";
import { tell } from "/web/route.js";
import { choose, collections, refresh } from "/web/scope.js";

const PAGE = 50;
const MOST = 500; // that the service lists at once
const CHANGING = 2000;
const PAUSE = 250; // of whoever types a name
const states = new WeakMap(); // What a row was made from.
let cursor = null;
let listed = 0;
let timer = null;
let on = false;
let typing = null;
let asked = 0;

export function start() {
  collections($("list-collection"), "all collections");
  $("list-collection").onchange = anew;
  $("list-named").oninput = () => { clearTimeout(typing); typing = setTimeout(anew, PAUSE); };
  $("more").onclick = more;
}

export function shown(terms, entered) {
  on = true;
  const told = { collection: terms.get("collection") ?? "", named: terms.get("named") ?? "" };
  const other = [...terms.keys()].some((name) => name in told) && Object.keys(told).some((name) => told[name] !== wanted()[name]);
  if (other) {
    choose($("list-collection"), told.collection);
    $("list-named").value = told.named;
    listed = 0;
  }
  say();
  if (!entered && !other) return;
  refresh();
  list();
}

export function hidden() {
  on = false;
  clearTimeout(timer);
}

const say = () => tell("documents", new URLSearchParams(Object.entries(wanted()).filter(([, value]) => value)));

function anew() {
  listed = 0;
  say();
  list();
}

const wanted = () => ({ collection: $("list-collection").value, named: $("list-named").value.trim() });

function page(after, limit) {
  const query = Object.entries({ limit, after, ...wanted() }).filter(([, value]) => value);
  return api("GET", `/v1/documents?${new URLSearchParams(query)}`, undefined, { quiet: listed > 0 });
}

// Anew, as far as it was listed already; again and again while something in it is on its way.
export async function list() {
  clearTimeout(timer);
  if (!may("read")) return;
  const mine = ++asked;
  try {
    const found = [];
    let next = null;
    do {
      const { documents, next: after } = await page(next, Math.min(MOST, Math.max(PAGE, listed - found.length)));
      found.push(...documents);
      next = after ?? null;
    } while (next && found.length < listed);
    if (mine !== asked) return; // Something else was typed meanwhile.
    show(found, next);
    if (on && found.some((one) => ["queued", "running"].includes(one.status))) timer = setTimeout(list, CHANGING);
  } catch (error) {
    $("documents-note").replaceChildren(faulty(error));
    if (on) timer = setTimeout(list, 5 * CHANGING);
  }
}

async function more() {
  try {
    const { documents, next } = await page(cursor, PAGE);
    const first = documents.map(row);
    $("rows").append(...first);
    after(listed + documents.length, next ?? null);
    first[0]?.querySelector("button").focus();
  } catch (error) {
    $("documents-note").replaceChildren(faulty(error));
  }
}

// What is unchanged is left alone: whoever has the keyboard on a button of it, or has opened a document from it,
// finds it again.
function show(documents, next) {
  const there = new Map([...$("rows").children].map((one) => [states.get(one), one]));
  const held = document.activeElement?.closest("#rows tr") ? [document.activeElement.closest("tr").dataset.id, document.activeElement.dataset.does] : null;
  const rows = documents.map((one) => there.get(JSON.stringify(one)) ?? row(one));
  const kept = new Set(rows);
  for (const one of [...$("rows").children]) if (!kept.has(one)) one.remove();
  rows.forEach((one, index) => { if ($("rows").children[index] !== one) $("rows").insertBefore(one, $("rows").children[index] ?? null); });
  if (held && !document.activeElement?.closest("#rows tr")) [...$("rows").children].find((one) => one.dataset.id === held[0])?.querySelector(`[data-does="${held[1]}"]`)?.focus();
  after(documents.length, next);
}

function after(count, next) {
  [listed, cursor] = [count, next];
  $("more").hidden = !next;
  $("documents-table").hidden = count === 0;
  $("documents-note").textContent = count ? `${next ? "The first " : ""}${counted(count, "document")}` : wanted().named ? "No document is named so." : "No documents yet.";
}

function row(document_) {
  const name = document_.title || document_.id;
  const button = (text, does, onclick, className = "plain") => {
    const made = clickable(text, onclick, className);
    made.dataset.does = does;
    if (does !== "open") made.setAttribute("aria-label", `${text} ${name}`);
    return made;
  };
  const told = [document_.collection, size(document_.size), day(document_.updated_at)];
  const opens = button(name, "open", () => openDocument(document_), "link few-lines");
  Object.assign(opens, { dir: "auto", title: name });
  const title = element("td", {}, opens, element("p", { className: "hint narrow" }, ...dotted(told)));
  const does = element("td", { className: "does" });
  if (document_.visible) does.append(button("Summarize", "summarize", () => dispatchEvent(new CustomEvent("summarize", { detail: { id: document_.id, title: name } }))));
  const deleting = button("Delete", "delete", (event) => remove(document_, event.currentTarget));
  deleting.dataset.needs = "write";
  does.append(deleting);
  const made = element("tr", {}, title, element("td", { className: "wide", textContent: told[0] }), element("td", {}, ...stateOf(document_)),
    element("td", { className: "number wide", textContent: document_.chunks }), element("td", { className: "number wide", textContent: told[1] }),
    element("td", { className: "when wide", textContent: told[2], title: moment(document_.updated_at) }), does);
  made.dataset.id = document_.id;
  states.set(made, JSON.stringify(document_));
  return made;
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

async function remove(document_, button) {
  if (!confirm(`Delete “${document_.title || document_.id}”? Answers will stop using it at once.`)) return;
  button.disabled = true;
  try {
    await api("DELETE", `/v1/documents/${encodeURIComponent(document_.id)}`);
    const gone = button.closest("tr");
    const next = gone.nextElementSibling ?? gone.previousElementSibling;
    gone.remove();
    after(listed - 1, cursor);
    (next?.querySelector("button") ?? $("documents-title")).focus();
  } catch (error) {
    button.disabled = false;
    $("documents-note").replaceChildren(faulty(error));
  }
}
