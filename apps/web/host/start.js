// Before the first request: keep the app for later visits, get the page isolated, read what was packaged.
import { Controller } from "./controller.js";
import { readBuild } from "./files.js";
import { Problem } from "./problems.js";

const RELOADED = "edge reloaded";
const EMPTY = {
  type: "state",
  phase: "empty",
  model: null,
  conversation: null,
  title: "",
  messages: [],
  partial: null,
};

/** The controller; null when there can be none, which an error event has told. */
export async function start(tell) {
  try {
    if (!isSecureContext) throw new Problem("insecure");
    if (!navigator.serviceWorker || !self.caches || self.edgeNothingKept) throw new Problem("storage_refused");
    const registration = await keepApp();
    await takeNewest(registration);
    const controller = new Controller(await readBuild(), tell);
    tellOfUpdates(registration, tell);
    return controller;
  } catch (error) {
    const problem = error instanceof Problem ? error : new Problem("worker", { detail: String(error.message) });
    tell(EMPTY);
    tell(problem.event(null));
    return null;
  }
}

// The worker serves this page from now on. It adds the headers that allow threads, which takes one more load; where
// that does not help, the engine runs on one thread.
async function keepApp() {
  const registration = await navigator.serviceWorker.register("sw.js").catch((error) => {
    if (navigator.serviceWorker.controller) return navigator.serviceWorker.ready;
    throw error;
  });
  await navigator.serviceWorker.ready;
  if (!crossOriginIsolated && !sessionStorage.getItem(RELOADED)) {
    sessionStorage.setItem(RELOADED, "1");
    await reload();
  }
  return registration;
}

// A build that waited starts with this visit, unless another tab still runs the old one.
async function takeNewest({ waiting }) {
  if (!waiting) return;
  const answer = await new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }) => resolve(data);
    waiting.postMessage("start", [port2]);
  });
  if (answer === "started") await reload();
}

function tellOfUpdates(registration, tell) {
  registration.addEventListener("updatefound", () => {
    const { installing } = registration;
    installing.addEventListener("statechange", () => {
      if (installing.state !== "installed") return;
      tell({
        type: "note",
        code: "new_version",
        message: "a new version of this app is here: reload the page to use it",
      });
    });
  });
}

// Nothing of this page may run on while it is left.
async function reload() {
  location.reload();
  await new Promise(() => {});
}
