// Work: how far the offline steps are, and which preference updates wait.

import { get } from "./api.js";
import { quarantine } from "./catalogue.js";
import { count, el, fill } from "./dom.js";
import { guarded, loading } from "./states.js";

const MILLISECONDS = 2000;
const STATES = {
  done: "Done", "under-way": "Under way", missing: "Not run", unreadable: "Unreadable",
};

export function workView(place, signal) {
  const updates = el("dl", { class: "figures" });
  const steps = el("div", {}, loading());
  fill(
    place,
    el("div", { class: "head" }, el("h1", {}, "Work")),
    el("section", {}, el("h2", {}, "Interactions on their way into preferences"), updates),
    el("section", {}, el("h2", {}, "Offline steps"), steps),
  );
  let shown = "";
  follow();

  async function follow() {
    while (!signal.aborted) {
      await guarded(steps, signal, look);
      await new Promise((resolve) => setTimeout(resolve, MILLISECONDS));
    }
  }

  async function look() {
    const response = await get("/progress", { signal });
    fill(
      updates,
      figure("Waiting", response.updates.num_waiting.toLocaleString("en")),
      figure("Oldest waits", `${response.updates.lag_seconds.toFixed(1)} s`),
      figure("Given up", response.updates.num_dead.toLocaleString("en")),
    );
    // Render only changes, so that opened details stay open.
    const now = JSON.stringify(response.steps);
    if (now === shown) return;
    shown = now;
    fill(
      steps,
      response.steps.length === 0
        ? el("p", {}, "This server has no data folder.")
        : el("ol", { class: "steps" }, response.steps.map(step)),
    );
  }
}

function figure(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}

function step(each) {
  const counts = Object.entries(each.counts)
    .filter(([, number]) => number > 0)
    .map(([name, number]) => `${number.toLocaleString("en")} ${name.replaceAll("_", " ")}`);
  return el(
    "li",
    { class: "card step" },
    el(
      "div",
      { class: "what" },
      el("h3", {}, each.artifact),
      el("code", {}, `msr ${each.command}`),
      each.model && el("p", { class: "hint" }, `by ${each.model_name || each.model}`),
    ),
    el("p", { class: `badge ${each.state}` }, STATES[each.state]),
    el(
      "div",
      { class: "counts" },
      el("p", {}, counts.join(" · ")),
      each.texts && texts(each.texts),
      each.num_parts > 0 &&
        el("p", { class: "hint" }, `${count(each.num_parts, "part")} of an unfinished run`),
      each.num_quarantined > 0 && quarantine(each),
    ),
  );
}

/** How much the texts vary, and what is wrong if they do not. */
function texts(found) {
  const parts = [
    `${found.num_distinct.toLocaleString("en")} distinct texts`,
    `the most frequent one ${(100 * found.most_frequent_share).toFixed(0)} %`,
    found.num_empty > 0 && `${found.num_empty.toLocaleString("en")} empty`,
    found.num_cut > 0 && `${found.num_cut.toLocaleString("en")} cut at the token limit`,
  ];
  return [
    el("p", { class: "hint" }, parts.filter(Boolean).join(" · ")),
    found.warning && el("p", { class: "banner" }, `${found.warning}.`),
  ];
}
