// The seam to the controller (apps/android/PROTOCOL.md), which in a browser runs in the page itself.

/** What the page promises about the person's words. */
export const PROMISE = "It answers in this browser. The page sends nothing, and works without a network.";

const HINT = "whoever put the app there must copy the whole folder";
let controller = null;

/** Calls `receive` with every event, and `reach(true)` as soon as there is a controller. */
export async function connect(receive, reach) {
  try {
    const { start } = await import("../host/start.js");
    controller = await start(receive);
    if (controller) reach(true);
  } catch (error) {
    receive({ type: "state", phase: "empty", model: null, messages: [] });
    receive({
      type: "error",
      code: "download_refused",
      message: String(error.message),
      hint: HINT,
      request: null,
    });
  }
}

/** Sends a request; what comes of it arrives as events, never before this returns. */
export function request(type, fields = {}) {
  queueMicrotask(() => controller?.request({ type, ...fields }));
}

/** A browser's app holds one model: no file is opened. */
export function pickFile() {}

export function copyText(text) {
  return navigator.clipboard.writeText(text);
}
