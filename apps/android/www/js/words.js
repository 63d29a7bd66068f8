// Numbers as a person reads them.
const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

export const count = (number) => number.toLocaleString("en");

/** 98000000 -> "98 MB"; two digits after the comma's side only where the number is small. */
export function size(bytes) {
  let step = 0;
  let value = bytes;
  while (value >= 1000 && step < UNITS.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${step && value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[step]}`;
}

export const speed = (perSecond) =>
  `${perSecond >= 100 ? Math.round(perSecond) : perSecond.toFixed(1)} tok/s`;

/** A clause of the engine's as a sentence: a capital (not in a name like llama.cpp) and a full stop. */
export function sentence(text) {
  const start = /^[a-z]+[ ,]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?…]$/.test(start) ? start : `${start}.`;
}

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A Unix time: the hour today, the day this year, else the date. */
export function when(seconds, now = new Date()) {
  const date = new Date(seconds * 1000);
  if (date.toDateString() === now.toDateString()) {
    return date.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
  }
  const year = date.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString([], { day: "numeric", month: "short", year });
}
