// Light or dark, before anything is drawn: as the system says, unless somebody chose here.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("msr-theme");
  } catch {
    // Storage may be forbidden: then the system decides.
  }
  if (chosen === "light" || chosen === "dark") {
    document.documentElement.dataset.theme = chosen;
  }
})();
