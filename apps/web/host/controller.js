// The requests and events of apps/android/PROTOCOL.md, answered in the browser.
import * as kept from "./conversations.js";
import { memoryOf, modelOf } from "./described.js";
import { answerFitted } from "./fitted.js";
import { Loading } from "./loading.js";
import { Problem } from "./problems.js";
import { longestRun } from "./prompt.js";
import { defaultsOf, limitsOf, refusal } from "./settings.js";

const FRESH = () => ({ id: null, title: "", messages: [] });

export class Controller {
  constructor(build, tell) {
    this.build = build;
    this.tell = tell;
    this.model = build.model;
    this.phase = "empty";
    this.defaults = defaultsOf(this.model);
    this.limits = limitsOf(this.model);
    this.settings = kept.readSettings(this.defaults);
    this.conversation = kept.readOpen() ?? FRESH();
    this.abort = null;
  }

  request(request) {
    const action = this[`on_${request.type}`];
    if (!action) this.fail("bad_request", `unknown request ${request.type}`, "reload the page", request);
    else action.call(this, request);
  }

  on_hello() {
    this.tellState();
    this.on_models();
    this.tellSettings();
    this.on_history();
  }

  on_models() {
    this.tell({ type: "models", models: [modelOf(this.model)], current: this.engine ? this.model.id : null });
  }

  async on_load(request) {
    await this.halt();
    await this.drop();
    this.settings = kept.readSettings(this.defaults);
    this.enter("loading");
    this.loading = new Loading(this.build, this.settings, this.tell);
    try {
      this.engine = await this.loading.run();
      this.enter("ready");
    } catch (error) {
      this.enter("empty");
      const problem = error instanceof Problem ? error : new Problem("memory_engine", { detail: String(error.message) });
      this.tell(problem.event(request.type));
    } finally {
      this.loading = null;
    }
  }

  async on_unload() {
    await this.halt();
    await this.drop();
    this.enter("empty");
  }

  on_chat(request) {
    if (this.phase === "answering") return this.fail("busy", "an answer runs", "stop it first", request);
    if (this.phase !== "ready") return this.fail("no_model", "no model is loaded", "reload the page", request);
    if (longestRun(request.text) > this.model.longest_run) {
      return this.fail("too_long", "the text runs on for too long without a break", "break it up", request);
    }
    if (!this.conversation.id) {
      Object.assign(this.conversation, { id: crypto.randomUUID(), title: kept.titleOf(request.text) });
      kept.writeOpen(this.conversation.id);
    }
    this.conversation.messages.push({ role: "user", text: request.text });
    return this.answer(request);
  }

  on_again(request) {
    if (this.phase !== "ready" || this.conversation.messages.at(-1)?.role !== "assistant") return undefined;
    this.conversation.messages.pop();
    return this.answer(request);
  }

  on_stop() {
    this.abort?.abort();
    this.loading?.stop();
  }

  on_new() {
    return this.show(FRESH());
  }

  on_open(request) {
    const found = kept.read(request.conversation);
    if (!found) return this.fail("bad_request", "this conversation is gone", "choose another", request);
    return this.show(found);
  }

  on_history() {
    this.tell({ type: "history", conversations: kept.list() });
  }

  async on_delete(request) {
    const ids = request.all ? kept.list().map(({ id }) => id) : [request.conversation];
    const open = request.all || ids.includes(this.conversation.id);
    if (open) await this.halt();
    ids.forEach(kept.remove);
    this.on_history();
    if (open) await this.show(FRESH());
  }

  on_rename({ conversation, title }) {
    const found = kept.read(conversation);
    if (found) kept.write({ ...found, title });
    this.on_history();
    if (conversation !== this.conversation.id) return;
    this.conversation.title = title;
    this.tellState();
  }

  on_settings(request) {
    const refused = refusal(request.values, this.limits);
    if (refused) return this.fail("bad_request", ...refused, request);
    this.settings = { ...kept.readSettings(this.defaults), ...request.values };
    kept.writeSettings(this.settings);
    return this.tellSettings();
  }

  /** Another conversation; an answer that runs is stopped first. */
  async show(conversation) {
    await this.halt();
    this.conversation = conversation;
    kept.writeOpen(conversation.id);
    this.tellState();
  }

  async halt() {
    this.on_stop();
    await this.running;
  }

  answer(request) {
    this.running = this.generate(request);
    return this.running;
  }

  async generate(request) {
    this.abort = new AbortController();
    this.partial = "";
    this.settings = kept.readSettings(this.defaults);
    this.enter("answering");
    const { signal } = this.abort;
    const tell = (event) => {
      if (event.type === "piece") this.partial += event.text;
      this.tell(event);
    };
    try {
      const { messages } = this.conversation;
      const { reason, numbers } = await answerFitted(this.engine, this.model, this.settings, messages, signal, tell);
      this.finish(reason, numbers);
    } catch (error) {
      await this.broken(error, request);
    } finally {
      this.abort = null;
    }
  }

  finish(reason, numbers) {
    this.conversation.messages.push({ role: "assistant", text: this.partial, reason, numbers });
    kept.write({ ...this.conversation, model: this.model.name });
    this.tell({ type: "done", reason, text: this.partial, numbers, memory: memoryOf(this.engine) });
    if (this.engine) this.enter("ready");
    this.on_history();
  }

  async broken(error, request) {
    if (error.message === "context") {
      this.conversation.messages.pop();
      this.enter("ready");
      return this.fail("too_long", "the message does not fit the model's context", "shorten it", request);
    }
    // What was said stays, and the engine starts again: wllama ends for good at a token that is no UTF-8.
    await this.drop();
    this.finish("stopped", null);
    this.enter("loading");
    this.fail("engine", "the engine stopped and starts again", "ask again", request);
    this.running = null;
    return this.on_load({ type: "load" });
  }

  async drop() {
    await this.engine?.close();
    this.engine = null;
  }

  enter(phase) {
    this.phase = phase;
    this.tellState();
  }

  fail(code, message, hint, request) {
    this.tell({ type: "error", code, message, hint, request: request.type, id: request.id });
  }

  tellState() {
    const { id, title, messages } = this.conversation;
    this.tell({
      type: "state",
      phase: this.phase,
      model: this.engine ? modelOf(this.model) : null,
      conversation: id,
      title,
      messages,
      partial: this.phase === "answering" ? this.partial : null,
      memory: memoryOf(this.engine),
      plain: !this.model.turns,
    });
  }

  tellSettings() {
    this.tell({ type: "settings", values: this.settings, defaults: this.defaults, limits: this.limits });
  }
}
