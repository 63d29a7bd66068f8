// A classic script in the head: the colours stand before the first paint. `edgeTheme` is what settings.js calls.
"use strict";
(function () {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const read = () => localStorage.getItem("theme") || "system";

  function apply() {
    const theme = read() === "system" ? (dark.matches ? "dark" : "light") : read();
    document.documentElement.dataset.theme = theme;
    if (window.EdgeShell) window.EdgeShell.bars(theme === "dark");
  }

  dark.addEventListener("change", apply);
  apply();
  window.edgeTheme = {
    read,
    choose(theme) {
      localStorage.setItem("theme", theme);
      apply();
    },
  };
})();
