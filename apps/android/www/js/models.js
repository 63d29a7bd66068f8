import { pickFile, request } from "./bridge.js";
import { ask } from "./ask.js";
import { $, h, icon, iconButton } from "./dom.js";
import { load } from "./loading.js";
import { fillRows } from "./rows.js";
import { store } from "./store.js";
import { sentence, size } from "./words.js";

const told = ({ message, hint }) => `${sentence(message)} ${sentence(hint)}`;
const ORIGINS = { embedded: "In the app", pushed: "Sent by cable", opened: "From files" };

let before = null;

/** The picker's rows, what is being copied, and how much memory is free. */
export function renderModels({ models, model, memory, progress, error }) {
  fillRows($("model-list"), [models, model?.id], () =>
    (models ?? []).map((one) => row(one, one.id === model?.id)),
  );
  const note = $("models-note");
  const free = memory?.total_bytes
    ? `${size(memory.available_bytes)} of ${size(memory.total_bytes)} memory free`
    : "";
  const copying = progress?.stage === "copy" ? `Copying ${Math.round(progress.fraction * 100)} %` : "";
  note.textContent = error ? told(error) : copying || free;
  note.classList.toggle("bad", Boolean(error));
}

function row(model, current) {
  const facts = [
    ORIGINS[model.origin],
    model.precision,
    size(model.size),
    `needs ${size(model.needed_bytes)}`,
  ];
  const lines = [
    h("bdi", { class: "title" }, model.name),
    h("span", { class: "faint" }, facts.filter(Boolean).join(" · ")),
  ];
  if (model.problem) lines.push(h("span", { class: "bad" }, told(model.problem)));
  const use = () => {
    $("models").close();
    if (!current) load(model.id);
  };
  const attributes = {
    class: "row",
    disabled: Boolean(model.problem),
    "aria-current": current ? "true" : null,
    onclick: use,
  };
  const button = h(
    "button",
    attributes,
    h("span", { class: "lines" }, ...lines),
    ...(current ? [icon("check")] : []),
  );
  const removable = model.origin !== "embedded";
  return h(
    "li",
    {},
    button,
    ...(removable ? [iconButton("trash", `Delete ${model.name}`, () => remove(model))] : []),
  );
}

async function remove(model) {
  const text = `Frees ${size(model.size)}. The file in this app is deleted; where it came from it stays.`;
  if (await ask({ title: `Delete ${model.name}?`, text, yes: "Delete", danger: true }))
    request("remove", { model: model.id });
}

/** A file that the person has just opened is what they want to talk to: it is loaded when it stands in the list. */
export function loadPicked({ models }) {
  const picked = before && models.find((model) => !before.includes(model.id) && !model.problem);
  if (!picked) return;
  before = null;
  $("models").close();
  load(picked.id);
}

/** Opens the device's file picker. */
export function pick() {
  before = (store.models ?? []).map((model) => model.id);
  pickFile();
}

$("open-models").addEventListener("click", () => {
  if (store.phase !== "empty") store.error = null;
  request("models");
  $("models").showModal();
});
$("open-file").addEventListener("click", pick);
