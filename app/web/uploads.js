// Handing in files. A few are sent at a time and all are followed by one question, since a browser opens six
// connections to a server and a folder may hold hundreds of files. Whatever becomes of a file is told: none is lost
// because the service was away or busy, and those that failed are told first, by their reasons.
import { api, may, upload } from "/web/client.js";
import { $, announce, counted, element } from "/web/dom.js";
import { list } from "/web/documents.js";
import { refresh } from "/web/scope.js";

const AT_ONCE = 2;
const LOOK = 700;
const AFTER_FAILURE = 3000;
const ASKED = 500; // ids that the service looks up at once
const NAMED = 5; // files that a reason names
const UNKNOWN_KIND = "unsupported_type"; // Its message goes on with the kinds that are known, which are on the page.
const MENDED_BY_WAITING = [429, 502, 503, 504];
// What systems and programs put beside the files of people.
const NO_DOCUMENT = /(^|\/)(\.[^/]*|~\$[^/]*|Thumbs\.db|desktop\.ini|__MACOSX(\/.*)?)(\/|$)/;

const waiting = [];
const followed = new Map();
const failed = new Set();
const counts = { all: 0, done: 0, left: 0 };
let sending = 0;
let looking = false;

export function start() {
  for (const id of ["files", "folder"]) {
    $(id).onchange = (event) => {
      add([...event.target.files].map((file) => [file, file.webkitRelativePath || file.name]));
      event.target.value = "";
    };
  }
  // Wherever they are dropped: a browser would leave the page and show the file.
  window.ondragover = (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    if (may("write")) $("drop").classList.add("over");
  };
  window.ondragleave = (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); };
  window.ondrop = async (event) => {
    $("drop").classList.remove("over");
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    if (!may("write")) return;
    location.hash = "#documents";
    add(await filesOf(event.dataTransfer.items));
  };
  // What was not sent yet is known to this page alone.
  window.onbeforeunload = (event) => { if (waiting.length || sending) event.preventDefault(); };
  addEventListener("rights", ({ detail: { groups } }) => {
    $("upload-groups").required = groups !== null;
    if (groups !== null && !$("upload-groups").value) $("upload-groups").value = groups.join(", ");
    // It writes for its own groups alone.
    const none = groups?.length === 0;
    $("drop").hidden = none;
    $("no-groups").hidden = !none;
  });
  $("uploads-again").onclick = again;
  $("uploads-clear").onclick = clear;
}

function add(files) {
  const into = { collection: $("upload-collection").value.trim() || "default", groups: $("upload-groups").value.trim() };
  const items = [];
  for (const [file, name] of files) {
    if (NO_DOCUMENT.test(name)) {
      counts.left += 1;
      continue;
    }
    const one = { file, name, into, note: element("span"), bar: element("progress", { max: 1, value: 0 }) };
    one.bar.setAttribute("aria-label", `Progress of ${name}`);
    one.item = element("li", {}, element("span", { className: "few-lines", dir: "auto", textContent: name, title: name }), one.note, one.bar);
    items.push(one.item);
    counts.all += 1;
    wait(one);
  }
  $("uploads").append(...items);
  tell();
  work();
}

function wait(one) {
  one.note.className = "";
  one.note.textContent = "waits to be sent";
  waiting.push(one);
}

function work() {
  while (sending < AT_ONCE && waiting.length) send();
}

async function send() {
  sending += 1;
  for (let one = waiting.shift(); one; one = waiting.shift()) {
    one.note.textContent = "sending";
    try {
      const [job] = (await patiently(one)).jobs;
      follow(job, one);
    } catch (error) {
      end(one, error.message, { bad: true, again: error.status === 401 || error.status === 403, reason: error.code });
    }
  }
  sending -= 1;
}

// Sends a file once the service takes it.
async function patiently(one) {
  for (;;) {
    try {
      return await upload(one.file, one.name, one.into);
    } catch (error) {
      if (error.code === UNKNOWN_KIND) [error.message] = error.message.split(" Plumbline reads ");
      if (error.status && !MENDED_BY_WAITING.includes(error.status)) throw error;
      if (!error.status && !(await readable(one.file))) throw new Error("it cannot be read: was it moved, changed or locked?");
      one.note.textContent = error.status ? `the service is busy, sends it again: ${error.message}` : "the service does not answer, sends it again";
      await new Promise((resolve) => setTimeout(resolve, error.after ? 1000 * error.after : AFTER_FAILURE));
    }
  }
}

const readable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

function follow(job, one) {
  for (const [id, other] of followed) {
    if (other.document === job.document_id) {
      followed.delete(id);
      end(other, `replaced by another file of this name`, { bad: true });
    }
  }
  if (!may("read")) {
    end(one, "accepted; this key may not see what becomes of it", {});
    return;
  }
  followed.set(job.id, Object.assign(one, { job: job.id, document: job.document_id, accepted: job.created_at }));
  one.note.textContent = progressOf(job);
  if (!looking) look();
}

