// Elements, made of text and other elements. Text of others comes in as text and as nothing else.

const SVG = "http://www.w3.org/2000/svg";

/** Tables keep their meaning for a screen reader, whatever a style makes of them, such as cards on a telephone. */
const ROLES = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TH: "columnheader", TD: "cell" };

function fill(node, attributes, children) {
  if (ROLES[node.tagName]) node.setAttribute("role", ROLES[node.tagName]);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "indeterminate") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An element of HTML. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An element of a drawing. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Puts children in the place of those that are there. */
export function put(node, ...children) {
  node.replaceChildren();
  add(node, children);
  return node;
}

/** Sets a text if it is another one, so that nothing is drawn and read aloud for nothing. */
export function text(node, value) {
  const next = String(value ?? "");
  if (node.textContent !== next) node.textContent = next;
}

/** The same of a class. */
export function look(node, name) {
  if (node.className !== name) node.className = name;
}

export const byId = (id) => document.getElementById(id);

let gone;
/** Tells something for some seconds. */
export function toast(message) {
  put(byId("toast"), h("div", {}, message));
  clearTimeout(gone);
  gone = setTimeout(() => put(byId("toast")), 6000);
}

/** A command, ready to be copied. */
export function command(line) {
  const copy = h("button", { type: "button", class: "small", onclick: () => copyText(line, copy) }, "Copy");
  return h("div", { class: "command" }, h("code", {}, line), copy);
}

async function copyText(line, button) {
  try {
    await navigator.clipboard.writeText(line);
    text(button, "Copied");
  } catch {
    text(button, "Select it");
  }
  setTimeout(() => text(button, "Copy"), 2000);
}

/** A word for a shell. */
export const word = (value) => (/^[\w.,:/=@%+-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`);
