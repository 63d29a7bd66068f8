// SETTINGS of apps/android/PROTOCOL.md.
import { readSettings, writeSettings } from "./conversations.js";

const MAX_THREADS = 64;

/** {name: [low, high]} of the numbers. */
const limitsOf = (model) => ({
  temperature: [0, 2],
  top_p: [0.01, 1],
  top_k: [0, 1000],
  min_p: [0, 1],
  repeat_penalty: [0.5, 2],
  seed: [-1, 2147483647],
  max_tokens: [1, 1048576],
  context: [0, model.context],
  threads: [0, MAX_THREADS],
});

/** `sampling`: what the model's own files name; greedy where they name nothing. */
function defaultsOf({ sampling }) {
  const greedy = { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repeat_penalty: 1 };
  return { system: "", ...greedy, seed: -1, max_tokens: 512, context: 0, threads: 0, ...sampling };
}

/** [message, hint] of the first value that cannot be; null when all can. */
function refusal(values, all) {
  for (const [name, value] of Object.entries(values ?? {})) {
    if (name === "system" && typeof value === "string") continue;
    const limits = all[name];
    if (!limits) return [`there is no setting ${name}`, "reload the page"];
    const [low, high] = limits;
    if (!(Number.isFinite(value) && value >= low && value <= high)) {
      return [`${name} cannot be ${value}`, `a value from ${low} to ${high}`];
    }
  }
  return null;
}

export class Preferences {
  constructor(model) {
    this.defaults = defaultsOf(model);
    this.limits = limitsOf(model);
  }

  /** As they are kept now: another tab may have changed them. */
  get values() {
    return readSettings(this.defaults);
  }

  /** [message, hint] of why `values` are refused; null when they are taken. */
  change(values) {
    const refused = refusal(values, this.limits);
    if (!refused) writeSettings({ ...this.values, ...values });
    return refused;
  }

  event() {
    return { type: "settings", values: this.values, defaults: this.defaults, limits: this.limits };
  }
}
