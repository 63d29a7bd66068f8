// wllama (llama.cpp in WebAssembly) with the model's shards: load, answer, stop.
import { Wllama } from "../wllama/index.js";

const COMPAT = { worker: "wllama/compat.js", wasm: "wllama/compat.wasm" };
const MAX_THREADS = 8;
const MAX_SEED = 2 ** 31 - 1;

// Safari has no 64-bit memory and no promise integration yet: it takes wllama's other build, which is slower.
export function needsCompat() {
  let memory64 = true;
  try {
    new WebAssembly.Memory({ address: "i64", initial: 1n });
  } catch {
    memory64 = false;
  }
  const firefox = /Firefox\//.test(navigator.userAgent);
  return !firefox && !(memory64 && "Suspending" in WebAssembly);
}

export class Engine {
  constructor() {
    const quiet = { debug() {}, log() {}, warn() {}, error: (...words) => this.errors.push(words.join(" ")) };
    this.errors = [];
    this.wllama = new Wllama({ default: "wllama/wllama.wasm" }, { logger: quiet });
    this.wllama.setCompat(COMPAT);
  }

  // `wanted` threads; 0 for half of what the processor runs at once: all wait for the slowest of them, and one that
  // shares its core is slow.
  async load(shards, context, wanted) {
    const half = Math.floor((navigator.hardwareConcurrency || 1) / 2);
    const found = wanted || Math.min(Math.max(half, 1), MAX_THREADS);
    const threads = crossOriginIsolated ? found : 1;
    // One conversation, and the processor: the GPU's results would differ from the proven ones.
    await this.wllama.loadModel(shards, {
      n_ctx: context,
      n_parallel: 1,
      n_threads: threads,
      n_gpu_layers: 0,
    });
    this.threads = this.wllama.getNumThreads();
    this.context = context;
  }

  // -> {reason, numbers} of PROTOCOL.md; Error "context" when the prompt does not fit.
  async answer(prompt, settings, signal, piece) {
    let last = null;
    const options = {
      prompt,
      max_tokens: settings.max_tokens,
      temperature: settings.temperature,
      top_k: settings.top_k,
      top_p: settings.top_p,
      min_p: settings.min_p,
      repeat_penalty: settings.repeat_penalty,
      seed: settings.seed < 0 ? Math.floor(Math.random() * MAX_SEED) : settings.seed,
      stop: settings.stop,
      cache_prompt: true,
      stream: true,
      timings_per_token: true,
      abortSignal: signal,
      onData: (chunk) => {
        last = chunk;
        if (chunk.choices[0]?.text) piece(chunk.choices[0].text);
      },
    };
    try {
      await this.wllama.createCompletion(options);
    } catch (error) {
      if (signal.aborted) return { reason: "stopped", numbers: numbersOf(last?.timings) };
      if (/exceeds the available context/.test(error.message)) throw new Error("context", { cause: error });
      throw error;
    }
    const numbers = numbersOf(last?.timings);
    if (last?.choices[0]?.finish_reason === "stop") return { reason: "end", numbers };
    return { reason: numbers?.context_used >= this.context - 1 ? "context" : "length", numbers };
  }

  close() {
    return this.wllama.exit();
  }
}

// NUMBERS of PROTOCOL.md from llama.cpp's timings; null when nothing was timed.
function numbersOf(timings) {
  if (!timings?.predicted_n) return null;
  const { cache_n = 0, prompt_n, prompt_ms, predicted_n, predicted_ms } = timings;
  return {
    prompt_tokens: cache_n + prompt_n,
    cached_tokens: cache_n,
    new_tokens: predicted_n,
    prefill_ms: prompt_ms,
    decode_ms: predicted_ms,
    prefill_per_second: rate(prompt_n, prompt_ms),
    decode_per_second: rate(predicted_n, predicted_ms),
    context_used: cache_n + prompt_n + predicted_n,
  };
}

const rate = (count, ms) => (ms > 0 ? (1000 * count) / ms : 0);
