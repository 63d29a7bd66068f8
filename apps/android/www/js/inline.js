// Marks inside a line: `code`, **bold**, *italic*, ~~struck~~. Linear: a mark found unclosed once is not sought again.
import { h } from "./dom.js";

const MARKS = [
  { sign: "`", tag: "code" },
  { sign: "**", tag: "strong" },
  { sign: "~~", tag: "del" },
  { sign: "*", tag: "em" },
];
const SPACE = /\s/;

/**
 * Text to nodes. A mark without its end stays as it is written; in a text that is still being written (`live`) the
 * first such mark already counts, and one at the very end is held back.
 */
export function inline(written, live = false) {
  const text = live ? written.replace(/(?<![*`~])[*`~]+$/, "") : written;
  const nodes = [];
  const unclosed = new Set();
  let plain = "";
  for (let at = 0; at < text.length; ) {
    if (text[at] === "\\" && /[\\`*~_#[\]]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    const mark = MARKS.find(({ sign }) => text.startsWith(sign, at));
    let end = mark && !unclosed.has(mark) ? closing(text, at + mark.sign.length, mark) : -1;
    if (end < 0 && mark && opens(text, at + mark.sign.length, mark)) {
      if (live) end = text.length;
      else unclosed.add(mark);
    }
    if (end < 0) {
      const sign = mark ? mark.sign : text[at];
      plain += sign;
      at += sign.length;
      continue;
    }
    const inner = text.slice(at + mark.sign.length, end);
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(h(mark.tag, {}, ...(mark.tag === "code" ? [inner] : inline(inner))));
    at = end + mark.sign.length;
  }
  if (plain) nodes.push(plain);
  return nodes;
}

function opens(text, at, mark) {
  return at < text.length && (mark.tag === "code" || !SPACE.test(text[at]));
}

function closing(text, from, mark) {
  if (!opens(text, from, mark)) return -1;
  for (let end = text.indexOf(mark.sign, from + 1); end > 0; end = text.indexOf(mark.sign, end + 1)) {
    const double = mark.tag === "em" && text[end + 1] === "*";
    if (double) end += 1;
    else if (mark.tag === "code" || !SPACE.test(text[end - 1])) return end;
  }
  return -1;
}
