// The conversation. It takes the requests of apps/android/PROTOCOL.md that make sense in a browser (hello, load, chat,
// again, stop, new, settings) and tells its events, so that a page cannot know whether a phone or a browser answers.
import { Engine } from "./engine.js";
import * as kept from "./kept.js";
import { Problem } from "./problems.js";
import { longestRun, makePrompt } from "./prompt.js";
import { LIMITS, defaultsOf, refusal } from "./settings.js";
import * as store from "./store.js";

export class Controller {
  constructor(build, onEvent) {
    this.build = build;
    this.tell = onEvent;
    this.model = build.model;
    this.phase = "empty";
    this.defaults = defaultsOf(this.model.sampling);
    ({ messages: this.messages, settings: this.settings } = kept.read(this.defaults));
    this.abort = null;
  }

  request(request) {
    const action = this[`on_${request.type}`];
    if (!action) this.fail("bad_request", `unknown request ${request.type}`, "reload the page", request);
    else action.call(this, request);
  }

  on_hello() {
    this.tellState();
    this.tellSettings();
  }

  async on_load(request) {
    if (this.phase !== "empty") return;
    this.enter("loading");
    try {
      const shards = [];
      for (const [path, file] of this.build.shards) shards.push(new File([await store.read([path, file])], path));
      this.engine = new Engine();
      await this.engine.load(shards, this.model.context);
      this.enter("ready");
    } catch (error) {
      await this.drop();
      const problem =
        error instanceof Problem ? error : new Problem("engine", { detail: String(error.message ?? error) });
      this.tell({
        type: "error",
        code: problem.code,
        message: problem.title,
        hint: problem.text,
        problem,
        request: request.type,
      });
    }
  }

  on_chat(request) {
    if (this.phase === "answering") return this.fail("busy", "an answer runs", "stop it first", request);
    if (this.phase !== "ready") return this.fail("no_model", "no model is loaded", "reload the page", request);
    if (longestRun(request.text) > this.model.longest_run) {
      return this.fail("too_long", "the text runs on for too long without a break", "break it up", request);
    }
    this.messages.push({ role: "user", text: request.text });
    return this.answer(request);
  }

  on_again(request) {
    if (this.phase !== "ready" || this.messages.at(-1)?.role !== "assistant") return undefined;
    this.messages.pop();
    return this.answer(request);
  }

  on_stop() {
    this.abort?.abort();
  }

  async on_new() {
    this.on_stop();
    await this.running;
    this.messages = [];
    this.keep();
    this.tellState();
  }

  on_settings(request) {
    const refused = refusal(request.values);
    if (refused) return this.fail("bad_request", ...refused, request);
    Object.assign(this.settings, request.values);
    this.keep();
    return this.tellSettings();
  }

  answer(request) {
    this.running = this.generate(request);
    return this.running;
  }

  async generate(request) {
    this.abort = new AbortController();
    this.partial = "";
    this.enter("answering");
    const { signal } = this.abort;
    try {
      const { reason, numbers } = await this.fitted(signal);
      this.finish(reason, numbers);
    } catch (error) {
      if (signal.aborted) this.finish("stopped", {});
      else await this.broken(error, request);
    } finally {
      this.abort = null;
    }
  }

  // Leaves the oldest questions away until the rest fits the context.
  async fitted(signal) {
    let fitting = this.messages;
    for (;;) {
      const prompt = makePrompt(this.model, fitting, this.settings.system);
      const seed = this.settings.seed < 0 ? Math.floor(Math.random() * 2147483647) : this.settings.seed;
      try {
        return await this.engine.answer(
          prompt,
          { ...this.settings, seed, stop: this.model.stop },
          signal,
          (text) => {
            this.partial += text;
            this.tell({ type: "piece", text });
          },
        );
      } catch (error) {
        if (error.message !== "context" || fitting.length < 3) throw error;
        fitting = fitting.slice(2);
        const dropped = this.messages.length - fitting.length;
        this.tell({
          type: "note",
          code: "context_trimmed",
          message: `the ${dropped} oldest messages no longer fit`,
          dropped,
        });
      }
    }
  }

  finish(reason, numbers) {
    this.messages.push({ role: "assistant", text: this.partial, reason, numbers });
    this.keep();
    this.tell({ type: "done", reason, text: this.partial, numbers });
    if (reason !== "engine") this.enter("ready");
  }

  async broken(error, request) {
    if (error.message === "context") {
      this.messages.pop();
      this.fail("too_long", "the message does not fit the model's context", "shorten it", request);
      return this.enter("ready");
    }
    // What was said stays, and the engine starts again: wllama ends for good at a token that is no UTF-8.
    this.finish("engine", {});
    this.fail("engine", "the engine stopped and starts again", "ask again", request);
    await this.drop();
    return this.on_load(request);
  }

  async drop() {
    await this.engine?.close();
    this.engine = null;
    this.enter("empty");
  }

  enter(phase) {
    this.phase = phase;
    this.tellState();
  }

  fail(code, message, hint, request) {
    this.tell({ type: "error", code, message, hint, request: request.type, id: request.id });
  }

  tellState() {
    this.tell({
      type: "state",
      phase: this.phase,
      model: this.model,
      messages: this.messages,
      plain: !this.model.turns,
      partial: this.phase === "answering" ? this.partial : null,
      threads: this.engine?.threads ?? null,
    });
  }

  tellSettings() {
    this.tell({ type: "settings", values: this.settings, defaults: this.defaults, limits: LIMITS });
  }

  keep() {
    kept.write({ messages: this.messages, settings: this.settings });
  }
}
