// The conversation and the settings, kept by the browser between visits.
const KEY = "edge";

export function write(data) {
  try {
    localStorage.setItem(KEY, JSON.stringify(data));
  } catch {
    // Storage for a few kilobytes is refused: the conversation lasts as long as the page.
  }
}

// What was kept and is sound; `defaults` for the settings that are not.
export function read(defaults) {
  const found = { messages: [], settings: { ...defaults } };
  try {
    const data = JSON.parse(localStorage.getItem(KEY)) ?? {};
    const sound = (m) => ["user", "assistant"].includes(m.role) && typeof m.text === "string";
    if (Array.isArray(data.messages) && data.messages.every(sound)) found.messages = data.messages;
    for (const [name, value] of Object.entries(data.settings ?? {})) {
      if (typeof value === typeof defaults[name]) found.settings[name] = value;
    }
  } catch {
    // Nothing that was kept can be read: a new conversation.
  }
  return found;
}
