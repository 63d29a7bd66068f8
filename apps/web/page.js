// What is on the screen, from the controller's events alone; what a person does becomes a request.
const $ = (id) => document.getElementById(id);
const SETTINGS = ["system", "temperature", "top_p", "top_k", "max_tokens"];

export class Page {
  constructor(request) {
    this.request = request;
    this.answer = null;
    $("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    $("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    $("stop").addEventListener("click", () => request({ type: "stop" }));
    $("new").addEventListener("click", () => request({ type: "new" }));
    $("adjust").addEventListener("click", () => {
      $("settings").hidden = !$("settings").hidden;
      $("adjust").setAttribute("aria-expanded", String(!$("settings").hidden));
    });
    $("settings").addEventListener("change", ({ target }) => {
      const value = target.type === "number" ? target.valueAsNumber : target.value;
      request({ type: "settings", values: { [target.name]: value } });
    });
  }

  send() {
    const text = $("question").value.trim();
    if (!text || $("send").disabled) return;
    this.asked = text;
    $("question").value = "";
    this.request({ type: "chat", text });
  }

  on(event) {
    this[`on_${event.type}`]?.(event);
  }

  on_state({ phase, model, messages, partial, threads, plain }) {
    document.title = `${model.name} · edge`;
    $("name").textContent = model.name;
    const where = threads ? `${threads} thread${threads > 1 ? "s" : ""}` : "";
    $("facts").textContent = [model.precision, where, plain ? "plain completion: no chat template" : ""]
      .filter(Boolean)
      .join(" · ");
    const open = phase === "ready" || phase === "answering";
    if (open) this.hideScreen();
    $("ask").hidden = !open;
    $("new").disabled = $("adjust").disabled = !open;
    $("send").hidden = $("send").disabled = phase === "answering";
    $("send").disabled ||= phase !== "ready";
    $("stop").hidden = phase !== "answering";
    $("settings").elements.system.disabled = !model.turns || model.turns.start_system === null;
    document.body.dataset.phase = phase;
    $("messages").replaceChildren(...messages.map(({ role, text }) => bubble(role, text)));
    this.answer = partial === null ? null : this.add("assistant", partial);
    $("messages").scrollTop = $("messages").scrollHeight;
    if (phase === "ready" && matchMedia("(pointer: fine)").matches) $("question").focus();
  }

  on_piece({ text }) {
    const box = $("messages");
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    this.answer?.append(text);
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  on_done({ reason, numbers }) {
    const words = {
      length: "cut at the longest answer",
      context: "the context is full",
      stopped: "stopped",
      engine: "cut: the engine stopped",
    };
    const speed = numbers.decode_per_second
      ? `${numbers.new_tokens} tokens, ${numbers.decode_per_second.toFixed(1)} a second`
      : "";
    const used = numbers.context_used ? `${numbers.context_used} tokens of context` : "";
    $("numbers").textContent = [speed, used, words[reason] ?? ""].filter(Boolean).join(" · ");
  }

  on_note({ message }) {
    $("numbers").textContent = message;
  }

  on_settings({ values }) {
    for (const name of SETTINGS) $("settings").elements[name].value = values[name];
  }

  on_error({ code, message, hint, problem }) {
    if (problem) return;
    $("numbers").textContent = `${message}: ${hint}`;
    if (code === "too_long") $("question").value ||= this.asked;
  }

  add(kind, text) {
    const element = bubble(kind, text);
    $("messages").append(element);
    return element;
  }

  // Before there is a model: a title, a text, and a share of what is loaded, or a button to `press`.
  showScreen(title, text, { share = null, button = null, press = null } = {}) {
    $("screen").hidden = false;
    $("title").textContent = title;
    $("text").textContent = text;
    $("bar").hidden = share === null;
    if (share !== null) $("bar").value = share;
    $("act").hidden = !button;
    $("act").textContent = button ?? "";
    $("act").onclick = press;
  }

  hideScreen() {
    $("screen").hidden = true;
  }
}

function bubble(kind, text) {
  const element = document.createElement("div");
  element.className = `message ${kind}`;
  element.textContent = text;
  return element;
}
