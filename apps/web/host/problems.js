// What can go wrong in a browser (PROTOCOL.md has the codes): one line of cause, one of what to do.
const MB = (bytes) => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;

const TEXTS = {
  no_wasm: () => [
    "its WebAssembly has no SIMD",
    "use a current Chrome, Edge, Firefox or Safari; some locked-down modes switch it off",
  ],
  insecure: () => [
    "browsers keep files and run offline apps only over https, or on localhost",
    "open the page that way",
  ],
  storage_refused: () => [
    "the model must be kept somewhere, and the browser gives this page no storage",
    "leave private browsing, or allow this site to store data",
  ],
  storage_full: ({ needed, free }) => [
    `the model needs ${MB(needed)}${free === undefined ? "" : `, and this site may store ${MB(free)} more`}`,
    "free some space",
  ],
  storage_lost: () => [
    "the browser has removed the model, as it does when space is short",
    "it must be downloaded once more",
  ],
  download_broken: () => ["what has arrived is kept", "check the connection"],
  download_refused: ({ path, status }) => [
    `${path} is not on the server (${status})`,
    "whoever put the app there must copy the whole folder",
  ],
  download_wrong: ({ path }) => [
    `${path} is not the file that the app was packaged with, and is not used`,
    "it was changed or damaged on its way; if it stays so, the server's copy is damaged",
  ],
  worker: ({ detail }) => [
    `the app cannot be kept for offline use: ${detail}`,
    "look whether the server has the whole folder",
  ],
  memory: ({ needed, has }) => [
    `the model needs ${MB(needed)} of memory, and this device has about ${MB(has)}`,
    "choose a shorter context, or a device with more memory",
  ],
  memory_engine: ({ detail }) => [
    `the engine could not load the model: ${detail}`,
    "most often there is too little memory: close other tabs, or choose a shorter context",
  ],
  stopped: () => ["loading was stopped", "what has been downloaded is kept"],
};

export class Problem extends Error {
  constructor(code, facts = {}) {
    super(code);
    this.code = code;
    [this.cause, this.hint] = TEXTS[code](facts);
  }

  /** The event of a request's type that tells it. */
  event(request) {
    return { type: "error", code: this.code, message: this.cause, hint: this.hint, request };
  }
}
