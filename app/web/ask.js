// Asking: a conversation with the documents. It is kept in this tab, and is there again after a reload.
import { fillAnswer, notices, sourceList } from "/web/answer.js";
import { api, ask } from "/web/client.js";
import { $, announce, clickable, counted, drawn, element, growing } from "/web/dom.js";
import { refresh, scope } from "/web/scope.js";

const KEPT = "plumbline-conversation";
// Of the sample handbook.
const SAMPLE = "incidents:2025-03-14-gateway-outage.md";
const EXAMPLES = ["What caused the gateway outage of 14 March 2025?", "How long is the warranty on a Skylark 320?", "What do I do when a sensor shows no readings?"];

let turns = [];
let conversation = null;
let running = null;
let grow;
let within;

export function start() {
  within = scope($("ask-scope"));
  grow = growing($("question"));
  $("ask-form").onsubmit = (event) => {
    event.preventDefault();
    const question = $("question").value.trim();
    if (!question || running) return;
    $("question").value = "";
    grow();
    put(question);
  };
  $("question").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask-form").requestSubmit(); } };
  $("stop-button").onclick = () => running?.abort();
  $("new-conversation").onclick = () => {
    turns = [];
    conversation = null;
    keep();
    $("conversation").replaceChildren();
    toggle();
  };
  restore();
  toggle();
}

export async function shown() {
  $("question").focus();
  const found = await refresh();
  const documents = found.reduce((sum, one) => sum + one.documents, 0);
  $("welcome-text").textContent = documents ? `${counted(documents, "document")} in ${counted(found.length, "collection")}: ${found.slice(0, 12).map((one) => one.name).join(", ")}${found.length > 12 ? "…" : ""}.` : "There are no documents yet: add some under Documents.";
  if ($("examples").children.length || turns.length || !documents) return;
  const sample = await api("GET", `/v1/documents/${encodeURIComponent(SAMPLE)}`, undefined, { accept: [404], quiet: true }).catch(() => ({}));
  if (sample.visible) $("examples").replaceChildren(...EXAMPLES.map((text) => element("li", {}, clickable(text, () => { if (!running) put(text); }))));
}

async function put(question) {
  const answer = element("p", { className: "answer waiting", dir: "auto" });
  const turn = element("article", { className: "turn" }, element("p", { className: "asked", textContent: question, dir: "auto" }), answer);
  $("conversation").append(turn);
  const show = () => turn.scrollIntoView({ block: "nearest" });
  show();
  running = new AbortController();
  toggle();
  announce("Working out an answer.");
  const messages = turns.flatMap((one) => [{ role: "user", content: one.question }, { role: "assistant", content: one.text }]);
  let text = "";
  try {
    const extra = { ...within(), ...(conversation ? { conversation } : {}) };
    const final = await ask([...messages, { role: "user", content: question }], extra, running.signal, (piece) => {
      text += piece;
      answer.textContent = text;
      show();
    });
    conversation = final.conversation ?? conversation;
    complete(turn, answer, text, final);
    show();
    turns.push({ question, text, final });
    keep();
    announce(text);
  } catch (error) {
    const stopped = error.name === "AbortError";
    const again = clickable("Ask again", () => { if (!running) { turn.remove(); put(question); } }, "link");
    turn.append(element("p", { className: stopped ? "notice" : "notice error" }, stopped ? "Stopped. " : `${error.message} `, again));
    show();
    announce(stopped ? "Stopped." : error.message);
  } finally {
    answer.classList.remove("waiting");
    running = null;
    toggle();
    $("question").focus({ preventScroll: true });
  }
}

function complete(turn, answer, text, final) {
  const declined = final.answered === false;
  answer.classList.toggle("declined", declined);
  fillAnswer(answer, text, final.citations ?? [], final.support ?? []);
  if (final.citations?.length) turn.append(sourceList(final.citations));
  else if (declined && final.sources?.length) turn.append(element("details", { className: "near" }, element("summary", { textContent: "The nearest passages" }), sourceList(final.sources)));
  if (final.model === "extractive" && !declined) turn.append(element("p", { className: "notice", textContent: "Sentences quoted from the sources: no language model wrote this." }));
  turn.append(...notices(final), ...(final.id ? [feedback(final.id)] : []));
}

// What does not fit into the tab's store is not kept.
function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ turns, conversation }));
  } catch {
    sessionStorage.removeItem(KEPT);
  }
}

function restore() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  if (!kept) return;
  ({ turns, conversation } = kept);
  for (const { question, text, final } of turns) {
    const answer = element("p", { className: "answer", dir: "auto" });
    const turn = element("article", { className: "turn" }, element("p", { className: "asked", textContent: question, dir: "auto" }), answer);
    complete(turn, answer, text, final);
    $("conversation").append(turn);
  }
}

function toggle() {
  const on = Boolean(running);
  $("ask-button").hidden = on;
  $("stop-button").hidden = !on;
  $("conversation").setAttribute("aria-busy", on);
  const begun = $("conversation").children.length > 0;
  $("new-conversation").hidden = on || !begun;
  $("welcome").hidden = begun;
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
