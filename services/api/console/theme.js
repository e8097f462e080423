// Sets light or dark before anything is drawn: the user's choice, else the system's.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("msr-theme");
  } catch {
    // Storage is forbidden: use the system's choice.
  }
  if (chosen === "light" || chosen === "dark") {
    document.documentElement.dataset.theme = chosen;
  }
})();
