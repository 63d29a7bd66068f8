// A classic script before the others: where the browser refuses storage, reading `localStorage` throws. The page gets
// one that lasts as long as itself, so that it can tell.
"use strict";
(function () {
  try {
    window.localStorage.getItem("theme");
  } catch {
    const kept = new Map();
    const storage = {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, value) => kept.set(name, value),
      removeItem: (name) => kept.delete(name),
    };
    Object.defineProperty(window, "localStorage", { value: storage });
    window.edgeNothingKept = true;
  }
})();
