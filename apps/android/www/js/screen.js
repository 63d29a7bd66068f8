// What stands where a conversation would: loading, what went wrong, or the welcome.
import { request } from "./bridge.js";
import { write } from "./composer.js";
import { $, h, icon } from "./dom.js";
import { loadAgain } from "./loading.js";
import { pick } from "./models.js";
import { sentence, size } from "./words.js";

const IDEAS = [
  "What is the capital of France?",
  "Write a short poem about the sea",
  "Three ideas for dinner with rice",
];
const STAGES = {
  copy: "Copying the model, once",
  download: "Downloading the model, once",
  check: "Checking the file",
  load: "Loading",
};
const TITLES = {
  no_model: "No model yet",
  file_missing: "The model’s file is gone",
  file_damaged: "This file is damaged",
  not_supported: "This model cannot run here",
  memory: "Not enough memory",
  memory_engine: "Not enough memory",
  storage: "Not enough space",
  engine: "The engine stopped",
  library: "The engine cannot start",
  stopped: "Loading was stopped",
  away: "The engine is away",
  no_wasm: "This browser cannot run the model",
  insecure: "This address is not secure",
  storage_refused: "No storage for this page",
  storage_full: "Not enough storage",
  storage_lost: "The model is gone",
  download_broken: "The download was interrupted",
  download_refused: "A file is not on the server",
  download_wrong: "A file is not the right one",
  worker: "The app cannot be kept",
};
const BUTTONS = {
  models: ["Choose another model", () => $("open-models").click()],
  file: ["Open a GGUF file", pick],
  again: ["Try again", loadAgain],
  go_on: ["Continue", loadAgain],
  reload: ["Reload the page", () => location.reload()],
  shorter: ["Use a shorter context", () => $("open-settings").click()],
};
const WAYS = {
  no_model: ["file"],
  memory: ["shorter", "models"],
  memory_engine: ["shorter", "models"],
  file_damaged: ["models", "file"],
  file_missing: ["models", "file"],
  not_supported: ["models", "file"],
  library: [],
  away: [],
  no_wasm: [],
  insecure: [],
  storage_refused: ["reload"],
  storage_full: ["again"],
  storage_lost: ["again"],
  download_broken: ["go_on"],
  download_refused: ["reload"],
  download_wrong: ["again"],
  worker: ["reload"],
};
/** What is no fault has a picture of its own. */
const CALM = { no_model: "file", stopped: "stop" };
const NO_MODEL = {
  code: "no_model",
  message: "The app holds no model that it can run.",
  hint: "Open a GGUF file from this device, or send one over a cable with `edge push`.",
};
const AWAY = {
  code: "away",
  message: "The page cannot reach the engine.",
  hint: "It goes on by itself when the engine is back.",
};
let shown = null;

/** Draws the screen that fits, or none over a conversation. */
export function renderScreen(store) {
  const screen = $("screen");
  const [key, make] = choose(store);
  screen.hidden = !make;
  screen.classList.toggle("below", store.messages.length > 0);
  if (key !== shown) screen.replaceChildren(...(make ? make() : []));
  shown = key;
  const bar = screen.querySelector("progress");
  if (bar && store.progress) {
    const { stage, fraction, done, total } = store.progress;
    if (fraction === undefined) bar.removeAttribute("value");
    else bar.value = fraction;
    const percent = fraction === undefined ? "" : ` · ${Math.round(fraction * 100)} %`;
    const far = total ? `: ${size(done)} of ${size(total)}` : percent;
    screen.querySelector(".stage").textContent = STAGES[stage] + far;
  }
}

function choose(store) {
  const { phase, model, models, messages, progress, error } = store;
  if (!store.reached) return ["away", () => failure(AWAY)];
  if (phase === "loading" || (phase === "empty" && progress))
    return [`loading ${progress?.model}`, () => loading(coming(models, progress))];
  const problem = error ?? models?.find((one) => one.problem)?.problem;
  if (phase === "empty" && problem) return [`${problem.code} ${problem.message}`, () => failure(problem)];
  if (phase === "empty" && models?.length === 0) return ["none", () => failure(NO_MODEL)];
  if (phase === "ready" && !messages.length) return [`welcome ${model.id}`, () => welcome(store)];
  return [null, null];
}

/** What is being copied or loaded: a model's name, or that of a file on its way into the app. */
const coming = (models, progress) =>
  models?.find(({ id }) => id === progress?.model)?.name ?? progress?.model ?? "The model";

function loading(name) {
  const stop = h("button", { class: "quiet", type: "button", onclick: () => request("stop") }, "Stop");
  return [
    h("div", { class: "badge" }, icon("mark")),
    h("h1", { dir: "auto" }, name),
    h("p", { class: "hint stage" }, STAGES.load),
    h("progress", { max: "1", "aria-label": "Loading the model" }),
    h("div", { class: "ways" }, stop),
  ];
}

function failure({ code, message, hint }) {
  const ways = WAYS[code] ?? ["again", "models"];
  const buttons = ways.map((way, index) => {
    const [label, onclick] = BUTTONS[way];
    return h("button", { class: index ? "quiet" : "filled", type: "button", onclick }, label);
  });
  const calm = CALM[code];
  return [
    h("div", { class: calm ? "badge" : "badge bad" }, icon(calm ?? "warning")),
    h("h1", {}, TITLES[code] ?? "Something went wrong"),
    h("p", { class: "cause", role: "alert" }, sentence(message)),
    h("p", { class: "hint" }, sentence(hint)),
    h("div", { class: "ways" }, ...buttons),
  ];
}

function welcome({ model, plain }) {
  const idea = (text) => {
    const use = () => {
      write(text);
      $("composer").requestSubmit();
      $("scroll").focus();
    };
    return h("button", { class: "idea", type: "button", onclick: use }, text);
  };
  const promise = plain
    ? "This model has no chat template: it goes on writing your text."
    : "It answers on this device. Nothing leaves it.";
  return [
    h("div", { class: "badge" }, icon("mark")),
    h("h1", { dir: "auto" }, model.name),
    h("p", { class: "hint" }, promise),
    h("div", { class: "ideas" }, ...(plain ? [] : IDEAS.map(idea))),
  ];
}
