// From the first visit to the first question: check the browser, keep the app, download the model, load it.
import { Controller } from "./controller.js";
import { needsCompat } from "./engine.js";
import { Page } from "./page.js";
import { Problem } from "./problems.js";
import * as store from "./store.js";

const RELOADED = "edge reloaded";
// A module that returns a vector: valid only where WebAssembly has SIMD.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);
const MB = (bytes) => (bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 0 });

const page = new Page((request) => controller.request(request));
let controller = null;

function checkBrowser() {
  if (!isSecureContext) throw new Problem("insecure");
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) throw new Problem("no_wasm");
  if (!navigator.serviceWorker || !self.caches) throw new Problem("storage_refused");
}

// The worker serves this page from now on. It adds the headers that allow threads, which takes one more load; where that
// does not help, the engine runs on one thread.
async function keepApp() {
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
  } catch (error) {
    if (!navigator.serviceWorker.controller) throw new Problem("worker", { detail: error.message });
  }
  if (!crossOriginIsolated && !sessionStorage.getItem(RELOADED)) {
    sessionStorage.setItem(RELOADED, "1");
    location.reload();
    await new Promise(() => {});
  }
}

async function start() {
  try {
    document.body.dataset.phase = "starting";
    page.showScreen("Starting", "");
    checkBrowser();
    await keepApp();
    const build = await store.readBuild();
    const groups = new Set(["model", needsCompat() ? "compat" : "engine"]);
    const wanted = Object.entries(build.files).filter(([, file]) => groups.has(file.group));
    await navigator.storage?.persist?.();
    await store.fetchAll(wanted, (done, total) => {
      const share = total ? done / total : 1;
      page.showScreen(
        "Downloading the model",
        `${MB(done)} of ${MB(total)} MB. After that this page works without a network.`,
        { share },
      );
    });
    page.showScreen("Loading the model", "");
    build.shards = wanted.filter(([, file]) => file.group === "model").sort(([a], [b]) => (a < b ? -1 : 1));
    controller ??= new Controller(build, hear);
    controller.request({ type: "hello" });
    controller.request({ type: "load", model: build.model.id });
  } catch (error) {
    show(error instanceof Problem ? error : new Problem("engine", { detail: String(error) }));
  }
}

function hear(event) {
  page.on(event);
  if (event.problem) show(event.problem);
}

function show(problem) {
  document.body.dataset.phase = problem.code;
  page.showScreen(problem.title, problem.text, { button: problem.button, press: start });
}

start();
