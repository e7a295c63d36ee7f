// How the page's parts make and find elements. Everything is set as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function clickable(text, onclick, className = "plain") {
  return element("button", { type: "button", className, textContent: text, onclick });
}

// An element of a drawing: attributes, not properties.
export function drawn(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function faulty(error) {
  return element("span", { className: "error", textContent: error.message });
}

// A text of others within ours, which may run the other way.
export function apart(text) {
  return element("bdi", { textContent: text });
}

// Texts of others with dots between them.
export function dotted(texts) {
  return texts.filter(Boolean).flatMap((text, index) => index ? [" · ", apart(text)] : [apart(text)]);
}

// A button that copies what `text` returns.
export function copier(text, label = "Copy") {
  const button = clickable(label, async () => {
    const said = (await copied(text())) ? "Copied" : "It could not be copied";
    button.textContent = said;
    announce(`${said}.`);
    setTimeout(() => { button.textContent = label; }, 2000);
  }, "link copy");
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Where a page without https may not, the old way. Only what is in an open dialog can be selected.
    const held = document.activeElement;
    const field = element("textarea", { value: text, className: "hidden" });
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    held?.focus();
    return done;
  }
}

// Tells those who do not see the page what has changed on it.
export function announce(text) {
  $("announced").textContent = text;
}

// A field for text that is as high as what is in it.
export function growing(field) {
  const grow = () => {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
  };
  field.addEventListener("input", grow);
  return grow;
}

export function moment(told) {
  return new Date(told).toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" });
}

export function day(told) {
  return new Date(told).toLocaleDateString(undefined, { dateStyle: "short" });
}

export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString()} ${number === 1 ? one : many}`;
}
