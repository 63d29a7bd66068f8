// Drawer, sheets and cards are <dialog>s: focus stays inside, Escape closes, the page behind is inert.
import { $ } from "./dom.js";

const dialogs = [...document.querySelectorAll("dialog")];

for (const dialog of dialogs) {
  dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog && !inside(dialog.getBoundingClientRect(), event)) dialog.close();
  });
}

function inside(box, { clientX, clientY }) {
  return clientX >= box.left && clientX <= box.right && clientY >= box.top && clientY <= box.bottom;
}

// The button that opened the settings went away with the drawer: the focus goes to what opened that.
$("settings").addEventListener("close", () => $("open-history").focus());

// The phone's back button asks this first: true when there was something to close.
window.edgeBack = () => {
  const open = dialogs.filter((dialog) => dialog.open);
  open.at(-1)?.close();
  return open.length > 0;
};
