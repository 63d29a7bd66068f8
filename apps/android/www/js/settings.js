import { ask } from "./ask.js";
import { PROMISE, request } from "./bridge.js";
import { $, h } from "./dom.js";
import { choiceField, numberField, rangeField, textField } from "./fields.js";
import { loadAgain, preferred } from "./loading.js";
import { store } from "./store.js";
import { count } from "./words.js";

const SMALLEST_CONTEXT = 512;

function change(name, value) {
  request("settings", { values: { [name]: value } });
}

function group(title, ...fields) {
  return h("fieldset", {}, h("legend", {}, title), ...fields);
}

/** The form, made anew each time that the sheet opens: it shows what the controller holds. */
function form({ settings, plain }) {
  const { values, limits } = settings;
  const model = store.model ?? preferred();
  const range = (name, label, step, hint) =>
    rangeField({ name, label, step, hint, limits: limits[name], value: values[name], change });
  const number = (name, label, hint) =>
    numberField({ name, label, hint, limits: limits[name], value: values[name], change });
  const fixed = model?.takes_system === false || plain;
  return [
    group(
      "Instructions",
      textField({
        name: "system",
        label: "System prompt",
        hint: fixed ? "This model takes no system prompt." : "Told to the model before each conversation.",
        disabled: fixed,
        value: values.system,
        change,
      }),
    ),
    group(
      "Appearance",
      choiceField({
        name: "theme",
        label: "Colours",
        choices: [
          ["system", "As the device"],
          ["light", "Light"],
          ["dark", "Dark"],
        ],
        value: window.edgeTheme.read(),
        change: (_, theme) => window.edgeTheme.choose(theme),
      }),
    ),
    group(
      "Sampling",
      range(
        "temperature",
        "Temperature",
        0.05,
        "0 always takes the likeliest word; more is more surprising.",
      ),
      range("top_p", "Top-p", 0.01, "Keeps the likeliest words up to this share. 1 is off."),
      range("min_p", "Min-p", 0.01, "Drops words far less likely than the first. 0 is off."),
      range(
        "repeat_penalty",
        "Repeat penalty",
        0.01,
        "Over 1, words that stand there already are less likely.",
      ),
      number("top_k", "Top-k", "How many words are in the draw. 0 is off."),
      number("max_tokens", "Longest answer", "In tokens."),
      number("seed", "Seed", "-1 draws a new one for each answer."),
    ),
    group(
      "Engine",
      choiceField({
        name: "context",
        label: "Context",
        hint: "How much of the conversation the model sees, in tokens. Less takes less memory.",
        choices: contexts(model, values.context),
        value: String(values.context),
        change: (name, value) => change(name, Number(value)),
      }),
      number("threads", "Threads", "0 lets the app choose."),
      h(
        "button",
        { type: "button", class: "quiet", disabled: !model, onclick: reload },
        "Load the model again with these",
      ),
    ),
    group(
      "This device",
      h(
        "button",
        { type: "button", class: "quiet", id: "reset", onclick: reset },
        "Reset the settings",
      ),
      h("button", { type: "button", class: "quiet danger", onclick: forget }, "Delete all conversations"),
    ),
    h("p", { class: "about" }, about(model)),
  ];
}

function contexts(model, chosen) {
  const largest = model?.context ?? store.settings.limits.context[1];
  const steps = [];
  for (let step = SMALLEST_CONTEXT; step < largest; step *= 2) steps.push(step);
  const all = new Set([...steps, largest, ...(chosen ? [chosen] : [])]);
  return [
    ["0", `All of the model’s (${count(largest)})`],
    ...[...all].sort((a, b) => a - b).map((step) => [String(step), count(step)]),
  ];
}

function about(model) {
  if (!model) return PROMISE;
  const origin = model.source ? `, from ${model.source}` : "";
  return `${model.name}, ${model.licence || "licence not stated"}${origin}. ${PROMISE}`;
}

function reset() {
  request("settings", { values: store.settings.defaults });
}

function reload() {
  $("settings").close();
  loadAgain();
}

async function forget() {
  const text = "All conversations are deleted from this device.";
  if (await ask({ title: "Delete all conversations?", text, yes: "Delete all", danger: true }))
    request("delete", { all: true });
}

/** Keeps an open form true when the controller's settings change under it. */
export function renderSettings() {
  if (!$("settings").open || !store.settings) return;
  const focused = document.activeElement;
  if (focused.matches("#settings-form :is(input, textarea, select)")) return;
  $("settings-form").replaceChildren(...form(store));
  if (focused.id) $(focused.id).focus();
}

$("open-settings").addEventListener("click", () => {
  if (!store.settings) return;
  if ($("history").open) $("history").close();
  $("settings-form").replaceChildren(...form(store));
  $("settings").showModal();
});
