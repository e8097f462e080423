// What a user would take next: ranked, with P(Yes), and why.
//
// The cheap rankers answer at once, so their order is shown first; the model's scores follow.

import { ApiError, call, get, query } from "./api.js";
import { cover } from "./covers.js";
import { el, fill } from "./dom.js";
import { guarded } from "./states.js";

const K = 20;
const SCALES = [0.05, 0.1, 0.2, 0.5, 1];
const SOURCES = {
  sequential: "from the order of the history",
  neighbors: "often taken together",
  trending: "trending",
  titles: "a title like theirs",
  new: "new",
  caller: "asked for",
};
const PARTS = {
  popularity: "Popularity",
  trending: "Trending",
  neighbors: "Taken together",
  sequential: "Order of the history",
  titles: "Likeness of titles",
  recency: "Recency",
  margin: "The model's margin",
  intercept: "Base rate",
};
const REASONS = {
  deadline: "The model was late: what it has not scored keeps its cheap place.",
  shed: "The model has too much to do and was not asked for all of these.",
  "engine-timeout": "The model did not answer in time.",
  "engine-unavailable": "The model is away. The order is that of the cheap rankers.",
  "engine-overloaded": "The model is busy. The order is that of the cheap rankers.",
  "engine-refused": "The model refused some of the prompts.",
  "engine-failed": "The model failed. The order is that of the cheap rankers.",
};
const CAVEATS = {
  "texts-alike": "The model writes the same text about many items: its P(Yes) means little here.",
  "texts-of-another-model":
    "Another model wrote this preference. It is written anew as soon as the worker comes to it.",
  "model-of-another-catalogue":
    "The model knows another catalogue only: its P(Yes) means nothing here.",
};
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** The panel as {element, refresh(version)}; calls `onTake(item)` when the user takes an item. */
export function rankingPanel(userId, signal, onTake) {
  const items = new Map();
  const cards = new Map();
  const line = el("p", { class: "hint", role: "status" });
  const banner = el("div", { role: "status" });
  const list = el("ol", { class: "ranking", "aria-busy": "true" });
  const element = el(
    "section",
    { class: "recommendations" },
    el("div", { class: "title" }, el("h2", {}, "Next"), line),
    banner,
    list,
  );
  let asked = new AbortController();
  let ranks = new Map();
  signal.addEventListener("abort", () => asked.abort());

  /** Rank again, with a preference that covers `version` if one is given. */
  async function refresh(version = null) {
    asked.abort();
    asked = new AbortController();
    const mine = asked.signal;
    list.setAttribute("aria-busy", "true");
    await guarded(banner, mine, async () => {
      if (cards.size === 0) {
        line.textContent = "Looking for candidates…";
        await show(await recommend({ mode: "cheap" }, mine), mine, true);
        banner.replaceChildren();
      }
      line.textContent = "The model scores…";
      const answer = await recommend({ at_least_version: version ?? undefined }, mine);
      await show(answer, mine, false);
      list.removeAttribute("aria-busy");
      line.textContent = describe(answer);
      fill(
        banner,
        answer.degraded && el("p", { class: "banner" }, REASONS[answer.reason]),
        answer.caveats.map((caveat) => el("p", { class: "banner" }, CAVEATS[caveat] ?? caveat)),
      );
    });
  }

  function recommend(fields, mine) {
    const body = { user_id: userId, k: K, ...fields };
    return call("POST", "/recommend", { body, signal: mine });
  }

  async function show(answer, mine, pending) {
    const unknown = answer.items.map((place) => place.item_id).filter((id) => !items.has(id));
    if (unknown.length > 0) {
      const found = await get(`/items${query({ item_id: unknown })}`, { signal: mine });
      for (const item of found.items) items.set(item.item_id, item);
    }
    if (mine.aborted) return;
    const before = new Map([...cards].map(([id, card]) => [id, card.getBoundingClientRect().top]));
    const focused = document.activeElement?.closest("[data-item]")?.dataset.item;
    const control = document.activeElement?.matches("summary") ? "summary" : "button";
    const wasRanked = ranks;
    if (!pending) ranks = new Map(answer.items.map((place) => [place.item_id, place.rank]));
    const scale = scaleOf(answer.items);
    const shown = answer.items.map((place) => {
      const item = items.get(place.item_id) ?? nameless(place.item_id);
      const open = cards.get(place.item_id)?.querySelector("details")?.open ?? false;
      const as = { pending, moved: moved(place, wasRanked), open, onTake, scale };
      return card(place, item, as);
    });
    cards.clear();
    answer.items.forEach((place, index) => cards.set(place.item_id, shown[index]));
    fill(list, shown.length > 0 ? shown : el("li", { class: "none" }, "Nothing is left to take."));
    if (focused) cards.get(focused)?.querySelector(control)?.focus({ preventScroll: true });
    if (!still.matches) glide(before);
  }

  /** Animate the cards from their old places to the new ones. */
  function glide(before) {
    for (const [id, card] of cards) {
      if (!before.has(id)) continue;
      const from = before.get(id) - card.getBoundingClientRect().top;
      if (from === 0) continue;
      card.animate([{ transform: `translateY(${from}px)` }, { transform: "none" }], {
        duration: 350,
        easing: "cubic-bezier(0.2, 0.7, 0.2, 1)",
      });
    }
  }

  return { element, refresh };
}

