// Conversations and settings, kept by the browser between visits. Each conversation is an entry of its own, so that two
// tabs do not undo each other's.
const PLACE = `edge ${new URL("./", location.href).pathname} `;
const CHAT = `${PLACE}chat `;
const SETTINGS = `${PLACE}settings`;
const OPEN = `${PLACE}open`;
const TITLE_LENGTH = 60;

/** Newest first: {id, title, updated, messages, model}. */
export function list() {
  return all()
    .map(({ id, title, updated, messages, model }) => ({
      id,
      title,
      updated,
      messages: messages.length,
      model,
    }))
    .sort((a, b) => b.updated - a.updated);
}

/** {id, title, updated, messages, model}; null when it is not there or cannot be read. */
export function read(id) {
  const found = parse(localStorage.getItem(CHAT + id));
  const sound = ({ role, text }) => ["user", "assistant"].includes(role) && typeof text === "string";
  return Array.isArray(found?.messages) && found.messages.every(sound) ? { ...found, id } : null;
}

/** Keeps a conversation. Where there is no room the oldest others go; without any it lasts as long as the page. */
export function write({ id, title, messages, model }) {
  const text = JSON.stringify({ title, messages, model, updated: Date.now() / 1000 });
  const others = list().filter((other) => other.id !== id);
  for (;;) {
    try {
      return localStorage.setItem(CHAT + id, text);
    } catch {
      if (!others.length) return undefined;
      remove(others.pop().id);
    }
  }
}

export function remove(id) {
  localStorage.removeItem(CHAT + id);
}

/** The conversation of this tab, which a reload shows again. */
export function readOpen() {
  const id = sessionStorage.getItem(OPEN);
  return id ? read(id) : null;
}

export function writeOpen(id) {
  if (id) sessionStorage.setItem(OPEN, id);
  else sessionStorage.removeItem(OPEN);
}

/** The settings that were kept and are sound; `defaults` for the others. */
export function readSettings(defaults) {
  const kept = Object.entries(parse(localStorage.getItem(SETTINGS)) ?? {});
  return {
    ...defaults,
    ...Object.fromEntries(kept.filter(([name, value]) => typeof value === typeof defaults[name])),
  };
}

export function writeSettings(values) {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(values));
  } catch {
    // A few bytes are refused: the settings stay as they were.
  }
}

/** What a first question makes of a conversation's name. */
export function titleOf(question) {
  const line = question.trim().split(/\s+/).join(" ");
  const letters = Array.from(line);
  return letters.length > TITLE_LENGTH ? `${letters.slice(0, TITLE_LENGTH).join("")}…` : line;
}

function all() {
  return Object.keys(localStorage)
    .filter((key) => key.startsWith(CHAT))
    .map((key) => read(key.slice(CHAT.length)))
    .filter(Boolean);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
