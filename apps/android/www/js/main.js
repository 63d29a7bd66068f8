import { connect, request } from "./bridge.js";
import { giveBack, renderComposer } from "./composer.js";
import { renderHeader } from "./header.js";
import { renderHistory } from "./history.js";
import { loadFirst } from "./loading.js";
import { remember } from "./restore.js";
import { loadPicked, renderModels } from "./models.js";
import { announce, hideToast, toast } from "./notices.js";
import "./device.js";
import "./panels.js";
import { renderScreen } from "./screen.js";
import { keep } from "./scroll.js";
import { renderSettings } from "./settings.js";
import { apply, store } from "./store.js";
import { lastAnswer, renderTranscript } from "./transcript.js";
import { sentence } from "./words.js";

const VIEWS = [
  renderHeader,
  renderTranscript,
  renderScreen,
  renderComposer,
  renderModels,
  renderHistory,
  renderSettings,
];
let asked = false;
let unsaid = false;

/** Many pieces may come within one frame: they are drawn once. */
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    for (const view of VIEWS) view(store);
    keep();
    if (unsaid) announce(lastAnswer());
    unsaid = false;
  });
}

/** A screen reader hears that an answer begins, and the whole of it at its end: never word by word. */
function tell(event, before) {
  if (event.type === "done") unsaid = true;
  if (event.type !== "state") return;
  const begins = event.phase === "answering" && before.phase === "ready";
  if (begins) announce("Answering");
  if (begins || event.conversation !== before.conversation) hideToast();
}

function receive(event) {
  const before = { ...store };
  apply(event);
  remember(event);
  tell(event, before);
  if (event.type === "models") {
    loadFirst();
    loadPicked(event);
  }
  if (event.type === "note") toast(sentence(event.message));
  if (event.type === "error") {
    giveBack(event);
    if (store.phase !== "empty") toast(`${sentence(event.message)} ${sentence(event.hint)}`);
  }
  redraw();
}

connect(receive, (reached) => {
  store.reached = reached;
  if (reached) request("hello");
  redraw();
});
