// How an answer or a summary is shown: its sentences, what each rests on, and what is to be known of it.
import { element } from "/web/dom.js";
import { drawnAs, looks, withoutMarks } from "/web/marks.js";
import { openPassage, place, placed } from "/web/passage.js";

// A part of a text with its markers as buttons. `spans` are the places that bear the sentence out.
function marked(text, look, from, to, byNumber, spans) {
  let at = from;
  return text.slice(from, to).split(/(\[\d{1,4}\])/).flatMap((piece) => {
    const source = byNumber.get(Number(piece.match(/^\[(\d+)\]$/)?.[1]));
    const begin = at;
    at += piece.length;
    if (!source) return drawnAs(text, look, begin, at);
    const button = element("button", { className: "cite", type: "button", textContent: source.number, title: place(source) });
    button.setAttribute("aria-label", `Source ${source.number}: ${place(source)}`);
    button.onclick = () => openPassage(source, spans.find((span) => span.chunk_id === source.chunk_id));
    return button;
  });
}

const verdicts = { weak: "This may not be what the source says", unsupported: "The source does not bear this out", uncited: "No source is named for this" };
const whys = { number: "a number or date is not in it", denial: "one of the two denies it", direction: "it speaks of less where this speaks of more, or the other way round", name: "a name is not in it", unlike: "the words are far apart", words: "only some of the words are there", meaning: "it is said in other words" };

function doubt(verdict) {
  const why = whys[verdict.reason] ? `${verdicts[verdict.verdict]}: ${whys[verdict.reason]}.` : `${verdicts[verdict.verdict]}.`;
  const mark = element("button", { type: "button", className: "doubt", textContent: "?", title: why });
  const said = element("span", { className: "why", role: "status" });
  mark.setAttribute("aria-label", why);
  mark.setAttribute("aria-expanded", "false");
  // A pointer that can hover sees the title; fingers and keys press it.
  mark.onclick = () => {
    const open = said.textContent === "";
    said.textContent = open ? ` ${why}` : "";
    mark.setAttribute("aria-expanded", open);
  };
  return [mark, said];
}

// Places are counted in characters as Python counts them, not in UTF-16. Models write Markdown.
export function fillAnswer(target, text, sources, support = []) {
  const byNumber = new Map(sources.map((source) => [source.number, source]));
  const units = [0];
  for (const character of text) units.push(units.at(-1) + character.length);
  const { look } = looks(text);
  const slice = (start, end, spans) => marked(text, look, units[start], units[end] ?? text.length, byNumber, spans);
  const pieces = [];
  let at = 0;
  for (const verdict of support) {
    pieces.push(...slice(at, verdict.start, []));
    const sentence = element("span", { className: `claim ${verdict.verdict}` }, ...slice(verdict.start, verdict.end, verdict.spans));
    pieces.push(sentence, ...(verdict.verdict === "supported" ? [] : doubt(verdict)));
    at = verdict.end;
  }
  target.replaceChildren(...pieces, ...slice(at, units.length - 1, []));
}

export function sourceList(citations) {
  return element("ul", { className: "sources" }, ...citations.map((source) => {
    const name = element("span", { className: "few-lines", dir: "auto", title: place(source) }, ...placed(source));
    return element("li", {}, element("button", { type: "button", onclick: () => openPassage(source) }, `${source.number}. `, name));
  }));
}

// An answer as it is pasted elsewhere: with the sources that its markers name.
export function inWords(text, citations) {
  const plain = withoutMarks(text);
  return citations.length ? `${plain}\n\n${citations.map((source) => `[${source.number}] ${place(source)}`).join("\n")}` : plain;
}

const reasons = { index: "the search index has lost passages", dense: "similarity search was out", keyword: "keyword search was out", visibility: "documents were changing", rewrite: "the conversation could not be considered", rerank: "the passages were not ranked anew", cache: "outputs cannot be cached now", support: "the sources could not be compared in full", query_truncated: "the question was shortened for the search" };

export function notices(final) {
  const words = (final.degraded ?? []).map((name) => name === "model:none" ? "no model could answer, these are the nearest passages" : name.startsWith("model:") ? `the first model was out, ${name.slice(6)} answered` : reasons[name] ?? name);
  return words.length ? [element("p", { className: "notice", textContent: `Note: ${words.join("; ")}.` })] : [];
}
