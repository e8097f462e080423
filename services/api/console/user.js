// One user: the history, the preference and its timeline, and the ranking.

import { ApiError, followPreference, get, query, segment } from "./api.js";
import { asItem, cover } from "./covers.js";
import { wordDiff } from "./diff.js";
import { count, el, fill, toast } from "./dom.js";
import { rankingPanel, take } from "./ranking.js";
import { guarded, loading } from "./states.js";

const SHOWN_HISTORY = 60;
const SHOWN_BLOCKS = 5;

export function userView(place, userId, signal) {
  const live = el("span", { class: "live", role: "status" });
  const history = el("section", { class: "history" }, el("h2", {}, "Took, oldest first"), loading());
  const preference = el("section", { class: "preference" }, el("h2", {}, "Preference"), loading());
  const timeline = el("section", { class: "timeline" });
  const ranking = rankingPanel(userId, signal, onTake);
  fill(
    place,
    el(
      "div",
      { class: "head" },
      el("div", {}, el("p", { class: "crumb" }, el("a", { href: "#/users" }, "Users")),
        el("h1", {}, userId)),
      live,
    ),
    el(
      "div",
      { class: "columns" },
      el("div", { class: "known" }, preference, history, timeline),
      ranking.element,
    ),
  );

  let latest = null; // the last preference that the server sent
  let before = ""; // the text that the current one took the place of
  const titles = new Map();
  let isHistoryThere = false;
  let numBlocksShown = SHOWN_BLOCKS;
  let taken = 0; // the history's version after what was taken here
  let following = null;

  ranking.refresh();
  guarded(history, signal, loadHistory);

  // --- events ------------------------------------------------------------------------------

  async function loadHistory() {
    let found;
    try {
      const limit = query({ limit: SHOWN_HISTORY });
      found = await get(`/users/${segment(userId)}/history${limit}`, { signal });
    } catch (error) {
      if (error.status !== 404) throw error;
      fill(history, el("h2", {}, "Took"), el("p", { class: "hint" }, "Nothing yet."));
      fill(
        preference,
        el("h2", {}, "Preference"),
        el("p", { class: "text none" }, "Nothing is known yet. Take something."),
      );
      setLive("");
      return;
    }
    for (const each of found.interactions) titles.set(each.item_id, each);
    fill(
      history,
      el("h2", {}, "Took, oldest first ", el("span", { class: "number" }, found.history_version)),
      covers(found),
    );
    isHistoryThere = true;
    following ??= follow();
    if (latest) showTimeline();
  }

  /** Load the titles of timeline items that are not in the shown part of the history. */
  async function nameMissing(entries) {
    const missing = [...new Set(entries.flatMap((entry) => entry.ids))].filter((id) => !titles.has(id));
    if (missing.length === 0 || !isHistoryThere) return;
    for (const id of missing) titles.set(id, { item_id: id });
    const found = await get(`/items${query({ item_id: missing })}`, { signal });
    for (const item of found.items) titles.set(item.item_id, { ...item, item_version: item.version });
    showTimeline();
  }

  function follow() {
    return followPreference(userId, {
      signal,
      onPreference,
      onForgotten: () => {
        following = null;
        latest = null;
        toast("This user was forgotten.");
        fill(timeline);
        guarded(history, signal, loadHistory);
        ranking.refresh();
      },
      onLive: (isLive) => setLive(isLive ? "Live" : "Reconnecting…"),
    });
  }

  function onPreference(now) {
    const was = latest;
    latest = now;
    if (was && was.preference !== now.preference) before = was.preference;
    if (was && was.history_version !== now.history_version) guarded(history, signal, loadHistory);
    showPreference();
    showTimeline();
    const isNews = was ? was.preference_version !== now.preference_version : taken > 0;
    if (isNews) ranking.refresh(Math.max(taken, now.preference_version));
  }

  async function onTake(item) {
    try {
      taken = await take(userId, item.item_id);
      titles.set(item.item_id, { ...item, item_version: item.version });
      toast(`Took “${item.title}”`, "good");
      preference.setAttribute("aria-busy", "true");
      if (!following) await guarded(history, signal, loadHistory);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      toast(`Not taken: ${error.message}`, "bad");
    }
  }

  function setLive(text) {
    live.textContent = text;
    live.dataset.on = String(text === "Live");
  }

  // --- rendering ------------------------------------------------------------------------------

  function covers(found) {
    const strip = el(
      "ol",
      { class: "strip", tabindex: "0", "aria-label": "Items taken, oldest first" },
      found.num_earlier > 0 && el("li", { class: "earlier" }, `${count(found.num_earlier, "earlier one")}`),
      found.interactions.map((each) => el("li", {}, figure(each))),
    );
    requestAnimationFrame(() => strip.scrollTo({ left: strip.scrollWidth }));
    return strip;
  }

  function figure(each) {
    const title = each.title ?? each.item_id;
    return el("figure", { title }, cover(asItem(each), 96), el("figcaption", {}, title));
  }

  function showPreference() {
    const waits = latest.history_version - latest.preference_version;
    if (waits > 0) preference.setAttribute("aria-busy", "true");
    else preference.removeAttribute("aria-busy");
    const text = before
      ? wordDiff(before, latest.preference)
          .filter(([kind]) => kind !== "removed")
          .map(([kind, words]) => [kind === "added" ? el("mark", {}, words) : words, " "])
      : latest.preference;
    fill(
      preference,
      el("h2", {}, "Preference"),
      el(
        "p",
        { class: "text", "aria-live": "polite", "data-version": latest.preference_version },
        latest.preference ? text : "Not written yet.",
      ),
      el(
        "p",
        { class: "hint" },
        waits > 0
          ? `${count(waits, "interaction")} on the way into it…`
          : `Covers all ${count(latest.history_version, "interaction")}`,
        ` · ${count(latest.num_blocks, "full block")}`,
        latest.tail.length > 0 && `, ${latest.tail.length} since`,
      ),
      latest.by_another_model &&
        el("p", { class: "hint" }, "Another model than this server's wrote it; it is written anew."),
    );
  }

  function showTimeline() {
    const blocks = latest.timeline;
    const entries = blocks.map((block, index) => ({
      name: `Block ${block.number}`,
      ids: block.item_ids,
      text: block.preference,
      was: index > 0 ? blocks[index - 1].preference : "",
      when: block.written_ms,
      isFirst: index === 0 && block.number === 1,
    }));
    if (latest.tail.length > 0) {
      const last = blocks.at(-1)?.preference ?? "";
      entries.push({
        name: "Since then", ids: latest.tail, text: latest.preference, was: last, when: null,
        isFirst: blocks.length === 0,
      });
    }
    if (entries.length === 0) return fill(timeline);
    const shown = entries.slice(-numBlocksShown).reverse();
    nameMissing(shown).catch(() => null); // they stay without an image
    return fill(
      timeline,
      el("h2", {}, "How it came about"),
      el("ol", { reversed: true }, shown.map(entryElement)),
      entries.length > shown.length &&
        el(
          "button",
          {
            type: "button",
            onclick: () => {
              numBlocksShown += 20;
              showTimeline();
            },
          },
          `Show earlier (${entries.length - shown.length})`,
        ),
    );
  }

  function entryElement({ name, ids, text, was, when, isFirst }) {
    const runs = isFirst || !was ? [["same", text]] : wordDiff(was, text);
    const unchanged = runs.length === 1 && runs[0][0] === "same" && !isFirst && was;
    const tags = { added: "ins", removed: "del", same: "span" };
    return el(
      "li",
      {},
      el(
        "div",
        { class: "when" },
        el("h3", {}, name),
        when && el("time", { datetime: new Date(when).toISOString() }, moment(when)),
      ),
      el("div", { class: "these" }, ids.map((id) => blockCover(id))),
      el(
        "p",
        { class: "change" },
        unchanged ? "Changed nothing." : runs.map(([kind, words]) => [el(tags[kind], {}, words), " "]),
      ),
    );
  }

  function blockCover(itemId) {
    const known = titles.get(itemId);
    const title = known?.title ?? itemId;
    return el(
      "span",
      { class: "small", title, role: "img", "aria-label": title },
      cover(known ? asItem(known) : null, 96),
    );
  }
}

function moment(milliseconds) {
  return new Date(milliseconds).toLocaleString("en", {
    month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
  });
}
