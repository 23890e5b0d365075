// Elements are made of text nodes and attributes only: nothing that a test printed is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

// Control characters, halves of characters, and marks that turn the direction of text around, made visible.
function visible(text) {
  return text
    .toWellFormed()
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (char) => String.fromCharCode(0x2400 + char.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined) continue;
    node.setAttribute(name, value === true ? "" : name === "title" || name === "aria-label" ? visible(value) : value);
  }
  node.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined)
      .map((child) => (child instanceof Node ? child : visible(String(child)))),
  );
  return node;
}

function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function drawing(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function details(summary, open, ...children) {
  return element("details", {open}, element("summary", {}, summary), ...children);
}

// A section that makes its content when it is opened for the first time.
function later(summary, open, make) {
  const box = details(summary, open);
  const once = () => box.open && box.children.length === 1 && box.append(make());
  box.addEventListener("toggle", once);
  once();
  return box;
}

function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

function seconds(value) {
  return value === null || value === undefined ? "" : `${Number(value.toPrecision(4))} s`;
}
