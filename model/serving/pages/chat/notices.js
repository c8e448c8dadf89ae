// Errors in words, with what can be done about them.

import { h } from "/static/page.js";
import { setKey } from "/static/model/server.js";

/**
 * Return a notice about an error.
 *
 * @param {Error} error The error.
 * @param {function} retry Tries again.
 */
export function notice(error, retry) {
  if (error.kind === "key") return keyForm(error, retry);
  const button = h("button.button", { type: "button", onclick: retry }, "Try again");
  const words = h("p", {}, error.message);
  const element = h("div.notice.error.problem", { role: "alert" }, words, button);
  if (error.wait > 0) countDown(element, button, error.wait);
  return element;
}

/** Show the seconds until the server wants to be asked again. Trying earlier is allowed. */
function countDown(element, button, seconds) {
  const end = performance.now() + 1000 * seconds;
  const left = h("span.muted", { "aria-hidden": "true" });
  element.append(left, h("span.visually-hidden", {}, `The server asks to wait ${seconds} seconds.`));
  const tick = () => {
    const remaining = Math.ceil((end - performance.now()) / 1000);
    left.textContent = remaining > 0 ? `in ${remaining} s` : "now";
    if (remaining > 0 && (element.isConnected || remaining >= seconds)) setTimeout(tick, 250);
  };
  tick();
}

function keyForm(error, retry) {
  const field = h("input", { type: "password", autocomplete: "off", required: true, "aria-label": "API key", placeholder: "API key" });
  const use = (event) => {
    event.preventDefault();
    setKey(field.value);
    retry();
  };
  const button = h("button.button.primary", { type: "submit" }, "Use this key");
  const note = h("small.muted", {}, "It is kept until this tab is closed, and sent to this server only.");
  return h("form.notice.error.problem.key", { role: "alert", onsubmit: use }, h("p", {}, error.message), h("div.toolbar", {}, field, button), note);
}
