// The address of what is shown: a view, what is looked for in it, and what is opened over it. So it can be
// bookmarked, sent to a colleague and gone back to.

export const views = ["ask", "search", "summarize", "documents", "releases"];
const LONGEST = 8000; // Programs that pass addresses on cut longer ones off.

export function here() {
  const [view, ...rest] = location.hash.slice(1).split("?");
  return { view: views.includes(view) ? view : views[0], terms: new URLSearchParams(rest.join("?")) };
}

// What stands in the view itself, whatever is opened over it.
export function beneath(terms) {
  const left = new URLSearchParams(terms);
  for (const name of ["open", "at"]) left.delete(name);
  return left;
}

// Says what is shown now. `anew` makes an entry that one can go back from; `state` is kept with that.
export function tell(view, terms, { anew = false, state = null } = {}) {
  const said = terms.toString();
  const address = said && said.length < LONGEST ? `#${view}?${said}` : `#${view}`;
  if (address !== (location.hash || `#${views[0]}`)) history[anew ? "pushState" : "replaceState"](state, "", address);
  dispatchEvent(new Event("told"));
}
