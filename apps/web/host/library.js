// The conversations that the browser keeps, and the one that is open in this tab.
import * as kept from "./conversations.js";

const fresh = () => ({ id: null, title: "", messages: [] });

export class Library {
  constructor() {
    this.open = kept.readOpen() ?? fresh();
  }

  get messages() {
    return this.open.messages;
  }

  /** Opens a conversation that is kept; a new one without an id. False when it is gone. */
  show(id = null) {
    const found = id ? kept.read(id) : fresh();
    if (!found) return false;
    this.open = found;
    kept.writeOpen(found.id);
    return true;
  }

  ask(text) {
    if (!this.open.id) {
      Object.assign(this.open, { id: crypto.randomUUID(), title: kept.titleOf(text) });
      kept.writeOpen(this.open.id);
    }
    this.messages.push({ role: "user", text });
  }

  answer(message, model) {
    this.messages.push({ role: "assistant", ...message });
    kept.write({ ...this.open, model });
  }

  rename(id, title) {
    const found = kept.read(id);
    if (found) kept.write({ ...found, title });
    if (id === this.open.id) this.open.title = title;
  }

  event() {
    return { type: "history", conversations: kept.list() };
  }
}
