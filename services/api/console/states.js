// What a view shows without data: loading, empty, refused, unavailable.

import { ApiError } from "./api.js";
import { el, fill } from "./dom.js";

export function loading(text = "Loading…") {
  return el("p", { class: "loading", role: "status" }, text);
}

/** A message, with commands that help. */
export function message(title, text, commands = []) {
  return el(
    "section",
    { class: "message" },
    el("h2", {}, title),
    el("p", {}, text),
    commands.length > 0 && el("pre", { tabindex: "0" }, el("code", {}, commands.join("\n"))),
  );
}

export function emptySystem() {
  return message(
    "There is nothing here yet",
    "No users and no items are published. Prepare a catalogue and serve it, or try the demo world:",
    [
      "make demo",
      "",
      "msr prepare-catalogue --catalogue FOLDER --data D",
      "msr summarize-images  --data D",
      "msr build-preferences --data D --cut none",
      "msr serve             --data D",
    ],
  );
}

/** Run `show`; replaces the content by an error, and tries again where that may help. */
export async function guarded(place, signal, show) {
  try {
    await show();
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    if (!(error instanceof ApiError)) throw error;
    fill(place, failure(error));
    const passes = error.status === 0 || error.status === 429 || error.status >= 500;
    if (!passes) return;
    await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retrySeconds ?? 3)));
    if (!signal.aborted) await guarded(place, signal, show);
  }
}

function failure(error) {
  if (error.status === 0) {
    return message("The server does not answer", "Is it running? This page tries again by itself.");
  }
  if (error.type === "/problems/state-unavailable") {
    return message(
      "The store is away",
      "Redis does not answer, so nothing can be read. This page tries again by itself.",
    );
  }
  if (error.status === 401) {
    return message("An API key is needed", "Enter one that has the scope `read`.");
  }
  if (error.status === 403) return message("This key may not see that", error.message);
  return message(error.title, error.message);
}
