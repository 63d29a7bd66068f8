import { $ } from "./dom.js";

/**
 * Asks the person. With `value` it asks for a text and resolves to it, else to true; null when cancelled.
 * `danger` colours the button that cannot be taken back.
 */
export function ask({ title, text = "", yes, value = null, danger = false }) {
  const dialog = $("ask");
  const input = $("ask-input");
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-text").hidden = !text;
  $("ask-yes").textContent = yes;
  $("ask-yes").classList.toggle("danger", danger);
  input.hidden = value === null;
  input.required = value !== null;
  input.value = value ?? "";
  dialog.returnValue = "no";
  dialog.showModal();
  if (value === null) $("ask-no").focus();
  else input.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(answer(dialog, input, value)), { once: true });
  });
}

function answer(dialog, input, value) {
  if (dialog.returnValue !== "yes") return null;
  return value === null ? true : input.value.trim() || null;
}

// The first submit button of a form is what Enter presses: here it would be Cancel.
$("ask-input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  $("ask-yes").click();
});
