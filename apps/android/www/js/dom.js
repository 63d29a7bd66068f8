// Elements are made one by one and text is only ever text: nothing that a model writes is parsed as HTML.
const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** Element `tag` with attributes (a function is a listener: `onclick`), children: nodes or strings. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The icon `name` of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button of one icon; `label` is what a screen reader says, `key` is for rows.js. */
export function iconButton(name, label, onclick, key = null) {
  const attributes = {
    class: "icon",
    type: "button",
    "aria-label": label,
    title: label,
    "data-key": key,
    onclick,
  };
  return h("button", attributes, icon(name));
}
