// Android may end the app's process behind a person's back; what they come back to is where they were.
import { request } from "./bridge.js";

let restored = location.hash === "#restored";

/** Keeps which conversation is open; on the first state of a page that was brought back, opens the last one. */
export function remember({ type, conversation, messages }) {
  if (type !== "state") return;
  const last = localStorage.getItem("conversation");
  if (restored && last && !messages.length) request("open", { conversation: last });
  else if (messages.length) localStorage.setItem("conversation", conversation);
  else localStorage.removeItem("conversation");
  restored = false;
}
