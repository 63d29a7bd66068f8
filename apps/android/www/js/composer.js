import { request } from "./bridge.js";
import { $ } from "./dom.js";
import { follow } from "./scroll.js";

const TOUCH = matchMedia("(pointer: coarse)");
const draft = $("draft");
let phase = "unknown";
let sent = "";

/** Send or stop, by what the engine does. */
export function renderComposer(store) {
  phase = store.phase;
  const answering = phase === "answering";
  if (answering && document.activeElement === $("send")) draft.focus();
  $("send").hidden = answering;
  $("stop").hidden = !answering;
  draft.placeholder = store.plain ? "Text to go on with" : "Message";
  refresh();
}

/** A question that the engine refused stands in the field again, unless the person writes another. */
export function giveBack({ request: refused }) {
  if (refused === "chat" && sent && !draft.value) write(sent);
}

/** Puts text into the field, as a suggestion does. */
export function write(text) {
  draft.value = text;
  changed();
}

function refresh() {
  $("send").disabled = phase !== "ready" || !draft.value.trim();
}

function changed() {
  localStorage.setItem("draft", draft.value);
  fit();
  refresh();
}

function fit() {
  draft.style.height = "auto";
  draft.style.height = `${draft.scrollHeight}px`;
}

function send() {
  if (phase !== "ready" || !draft.value.trim()) return;
  sent = draft.value.trim();
  write("");
  request("chat", { text: sent });
  follow();
}

draft.addEventListener("input", changed);
draft.addEventListener("keydown", (event) => {
  const newLine = event.shiftKey || (TOUCH.matches && !event.ctrlKey);
  if (event.key !== "Enter" || event.isComposing || newLine) return;
  event.preventDefault();
  send();
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
window.addEventListener("resize", fit);
$("stop").addEventListener("click", () => request("stop"));
write(localStorage.getItem("draft") ?? "");
