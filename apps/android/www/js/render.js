// Blocks of markdown.js to elements, each with the writing direction of its own text.
import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import { inline } from "./inline.js";
import { blocks } from "./markdown.js";

const DEEPEST_QUOTE = 5;
/** A line of which only the sign of an item, heading, quote or fence is there: it would flash as text. */
const BEGUN = /(^|\n)[ \t]*[-+*#>`~]+$/;
const drawn = new WeakMap();

/**
 * Draws `text` into `container`; blocks that did not change keep their elements (selection, scroll, focus stay).
 * `live`: the text is still being written.
 */
export function draw(container, text, { live = false, depth = 0 } = {}) {
  const found = blocks(live ? text.replace(BEGUN, "") : text);
  found.forEach((block, index) => {
    const open = live && index === found.length - 1;
    const key = `${open} ${block.source}`;
    const old = container.children[index];
    if (old && drawn.get(old) === key) return;
    const element = DRAW[block.kind](block, open, depth);
    drawn.set(element, key);
    if (old) old.replaceWith(element);
    else container.append(element);
  });
  while (container.children.length > found.length) container.lastElementChild.remove();
}

const DRAW = {
  code: drawCode,
  heading: ({ level, text }, live) =>
    h(`h${Math.min(level + 2, 6)}`, { dir: "auto" }, ...inline(text, live)),
  rule: () => h("hr"),
  list: ({ items }, live) => drawList(items, live),
  quote: ({ text }, live, depth) => {
    const quote = h("blockquote", { dir: "auto" });
    if (depth < DEEPEST_QUOTE) draw(quote, text, { live, depth: depth + 1 });
    else quote.append(text);
    return quote;
  },
  table: drawTable,
  paragraph: ({ text }, live, depth) => h("p", { dir: depth ? null : "auto" }, ...inline(text, live)),
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

function drawList(items, live) {
  const ordered = /\d/.test(items[0].mark);
  const list = h(ordered ? "ol" : "ul", { dir: "auto", start: ordered ? parseInt(items[0].mark, 10) : null });
  for (let at = 0; at < items.length; ) {
    let end = at + 1;
    while (end < items.length && items[end].depth > items[at].depth + 1) end += 1;
    const nested = items.slice(at + 1, end);
    const last = live && end === items.length;
    const below = nested.length ? [drawList(nested, last)] : [];
    list.append(h("li", {}, ...inline(items[at].text, last && !nested.length), ...below));
    at = end;
  }
  return list;
}

function drawTable({ head, rows }) {
  const row = (tag, cells) => h("tr", {}, ...cells.map((cell) => h(tag, {}, ...inline(cell))));
  const table = h(
    "table",
    { dir: "auto" },
    h("thead", {}, row("th", head)),
    h("tbody", {}, ...rows.map((cells) => row("td", cells))),
  );
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" }, table);
}
