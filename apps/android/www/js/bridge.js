// The seam to the controller (PROTOCOL.md). On the phone JavascriptInterfaces; in the tests HostServer, by HTTP.
import { h } from "./dom.js";

const phone = window.EdgeHost;
const shell = window.EdgeShell;

/** What the page promises about the person's words. */
export const PROMISE = "It answers on this device. The app has no permission to use the network.";

/** Calls `receive` with every event, and `reach(false)` when the controller cannot be reached. */
export function connect(receive, reach) {
  if (phone) {
    window.edge = { onEvent: receive };
    reach(true);
    return;
  }
  const source = new EventSource("/events");
  source.onopen = () => reach(true);
  source.onerror = () => reach(false);
  source.onmessage = (message) => receive(JSON.parse(message.data));
}

/** Sends a request; what comes of it arrives as events. */
export function request(type, fields = {}) {
  const body = JSON.stringify({ type, ...fields });
  if (phone) phone.request(body);
  else fetch("/request", { method: "POST", body });
}

/** Lets the person choose a GGUF file; `progress` and `models` events follow. */
export function pickFile() {
  if (shell) {
    shell.pick();
    return;
  }
  const input = h("input", { type: "file", accept: ".gguf" });
  input.onchange = () => {
    const [file] = input.files;
    if (file) fetch(`/import?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
  };
  input.click();
}

/** Puts text on the clipboard: a WebView grants the page's own way only at times. */
export async function copyText(text) {
  if (shell) shell.copy(text);
  else await navigator.clipboard.writeText(text);
}
