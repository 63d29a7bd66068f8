// All that the page knows, built from events only: a reload asks for it again by `hello`.
export const store = {
  reached: true,
  phase: "unknown",
  model: null,
  conversation: null,
  title: "",
  messages: [],
  partial: null,
  memory: null,
  plain: false,
  models: null,
  conversations: [],
  settings: null,
  progress: null,
  error: null,
};

const APPLY = {
  state(event) {
    const { type, id, ...fields } = event;
    Object.assign(store, fields);
    if (event.phase !== "loading") store.progress = null;
    if (event.phase !== "empty") store.error = null;
  },
  models(event) {
    store.models = event.models;
    store.progress = null;
  },
  progress({ stage, fraction, done, total, model }) {
    store.progress = { stage, fraction, done, total, model };
  },
  piece({ text }) {
    store.partial = (store.partial ?? "") + text;
  },
  done({ memory }) {
    store.memory = memory;
  },
  settings({ values, defaults, limits }) {
    store.settings = { values, defaults, limits };
  },
  history({ conversations }) {
    store.conversations = conversations;
  },
  error({ code, message, hint, request }) {
    store.error = { code, message, hint, request };
    store.progress = null;
  },
  note() {},
};

/** Takes an event in; one of an unknown type (a newer controller) is left alone. */
export function apply(event) {
  APPLY[event.type]?.(event);
}
