// An experiment, which divides the users among adapters, and a shadow, which scores requests again.
// Shows what runs, ends it, and has the forms that start one.
//
// `change(method, path, done, body)` sends a change and shows the message `done`.

import { confirmed, el } from "./dom.js";

// The server's own rule, for adapters, arms and experiments.
const NAME = "[A-Za-z0-9][A-Za-z0-9._@\\-]{0,63}";

export function experimentPanel(response, change) {
  if (response.experiment) return running(response, change);
  const names = servable(response);
  if (names.length < 2) {
    return panel("Experiment", hint("An experiment divides the users between two adapters. " +
      `${few(names)}: put another into the folder of adapters.`));
  }
  const name = field("experiment-name", "Name", el("input", {
    required: true, pattern: NAME, title: "Letters, digits and . _ @ -, up to 64",
    autocomplete: "off", spellcheck: "false", placeholder: "spring-or-summer",
  }));
  const a = field("arm-a", "Arm A", choice(names, response.active));
  const b = field("arm-b", "Arm B", choice(names, names.find((each) => each !== response.active)));
  const share = field("arm-b-share", "Users in B, in %", percentField(10, 99));
  const compare = () => {
    const same = a.input.value === b.input.value;
    b.input.setCustomValidity(same ? "Choose another adapter for B than for A." : "");
  };
  for (const each of [a, b]) each.input.addEventListener("change", compare);
  compare();

  async function start() {
    const inB = Number(share.input.value);
    const text = `${a.input.value} scores for ${100 - inB} % of the users and ${b.input.value} for ` +
      `${inB} %, always for the same ones. Until it ends nothing is activated or rolled back.`;
    const title = `Start the experiment ${name.input.value}?`;
    if (!(await confirmed(title, text, "Start it"))) return;
    const arms = [
      { name: "a", adapter: a.input.value, weight: 100 - inB },
      { name: "b", adapter: b.input.value, weight: inB },
    ];
    await change("PUT", "/adapters/experiment", "The experiment has started", {
      name: name.input.value, arms,
    });
  }

  return panel(
    "Experiment",
    hint("Two adapters, each for a part of the users; /metrics compares them by arm."),
    form([name, a, b, share], "Start the experiment", start),
  );
}

export function shadowPanel(response, change) {
  if (response.shadow) {
    const { adapter, share } = response.shadow;
    const stop = async () => {
      const text = `${adapter} scores along no more. Nobody's ranking changes by that.`;
      if (!(await confirmed("Stop the shadow?", text, "Stop it"))) return;
      await change("DELETE", "/adapters/shadow", "The shadow has stopped");
    };
    return panel(
      "Shadow",
      el("p", {}, `${adapter} scores ${percent(share)} of the requests along, out of sight.`),
      el("button", { type: "button", onclick: stop }, "Stop the shadow"),
    );
  }
  const names = servable(response).filter((each) => each !== response.active);
  if (names.length === 0) {
    return panel("Shadow", hint("A shadow scores along with the active adapter. " +
      `${few(servable(response))}: put another into the folder of adapters.`));
  }
  const adapter = field("shadow-adapter", "Adapter", choice(names, names[0]));
  const share = field("shadow-share", "Requests, in %", percentField(10, 100));

  async function set() {
    const text = `After ${share.input.value} % of the requests it scores the same candidates again, ` +
      "out of sight and while nobody waits for the model.";
    if (!(await confirmed(`Let ${adapter.input.value} score along?`, text, "Let it"))) return;
    await change("PUT", "/adapters/shadow", `${adapter.input.value} scores along`, {
      adapter: adapter.input.value, share: Number(share.input.value) / 100,
    });
  }

  return panel(
    "Shadow",
    hint("An adapter that scores a part of the requests again, out of sight; /metrics compares."),
    form([adapter, share], "Set the shadow", set),
  );
}

function running({ experiment, active }, change) {
  const { name, arms } = experiment;
  const end = async () => {
    const text = `${active} scores for everybody again.`;
    if (!(await confirmed(`End the experiment ${name}?`, text, "End it"))) return;
    await change("DELETE", "/adapters/experiment", "The experiment has ended");
  };
  return panel(
    `Experiment ${name}`,
    el(
      "ul",
      { class: "arms" },
      arms.map((arm) => {
        const bar = el("span", { class: "fill" });
        bar.style.setProperty("--share", arm.share);
        return el(
          "li",
          {},
          el("span", {}, `${arm.name}: ${arm.adapter}`),
          el("span", { class: "meter", "aria-hidden": "true" }, bar),
          el("span", { class: "number" }, percent(arm.share)),
        );
      }),
    ),
    hint("While it runs, nothing is activated or rolled back."),
    el("button", { type: "button", onclick: end }, "End the experiment"),
  );
}

// --- elements ------------------------------------------------------------------------

/** Names of the adapters that can be chosen; the base model alone has none. */
function servable(response) {
  return response.adapters.filter((each) => each.servable && each.name).map((each) => each.name);
}

function few(names) {
  return names.length === 0 ? "None here can serve" : `Only ${names[0]} can serve here`;
}

function panel(title, ...children) {
  return el("section", { class: "panel" }, el("h2", {}, title), children);
}

function hint(text) {
  return el("p", { class: "hint" }, text);
}

function field(id, label, input) {
  input.id = id;
  return { input, element: el("div", {}, el("label", { for: id }, label), input) };
}

function choice(names, chosen) {
  return el("select", {}, names.map((each) => el("option", { selected: each === chosen }, each)));
}

function percentField(value, max) {
  return el("input", {
    type: "number", inputmode: "numeric", required: true, min: 1, max, step: 1, value,
  });
}

function form(fields, action, act) {
  const onsubmit = (event) => {
    event.preventDefault();
    act();
  };
  return el(
    "form",
    { class: "setup", onsubmit },
    el("div", { class: "fields" }, fields.map((each) => each.element)),
    el("button", { type: "submit" }, action),
  );
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}
