import { $ } from "./dom.js";

const SHOWN_MS = 6000;
let timer = 0;

/** Says `text` to a screen reader only. */
export function announce(text) {
  $("announce").textContent = text;
}

/** Shows a line above the composer for some seconds. */
export function toast(text) {
  const element = $("toast");
  element.textContent = text;
  element.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => {
    element.hidden = true;
  }, SHOWN_MS);
}
