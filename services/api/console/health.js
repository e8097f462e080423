// Health: the state of each component, and the versions in use.

import { get, health } from "./api.js";
import { el, fill } from "./dom.js";

const MILLISECONDS = 3000;
const NAMES = {
  redis: "Store (Redis)", engine: "Model", artifacts: "Artifacts", adapters: "Adapters", texts: "Texts",
};
const STATES = { ok: "Well", degraded: "Degraded", down: "Down", unreachable: "No answer" };
const FACTS = {
  version: "Version", commit: "Commit", model_name: "Model", model: "Model's fingerprint",
  writer_name: "Writer of preferences", adapter_name: "Adapter", adapter: "Adapter's fingerprint", retrieval: "Cheap rankers",
  ranker: "Fusion", cheap_order: "Candidates ordered by", final_order: "Scored items ordered by",
};

export function healthView(place, signal) {
  const components = el("ul", { class: "components" });
  const facts = el("dl", { class: "facts" });
  fill(
    place,
    el("div", { class: "head" }, el("h1", {}, "Health")),
    components,
    el("h2", {}, "What runs here"),
    facts,
  );
  follow();

  async function follow() {
    while (!signal.aborted) {
      const response = await health();
      if (signal.aborted) return;
      fill(
        components,
        component("Service", response.status, ""),
        Object.entries(response.components).map(([name, { state, detail }]) =>
          component(NAMES[name] ?? name, state, detail),
        ),
      );
      await version().catch(() => fill(facts));
      await new Promise((resolve) => setTimeout(resolve, MILLISECONDS));
    }
  }

  async function version() {
    const response = await get("/version", { signal });
    const rows = Object.entries(FACTS).map(([field, name]) => [name, response[field] || "none"]);
    for (const [name, fingerprint] of Object.entries(response.prompts)) {
      rows.push([`Prompt: ${name}`, fingerprint]);
    }
    fill(facts, rows.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }
}

function component(name, state, detail) {
  return el(
    "li",
    { class: "card component" },
    el("h2", {}, name),
    el("p", { class: `badge ${state}` }, STATES[state] ?? state),
    detail && el("p", { class: "hint" }, detail),
  );
}
