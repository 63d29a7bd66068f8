// An answer to as much of a conversation as the context holds.
import { makePrompt } from "./prompt.js";

/**
 * {reason, numbers} of the engine's answer. Leaves the oldest questions away until the rest fits, and tells of it.
 * Error "context" when not even the last question fits.
 */
export async function answerFitted(engine, model, settings, messages, signal, tell) {
  for (let dropped = 0; ; dropped += 2) {
    if (dropped) {
      const message = `the ${dropped} oldest messages no longer fit`;
      tell({ type: "note", code: "context_trimmed", message, dropped });
    }
    const prompt = makePrompt(model, messages.slice(dropped), settings.system);
    try {
      return await engine.answer(prompt, { ...settings, stop: model.stop }, signal, (text) =>
        tell({ type: "piece", text }),
      );
    } catch (error) {
      if (error.message !== "context" || messages.length - dropped < 3) throw error;
    }
  }
}
