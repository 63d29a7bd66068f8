// From a packaged build to an engine that answers: what the browser can, the download, the engine's own start.
import { neededBytes } from "./described.js";
import { Engine, needsCompat } from "./engine.js";
import * as files from "./files.js";
import { Problem } from "./problems.js";

// A module that returns a vector: valid only where WebAssembly has SIMD.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);
// What `navigator.deviceMemory` calls a gigabyte; it never tells of more than 8.
const GIB = 1 << 30;
const MOST_TOLD = 8;

export class Loading {
  constructor(build, settings, tell) {
    this.build = build;
    this.context = settings.context || build.model.context;
    this.threads = settings.threads;
    this.tell = tell;
    this.abort = new AbortController();
    this.stopped = new Promise((_, reject) => {
      this.abort.signal.addEventListener("abort", () => reject(new Problem("stopped")));
    });
    this.stopped.catch(() => {});
  }

  stop() {
    this.abort.abort();
  }

  /** Resolves to an Engine. Throws a Problem, or the engine's own error. */
  async run() {
    checkBrowser();
    this.checkMemory();
    const shards = await Promise.race([this.download(), this.stopped]);
    const engine = new Engine();
    try {
      await Promise.race([engine.load(shards, this.context, this.threads), this.stopped]);
    } catch (error) {
      engine.close().catch(() => {});
      throw error;
    }
    return engine;
  }

  // Before anything is downloaded. (That the model fits in WebAssembly's 4 GB was checked when it was packaged.)
  checkMemory() {
    const needed = neededBytes(this.build.model, this.context);
    const told = navigator.deviceMemory;
    if (told < MOST_TOLD && needed > told * GIB) throw new Problem("memory", { needed, has: told * GIB });
  }

  async download() {
    const groups = new Set(["model", needsCompat() ? "compat" : "engine"]);
    const wanted = Object.entries(this.build.files).filter(([, file]) => groups.has(file.group));
    await navigator.storage?.persist?.();
    await files.fetchAll(wanted, this.abort.signal, (done, total) => this.progress("download", done, total));
    const model = wanted.filter(([, file]) => file.group === "model").sort(([a], [b]) => (a < b ? -1 : 1));
    const shards = [];
    for (const [path, file] of model) shards.push(new File([await files.read([path, file])], path));
    if (!this.abort.signal.aborted) this.tell({ type: "progress", stage: "load", model: this.build.model.id });
    return shards;
  }

  progress(stage, done, total) {
    if (done === total || this.abort.signal.aborted) return;
    this.tell({ type: "progress", stage, fraction: done / total, done, total, model: this.build.model.id });
  }
}

function checkBrowser() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) throw new Problem("no_wasm");
}
