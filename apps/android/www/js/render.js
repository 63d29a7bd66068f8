// Blocks of markdown.js to elements, each with the writing direction of its own text.
import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import { inline } from "./inline.js";
import { blocks } from "./markdown.js";

const DEEPEST_QUOTE = 5;
const drawn = new WeakMap();

/** Draws `text` into `container`; blocks that did not change keep their elements (selection, scroll, focus stay). */
export function draw(container, text, depth = 0) {
  const found = blocks(text);
  found.forEach((block, index) => {
    const old = container.children[index];
    if (old && drawn.get(old) === block.source) return;
    const element = DRAW[block.kind](block, depth);
    drawn.set(element, block.source);
    if (old) old.replaceWith(element);
    else container.append(element);
  });
  while (container.children.length > found.length) container.lastElementChild.remove();
}

const DRAW = {
  code: drawCode,
  heading: ({ level, text }) => h(`h${Math.min(level + 2, 6)}`, { dir: "auto" }, ...inline(text)),
  rule: () => h("hr"),
  list: ({ items }) => drawList(items),
  quote: ({ text }, depth) => {
    const quote = h("blockquote", { dir: "auto" });
    if (depth < DEEPEST_QUOTE) draw(quote, text, depth + 1);
    else quote.append(text);
    return quote;
  },
  table: drawTable,
  paragraph: ({ text }) => h("p", { dir: "auto" }, ...inline(text)),
};

function drawCode({ language, text }) {
  const head = h(
    "div",
    { class: "code-head" },
    h("span", {}, language || "code"),
    copyButton(() => text, "Copy code"),
  );
  return h("div", { class: "code" }, head, h("pre", { tabindex: "0", dir: "ltr" }, h("code", {}, text)));
}

function drawList(items) {
  const ordered = /\d/.test(items[0].mark);
  const list = h(ordered ? "ol" : "ul", { dir: "auto", start: ordered ? parseInt(items[0].mark, 10) : null });
  for (let at = 0; at < items.length; ) {
    let end = at + 1;
    while (end < items.length && items[end].depth > items[at].depth + 1) end += 1;
    const nested = items.slice(at + 1, end);
    list.append(h("li", {}, ...inline(items[at].text), ...(nested.length ? [drawList(nested)] : [])));
    at = end;
  }
  return list;
}

function drawTable({ head, rows }) {
  const row = (tag, cells) => h("tr", {}, ...cells.map((cell) => h(tag, { dir: "auto" }, ...inline(cell))));
  const table = h(
    "table",
    {},
    h("thead", {}, row("th", head)),
    h("tbody", {}, ...rows.map((cells) => row("td", cells))),
  );
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" }, table);
}
