// The prompt of a conversation as `edge chat` makes it: the texts between the messages were rendered from the model's
// chat template when the app was packaged (TURNS of apps/android/PROTOCOL.md).
const SPACE = "[\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
// What Python's str.strip takes at the ends of a text, by which the template was rendered.
const ENDS = new RegExp(`^[\\x1c-\\x1f${SPACE.slice(1)}+|[\\x1c-\\x1f${SPACE.slice(1)}+$`, "g");
const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const anyOf = (texts) =>
  [...texts]
    .sort((a, b) => b.length - a.length)
    .map(literal)
    .join("|");

export function makePrompt(model, messages, system) {
  const { turns } = model;
  // A special token's text in a message must stay text. llama.cpp's server parses it anywhere in a prompt, so that a
  // zero-width space behind its first character is what keeps it from ending a turn.
  const special = anyOf(model.special);
  const disarm = (text) =>
    special ? text.replace(new RegExp(special, "g"), (s) => `${s[0]}\u200b${s.slice(1)}`) : text;
  const content = (text) => (turns?.trim ? disarm(text).replace(ENDS, "") : disarm(text));
  if (!turns) return strip(messages.map((message) => content(message.text)).join("\n"), model.strip);
  let text = "";
  messages.forEach((message, i) => {
    if (i) text += message.role === "user" ? turns.assistant_user : turns.user_assistant;
    else if (system && turns.start_system !== null) text += turns.start_system + content(system) + turns.system_user;
    else text += turns.start_user;
    text += content(message.text);
  });
  text += turns.reply;
  // The engine puts the start token before every prompt where the model wants it.
  if (model.bos && text.startsWith(model.bos)) text = text.slice(model.bos.length);
  return strip(text, model.strip);
}

// White space that added tokens swallow: rules of [text, left, right] (converters/gguf/strip.py).
function strip(text, rules) {
  const right = anyOf(rules.filter((rule) => rule[2]).map((rule) => rule[0]));
  const left = anyOf(rules.filter((rule) => rule[1]).map((rule) => rule[0]));
  if (right) text = text.replace(new RegExp(`(${right})${SPACE}+`, "g"), "$1");
  if (left) text = text.replace(new RegExp(`(?<!${SPACE})${SPACE}+(${left})`, "g"), "$1");
  return text;
}

// Characters without a change between letters, digits, white space and the rest, at most (web_model.py: longest_run).
export function longestRun(text) {
  return Math.max(
    0,
    ...(text.match(/\p{L}[\p{L}\p{M}]*|\p{N}+|\s+|[^\p{L}\p{N}\s]+/gu) ?? []).map((run) => run.length),
  );
}
