// What can go wrong before the first question, in words for a person: a title, what to do, and a button where one helps.
const MB = (bytes) => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;

const TEXTS = {
  no_wasm: () => [
    "This browser cannot run the model",
    "It has no WebAssembly with SIMD. Use a current Chrome, Edge, Firefox or Safari; some locked-down modes switch it off.",
  ],
  insecure: () => [
    "This address is not secure",
    "Browsers keep files and run offline apps only over https, or on localhost. Open the page that way.",
  ],
  storage_refused: () => [
    "The browser gives this page no storage",
    "The model must be kept somewhere. Leave private browsing, or allow this site to store data.",
    "Try again",
  ],
  storage_full: ({ needed, free }) => [
    "Not enough storage",
    `The model needs ${MB(needed)} more${free === undefined ? "" : `, and ${MB(free)} are free for this site`}. Free some space.`,
    "Try again",
  ],
  storage_lost: () => [
    "The browser has removed the model",
    "It does that when space is short. The model must be downloaded once more.",
    "Download",
  ],
  download_broken: () => [
    "The download was interrupted",
    "What has arrived is kept. Check the connection.",
    "Continue",
  ],
  download_refused: ({ path, status }) => [
    "A file of the app is not on the server",
    `${path} answers ${status}. Whoever put the app there must copy the whole folder.`,
    "Try again",
  ],
  download_wrong: ({ path }) => [
    "A file of the app is not the one it was built with",
    `${path} was changed or damaged on its way, and is not used.`,
    "Try again",
  ],
  worker: ({ detail }) => [
    "The app cannot be kept for offline use",
    `Its service worker did not start: ${detail}`,
    "Try again",
  ],
  engine: ({ detail }) => [
    "The model could not be loaded",
    `Most often there is too little memory: close other tabs, or use a device with more.\n(${detail})`,
    "Try again",
  ],
};

export class Problem extends Error {
  constructor(code, facts = {}) {
    super(code);
    this.code = code;
    [this.title, this.text, this.button] = TEXTS[code](facts);
  }
}
