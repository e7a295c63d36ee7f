// The view of releases: who serves, what is on trial and with what evidence, and what can be done about it.
import { api } from "/web/client.js";
import { $, clickable, drawn, element, faulty, moment as when } from "/web/dom.js";

const EVERY = 2000;
const metrics = { faults: "Failed requests", flawed: "Flawed answers", degraded: "Degraded answers", slow: "Slow answers", unsupported: "Unsupported sentences", disliked: "Disliked answers", declined: "Declined questions" };
const states = { draft: "draft", evaluated: "evaluated", shadow: "in shadow", canary: "in canary", champion: "serves", soaking: "served before", retired: "retired" };
const ends = { running: "runs", passed: "passed", failed: "failed", stopped: "stopped", promoted: "promoted", rolled_back: "rolled back" };
const marks = { serves: "good", bootstrap: "bad", forced: "bad", "in shadow": "busy", "in canary": "busy", runs: "busy", passed: "good", promoted: "good", failed: "bad", "rolled back": "bad" };

const percent = (share, digits = 2) => `${(100 * share).toFixed(digits).replace(/\.?0+$/, "")}%`;
const pill = (text) => element("span", { className: `pill ${marks[text] ?? ""}`, textContent: text });

let timer = null;
let known = new Map();
const before = {};

export function shown(_, entered) {
  if (!entered) return;
  timer = setInterval(refresh, EVERY, true);
  refresh();
}

export function hidden() {
  clearInterval(timer);
}

async function refresh(quiet = false) {
  try {
    const [{ releases }, standing] = await Promise.all([api("GET", "/v1/releases", undefined, { quiet }), api("GET", "/v1/releases/standing", undefined, { quiet })]);
    known = new Map(releases.map((release) => [release.id, release]));
    showServing(standing, releases);
    showTrials(standing.trials ?? []);
    showList(releases);
    $("releases-note").replaceChildren();
    $("releases-known").hidden = false;
  } catch (error) {
    $("releases-note").replaceChildren(faulty(error));
  }
}

// What is unchanged is left alone: whoever has the keyboard on a button of it keeps it there.
function changed(place, state) {
  const text = JSON.stringify(state);
  if (before[place] === text) return false;
  before[place] = text;
  return true;
}

// A button that only a key for the whole instance may press.
function operating(text, onclick) {
  const made = clickable(text, onclick);
  made.dataset.needs = "operate";
  return made;
}

function named(id) {
  return known.has(id) ? `${known.get(id).name} (${id})` : id;
}

// ---- who serves

function showServing(standing, releases) {
  const { champion, canary, soaking, before: earlier } = standing;
  const evaluated = releases.find((release) => release.id === champion.id)?.evaluated ?? false;
  if (!changed("serving", [champion, canary, soaking, earlier, evaluated])) return;
  const state = champion.forced ? "forced" : champion.state === "bootstrap" ? "bootstrap" : "serves";
  const lines = [
    champion.forced && warning(`It serves without a passed evaluation, by force: “${champion.forced}”`),
    state === "bootstrap" && warning("It is the first release of this instance, and was never evaluated. Evaluate it, then keep the verdict with plumbline release judge."),
    canary?.live && element("p", { className: "hint", textContent: `${percent(canary.share)} of the conversations go to ${named(canary.release)}.` }),
    soaking && element("p", { className: "hint", textContent: `${named(soaking)} served before, and goes on with the conversations that began with it.` }),
  ];
  const back = earlier ? [operating("Roll back", () => act(rollback(earlier)))] : [];
  $("serving").replaceChildren(
    element("div", { className: "head" }, element("h3", { textContent: champion.name }), pill(state), element("code", { textContent: champion.id }), ...back),
    ...lines.filter(Boolean),
  );
}

function warning(text) {
  return element("p", { className: "warning", textContent: text });
}

// ---- what is on trial

const cards = new Map();

