import { $ } from "./dom.js";
import { size, speed } from "./words.js";

/** The bar: which model, how fast its last answer was, and what memory it takes. */
export function renderHeader(store) {
  const { phase, progress } = store;
  const coming = store.models?.find(({ id }) => id === progress?.model);
  const model = store.model ?? coming;
  $("model-name").textContent = model ? model.name : phase === "unknown" ? "" : "No model";
  $("model-facts").textContent = phase === "loading" ? "Loading" : facts(store).join(" · ");
  $("open-models").setAttribute(
    "aria-label",
    model ? `Model ${model.name}. Choose a model` : "Choose a model",
  );
  $("new-chat").disabled = !store.messages.length && phase !== "answering";
  document.title = store.title || "edge";
}

function facts({ model, memory, messages }) {
  if (!model) return [];
  const last = messages.findLast((message) => message.numbers);
  const found = [];
  if (last) found.push(speed(last.numbers.decode_per_second));
  else if (model.precision) found.push(model.precision);
  if (memory) found.push(memory.process_bytes ? size(memory.process_bytes) : memory.variant);
  return found;
}
