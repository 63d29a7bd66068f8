import { copyText } from "./bridge.js";
import { icon, iconButton } from "./dom.js";
import { announce } from "./notices.js";

const SHOWN_MS = 1600;

/** A button that copies what `text()` gives when it is pressed, and says so. */
export function copyButton(text, label) {
  const button = iconButton("copy", label, async () => {
    await copyText(text());
    announce("Copied");
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), SHOWN_MS);
  });
  return button;
}
