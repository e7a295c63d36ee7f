// Asking: a conversation with the documents. It is kept in this tab, and is there again after a reload.
import { fillAnswer, inWords, notices, sourceList } from "/web/answer.js";
import { api, ask } from "/web/client.js";
import { $, announce, clickable, copier, counted, drawn, element, growing } from "/web/dom.js";
import { notYet, sentence, underWay } from "/web/queue.js";
import { tell } from "/web/route.js";
import { refresh, scope } from "/web/scope.js";

const KEPT = "plumbline-conversation";
// Of the sample handbook.
const SAMPLE = "incidents:2025-03-14-gateway-outage.md";
const EXAMPLES = ["What caused the gateway outage of 14 March 2025?", "How long is the warranty on a Skylark 320?", "What do I do when a sensor shows no readings?"];

const AGAIN = 2000;
const earlier = new Map(); // The conversations of this page, by their questions.

let turns = [];
let conversation = null;
let running = null;
let standing = []; // The questions that the address holds, one that failed among them.
let last = Promise.resolve(true); // What came of the latest of them.
let on = false;
let timer = null;
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
    begin([], null);
    tell("ask", new URLSearchParams(), { anew: true });
    welcome();
    $("question").focus();
  };
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  begin(kept?.turns ?? [], kept?.conversation ?? null);
}

const same = (one, other) => one.join("\n") === other.join("\n");

// A conversation's address holds its questions, and where they look. Whoever opens it elsewhere, or later, gets them
// answered anew: from what the documents say then, to whom may read them.
function stand(questions) {
  standing = questions;
  if (on) tell("ask", new URLSearchParams([...questions.map((question) => ["q", question]), ...(questions.length ? within.said() : [])]));
}

export function shown(wanted, entered) {
  on = true;
  if (entered) {
    $("question").focus();
    welcome();
  }
  const questions = wanted.getAll("q").filter((question) => question.trim());
  if (!questions.length) stand(standing);
  else if (!same(questions, standing)) take(questions, wanted);
}

export function hidden() {
  on = false;
  clearTimeout(timer);
}

export function title() {
  return standing[0];
}

// Goes to the conversation with these questions: one of this page as it is; else the questions are put, but for those
// that were put already.
async function take(questions, wanted) {
  running?.abort();
  standing = questions;
  await last;
  within.take(wanted);
  const known = earlier.get(questions.join("\n"));
  if (known) begin(known.turns, known.conversation);
  else if (!turns.every(({ question }, index) => question === questions[index])) begin([], null);
  for (let at = turns.length; at < questions.length; at += 1) if (!(await put(questions[at], questions.slice(at + 1)))) break;
}

// `later` are questions that will be put after it.
function put(question, later = []) {
  last = answered(question, later);
  return last;
}

// What there is to ask, and again while that changes.
async function welcome() {
  clearTimeout(timer);
  const [found, reading] = await Promise.all([refresh(), underWay()]);
  const documents = found.reduce((sum, one) => sum + one.documents, 0);
  const some = `${counted(documents, "document")} in ${counted(found.length, "collection")}: ${found.slice(0, 12).map((one) => one.name).join(", ")}${found.length > 12 ? "…" : ""}.`;
  $("welcome-text").textContent = [documents ? some : reading.count ? "" : "There are no documents yet: add some under Documents.", sentence(reading)].filter(Boolean).join(" ");
  if (on && reading.count && !turns.length) timer = setTimeout(welcome, AGAIN);
  if ($("examples").children.length || turns.length || !documents) return;
  const sample = await api("GET", `/v1/documents/${encodeURIComponent(SAMPLE)}`, undefined, { accept: [404], quiet: true }).catch(() => ({}));
  if (sample.visible) $("examples").replaceChildren(...EXAMPLES.map((text) => element("li", {}, clickable(text, () => { if (!running) put(text); }))));
}

// Whether it was.
async function answered(question, later) {
  const answer = element("p", { className: "answer waiting", dir: "auto" });
  const turn = element("article", { className: "turn" }, element("h2", { className: "asked", textContent: question, dir: "auto" }), answer);
  $("conversation").append(turn);
  stand([...turns.map((one) => one.question), question, ...later]);
  const show = () => turn.scrollIntoView({ block: "nearest" });
  show();
  running = new AbortController();
  toggle();
  announce("Working out an answer.");
  const messages = turns.flatMap((one) => [{ role: "user", content: one.question }, { role: "assistant", content: one.text }]);
  let text = "";
  try {
    const reading = underWay();
    const extra = { ...within.wanted(), ...(conversation ? { conversation } : {}) };
    const final = await ask([...messages, { role: "user", content: question }], extra, running.signal, (piece) => {
      text += piece;
      fillAnswer(answer, text, []);
      show();
    });
    conversation = final.conversation ?? conversation;
    complete(turn, answer, text, final);
    reading.then((found) => (turn.querySelector(".feedback") ?? answer).before(...notYet(found)));
    show();
    turns.push({ question, text, final });
    keep();
    announce(text);
    return true;
  } catch (error) {
    const stopped = error.name === "AbortError";
    answer.classList.add("partial");
    const again = clickable("Ask again", () => { if (!running) { turn.remove(); put(question); } }, "link");
    turn.append(element("p", { className: stopped ? "notice" : "notice error" }, stopped ? "Stopped. " : `${error.message} `, again));
    show();
    announce(stopped ? "Stopped." : error.message);
    return false;
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
  turn.append(...notices(final), ...(final.id ? [feedback(final.id, () => inWords(text, declined ? [] : final.citations ?? []))] : []));
}

export function forget() {
  sessionStorage.removeItem(KEPT);
}

// What does not fit into the tab's store is not kept.
function keep() {
  earlier.set(turns.map((one) => one.question).join("\n"), { turns: [...turns], conversation });
  if (!turns.length) {
    forget();
    return;
  }
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ turns, conversation }));
  } catch {
    sessionStorage.removeItem(KEPT);
  }
}

// Shows a conversation, which may be a new one, and goes on with it.
function begin(those, id) {
  [turns, conversation] = [[...those], id];
  standing = turns.map((one) => one.question);
  $("conversation").replaceChildren(...turns.map(({ question, text, final }) => {
    const answer = element("p", { className: "answer", dir: "auto" });
    const turn = element("article", { className: "turn" }, element("h2", { className: "asked", textContent: question, dir: "auto" }), answer);
    complete(turn, answer, text, final);
    return turn;
  }));
  keep();
  toggle();
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
function feedback(id, text) {
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
  return element("div", { className: "feedback" }, thumbs.up, thumbs.down, copier(text), why, note);
}
