// The shell: the views, the key, the theme, and the notice about the service's health.

import { apiKey, health, setApiKey } from "./api.js";
import { adaptersView } from "./adapters.js";
import { catalogueView } from "./catalogue.js";
import { el, fill } from "./dom.js";
import { healthView } from "./health.js";
import { userView } from "./user.js";
import { usersView } from "./users.js";
import { workView } from "./work.js";

const HEALTH_MILLISECONDS = 5000;
const main = document.getElementById("main");
const notice = document.getElementById("notice");
const views = {
  users: usersView,
  catalogue: catalogueView,
  adapters: adaptersView,
  work: workView,
  health: healthView,
};

// --- views ----------------------------------------------------------------------------------------

let leaving = new AbortController();
let isFirst = true;

function show() {
  leaving.abort();
  leaving = new AbortController();
  const [, name = "users", id] = location.hash.split("/");
  const view = views[name] ? name : "users";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = el("div", { class: `view ${id ? "user" : view}` });
  fill(main, place);
  if (view === "users" && id) userView(place, decodeURIComponent(id), leaving.signal);
  else views[view](place, leaving.signal);
  document.title = `${main.querySelector("h1")?.textContent ?? "MSR"} · MSR`;
  if (!isFirst) main.focus({ preventScroll: true });
  if (!isFirst) scrollTo(0, 0);
  isFirst = false;
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", show);

// --- the key --------------------------------------------------------------------------------------

const keyButton = document.getElementById("key-button");
let keyDialog = null;

function askForKey() {
  if (keyDialog) return;
  const field = el("input", {
    id: "key-field", type: "password", autocomplete: "off", spellcheck: "false", required: true,
  });
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id: "key-title" }, "API key"),
    el(
      "p",
      {},
      "This server asks for a key. `msr keys create` makes one; `read` is enough to look around. It " +
        "stays in this tab and is gone when the tab is closed.",
    ),
    el("label", { for: "key-field" }, "Key"),
    field,
    el(
      "div",
      { class: "buttons" },
      apiKey() &&
        el("button", { type: "button", class: "quiet", onclick: () => useKey(null) }, "Forget it"),
      el("button", { type: "submit", class: "strong" }, "Use it"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(field.value.trim());
  });
  keyDialog = el("dialog", { "aria-labelledby": "key-title" }, form);
  keyDialog.addEventListener("close", () => {
    keyDialog.remove();
    keyDialog = null;
  });
  document.body.append(keyDialog);
  keyDialog.showModal();
}

function useKey(key) {
  setApiKey(key);
  keyDialog?.close();
  show();
}

window.addEventListener("key-needed", () => {
  keyButton.hidden = false;
  askForKey();
});
keyButton.hidden = !apiKey();
keyButton.addEventListener("click", askForKey);

// --- the theme ------------------------------------------------------------------------------------

const themeButton = document.getElementById("theme-button");
const THEMES = ["auto", "light", "dark"];

function currentTheme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function nameTheme() {
  themeButton.textContent = `Theme: ${currentTheme()}`;
}

themeButton.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("msr-theme", next);
  } catch {
    // Storage is forbidden: the choice is kept for this page only.
  }
  nameTheme();
});

// --- the service's health ---------------------------------------------------------------------------

const NOTICES = {
  unreachable: "The server does not answer. What you see may be old.",
  down: "The store is away: Redis does not answer.",
  engine: "The model does not answer. Rankings come from the cheap rankers, preferences wait.",
};

async function lookAtHealth() {
  const found = await health();
  const texts = [NOTICES[found.status]];
  if (found.status === "degraded") {
    const { engine, texts: written } = found.components;
    if (engine?.state !== "ok") texts.push(NOTICES.engine);
    // One calm sentence on every page: the texts and the scores built on them mean little.
    if (written?.state === "degraded") texts.push(`${written.detail}.`);
  }
  const now = texts.filter(Boolean);
  if (now.join("") !== notice.textContent) fill(notice, now.map((text) => el("p", {}, text)));
  notice.dataset.status = found.status;
  setTimeout(lookAtHealth, HEALTH_MILLISECONDS);
}

nameTheme();
show();
lookAtHealth();