/** Places gained (negative: lost); "new" for an item that was not shown; null before the model's
 * first order. */
function moved(place, wasRanked) {
  if (wasRanked.size === 0) return null;
  if (!wasRanked.has(place.item_id)) return "new";
  return wasRanked.get(place.item_id) - place.rank;
}

/** The probability of a full bar: few items are likely, so it is rarely 100 %. */
function scaleOf(places) {
  const most = Math.max(...places.map((place) => place.probability ?? 0), 0);
  return SCALES.find((scale) => scale >= most);
}

function nameless(itemId) {
  return { item_id: itemId, title: itemId, summary: null, has_image: false, version: "" };
}

function describe(answer) {
  const seconds = answer.timings.total_seconds;
  const time = seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
  const who = answer.cold ? "not personal yet" : `${answer.num_scored} scored by the model`;
  const cached = answer.num_cached > 0 ? `, ${answer.num_cached} remembered` : "";
  const arm = answer.arm ? ` · arm ${answer.arm}` : "";
  const bars = answer.num_scored > 0 ? ` · bars end at ${100 * scaleOf(answer.items)} %` : "";
  return `${who}${cached} · ${time}${arm}${bars}`;
}

function card(place, item, { pending, moved: places, open, onTake, scale }) {
  return el(
    "li",
    { class: "card place", "data-item": place.item_id },
    el("span", { class: "rank" }, el("span", {}, place.rank), movement(places)),
    el(
      "button",
      { type: "button", class: "take", onclick: () => onTake(item) },
      cover(item, 160),
      el(
        "span",
        { class: "words" },
        el("span", { class: "name" }, item.title),
        el("span", { class: "summary" }, item.summary ?? "Not described yet."),
      ),
      el("span", { class: "pill" }, "Take"),
    ),
    el(
      "div",
      { class: "under" },
      probability(place, pending, scale),
      el(
        "details",
        { open },
        el("summary", {}, "Why"),
        el("p", { class: "hint" }, `Found: ${SOURCES[place.source] ?? place.source}. Placed by ${place.scored_by}.`),
        features(place.parts),
      ),
    ),
  );
}

function movement(places) {
  if (places === null || places === 0) return null;
  if (places === "new") return el("span", { class: "moved up" }, "new");
  const up = places > 0;
  const text = `${up ? "up" : "down"} ${Math.abs(places)}`;
  return el(
    "span",
    { class: `moved ${up ? "up" : "down"}` },
    el("span", { "aria-hidden": "true" }, `${up ? "▲" : "▼"} ${Math.abs(places)}`),
    el("span", { class: "unseen" }, text),
  );
}

function probability(place, pending, scale) {
  if (place.probability === null) {
    return el(
      "div",
      { class: `yes ${pending ? "pending" : "unscored"}` },
      el("span", { class: "label" }, "P(Yes)"),
      el("span", { class: "meter", "aria-hidden": "true" }),
      el("span", { class: "number" }, pending ? "pending" : "not scored"),
    );
  }
  const bar = el("span", { class: "fill" });
  bar.style.setProperty("--share", place.probability / scale);
  return el(
    "div",
    { class: "yes" },
    el("span", { class: "label" }, "P(Yes)"),
    el("span", { class: "meter", "aria-hidden": "true" }, bar),
    el("span", { class: "number" }, `${(100 * place.probability).toFixed(1)} %`),
  );
}

/** Each contribution to the log-odds, left of the middle if it counts against the item. */
function features(values) {
  const counted = Object.entries(values).filter(([, feature]) => feature.contribution !== null);
  const largest = Math.max(...counted.map(([, feature]) => Math.abs(feature.contribution)), 1);
  return el(
    "table",
    { class: "features" },
    el("caption", { class: "unseen" }, "What each feature adds to the log-odds of the score"),
    counted.map(([name, feature]) => {
      const bar = el("span", { class: `fill ${feature.contribution < 0 ? "against" : "for"}` });
      bar.style.setProperty("--share", Math.abs(feature.contribution) / largest);
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, PARTS[name] ?? name),
        el("td", { class: "balance", "aria-hidden": "true" }, bar),
        el("td", { class: "number" }, signed(feature.contribution)),
      );
    }),
  );
}

function signed(number) {
  return `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(2)}`;
}

/** Send an interaction; returns the history's version after it. Raises ApiError. */
export async function take(userId, itemId) {
  const answer = await call("POST", "/interactions", {
    body: { user_id: userId, item_id: itemId },
  });
  if (answer.rejected.length > 0) {
    throw new ApiError(422, { title: "Not taken in", detail: answer.rejected[0].reason }, null);
  }
  return answer.versions[userId];
}

