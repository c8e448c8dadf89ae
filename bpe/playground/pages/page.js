// What the parts of the page share: elements, requests, and small helpers.

/**
 * Return a new element. Text is always text, never markup.
 *
 * @param {string} name The tag, with classes: "button.quiet".
 * @param {Object} [properties] Properties ("onclick", "textContent", ...), attributes (names with "-", "role", "for",
 *   ...), and `dataset`, an object.
 * @param {...(Node|string|null|undefined|false)} children The children; null, undefined and false are left out.
 */
export function h(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key === "dataset") Object.assign(element.dataset, value);
    else if (key.includes("-") || !(key in element)) element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return the header with the API key that the reader gave in another part of the page, if there is one. */
function withKey() {
  try {
    const key = sessionStorage.getItem("bpe-api-key");
    return key ? { authorization: `Bearer ${key}` } : {};
  } catch {
    return {}; // storage is blocked
  }
}

/** An error that the server reports, or that it cannot be reached. */
export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Send a request to the server and return the response.
 *
 * @param {string} path The path.
 * @param {Object} [options] As for fetch; `json` is a value to send as JSON.
 * @throws {RequestError} If the server refuses it or is not there; the message is for the reader.
 */
export async function request(path, { json, ...options } = {}) {
  options = { ...options, headers: { ...withKey(), ...options.headers } };
  if (json !== undefined) {
    options = {
      method: "POST",
      ...options,
      headers: { "content-type": "application/json", ...options.headers },
      body: JSON.stringify(json),
    };
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  let message = `The server answered with status ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // Not an error of ours, such as that of a proxy.
  }
  throw new RequestError(message, response.status);
}

/** Return a function that calls another once it has not been called for some milliseconds; `cancel` forgets a call. */
export function debounced(call, milliseconds) {
  let timer = 0;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), milliseconds);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

const numbers = new Intl.NumberFormat("en");

/** Return a number with commas, as in 12,345. */
export function withCommas(number) {
  return numbers.format(number);
}

/** Return a number with its noun, as in "1 token" or "2,048 tokens". */
export function counted(number, noun) {
  return `${withCommas(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** Put a text on the clipboard. Returns whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // the address is not localhost, so the browser denies the clipboard
  }
}

function copyBySelection(text) {
  const area = h("textarea.visually-hidden", { value: text, readOnly: true, "aria-hidden": "true" });
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return copied;
}
