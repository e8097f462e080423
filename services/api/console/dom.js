// Creates elements. Text becomes text nodes, never markup, whatever it contains.

/**
 * Create an element. Attributes named `on...` are listeners; false and null are left out.
 * Children are elements, strings, or null for nothing.
 */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  append(made, children);
  return made;
}

/** Replace all children of the element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** A number with its noun, singular or plural. */
export function count(number, singular, plural = `${singular}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? singular : plural}`;
}

/** Call `act` after `milliseconds` without another call. */
export function settled(act, milliseconds = 180) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), milliseconds);
  };
}

/** Show a short message. */
export function toast(text, kind = "plain") {
  const shown = el("p", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), 6000);
}

/** Ask the user before a change for everybody; true if confirmed. */
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const dialog = el(
      "dialog",
      { "aria-labelledby": "confirm-title" },
      el("h2", { id: "confirm-title" }, title),
      el("p", {}, text),
      el(
        "div",
        { class: "buttons" },
        el("button", { type: "button", class: "quiet", onclick: () => dialog.close("no") }, "Cancel"),
        el("button", { type: "button", class: "strong", onclick: () => dialog.close("yes") }, action),
      ),
    );
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
