// Markdown as its readers see it. Places in a document are counted in its own text, so that stays whole: every
// character gets a look, and one of the looks is not to be seen.

const [GONE, STRONG, EMPHASIS, CODE] = [1, 2, 4, 8];
const FENCE = /^ {0,3}(?:`{3,}|~{3,})/;
const HEADING = /^ {0,3}#{1,6}[ \t]+/;
const RULE_OF_TABLE = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-*:?[ \t]*)+$/;
const INLINE = new RegExp([
  "(?<ticks>`+)(?!`)(?<code>.+?)(?<!`)\\k<ticks>(?!`)",
  "\\\\(?=[\\\\`*_{}[\\]()#+\\-.!|<>~])",
  "(?<opening>!?\\[)(?<label>[^[\\]]{0,300})\\]\\((?:[^()\\s]|\\([^()\\s]*\\)|\\{[{%][^{}]*\\}){0,2000}(?:\\s+\"[^\"]*\")?\\)",
  "(?<stars>\\*\\*)(?=\\S)(?<bold>[^]{1,600}?)(?<=\\S)\\*\\*",
  "(?<![\\p{L}\\p{N}_])(?<lines>__)(?=\\S)(?<heavy>[^]{1,600}?)(?<=\\S)__(?![\\p{L}\\p{N}_])",
  "(?<![\\p{L}\\p{N}*])(?<star>\\*)(?=[^\\s*])(?<leaning>[^*]{1,300})(?<=\\S)\\*(?![\\p{L}\\p{N}*])",
  "(?<![\\p{L}\\p{N}_])(?<line>_)(?=[^\\s_])(?<slanted>[^_]{1,300})(?<=\\S)_(?![\\p{L}\\p{N}_])",
].join("|"), "gu");
const enclosed = [["ticks", "code", CODE], ["opening", "label", 0], ["stars", "bold", STRONG], ["lines", "heavy", STRONG], ["star", "leaning", EMPHASIS], ["line", "slanted", EMPHASIS]];

// The look of each UTF-16 unit of a text, which may begin within a block of code.
export function looks(text, fenced = false) {
  const look = new Uint8Array(text.length);
  let [at, prose] = [0, 0];
  for (const line of text.split("\n")) {
    const end = Math.min(text.length, at + line.length + 1);
    if (FENCE.test(line)) {
      if (!fenced) inline(text.slice(prose, at), prose, look);
      look.fill(GONE, at, end);
      fenced = !fenced;
      prose = end;
    } else if (fenced) {
      look.fill(CODE, at, end);
      prose = end;
    } else if (HEADING.test(line)) {
      look.fill(STRONG, at, end);
      look.fill(GONE, at, at + line.match(HEADING)[0].length);
    } else if (RULE_OF_TABLE.test(line)) {
      look.fill(GONE, at, end);
    }
    at = end;
  }
  if (!fenced) inline(text.slice(prose), prose, look);
  return { look, fenced };
}

function inline(text, offset, look) {
  for (const found of text.matchAll(INLINE)) {
    const [mark, inner, kind] = enclosed.find(([name]) => found.groups[name] !== undefined) ?? [];
    const [at, length] = [offset + found.index, found[0].length];
    if (!mark) {
      look[at] |= GONE;
      continue;
    }
    const start = at + found.groups[mark].length;
    const end = start + found.groups[inner].length;
    look.fill(GONE, at, start);
    look.fill(GONE, end, at + length);
    for (let each = start; each < end; each += 1) look[each] |= kind;
    if (kind !== CODE) inline(found.groups[inner], start, look);
  }
}

// The part of a text from `from` to `to`, as nodes.
export function drawnAs(text, look, from = 0, to = text.length) {
  const nodes = [];
  for (let at = from; at < to;) {
    let end = at + 1;
    while (end < to && look[end] === look[at]) end += 1;
    if (!(look[at] & GONE)) nodes.push(dressed(text.slice(at, end), look[at]));
    at = end;
  }
  return nodes;
}

function dressed(text, look) {
  let node = text;
  for (const [kind, tag] of [[CODE, "code"], [EMPHASIS, "em"], [STRONG, "strong"]]) {
    if (!(look & kind)) continue;
    const around = document.createElement(tag);
    around.append(node);
    node = around;
  }
  return node;
}

export function withoutMarks(text) {
  const { look } = looks(text);
  return text.split("").filter((_, at) => !(look[at] & GONE)).join("");
}
