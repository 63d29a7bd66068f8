import { ask } from "./ask.js";
import { request } from "./bridge.js";
import { $, h, iconButton } from "./dom.js";
import { fillRows } from "./rows.js";
import { plural, when } from "./words.js";

const EMPTY = "Your conversations will be listed here. They stay on this device.";

/** The drawer's rows, newest first. */
export function renderHistory({ conversations, conversation }) {
  fillRows($("history-list"), [conversations, conversation], () => {
    if (!conversations.length) return [h("li", { class: "none" }, EMPTY)];
    return conversations.map((one) => row(one, one.id === conversation));
  });
}

function row(one, current) {
  const open = () => {
    $("history").close();
    if (!current) request("open", { conversation: one.id });
  };
  const title = h("span", { class: "title", dir: "auto" }, one.title);
  const facts = h("span", { class: "faint" }, `${when(one.updated)} · ${plural(one.messages, "message")}`);
  const attributes = {
    class: "row",
    "data-key": one.id,
    "aria-current": current ? "true" : null,
    onclick: open,
  };
  return h(
    "li",
    {},
    h("button", attributes, h("span", { class: "lines" }, title, facts)),
    iconButton("pencil", `Rename ${one.title}`, () => rename(one), `rename ${one.id}`),
    iconButton("trash", `Delete ${one.title}`, () => remove(one), `delete ${one.id}`),
  );
}

async function rename({ id, title }) {
  const value = await ask({ title: "Rename the conversation", yes: "Rename", value: title });
  if (value) request("rename", { conversation: id, title: value });
}

async function remove({ id, title }) {
  const text = `“${title}” is deleted from this device.`;
  if (await ask({ title: "Delete the conversation?", text, yes: "Delete", danger: true }))
    request("delete", { conversation: id });
}

$("open-history").addEventListener("click", () => {
  request("history");
  $("history").showModal();
});
$("new-chat").addEventListener("click", () => {
  request("new");
  $("draft").focus();
});
