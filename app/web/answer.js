// How an answer or a summary is shown: its sentences, what each rests on, and what is to be known of it.
import { element } from "/web/dom.js";
import { openPassage, place } from "/web/passage.js";

// Text with its markers as buttons. `spans` are the places that bear the sentence out.
function marked(text, byNumber, spans) {
  return text.split(/(\[\d{1,4}\])/).map((piece) => {
    const source = byNumber.get(Number(piece.match(/^\[(\d+)\]$/)?.[1]));
    if (!source) return piece;
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
  const mark = element("span", { className: "doubt", textContent: "?", title: why, tabIndex: 0 });
  mark.setAttribute("role", "note");
  mark.setAttribute("aria-label", why);
  return mark;
}

// Places are counted in characters as Python counts them, not in UTF-16.
export function fillAnswer(target, text, sources, support) {
  const byNumber = new Map(sources.map((source) => [source.number, source]));
  const characters = Array.from(text);
  const slice = (start, end) => characters.slice(start, end).join("");
  const pieces = [];
  let at = 0;
  for (const verdict of support) {
    pieces.push(...marked(slice(at, verdict.start), byNumber, []));
    const sentence = element("span", { className: `claim ${verdict.verdict}` }, ...marked(slice(verdict.start, verdict.end), byNumber, verdict.spans));
    pieces.push(sentence, ...(verdict.verdict === "supported" ? [] : [doubt(verdict)]));
    at = verdict.end;
  }
  target.replaceChildren(...pieces, ...marked(slice(at), byNumber, []));
}

export function sourceList(citations) {
  return element("ul", { className: "sources" }, ...citations.map((source) => {
    const button = element("button", { type: "button", textContent: `${source.number}. ${place(source)}`, onclick: () => openPassage(source) });
    return element("li", {}, button);
  }));
}

const reasons = { index: "the search index has lost passages", dense: "similarity search was out", keyword: "keyword search was out", visibility: "documents were changing", rewrite: "the conversation could not be considered", rerank: "the passages were not ranked anew", cache: "outputs cannot be cached now", support: "the sources could not be compared in full", query_truncated: "the question was shortened for the search" };

export function notices(final) {
  const words = (final.degraded ?? []).map((name) => name === "model:none" ? "no model could answer, these are the nearest passages" : name.startsWith("model:") ? `the first model was out, ${name.slice(6)} answered` : reasons[name] ?? name);
  return words.length ? [element("p", { className: "notice", textContent: `Note: ${words.join("; ")}.` })] : [];
}
