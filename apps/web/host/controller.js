// The requests and events of apps/android/PROTOCOL.md, answered in the browser.
import * as kept from "./conversations.js";
import { memoryOf, modelOf, stateOf } from "./described.js";
import { answerFitted } from "./fitted.js";
import { Library } from "./library.js";
import { Loading } from "./loading.js";
import { Problem } from "./problems.js";
import { longestRun } from "./prompt.js";
import { Preferences } from "./settings.js";

export class Controller {
  constructor(build, tell) {
    this.build = build;
    this.tell = tell;
    this.model = build.model;
    this.phase = "empty";
    this.preferences = new Preferences(this.model);
    this.library = new Library();
    this.abort = null;
  }

  request(request) {
    if (this[`on_${request.type}`]) this[`on_${request.type}`](request);
    else this.fail("bad_request", `unknown request ${request.type}`, "reload the page", request);
  }

  on_hello() {
    this.tellState();
    this.on_models();
    this.tell(this.preferences.event());
    this.on_history();
  }

  on_models() {
    this.tell({ type: "models", models: [modelOf(this.model)], current: this.engine ? this.model.id : null });
  }

  async on_load(request) {
    if (this.loading) return;
    await this.halt();
    await this.drop();
    this.enter("loading");
    this.loading = new Loading(this.build, this.preferences.values, this.tell);
    try {
      this.engine = await this.loading.run();
      this.enter("ready");
    } catch (error) {
      this.enter("empty");
      const problem =
        error instanceof Problem ? error : new Problem("memory_engine", { detail: String(error.message) });
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
    this.library.ask(request.text);
    return this.answer(request);
  }

  on_again(request) {
    if (this.phase !== "ready" || this.library.messages.at(-1)?.role !== "assistant") return;
    this.library.messages.pop();
    this.answer(request);
  }

  on_stop() {
    this.abort?.abort();
    this.loading?.stop();
  }

  on_new() {
    return this.show();
  }

  async on_open(request) {
    if (await this.show(request.conversation)) return;
    this.fail("bad_request", "this conversation is gone", "choose another", request);
  }

  on_history() {
    this.tell(this.library.event());
  }

  async on_delete(request) {
    const open = request.all || request.conversation === this.library.open.id;
    if (open) await this.halt();
    const ids = request.all ? kept.list().map(({ id }) => id) : [request.conversation];
    ids.forEach(kept.remove);
    this.on_history();
    if (open) await this.show();
  }

  on_rename({ conversation, title }) {
    this.library.rename(conversation, title);
    this.on_history();
    if (conversation === this.library.open.id) this.tellState();
  }

  on_settings(request) {
    const refused = this.preferences.change(request.values);
    if (refused) this.fail("bad_request", ...refused, request);
    else this.tell(this.preferences.event());
  }

  /** Another conversation, false when it is gone; an answer that runs is stopped first. */
  async show(id) {
    await this.halt();
    const found = this.library.show(id);
    this.tellState();
    return found;
  }

  async halt() {
    this.abort?.abort();
    await this.running;
  }

  answer(request) {
    this.running = this.generate(request);
  }

  async generate(request) {
    this.abort = new AbortController();
    this.partial = "";
    this.enter("answering");
    const { signal } = this.abort;
    const tell = (event) => {
      if (event.type === "piece") this.partial += event.text;
      this.tell(event);
    };
    try {
      const { engine, model, preferences, library } = this;
      const { reason, numbers } = await answerFitted(
        engine,
        model,
        preferences.values,
        library.messages,
        signal,
        tell,
      );
      this.finish(reason, numbers);
    } catch (error) {
      await this.broken(error, request);
    } finally {
      this.abort = null;
    }
  }

  finish(reason, numbers) {
    this.library.answer({ text: this.partial, reason, numbers }, this.model.name);
    this.tell({ type: "done", reason, text: this.partial, numbers, memory: memoryOf(this.engine) });
    if (this.engine) this.enter("ready");
    this.on_history();
  }

  async broken(error, request) {
    if (error.message === "context") {
      this.library.messages.pop();
      this.enter("ready");
      return this.fail("too_long", "the message does not fit the model's context", "shorten it", request);
    }
    // What was said stays, and the engine starts again: wllama ends for good at a token that is no UTF-8.
    await this.drop();
    this.finish("stopped", null);
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
    this.tell(stateOf(this));
  }
}
