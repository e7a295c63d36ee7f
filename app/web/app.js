// The page: views over the public API and nothing else. Everything that comes from documents or models is set
// as text, never as markup. Each view has a file of its own.
import * as asking from "/web/ask.js";
import { api, askForKey, forgetKey, keyHeld, learnRights, may } from "/web/client.js";
import * as documents from "/web/documents.js";
import { $ } from "/web/dom.js";
import * as passages from "/web/passage.js";
import * as releases from "/web/releases.js";
import { here, views } from "/web/route.js";
import * as searching from "/web/search.js";
import * as summarizing from "/web/summarize.js";
import * as uploads from "/web/uploads.js";

const parts = { ask: asking, search: searching, summarize: summarizing, documents, releases };
const needs = { ask: ["read"], search: ["read"], summarize: ["read"], documents: ["read", "write"], releases: [] };
const [STATUS, AWAY, TITLE] = [15, 3, 80];
let current = null;
let timer = null;

const allowed = (view) => !needs[view].length || needs[view].some(may);

// Goes by the address; to the first view that the key opens, where it does not open that one.
function show() {
  const { view, terms } = here();
  const name = allowed(view) ? view : views.find(allowed);
  const entered = name !== current;
  if (entered) {
    for (const dialog of document.querySelectorAll("#act[open], #history[open]")) dialog.close();
    parts[current]?.hidden?.();
    current = name;
    for (const one of views) $(`view-${one}`).hidden = one !== name;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    $(`${name}-title`).focus();
  }
  parts[name].shown(name === view ? terms : new URLSearchParams(), entered);
  call();
  passages.follow(terms);
}

// What bookmarks and the list of visited pages call it.
function call() {
  const about = parts[current].title?.()?.slice(0, TITLE);
  document.title = [about, $(`${current}-title`).textContent, "Plumbline"].filter(Boolean).join(" · ");
}

async function showStatus() {
  clearTimeout(timer);
  timer = setTimeout(showStatus, 1000 * STATUS);
  try {
    const ready = await api("GET", "/health/ready", undefined, { accept: [503], within: STATUS / 3, quiet: true });
    const doubt = ready.release_forced ? `, forced: ${ready.release_forced}` : ready.release_state === "bootstrap" ? ", not evaluated yet" : "";
    say(ready.down?.length ? `Not reachable: ${ready.down.join(", ")}` : `release ${ready.release}${doubt}`, Boolean(doubt || ready.down?.length));
  } catch {
    sayAway();
  }
}

function sayAway() {
  say("The service does not answer.", true);
  clearTimeout(timer);
  timer = setTimeout(showStatus, 1000 * AWAY);
}

// Only what is new is said: it is read out.
function say(text, doubtful) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("doubtful", doubtful);
}

for (const part of [asking, searching, summarizing, documents, uploads, passages]) part.start();
addEventListener("summarize", (event) => {
  summarizing.choose(event.detail);
  location.hash = "#summarize";
});
addEventListener("rights", ({ detail: { tenant, refused } }) => {
  $("who").hidden = !keyHeld() && !refused;
  $("who").textContent = refused ? "Give a key" : `Key of ${tenant}`;
  $("key-forget").hidden = !keyHeld();
  if (current && !allowed(current)) show();
});
$("who").onclick = async () => { if (await askForKey()) startAnew(); };
$("key-forget").onclick = () => {
  forgetKey();
  startAnew();
};

// What was asked with another key does not stay.
function startAnew() {
  asking.forget();
  history.replaceState(null, "", "#");
  location.reload();
}

document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  $("main").focus();
};
window.onhashchange = show;
addEventListener("told", call);
addEventListener("away", sayAway);
showStatus();
await learnRights();
show();
