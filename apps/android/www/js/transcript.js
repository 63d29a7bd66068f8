import { request } from "./bridge.js";
import { copyButton } from "./copy.js";
import { $, h, iconButton } from "./dom.js";
import { draw } from "./render.js";
import { count, plural, speed } from "./words.js";

const REASONS = {
  stopped: "Stopped",
  length: "Cut at the longest answer allowed",
  context: "The context is full",
};
const drawn = new WeakMap();

/** The conversation's messages, and the answer that is being written. */
export function renderTranscript({ messages, partial, phase, conversation, memory }) {
  const box = $("messages");
  const shown = messages.map((message, index) => ({
    ...message,
    last: index === messages.length - 1 && phase === "ready",
  }));
  if (phase === "answering") shown.push({ role: "assistant", text: partial ?? "", live: true });
  shown.forEach((message, index) => {
    const old = box.children[index];
    const key = JSON.stringify([conversation, message]);
    if (old && drawn.get(old) === key) return;
    const element = old?.dataset.role === message.role ? old : article(message.role);
    if (!old) box.append(element);
    else if (old !== element) old.replaceWith(element);
    fill(element, message, memory);
    drawn.set(element, key);
  });
  while (box.children.length > shown.length) box.lastElementChild.remove();
}

/** What the last answer says, without its marks. */
export const lastAnswer = () => $("messages").querySelector(".assistant:last-child .text")?.innerText ?? "";

function article(role) {
  const mine = role === "user";
  const text = h("div", { class: "text" });
  if (mine) text.dir = "auto";
  return h(
    "article",
    { class: `message ${role}`, "data-role": role, "aria-label": mine ? "You" : "Answer" },
    text,
  );
}

function fill(element, message, memory) {
  const text = element.firstElementChild;
  element.classList.toggle("live", Boolean(message.live));
  element.setAttribute("aria-busy", Boolean(message.live));
  element.querySelector(".foot")?.remove();
  if (message.role === "user") {
    text.textContent = message.text;
    return;
  }
  draw(text, message.text, { live: message.live });
  if (!message.live) element.append(foot(message, memory));
}

function foot(message, memory) {
  const buttons = message.text ? [copyButton(() => message.text, "Copy answer")] : [];
  if (message.last) buttons.push(iconButton("again", "Answer again", () => request("again")));
  return h(
    "div",
    { class: "foot" },
    ...buttons,
    h("span", { class: "numbers" }, numbers(message, memory).join(" · ")),
  );
}

function numbers({ reason, numbers: measured }, memory) {
  const found = REASONS[reason] ? [REASONS[reason]] : [];
  if (!measured) return found;
  found.push(speed(measured.decode_per_second), plural(measured.new_tokens, "token"));
  if (memory?.context) found.push(`context ${count(measured.context_used)} of ${count(memory.context)}`);
  return found;
}
