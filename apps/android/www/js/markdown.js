// The markdown that small models write, to blocks: code, headings, lists, quotes, tables, rules, paragraphs.
const FENCE = /^\s*(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^\s*>\s?/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/;

/** Text to blocks, each {kind, source, ..}. Equal sources are equal blocks: a stream redraws only its last one. */
export function blocks(text) {
  const lines = text.replaceAll("\r", "").split("\n");
  const found = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const start = at;
    const block = READERS.find(({ fits }) => fits(lines, start)).read(lines, start);
    at = start + block.length;
    found.push({ ...block, source: lines.slice(start, at).join("\n") });
  }
  return found;
}

const READERS = [
  { fits: (lines, at) => FENCE.test(lines[at]), read: readCode },
  { fits: (lines, at) => HEADING.test(lines[at]), read: readHeading },
  { fits: (lines, at) => RULE.test(lines[at]), read: () => ({ kind: "rule", length: 1 }) },
  { fits: (lines, at) => ITEM.test(lines[at]), read: readList },
  { fits: (lines, at) => QUOTE.test(lines[at]), read: readQuote },
  { fits: (lines, at) => lines[at].includes("|") && TABLE_LINE.test(lines[at + 1] ?? ""), read: readTable },
  { fits: () => true, read: readParagraph },
];

function readCode(lines, at) {
  const [, fence, language] = FENCE.exec(lines[at]);
  const isEnd = (line) => line.trim().startsWith(fence) && !line.trim().slice(fence.length).trim();
  let end = at + 1;
  while (end < lines.length && !isEnd(lines[end])) end += 1;
  const closed = end < lines.length;
  return {
    kind: "code",
    language,
    text: lines.slice(at + 1, end).join("\n"),
    closed,
    length: end - at + Number(closed),
  };
}

function readHeading(lines, at) {
  const [, signs, text] = HEADING.exec(lines[at]);
  return { kind: "heading", level: signs.length, text: text.replace(/\s+#+\s*$/, ""), length: 1 };
}

function readList(lines, at) {
  const items = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const item = ITEM.exec(lines[end]);
    const again = !lines[end].trim() && ITEM.test(lines[end + 1] ?? "");
    if (item && !RULE.test(lines[end])) items.push({ depth: item[1].length, mark: item[2], text: item[3] });
    else if (/^\s+\S/.test(lines[end]) && !FENCE.test(lines[end]))
      items.at(-1).text += `\n${lines[end].trim()}`;
    else if (!again) break;
  }
  return { kind: "list", items, length: end - at };
}

function readQuote(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  return {
    kind: "quote",
    text: lines
      .slice(at, end)
      .map((line) => line.replace(QUOTE, ""))
      .join("\n"),
    length: end - at,
  };
}

function readTable(lines, at) {
  const cells = (line) =>
    line
      .trim()
      .replace(/^\||\|$/g, "")
      .split("|")
      .map((cell) => cell.trim());
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  return {
    kind: "table",
    head: cells(lines[at]),
    rows: lines.slice(at + 2, end).map(cells),
    length: end - at,
  };
}

function readParagraph(lines, at) {
  let end = at + 1;
  while (
    end < lines.length &&
    lines[end].trim() &&
    READERS.findIndex(({ fits }) => fits(lines, end)) === READERS.length - 1
  )
    end += 1;
  return { kind: "paragraph", text: lines.slice(at, end).join("\n"), length: end - at };
}
