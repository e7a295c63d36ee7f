// Handing in files. A few are sent at a time and all are followed by one question, since a browser opens six
// connections to a server and a folder may hold hundreds of files.
import { api, upload } from "/web/client.js";
import { $, announce, counted, element } from "/web/dom.js";
import { list } from "/web/documents.js";
import { refresh } from "/web/scope.js";

const AT_ONCE = 2;
const LOOK = 700;
const AFTER_FAILURE = 3000;
const ASKED = 500; // ids that the service looks up at once
const waiting = [];
const followed = new Map();
const counts = { all: 0, done: 0, bad: 0 };
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
    $("drop").classList.add("over");
  };
  window.ondragleave = (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); };
  window.ondrop = async (event) => {
    $("drop").classList.remove("over");
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    location.hash = "#documents";
    add(await filesOf(event.dataTransfer.items));
  };
}

function add(files) {
  for (const [file, name] of files) {
    const bar = element("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", `Progress of ${name}`);
    const note = element("span", { textContent: "waits to be sent" });
    $("uploads").append(element("li", {}, element("span", { textContent: name }), note, bar));
    waiting.push({ file, name, note, bar, collection: $("upload-collection").value.trim() || "default" });
  }
  counts.all += files.length;
  tell();
  while (sending < AT_ONCE && waiting.length) send();
}

async function send() {
  sending += 1;
  for (let one = waiting.shift(); one; one = waiting.shift()) {
    one.note.textContent = "sending";
    try {
      const [job] = (await upload(one.file, one.name, one.collection)).jobs;
      follow(job, one);
    } catch (error) {
      end(one, error.message, true);
    }
    delete one.file;
  }
  sending -= 1;
}

function follow(job, one) {
  for (const [id, other] of followed) {
    if (other.document === job.document_id) {
      followed.delete(id);
      end(other, `replaced by another file of this name`, true);
    }
  }
  followed.set(job.id, { ...one, document: job.document_id, accepted: job.created_at });
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
  if (!job) end(one, "deleted meanwhile", true);
  else if (job.status === "succeeded") end(one, await outcome(one), false);
  else end(one, job.error?.message ?? job.status, true);
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

function end(one, said, bad) {
  one.note.textContent = said;
  one.note.className = bad ? "error" : "";
  one.bar.remove();
  // What went wrong is not to be looked for among hundreds.
  if (bad) $("uploads").prepend(one.note.parentElement);
  counts[bad ? "bad" : "done"] += 1;
  tell();
}

function tell() {
  const { all, done, bad } = counts;
  const left = all - done - bad;
  $("uploads-note").textContent = all < 2 ? "" : [`${done} of ${counted(all, "file")} searchable`, bad && `${bad} failed`, left && `${left} to go`].filter(Boolean).join(", ");
  if (!left) announce(`${done} of ${counted(all, "file")} searchable.`);
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

// The files of what was dropped, those in folders with their path.
async function filesOf(items) {
  const found = [];
  const walk = async (entry, path) => {
    if (entry.isFile) {
      found.push([await new Promise((resolve, reject) => entry.file(resolve, reject)), path + entry.name]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!entries.length) break;
      for (const child of entries) await walk(child, `${path}${entry.name}/`);
    }
  };
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of entries) await walk(entry, "");
  return found;
}
