// Which documents a question is about: all, those of a collection, those that a filter lets through.
import { api } from "/web/client.js";
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

// The collections with the number of their documents; empty where they cannot be asked for.
export async function refresh() {
  let found = [];
  try {
    found = (await api("GET", "/v1/collections")).collections;
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

// Makes the choice at `place`; what it returns gives the part of a request that says it, or throws an error.
export function scope(place) {
  const select = element("select");
  const filter = element("input", { type: "text", placeholder: '{"lang": "de"}', spellcheck: false, autocomplete: "off" });
  const said = element("summary");
  const tell = () => { said.textContent = `In ${select.value || "all documents"}${filter.value.trim() ? ", filtered" : ""}`; };
  select.onchange = filter.oninput = tell;
  place.append(said, element("p", { className: "fields" }, element("label", {}, "Collection ", select), element("label", { className: "wide" }, "Filter by metadata, as JSON ", filter)));
  collections(select, "All");
  tell();
  return () => ({ ...(select.value ? { collection: select.value } : {}), ...(filter.value.trim() ? { filter: parsed(filter.value) } : {}) });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`The filter is no JSON: ${error.message}`);
  }
}
