import { connect, request } from "./bridge.js";
import { giveBack, renderComposer } from "./composer.js";
import { renderHeader } from "./header.js";
import { renderHistory } from "./history.js";
import { loadFirst } from "./loading.js";
import { loadPicked, renderModels } from "./models.js";
import { announce, toast } from "./notices.js";
import "./device.js";
import "./panels.js";
import { renderScreen } from "./screen.js";
import { keep } from "./scroll.js";
import { renderSettings } from "./settings.js";
import { apply, store } from "./store.js";
import { renderTranscript } from "./transcript.js";
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

/** Many pieces may come within one frame: they are drawn once. */
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    for (const view of VIEWS) view(store);
    keep();
  });
}

function receive(event) {
  apply(event);
  if (event.type === "models") {
    loadFirst();
    loadPicked(event);
  }
  if (event.type === "done") announce(event.text);
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
