// Which model is loaded: the one of last time, else the first that can run.
import { request } from "./bridge.js";
import { store } from "./store.js";

let tried = false;

/** Loads `id` and remembers it for the next start. */
export function load(id) {
  localStorage.setItem("model", id);
  request("load", { model: id });
}

/** The next list of models loads one again, if none is loaded. */
export function allowLoading() {
  tried = false;
}

/** Loads again what was asked for last. */
export function loadAgain() {
  const found = preferred();
  if (found) load(found.id);
}

/** At the first list of models after a start: loads one, unless something is loaded or went wrong. */
export function loadFirst() {
  if (tried || store.phase !== "empty" || store.error) return;
  tried = true;
  loadAgain();
}

/** The model of last time, if it is there and whole; else the first that is. */
export function preferred() {
  const able = (store.models ?? []).filter((model) => !model.problem);
  return able.find((model) => model.id === localStorage.getItem("model")) ?? able[0];
}
