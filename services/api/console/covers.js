// Covers: resized by the server, cached by the browser; a letter for an item without one.

import { apiKey, ask, query, segment } from "./api.js";
import { el } from "./dom.js";

// An image element sends no key. If keys are needed, covers are fetched when they come into view.
const waiting = new WeakMap();
const inView = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    inView.unobserve(entry.target);
    load(entry.target, waiting.get(entry.target));
  }
});

/** A square for an item: {item_id, title, version, has_image}. `width` is 96, 160 or 320. */
export function cover(item, width = 160) {
  const frame = el("span", { class: "cover", "aria-hidden": "true" });
  if (!item || !item.has_image) {
    frame.classList.add("blank");
    frame.append((item?.title ?? "?").trim().slice(0, 1).toUpperCase() || "?");
    return frame;
  }
  const asked = query({ width, version: item.version });
  const path = `/items/${segment(item.item_id)}/cover${asked}`;
  const image = el("img", { alt: "", loading: "lazy", decoding: "async", width: 80, height: 80 });
  image.addEventListener("error", () => frame.classList.add("blank"));
  frame.append(image);
  if (apiKey()) {
    waiting.set(image, path);
    inView.observe(image);
  } else {
    image.src = path;
  }
  return frame;
}

/** The item of an entry of a history, as an argument of `cover`. */
export function asItem(each) {
  return {
    item_id: each.item_id,
    title: each.title ?? each.item_id,
    version: each.item_version,
    has_image: each.has_image,
  };
}

async function load(image, path) {
  try {
    const response = await ask("GET", path);
    const address = URL.createObjectURL(await response.blob());
    image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    image.src = address;
  } catch {
    image.parentElement?.classList.add("blank");
  }
}