function showTrials(trials) {
  for (const [id, card] of cards) {
    if (!trials.some((trial) => trial.id === id)) {
      card.remove();
      cards.delete(id);
    }
  }
  for (const trial of trials) {
    if (!cards.has(trial.id)) {
      cards.set(trial.id, trialCard(trial));
      $("trials").append(cards.get(trial.id));
    }
    if (changed(`trial ${trial.id}`, trial)) cards.get(trial.id).querySelector(".evidence").replaceChildren(...evidence(trial));
  }
  $("no-trials").hidden = trials.length > 0;
}

function trialCard(trial) {
  const canary = trial.kind === "canary";
  const name = named(trial.release);
  return element("article", { className: "card trial" },
    element("div", { className: "head" }, element("h3", { textContent: `${canary ? "Canary" : "Shadow"} of ${known.get(trial.release)?.name ?? trial.release}` }), element("code", { textContent: trial.release }),
      clickable("Promote", () => act(promotion(known.get(trial.release)))), clickable("Stop", () => act(stopping(trial.release, canary)))),
    element("p", { className: "hint", textContent: `Against ${named(trial.control)}, since ${when(trial.started_at)}, by ${trial.who}.` }),
    element("div", { className: "evidence", role: "group", ariaLabel: `Evidence on ${name}` }));
}

// What a trial has shown, from the top: how far it is, what it waits for, a row for each test.
function evidence(trial) {
  const seen = trial.decision?.evidence ?? trial.evidence;
  const rows = (seen.metrics ?? []).map((one) => metricRow(one, seen.path ?? []));
  const table = element("table", { className: "metrics" },
    element("thead", {}, element("tr", {}, ...["What is watched", "Candidate", "Champion", "Evidence of harm"].map((text, index) => element("th", { scope: "col", textContent: text, className: index === 1 || index === 2 ? "number" : "" })))),
    element("tbody", {}, ...rows));
  return [
    facts(trial, seen),
    ...(trial.kind === "canary" && seen.steps ? [stepList(trial, seen.steps)] : []),
    ...(trial.state === "running" && !(trial.live && trial.share) && !seen.waiting_for ? [warning("No controller has looked at it yet: it gets no requests until one does.")] : []),
    ...(trial.state === "running" && seen.waiting_for && !trial.live ? [warning("No controller watches it now: it gets no requests.")] : []),
    ...(trial.state === "running" && seen.waiting_for ? [element("p", { className: "waiting-for", textContent: seen.waiting_for })] : []),
    ...(rows.length ? [element("div", { className: "scroll" }, table), element("p", { className: "hint", textContent: "Every test begins at 1. When one reaches the dashed line, harm is shown, and the release is taken back." })] : []),
  ];
}

function facts(trial, seen) {
  const share = trial.state !== "running" ? seen.share : trial.live ? trial.share : 0;
  const told = share === undefined ? [] : [[trial.kind === "canary" ? "of conversations" : "of answers mirrored", percent(share)]];
  if (seen.units) told.push(["conversations, candidate", seen.units.candidate], ["conversations, champion", seen.units.control]);
  if (seen.pairs !== undefined) told.push([seen.wanted ? `of ${seen.wanted} pairs compared` : "pairs compared", seen.pairs]);
  return element("dl", { className: "facts" }, ...told.map(([text, value]) => element("div", {}, element("dd", { textContent: value }), element("dt", { textContent: text }))));
}

function stepList(trial, steps) {
  return element("ol", { className: "steps", ariaLabel: "Steps" }, ...steps.map((step, index) => {
    const item = element("li", { className: index <= trial.step ? "past" : "", textContent: percent(step.share), title: `${step.units} conversations` });
    if (index === trial.step && trial.state === "running") item.setAttribute("aria-current", "step");
    return item;
  }));
}

// How near an e-value is to its threshold, in [0, 1], by its logarithm: every test begins at 1.
function nearness(value, threshold) {
  return Math.min(1, Math.max(0, Math.log(Math.max(value, 1)) / Math.log(threshold)));
}

