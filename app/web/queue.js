// What is on its way into the index: whoever asks meanwhile is told that it cannot be found yet.
import { api, may } from "/web/client.js";
import { counted, element } from "/web/dom.js";

// The documents that wait or are being read; none where that cannot be asked for.
export async function underWay() {
  if (!may("read")) return { count: 0, held: false };
  try {
    const { queued, running, state } = await api("GET", "/v1/queue", undefined, { quiet: true, within: 10 });
    return { count: queued + running, held: state !== "open" };
  } catch {
    return { count: 0, held: false };
  }
}

export function sentence({ count, held }) {
  if (!count) return "";
  return held ? `${counted(count, "document")} ${count === 1 ? "waits" : "wait"}: the queue is held back.` : `${counted(count, "document")} ${count === 1 ? "is" : "are"} still being read.`;
}

export function notYet(reading) {
  return reading.count ? [element("p", { className: "notice reading", textContent: `${sentence(reading)} This does not know ${reading.count === 1 ? "it" : "them"} yet.` })] : [];
}
