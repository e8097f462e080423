// The catalogue: every item with its summary, and the rows that could not be used.

import { get, query } from "./api.js";
import { cover } from "./covers.js";
import { count, el, fill, settled } from "./dom.js";
import { emptySystem, guarded, loading, message } from "./states.js";

const PAGE = 48;
const STATUSES = { "": "All", ready: "Described", pending: "Waiting", failed: "Failed" };

export function catalogueView(place, signal) {
  let status = "";
  let offset = 0;
  const field = el("input", {
    id: "item-search", type: "search", placeholder: "fox snow…", autocomplete: "off",
    oninput: settled(() => list(0)),
  });
  const total = el("p", { class: "total", role: "status" });
  const filters = el("div", { class: "filters", role: "group", "aria-label": "Status" });
  const results = el("div", { class: "results" });
  const leftOut = el("div");
  fill(
    place,
    el(
      "div",
      { class: "head" },
      el("div", {}, el("h1", {}, "Catalogue"), total),
      el(
        "form",
        { class: "search", role: "search", onsubmit: (event) => event.preventDefault() },
        el("label", { for: "item-search" }, "Find by words of the title, or by id"),
        el("div", { class: "row" }, field),
      ),
    ),
    filters,
    results,
    leftOut,
  );

  let asked = new AbortController();
  signal.addEventListener("abort", () => asked.abort());
  list(0);
  showLeftOut().catch(() => fill(leftOut)); // the list above shows the error

  function list(from) {
    offset = from;
    asked.abort();
    asked = new AbortController();
    const mine = asked.signal;
    if (results.childElementCount === 0) fill(results, loading());
    return guarded(results, mine, async () => {
      const search = field.value.trim();
      const fields = { search, status, offset, limit: PAGE };
      const found = await get(`/items${query(fields)}`, { signal: mine });
      const num = Object.values(found.num_by_status).reduce((sum, each) => sum + each, 0);
      total.textContent = (found.complete ? "" : "at least ") + count(num, "item");
      fill(filters, Object.keys(STATUSES).map((each) => filter(each, found.num_by_status, num)));
      if (num === 0) return fill(results, emptySystem());
      if (found.items.length === 0) {
        return fill(results, message("No item found", "No title has words that begin like that."));
      }
      return fill(
        results,
        el("ul", { class: "items" }, found.items.map(itemCard)),
        pager(found.num_matching, found.items.length),
      );
    });
  }

  function filter(each, byStatus, num) {
    const number = each ? (byStatus[each] ?? 0) : num;
    return el(
      "button",
      {
        type: "button",
        "aria-pressed": String(each === status),
        onclick: () => {
          status = each;
          list(0);
        },
      },
      `${STATUSES[each]} `,
      el("span", { class: "number" }, number.toLocaleString("en")),
    );
  }

  function pager(numMatching, numShown) {
    const turn = (to) => () => {
      list(to);
      scrollTo(0, 0);
    };
    const last = offset + numShown;
    return el(
      "nav",
      { class: "pager", "aria-label": "Pages" },
      el(
        "button",
        { type: "button", disabled: offset === 0, onclick: turn(Math.max(0, offset - PAGE)) },
        "Previous",
      ),
      el("span", {}, `${(offset + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ` +
        numMatching.toLocaleString("en")),
      el(
        "button",
        { type: "button", disabled: last >= numMatching, onclick: turn(offset + PAGE) },
        "Next",
      ),
    );
  }

  async function showLeftOut() {
    const { steps } = await get("/progress", { signal });
    const left = steps.filter((step) => step.num_quarantined > 0);
    if (left.length === 0) return;
    fill(leftOut, el("h2", {}, "Left out by the offline steps"), left.map(quarantine));
  }
}

/** The rows that a step left out, with the reasons. */
export function quarantine(step) {
  return el(
    "details",
    { class: "quarantine" },
    el("summary", {}, `${step.command}: ${count(step.num_quarantined, "row")}`),
    el(
      "dl",
      {},
      step.quarantined.map((row) => [el("dt", {}, row.row), el("dd", {}, row.reason)]),
    ),
    step.num_quarantined > step.quarantined.length &&
      el("p", { class: "hint" }, `The first ${step.quarantined.length}; the manifest has more.`),
  );
}

function itemCard(item) {
  const texts = {
    ready: item.summary,
    pending: "Waits for its summary.",
    failed: item.reason ?? "No reason is known.",
  };
  return el(
    "li",
    { class: `card item ${item.status}` },
    cover(item, 160),
    el(
      "div",
      {},
      el("h2", {}, item.title),
      el("p", { class: "id" }, item.item_id),
      item.status !== "ready" && el("p", { class: `badge ${item.status}` }, STATUSES[item.status]),
      el("p", { class: "summary" }, texts[item.status]),
    ),
  );
}
