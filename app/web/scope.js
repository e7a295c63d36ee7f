// Which documents a question is about: all, those of a collection, those that a filter lets through.
import { api, may } from "/web/client.js";
import { $, element } from "/web/dom.js";

const lists = [];
let names = [];

// Fills a list of collections whenever they are asked for anew; its first choice stands for all of them.
export function collections(select, all) {
  lists.push([select, all]);
  fill(select, all);
}

function fill(select, all) {
  const chosen = select.value;
  select.replaceChildren(element("option", { value: "", textContent: all }), ...names.map((name) => element("option", { value: name, textContent: name })));
  select.value = names.includes(chosen) ? chosen : "";
}

// Chooses one that may not have been listed yet.
export function choose(select, name) {
  if (name && ![...select.options].some((one) => one.value === name)) select.append(element("option", { value: name, textContent: name }));
  select.value = name;
}

// The collections with the number of their documents; empty where they cannot be asked for.
export async function refresh(quiet = false) {
  let found = [];
  if (!may("read")) return found;
  try {
    found = (await api("GET", "/v1/collections", undefined, { quiet })).collections;
  } catch {
    return found;
  }
  if (found.map((one) => one.name).join("\n") !== names.join("\n")) {
    names = found.map((one) => one.name);
    for (const [select, all] of lists) fill(select, all);
    $("collections").replaceChildren(...names.map((name) => element("option", { value: name })));
  }
  return found;
}

// Makes the choice at `place`. `wanted` gives the part of a request that says it, or throws an error; `said` and
// `take` give and take it as the terms of an address.
export function scope(place) {
  const select = element("select");
  const filter = element("input", { type: "text", placeholder: '{"lang": "de"}', spellcheck: false, autocomplete: "off" });
  const said = element("summary");
  const tell = () => { said.textContent = `In ${select.value || "all documents"}${filter.value.trim() ? ", filtered" : ""}`; };
  select.onchange = filter.oninput = tell;
  place.append(said, element("p", { className: "fields" }, element("label", {}, "Collection ", select), element("label", { className: "wide" }, "Filter by metadata, as JSON ", filter)));
  collections(select, "All");
  tell();
  const given = () => ({ ...(select.value ? { collection: select.value } : {}), ...(filter.value.trim() ? { filter: filter.value.trim() } : {}) });
  return {
    wanted: () => ({ ...given(), ...(filter.value.trim() ? { filter: parsed(filter.value) } : {}) }),
    said: () => Object.entries(given()),
    take: (terms) => {
      choose(select, terms.get("collection") ?? "");
      filter.value = terms.get("filter") ?? "";
      place.open ||= filter.value !== "";
      tell();
    },
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The filter is no JSON: ${error.message}`);
  }
}
