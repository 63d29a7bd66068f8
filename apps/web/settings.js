// SETTINGS of apps/android/PROTOCOL.md; a browser has neither `context` nor `threads` to choose.
export const LIMITS = {
  temperature: [0, 100],
  top_p: [0, 1],
  top_k: [0, 1000000],
  min_p: [0, 1],
  repeat_penalty: [0.01, 100],
  seed: [-1, 2147483647],
  max_tokens: [1, 1000000],
};

// `sampling`: what the model's own files name; greedy where they name nothing.
export function defaultsOf(sampling) {
  const greedy = { temperature: 0, top_p: 1, top_k: 0, min_p: 0, repeat_penalty: 1 };
  return { system: "", ...greedy, seed: -1, max_tokens: 512, ...sampling };
}

// [message, hint] of the first value that cannot be; null when all can.
export function refusal(values) {
  for (const [name, value] of Object.entries(values ?? {})) {
    if (name === "system" && typeof value === "string") continue;
    const limits = LIMITS[name];
    if (!limits) return [`there is no setting ${name}`, "reload the page"];
    const [low, high] = limits;
    if (!(Number.isFinite(value) && value >= low && value <= high)) {
      return [`${name} cannot be ${value}`, `a value from ${low} to ${high}`];
    }
  }
  return null;
}
