// The direction of texts that a reader writes.

const LONG = 50_000; // characters

/**
 * Let a text choose its direction, unless it is so long that Chromium takes seconds to lay it out (it takes quadratic
 * time: a million characters 49 s, and 0.1 s from left to right).
 */
export function setDirection(element, length) {
  element.dir = length > LONG ? "ltr" : "auto";
  element.classList.toggle("long", length > LONG);
}

/** Keep the direction of a field up to date; a paste is laid out before its `input` event. */
export function followDirection(field) {
  setDirection(field, field.value.length);
  field.addEventListener("input", () => setDirection(field, field.value.length));
  field.addEventListener("paste", (event) => setDirection(field, field.value.length + event.clipboardData.getData("text").length));
}