// One question for all that are on their way, until none is. A service that is away is asked again.
async function look() {
  looking = true;
  while (followed.size) {
    let pause = LOOK;
    const ids = [...followed.keys()].slice(0, ASKED);
    try {
      const { jobs } = await api("POST", "/v1/jobs/lookup", { ids }, { quiet: true, within: 10 });
      const known = new Map(jobs.map((job) => [job.id, job]));
      let ended = false;
      for (const id of ids) ended = (await see(id, known.get(id))) || ended;
      if (ended) {
        list();
        refresh();
      }
    } catch (error) {
      pause = AFTER_FAILURE;
      for (const id of ids) if (followed.has(id)) followed.get(id).note.textContent = "the service does not answer, asking again";
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  looking = false;
}

// Whether it has ended.
async function see(id, job) {
  const one = followed.get(id);
  if (!one) return false;
  if (job && ["queued", "running"].includes(job.status)) {
    one.note.textContent = progressOf(job);
    if (job.total) one.bar.value = job.done / job.total;
    return false;
  }
  followed.delete(id);
  if (!job) end(one, "deleted meanwhile", { bad: true });
  else if (job.status === "succeeded") end(one, await outcome(one), {});
  else end(one, job.error?.message ?? job.status, { bad: true, again: job.status !== "quarantined", reason: job.error?.code });
  return true;
}

async function outcome(one) {
  try {
    const known = await api("GET", `/v1/documents/${encodeURIComponent(one.document)}`, undefined, { quiet: true });
    return known.created_at < one.accepted ? "searchable, in place of what had this name" : "searchable";
  } catch {
    return "searchable";
  }
}

// `again` says that another try may mend it, `reason` in a word what others may share.
function end(one, said, { bad = false, again: mendable = false, reason = said }) {
  one.note.textContent = said;
  one.note.className = bad ? "error" : "";
  one.bar.remove();
  if (bad) {
    failed.add(Object.assign(one, { said, mendable, reason }));
    // What went wrong is not to be looked for among hundreds.
    $("uploads").prepend(one.item);
  } else {
    counts.done += 1;
    one.item.classList.add("done");
    delete one.file;
  }
  tell();
}

function again() {
  for (const one of [...failed].filter(({ mendable }) => mendable)) {
    failed.delete(one);
    one.bar.value = 0;
    one.item.append(one.bar);
    wait(one);
  }
  tell();
  work();
}

// Forgets what is over.
function clear() {
  for (const one of failed) one.item.remove();
  for (const item of $("uploads").querySelectorAll(".done")) item.remove();
  counts.all -= counts.done + failed.size;
  counts.done = counts.left = 0;
  failed.clear();
  tell();
  $("documents-title").focus();
}

function tell() {
  const { all, done, left } = counts;
  const bad = failed.size;
  const open = all - done - bad;
  const said = [all > 1 && `${done} of ${counted(all, "file")} searchable`, all > 1 && bad && `${bad} failed`, all > 1 && open && `${open} to go`, left && `${counted(left, "hidden file")} left out`].filter(Boolean).join(", ");
  $("uploads-note").textContent = said;
  Object.assign($("uploads-bar"), { hidden: all < 2 || !open, max: all || 1, value: done + bad });
  $("uploads-again").hidden = ![...failed].some(({ mendable }) => mendable);
  $("uploads-clear").hidden = open > 0 || !(all || left);
  $("uploads-reasons").replaceChildren(...(bad > 1 ? reasons() : []));
  if (all && !open) announce(`${done} of ${counted(all, "file")} searchable${bad ? `, ${bad} failed` : ""}.`);
}

// Why files failed, the commonest reason first, and the first of its files.
function reasons() {
  const groups = new Map();
  for (const one of failed) {
    groups.set(one.reason, [...(groups.get(one.reason) ?? []), one]);
  }
  return [...groups.values()].sort((a, b) => b.length - a.length).map((those) => {
    const names = those.slice(0, NAMED).map((one) => one.name).join(", ");
    const more = those.length > NAMED ? ` and ${those.length - NAMED} more` : "";
    return element("li", {}, element("strong", { textContent: counted(those.length, "file") }), `: ${those[0].said} `, element("bdi", { className: "hint", textContent: `${names}${more}` }));
  });
}

// How far a job is, in words: what it waits for, what it does, whether it gets on, how long it will take.
function progressOf(job) {
  const left = job.eta_seconds === null ? "" : `, about ${duration(job.eta_seconds)} left`;
  if (job.status === "queued") return (job.position ? `waiting, ${job.position} ahead` : "waiting") + left;
  if (job.pulse === "slow" || job.pulse === "lost") return `${job.stage}, ${job.pulse}`;
  if (job.part) return job.part + left;
  return (job.total ? `${job.stage} ${job.done} of ${job.total}` : job.stage ?? job.status) + left;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// The files of what was dropped, those in folders with their path. What cannot be read is handed on, and fails by itself.
async function filesOf(items) {
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) {
      const file = await new Promise((resolve) => entry.file(resolve, () => resolve(new File([], entry.name))));
      found.push([file, path + entry.name]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const entries = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
      if (!entries.length) break;
      for (const child of entries) await walk(child, `${path}${entry.name}/`);
    }
  };
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of entries) await walk(entry, "");
  return found;
}
