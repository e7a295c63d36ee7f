// The page: views over the public API and nothing else. Everything that comes from documents or models is set
// as text, never as markup. Each view has a file of its own.
import * as asking from "/web/ask.js";
import { api, learnRights } from "/web/client.js";
import * as documents from "/web/documents.js";
import { $ } from "/web/dom.js";
import { follow } from "/web/releases.js";
import * as searching from "/web/search.js";
import * as summarizing from "/web/summarize.js";
import * as uploads from "/web/uploads.js";

const views = { ask: asking.shown, search: searching.shown, summarize: summarizing.shown };
const names = ["ask", "search", "summarize", "documents", "releases"];
const STATUS = 15;

function show() {
  const name = names.includes(location.hash.slice(1)) ? location.hash.slice(1) : "ask";
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  for (const view of names) $(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${$(`${name}-title`).textContent} · Plumbline`;
  $(`${name}-title`).focus();
  follow(name === "releases");
  documents.shown(name === "documents");
  views[name]?.();
}

async function showStatus() {
  try {
    const ready = await api("GET", "/health/ready", undefined, { accept: [503], within: STATUS / 3 });
    const doubt = ready.release_forced ? `, forced: ${ready.release_forced}` : ready.release_state === "bootstrap" ? ", not evaluated yet" : "";
    $("status").textContent = ready.down?.length ? `Not reachable: ${ready.down.join(", ")}` : `release ${ready.release}${doubt}`;
    $("status").classList.toggle("doubtful", Boolean(doubt || ready.down?.length));
  } catch {
    $("status").textContent = "The service does not answer.";
    $("status").classList.add("doubtful");
  }
}

for (const part of [asking, searching, summarizing, documents, uploads]) part.start();
addEventListener("summarize", (event) => {
  summarizing.choose(event.detail);
  location.hash = "#summarize";
});
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  $("main").focus();
};
window.onhashchange = show;
show();
showStatus();
learnRights();
setInterval(showStatus, 1000 * STATUS);
