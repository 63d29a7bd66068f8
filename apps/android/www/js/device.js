// What the activity calls: bars, back to the screen, away from it. (The back button: panels.js.)
import { request } from "./bridge.js";
import { allowLoading } from "./loading.js";
import { store } from "./store.js";

/** How far status bar, navigation bar and cutout reach into the page, in CSS pixels. */
window.edgeInsets = (top, right, bottom, left) => {
  const style = document.documentElement.style;
  Object.entries({ top, right, bottom, left }).forEach(([side, pixels]) =>
    style.setProperty(`--inset-${side}`, `${pixels}px`),
  );
};

/** Nobody can see the page: an answer would take the battery for nobody. */
window.edgeHidden = () => {
  if (store.phase === "answering") request("stop");
};

/** Visible again: the model may have been unloaded meanwhile. */
window.edgeShown = () => {
  allowLoading();
  request("hello");
};
