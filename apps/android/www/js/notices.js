import { $ } from "./dom.js";

const SHOWN_MS = 6000;
let timer = 0;

/** Says `text` to a screen reader only. The same text again is said again. */
export function announce(text) {
  $("announce").replaceChildren(document.createTextNode(text));
}

/** Shows a line above the composer for some seconds, or until it is touched. */
export function toast(text) {
  const element = $("toast");
  element.textContent = text;
  element.hidden = false;
  announce(text);
  clearTimeout(timer);
  timer = setTimeout(hideToast, SHOWN_MS);
}

/** What it told of is over. */
export function hideToast() {
  $("toast").hidden = true;
}

$("toast").addEventListener("click", hideToast);