function metricRow(one, path) {
  const rate = (value) => element("td", { className: "number", textContent: value === null || value === undefined ? "–" : percent(value) });
  const harmed = one.highest >= one.threshold;
  const short = (value) => Number(value.toPrecision(3)).toLocaleString("en");
  const told = harmed ? `harm shown: ${short(one.highest)} of ${short(one.threshold)}` : `${short(one.e_value)} of ${short(one.threshold)}`;
  return element("tr", { className: harmed ? "harmed" : "" },
    element("th", { scope: "row", textContent: metrics[one.metric] ?? one.metric }), rate(one.rate_candidate), rate(one.rate_control),
    element("td", { className: "proof" }, plot(one, path), element("span", { textContent: told })));
}

// A bar up to the e-value, on it the highest so far, above it how it got there. The right edge is harm shown.
function plot(one, path) {
  const [width, height, floor] = [160, 26, 18];
  const x = (value) => (width - 2) * nearness(value, one.threshold);
  const points = path.filter(([, values]) => values[one.metric] !== undefined);
  const last = points.at(-1)?.[0] || 1;
  const line = points.map(([seconds, values]) => `${((width - 2) * seconds / last).toFixed(1)},${(floor - 2 - (floor - 4) * nearness(values[one.metric], one.threshold)).toFixed(1)}`).join(" ");
  const label = `e-value ${one.e_value.toPrecision(3)}, highest ${one.highest.toPrecision(3)}; ${one.threshold.toPrecision(3)} shows harm`;
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": label },
    drawn("title", {}, label),
    drawn("line", { class: "limit", x1: 0, y1: 2, x2: width, y2: 2 }),
    ...(points.length > 1 ? [drawn("polyline", { class: "course", points: line })] : []),
    drawn("rect", { class: "track", x: 0, y: floor + 2, width, height: 6, rx: 3 }),
    drawn("rect", { class: "now", x: 0, y: floor + 2, width: x(one.e_value), height: 6, rx: 3 }),
    drawn("line", { class: "highest", x1: x(one.highest) + 1, y1: floor, x2: x(one.highest) + 1, y2: height }));
}

// ---- all of them

function showList(releases) {
  if (!changed("list", releases)) return;
  $("release-rows").replaceChildren(...releases.map(row));
}

function row(release) {
  const judged = release.evaluated ? "passed" : release.evidence?.withdrawn ? "passed, then withdrawn" : release.evidence?.outcome === "no_verdict" ? "no verdict" : release.evidence ? "failed" : "never evaluated";
  const failed = release.evidence?.failed?.length ? `: ${release.evidence.failed.join(", ")}` : "";
  const served = ["champion", "shadow", "canary"].includes(release.state);
  const doubt = release.forced ? "forced" : release.bootstrap ? "bootstrap" : null;
  const state = element("td", {}, pill(release.state === "champion" && doubt ? doubt : states[release.state]));
  if (release.forced) state.append(element("p", { className: "hint", textContent: `Forced: ${release.forced}` }));
  const does = element("td", { className: "does" });
  if (!served) does.append(operating("Shadow", () => act(shadowing(release))), operating("Canary", () => act(canarying(release))), operating("Promote", () => act(promotion(release))));
  does.append(operating("History", () => openHistory(release.id)));
  for (const one of does.children) one.setAttribute("aria-label", `${one.textContent}: ${release.name} ${release.id}`);
  return element("tr", {},
    element("th", { scope: "row" }, element("span", { textContent: release.name }), " ", element("code", { textContent: release.id })),
    state,
    element("td", { className: judged === "failed" ? "error" : "", textContent: `${judged}${failed}` }),
    element("td", { className: "when", textContent: when(release.created_at) }),
    does);
}

// ---- acting: every change asks first, takes a reason, and says what the service said to it

function rollback(earlier) {
  return { title: "Roll back", text: `${named(earlier)}, which served before, serves again, at once. Running trials end.`, action: "Roll back", path: () => "/v1/releases/rollback" };
}

function promotion(release) {
  return { title: `Promote ${release.name}`, text: "It answers all new conversations. The release that serves now keeps those that began with it, and can be rolled back to.", action: "Promote", force: !release.evaluated, path: () => `/v1/releases/${encodeURIComponent(release.id)}/promote` };
}

