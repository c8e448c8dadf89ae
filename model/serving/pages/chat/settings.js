// The settings of a conversation: the system prompt, and how tokens are chosen. An empty field leaves it to the server.

import { h } from "/static/page.js";

/** name, label, range, step, and what it does. */
const FIELDS = [
  ["temperature", "Temperature", [0, 2], "any", "0 takes the likeliest token; higher is more varied."],
  ["top_p", "Top p", [0, 1], "any", "Only the likeliest tokens whose shares add up to this."],
  ["top_k", "Top k", [-1, 2 ** 31 - 1], 1, "Only so many of the likeliest tokens; 0 for all."],
  ["min_p", "Min p", [0, 1], "any", "Only tokens with this share of the likeliest one's."],
  ["frequency_penalty", "Frequency penalty", [-2, 2], "any", "Above 0: each time a token was used makes it less likely."],
  ["presence_penalty", "Presence penalty", [-2, 2], "any", "Above 0: a token that was used is less likely."],
  ["repetition_penalty", "Repetition penalty", [0.01, 100], "any", "Above 1: a token that was read or used is less likely."],
  ["max_tokens", "Longest answer", [1, 2 ** 31 - 1], 1, "In tokens."],
  ["seed", "Seed", [-(2 ** 53) + 1, 2 ** 53 - 1], 1, "The same seed gives the same answer."],
];

/** Return the settings that a request sends. */
export function requestSettings({ settings }) {
  const sent = {};
  for (const [name] of FIELDS) if (typeof settings[name] === "number") sent[name] = settings[name];
  if (settings.stop) sent.stop = settings.stop.split("\n").filter(Boolean).slice(0, 4);
  if (sent.stop && !sent.stop.length) delete sent.stop;
  return sent;
}

/** Return what is wrong with the settings; "" if nothing is. */
export function wrongSetting(form) {
  const wrong = [...form.querySelectorAll("input")].find((input) => !input.validity.valid);
  return wrong ? `${wrong.dataset.label}: ${wrong.validationMessage}` : "";
}

/**
 * Return the form of the settings.
 *
 * @param {Object} defaults The settings of the server, shown in empty fields.
 * @param {function} changed Called with the name of a setting, or "system", and its value; undefined if it is empty.
 */
export function settingsForm(defaults, changed) {
  const system = h("textarea", { rows: 4, dir: "auto", placeholder: "None", oninput: () => changed("system", system.value) });
  const inputs = FIELDS.map(([name, label, [min, max], step, note]) => {
    const input = h("input", {
      type: "number", min, max, step, name, inputMode: "decimal", placeholder: String(defaults[name] ?? "default"),
      "aria-describedby": `setting-${name}`, dataset: { label },
      oninput: () => {
        input.setAttribute("aria-invalid", String(!input.validity.valid));
        changed(name, input.value === "" || !input.validity.valid ? undefined : Number(input.value));
      },
    });
    return [name, input, h("label.setting", {}, h("span.setting-name", {}, label), input, h("small.muted", { id: `setting-${name}` }, note))];
  });
  const stop = h("textarea.mono", { rows: 2, placeholder: "None", "aria-describedby": "setting-stop", oninput: () => changed("stop", stop.value || undefined) });
  const stops = h("label.setting.tall", {}, h("span.setting-name", {}, "Stop at"), stop, h("small.muted", { id: "setting-stop" }, "Up to four texts, one a line, that end an answer."));
  const systemField = h("label.setting.tall.system", {}, h("span.setting-name", {}, "System prompt"), system);
  const reset = h("button.quiet", { type: "button", onclick: () => clear() }, "Back to the server's settings");
  const element = h("form.settings", { onsubmit: (event) => event.preventDefault(), autocomplete: "off" },
    systemField, h("h3", {}, "How tokens are chosen"), h("div.setting-grid", {}, ...inputs.map(([, , label]) => label)), stops, reset);

  function clear() {
    for (const [name, input] of inputs) {
      input.value = "";
      input.removeAttribute("aria-invalid");
      changed(name, undefined);
    }
    stop.value = "";
    changed("stop", undefined);
  }

  /** Show the settings of a conversation. */
  function show(conversation) {
    system.value = conversation.system;
    systemField.hidden = conversation.kind === "text";
    for (const [name, input] of inputs) {
      input.value = conversation.settings[name] ?? "";
      input.removeAttribute("aria-invalid");
    }
    stop.value = conversation.settings.stop ?? "";
  }

  return { element, show };
}
