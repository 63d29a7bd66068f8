// MODEL, MEMORY and the event `state` of apps/android/PROTOCOL.md.

/** `model`: of build.json. */
export function modelOf(model) {
  const { id, name, file, size, context, precision, licence, parameters, source, architecture, turns } = model;
  const needed_bytes = neededBytes(model, context);
  const takes_system = Boolean(turns) && turns.start_system !== null;
  const told = { id, name, file, size, context, precision, licence, parameters, source, architecture };
  return { ...told, origin: "embedded", needed_bytes, takes_system, problem: null };
}

/** Weights, the cache of a context, and workspace. */
export function neededBytes({ size, kv_bytes_per_token, work_bytes }, context) {
  return size + context * kv_bytes_per_token + work_bytes;
}

/** Null without an engine. A browser tells no page how much memory there is. */
export function memoryOf(engine) {
  if (!engine) return null;
  const variant = `${engine.threads} thread${engine.threads > 1 ? "s" : ""}`;
  return { process_bytes: null, available_bytes: null, total_bytes: null, context: engine.context, variant };
}

/** `controller`: its model, engine (or null), phase, library and partial answer. */
export function stateOf({ model, engine, phase, library, partial }) {
  const { id, title, messages } = library.open;
  return {
    type: "state",
    phase,
    model: engine ? modelOf(model) : null,
    conversation: id,
    title,
    messages,
    partial: phase === "answering" ? partial : null,
    memory: memoryOf(engine),
    plain: !model.turns,
  };
}