function shadowing(release) {
  return { title: `Shadow of ${release.name}`, text: "It answers what the champion has just answered, while nobody waits. Nobody sees these answers; both are compared.", action: "Start the shadow", force: !release.evaluated, path: () => `/v1/releases/${encodeURIComponent(release.id)}/shadow` };
}

function canarying(release) {
  return { title: `Canary of ${release.name}`, text: "A growing share of the conversations goes to it. It is taken back by itself as soon as harm is shown.", action: "Start the canary", force: !release.evaluated, keep: true, path: () => `/v1/releases/${encodeURIComponent(release.id)}/canary` };
}

function stopping(id, canary) {
  return { title: `Stop the ${canary ? "canary" : "shadow"}`, text: canary ? "Its conversations go back to the champion, at once." : "Nothing is mirrored any longer.", action: "Stop it", path: () => `/v1/releases/${encodeURIComponent(id)}/stop` };
}

function act(what) {
  $("act-title").textContent = what.title;
  $("act-text").textContent = what.text;
  $("act-force-row").hidden = !what.force;
  $("act-keep-row").hidden = !what.keep;
  $("act-error").textContent = "";
  $("act-form").reset();
  $("act-force").required = $("act-reason").required = Boolean(what.force);
  $("act-go").textContent = what.action;
  $("act-form").onsubmit = (event) => {
    event.preventDefault();
    send(what);
  };
  $("act").showModal();
}

async function send(what) {
  const body = { reason: $("act-reason").value.trim() };
  if (what.force) body.force = $("act-force").checked;
  if (what.keep) body.promote = $("act-promote").checked;
  $("act-go").disabled = true;
  try {
    await api("POST", what.path(), body);
    $("act").close();
    refresh();
  } catch (error) {
    $("act-error").textContent = error.message;
  } finally {
    $("act-go").disabled = false;
  }
}

// ---- history

async function openHistory(id) {
  $("history-title").textContent = `History of ${named(id)}`;
  $("history-body").replaceChildren(element("p", { className: "hint", textContent: "Loading…" }));
  $("history").showModal();
  try {
    const [found, verdict] = await Promise.all([api("GET", `/v1/releases/${id}/trials`), api("GET", `/v1/releases/${id}/verdict`)]);
    $("history-body").replaceChildren(
      ...(verdict.result === "running" ? [] : [element("p", { textContent: verdict.why })]),
      ...found.trials.toReversed().map(pastTrial),
      element("h3", { textContent: "What was done with it" }),
      element("ol", { className: "audit" }, ...found.audit.toReversed().map(entry)));
  } catch (error) {
    $("history-body").replaceChildren(element("p", { className: "error", textContent: error.message }));
  }
}

function pastTrial(trial) {
  const { requests, conversations, tenants } = trial.affected;
  const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
  const reached = requests ? `It answered ${count(requests, "request")} in ${count(conversations, "conversation")} of ${count(tenants, "tenant")}.` : "";
  return element("article", { className: "card" },
    element("div", { className: "head" }, element("h3", { textContent: trial.kind === "canary" ? "Canary" : "Shadow" }), pill(ends[trial.state]), element("span", { className: "hint", textContent: [when(trial.started_at), trial.ended_at && when(trial.ended_at)].filter(Boolean).join(" to ") })),
    ...(trial.decision?.why ? [element("p", { textContent: trial.decision.why })] : []),
    ...(reached ? [element("p", { className: "hint", textContent: reached })] : []),
    element("div", { className: "evidence" }, ...evidence(trial)));
}

function entry({ at, who, what, evidence: held }) {
  const why = [held.reason, held.decision?.why, held.failed?.length && `failed: ${held.failed.join(", ")}`, held.share !== undefined && `share ${percent(held.share)}`].filter(Boolean).join("; ");
  return element("li", {}, element("span", { className: "hint", textContent: `${when(at)} · ${who}` }), element("span", { textContent: `${what.replace("release.", "").replaceAll("_", " ").replaceAll(".", " ")}${why ? `: ${why}` : ""}` }));
}

$("act-cancel").onclick = () => $("act").close();
