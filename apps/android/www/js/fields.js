// Labelled fields. Each calls change(name, value) when the person has chosen.
import { h } from "./dom.js";

function labelled(name, label, hint, input, aside = []) {
  input.id = `set-${name}`;
  if (hint) input.setAttribute("aria-describedby", `hint-${name}`);
  const head = h("div", { class: "head" }, h("label", { for: input.id }, label), ...aside);
  return h(
    "div",
    { class: "setting" },
    head,
    input,
    ...(hint ? [h("p", { class: "hint", id: `hint-${name}` }, hint)] : []),
  );
}

export function textField({ name, label, hint, disabled, value, change }) {
  const input = h("textarea", {
    rows: "3",
    dir: "auto",
    disabled,
    onchange: () => change(name, input.value),
  });
  input.value = value;
  return labelled(name, label, hint, input);
}

export function rangeField({ name, label, step, hint, limits: [min, max], value, change }) {
  const shown = h("output");
  const input = h("input", {
    type: "range",
    min,
    max,
    step,
    onchange: () => change(name, input.valueAsNumber),
  });
  input.value = value;
  const show = () => {
    shown.textContent = input.value;
    input.style.setProperty("--at", `${(100 * (input.value - min)) / (max - min)}%`);
  };
  input.addEventListener("input", show);
  show();
  return labelled(name, label, hint, input, [shown]);
}

export function numberField({ name, label, hint, limits: [min, max], value, change }) {
  const take = () => {
    if (input.value && input.checkValidity()) change(name, input.valueAsNumber);
    else input.reportValidity();
  };
  const input = h("input", {
    type: "number",
    inputmode: min < 0 ? "text" : "numeric",
    min,
    max,
    step: "1",
    required: true,
    onchange: take,
  });
  input.value = value;
  return labelled(name, label, hint, input);
}

export function choiceField({ name, label, hint, choices, value, change }) {
  const options = choices.map(([key, text]) => h("option", { value: key, selected: key === value }, text));
  const input = h("select", { onchange: () => change(name, input.value) }, ...options);
  return labelled(name, label, hint, input);
}
