// Adapters: the active one, the others, the experiment and the shadow.

import { ApiError, call, get, segment } from "./api.js";
import { confirmed, el, fill, toast } from "./dom.js";
import { guarded, loading } from "./states.js";
import { experimentPanel, shadowPanel } from "./experiments.js";

const METRICS = ["auc", "mrr@5", "ndcg@10", "hr@10"];
const FOREIGN =
  "Its figures were measured on another catalogue than this one, or on preferences of another model, " +
  "and say nothing about this deployment. Train it here (msr train), or measure it (msr evaluate).";
const ROLES = { active: "Active", previous: "Previous", shadow: "Shadow", arm: "In the experiment" };

export function adaptersView(place, signal) {
  const body = el("div", {}, loading());
  fill(place, el("div", { class: "head" }, el("h1", {}, "Adapters")), body);
  guarded(body, signal, async () => show(await get("/adapters", { signal })));

  function show(response) {
    fill(
      body,
      response.problem && el("p", { class: "banner" }, response.problem),
      response.previous &&
        el(
          "p",
          { class: "roll-back" },
          el(
            "button",
            { type: "button", onclick: () => rollBack(response), disabled: response.experiment !== null },
            `Roll back to ${response.previous}`,
          ),
        ),
      el(
        "div",
        { class: "experiments" },
        experimentPanel(response, change),
        shadowPanel(response, change),
      ),
      el("ul", { class: "adapter-list" }, response.adapters.map((adapter) => card(adapter, response))),
    );
  }

  function card(adapter, response) {
    const isActive = adapter.name === response.active;
    const facts = [
      ["Trained by", adapter.stage ?? "not known"],
      ["Protocol", adapter.protocol],
      ["Ranks by", adapter.ranked_by],
      ...METRICS.map((name) => [
        adapter.validation_is_foreign ? `Elsewhere: ${name}` : `Validation ${name}`,
        adapter.validation?.[name]?.toFixed(3),
      ]),
      ["Weights", adapter.weights || "the base model alone"],
    ].filter(([, value]) => value !== null && value !== undefined);
    return el(
      "li",
      { class: "card adapter" },
      el("h2", {}, adapter.name || "Base model"),
      el(
        "p",
        { class: "badges" },
        adapter.roles.map((role) => el("span", { class: `badge ${role}` }, ROLES[role])),
        !adapter.servable && el("span", { class: "badge failed" }, "Cannot serve"),
      ),
      adapter.validation_is_foreign && el("p", { class: "banner" }, FOREIGN),
      el("dl", {}, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
      adapter.reason && el("p", { class: "hint" }, adapter.reason),
      adapter.note && el("p", { class: "hint" }, adapter.note),
      adapter.servable && !isActive && adapter.name &&
        el(
          "button",
          {
            type: "button",
            disabled: response.experiment !== null,
            onclick: () => activate(adapter.name, response.active),
          },
          "Activate",
        ),
    );
  }

  async function activate(name, active) {
    const text = `From the next request on ${name} scores for everybody instead of ${active}.`;
    if (await confirmed(`Activate ${name}?`, text, "Activate")) {
      await change("POST", `/adapters/${segment(name)}/activate`, `${name} is active`);
    }
  }

  async function rollBack(response) {
    const text = `From the next request on ${response.previous} scores for everybody again instead of ` +
      `${response.active}.`;
    if (await confirmed(`Roll back to ${response.previous}?`, text, "Roll back")) {
      await change("POST", "/adapters/rollback", `${response.previous} is active again`);
    }
  }

  async function change(method, path, done, body) {
    try {
      show(await call(method, path, { body }));
      toast(done, "good");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      toast(error.message, "bad");
    }
  }
}
