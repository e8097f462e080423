// Users: by the beginning of their id, at random, or as personas.

import { get, query, segment } from "./api.js";
import { count, el, fill, settled } from "./dom.js";
import { personas } from "./personas.js";
import { emptySystem, guarded, loading, message } from "./states.js";

const LIMIT = 24;

export function usersView(place, signal) {
  const field = el("input", {
    id: "user-search", type: "search", placeholder: "user-00…", autocomplete: "off",
    spellcheck: "false", oninput: settled(() => list(false)),
  });
  const total = el("p", { class: "total", role: "status" });
  const named = el("div", { class: "named" });
  const results = el("div", { class: "results" });
  fill(
    place,
    el(
      "div",
      { class: "head" },
      el("div", {}, el("h1", {}, "Users"), total),
      el(
        "form",
        { class: "search", role: "search", onsubmit: submit },
        el("label", { for: "user-search" }, "Find by the beginning of an id"),
        el(
          "div",
          { class: "row" },
          field,
          el("button", { type: "button", onclick: () => list(true) }, "Shuffle"),
          el("button", { type: "button", class: "strong", onclick: beSomebodyNew }, "Be somebody new"),
        ),
      ),
    ),
    named,
    results,
  );

  let asked = new AbortController();
  let known = null; // the personas, once they were asked for
  signal.addEventListener("abort", () => asked.abort());
  list(true);

  function submit(event) {
    event.preventDefault();
    const first = results.querySelector("a");
    if (first) location.hash = first.hash;
  }

  function list(random) {
    asked.abort();
    asked = new AbortController();
    const mine = asked.signal;
    if (results.childElementCount === 0) fill(results, loading());
    return guarded(results, mine, async () => {
      const prefix = field.value.trim();
      const [found, listed] = await Promise.all([
        get(`/users${query({ prefix, limit: LIMIT, random })}`, { signal: mine }),
        known ?? personas(mine),
      ]);
      known = listed;
      fill(named, prefix === "" && known);
      const any = found.num_users > 0 || (await hasItems(mine));
      if (!any) return fill(results, emptySystem());
      const most = found.complete ? "" : "at least ";
      total.textContent = prefix
        ? `${count(found.num_matching, "user")} of ${most}${found.num_users.toLocaleString("en")}`
        : most + count(found.num_users, "user");
      if (found.users.length === 0) {
        return fill(results, message("Nobody found", nobody(prefix)));
      }
      return fill(results, el("ul", { class: "people" }, found.users.map(person)));
    });
  }
}

async function hasItems(signal) {
  const found = await get("/items?limit=1", { signal });
  return found.num_matching > 0;
}

function nobody(prefix) {
  return prefix
    ? "No user's id begins like that. Ids are matched letter by letter, from the start."
    : "There are items, but no users yet. Be somebody new, and take a few.";
}

function person(user) {
  const waits = user.history_version - user.preference_version;
  return el(
    "li",
    {},
    el(
      "a",
      { class: "card person", href: `#/users/${segment(user.user_id)}` },
      el("span", { class: "id" }, user.user_id),
      el("span", { class: "taste" }, user.preference || "No preference is written yet."),
      el(
        "span",
        { class: "facts" },
        count(user.history_version, "interaction"),
        waits > 0 && ` · ${waits} not in it yet`,
      ),
    ),
  );
}

function beSomebodyNew() {
  const digits = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
  location.hash = `#/users/visitor-${digits}`;
}
