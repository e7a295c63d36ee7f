// Summarizing: documents, a collection, or a text that is typed in.
import { fillAnswer, inWords, notices, sourceList } from "/web/answer.js";
import { summarize } from "/web/client.js";
import { $, announce, copier, element, faulty } from "/web/dom.js";
import { collections, refresh } from "/web/scope.js";

let chosen = [];
let running = null;

export function start() {
  collections($("summary-collection"), "the text below");
  $("summary-collection").onchange = tell;
  $("summary-form").onsubmit = (event) => {
    event.preventDefault();
    if (!running) make();
  };
  $("summary-stop").onclick = () => running?.abort();
  tell();
}

export function shown(_, entered) {
  if (entered) refresh();
  tell();
}

// A document that is to be summarized, besides those that are to be already.
export function choose(document_) {
  if (!chosen.some((one) => one.id === document_.id)) chosen.push(document_);
  tell();
}

function tell() {
  $("summary-documents").replaceChildren(...chosen.map((one) => {
    const drop = element("button", { type: "button", className: "drop-one", textContent: "×", onclick: () => { chosen = chosen.filter((other) => other !== one); tell(); } });
    drop.setAttribute("aria-label", `Leave out ${one.title}`);
    return element("li", { className: "pill" }, element("span", { className: "few-lines", dir: "auto", title: one.title, textContent: one.title }), drop);
  }));
  $("summary-source").hidden = chosen.length > 0;
  $("summary-text").hidden = chosen.length > 0 || $("summary-collection").value !== "";
  $("summary-text").required = !$("summary-text").hidden;
}

function wanted() {
  const collection = $("summary-collection").value;
  const source = chosen.length ? { document_ids: chosen.map((one) => one.id) } : collection ? { collection } : { text: $("summary-text").value };
  const [focus, language] = [$("summary-focus").value.trim(), $("summary-language").value];
  return { ...source, max_words: Number($("summary-words").value), ...(focus ? { focus } : {}), ...(language ? { language } : {}) };
}

async function make() {
  const answer = element("p", { className: "answer waiting", dir: "auto" });
  const bar = element("progress", { max: 1, value: 0, hidden: true, ariaLabel: "Read so far" });
  $("summary").replaceChildren(bar, answer);
  running = new AbortController();
  toggle();
  announce("Summarizing.");
  let text = "";
  try {
    const final = await summarize(wanted(), running.signal, (piece) => {
      text += piece;
      fillAnswer(answer, text, []);
    }, ({ done, total }) => {
      Object.assign(bar, { hidden: total < 2 || done === total, max: total, value: done });
      $("summary-note").textContent = total > 1 && done < total ? `${done} of ${total} sections read` : "";
    });
    fillAnswer(answer, final.text, final.citations, final.support);
    const words = final.text.split(/\s+/).filter(Boolean).length;
    $("summary-note").textContent = `${words} words, which speak of ${Math.round(100 * final.coverage)} % of the text.`;
    if (final.citations.length) $("summary").append(sourceList(final.citations));
    $("summary").append(...notices(final), element("p", {}, copier(() => inWords(final.text, final.citations))));
    announce(final.text);
  } catch (error) {
    const stopped = error.name === "AbortError";
    $("summary-note").replaceChildren(stopped ? "Stopped." : faulty(error));
  } finally {
    answer.classList.remove("waiting");
    bar.remove();
    running = null;
    toggle();
  }
}

function toggle() {
  $("summary-go").hidden = Boolean(running);
  $("summary-stop").hidden = !running;
}
