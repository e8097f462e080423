// Personas: users of the data folder who are worth a look, under names that say why.

import { get, segment } from "./api.js";
import { asItem, cover } from "./covers.js";
import { el } from "./dom.js";

const UNREADABLE = "/problems/personas-unreadable";

/** The personas as elements; an empty list if there are none. */
export async function personas(signal) {
  try {
    const found = await get("/personas", { signal });
    return found.personas.length > 0 ? section(found.personas.map(card)) : [];
  } catch (error) {
    if (error.type !== UNREADABLE) throw error;
    return el("p", { class: "banner" }, error.message); // all else is there
  }
}

function section(cards) {
  return [
    el(
      "section",
      { class: "personas", "aria-labelledby": "personas-title" },
      el("h2", { id: "personas-title" }, "Personas to try"),
      el("ul", {}, cards),
    ),
    el("h2", {}, "All users"),
  ];
}

function card(persona) {
  return el(
    "li",
    {},
    el(
      "a",
      { class: "card persona", href: `#/users/${segment(persona.user_id)}` },
      el(
        "span",
        { class: "these" },
        persona.last_taken.map((each) => cover(asItem(each), 96)),
      ),
      el("span", { class: "name" }, persona.name),
      el("span", { class: "about" }, persona.about),
    ),
  );
}
