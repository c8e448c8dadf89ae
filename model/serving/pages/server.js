// Requests to the API of this server: with a key if it asks for one, and errors in words.

let key = remembered();

function remembered() {
  try {
    return sessionStorage.getItem("bpe-api-key") ?? "";
  } catch {
    return ""; // storage is blocked
  }
}

/** Use an API key for all further requests, until the tab is closed. */
export function setKey(value) {
  key = value.trim();
  try {
    if (key) sessionStorage.setItem("bpe-api-key", key);
    else sessionStorage.removeItem("bpe-api-key");
  } catch {
    // The key lasts as long as the page.
  }
}

/** Why a request failed. `kind` is "key", "busy", "refused", "broken" or "lost"; `message` is for the reader. */
export class ServerError extends Error {
  constructor(kind, message, { status = 0, wait = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, wait });
  }
}

export const LOST = "The connection to the server is lost. Is the server still running?";

/**
 * Send a request and return the response.
 *
 * @param {string} path The path.
 * @param {Object} [options] `json` is sent by POST; `signal` aborts the request.
 * @throws {ServerError} If the server refuses the request or does not answer. An abort throws an AbortError.
 */
export async function ask(path, { json, signal } = {}) {
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (json !== undefined) headers["content-type"] = "application/json";
  const method = json === undefined ? "GET" : "POST";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: json === undefined ? undefined : JSON.stringify(json) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (/ISO-8859-1|headers/i.test(error.message)) throw new ServerError("key", "The API key has a character that no key has.");
    throw new ServerError("lost", LOST);
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  const { status } = response;
  let said = "";
  try {
    said = sentence((await response.json()).error.message);
  } catch {
    // Not an error of this server, such as that of a proxy.
  }
  const wait = waited(response.headers.get("retry-after"));
  if (status === 401) return new ServerError("key", key ? said : "This server asks for an API key.", { status });
  if (status === 429) return new ServerError("busy", `The server is busy. ${said}`.trim(), { status, wait });
  if (status === 503) return new ServerError("busy", said || "The server is not ready.", { status, wait });
  if (status >= 500) return new ServerError("broken", said || `The server failed with status ${status}.`, { status });
  return new ServerError("refused", said || `The server refused the request with status ${status}.`, { status });
}

/** Return the seconds of a Retry-After header. */
function waited(header) {
  if (!header) return 0;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(Math.ceil(seconds), 0), 3600) : 0;
}

function sentence(text) {
  const whole = String(text).slice(0, 2000);
  return whole.charAt(0).toUpperCase() + whole.slice(1) + (/[.!?]$/.test(whole) ? "" : ".");
}

/** Yield the data of server-sent events. Each byte is looked at once. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let line = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      const text = done ? decoder.decode() : decoder.decode(value, { stream: true });
      let from = 0;
      for (let to = text.indexOf("\n"); to >= 0; to = text.indexOf("\n", from)) {
        line += text.slice(from, to);
        from = to + 1;
        if (line.endsWith("\r")) line = line.slice(0, -1);
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
        line = "";
      }
      line += text.slice(from);
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Request a text and pass on what arrives.
 *
 * @param {string} path The path of the API.
 * @param {Object} json The request, without the fields of streaming.
 * @param {Object} how `signal` aborts; `onText` gets each piece of text.
 * @returns {Promise<Object>} `finish`, the reason why the text ended; `usage`, the numbers of tokens; `first`, seconds
 *   to the first piece; `rate`, tokens a second after it.
 */
export async function streamed(path, json, { signal, onText }) {
  const began = performance.now();
  const response = await ask(path, { json: { ...json, stream: true, stream_options: { include_usage: true } }, signal });
  let [finish, usage, first, last, isWhole] = [null, null, 0, 0, false];
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        isWhole = true;
        break;
      }
      const event = JSON.parse(data);
      if (event.error) throw new ServerError("broken", sentence(event.error.message));
      usage = event.usage ?? usage;
      const choice = event.choices?.[0];
      finish = choice?.finish_reason ?? finish;
      const text = choice?.delta ? (choice.delta.content ?? "") : (choice?.text ?? "");
      if (!text) continue;
      last = performance.now();
      first ||= last;
      onText(text);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServerError) throw error;
    throw new ServerError("lost", LOST);
  }
  if (!isWhole && finish === null) throw new ServerError("lost", LOST);
  const seconds = (last - first) / 1000;
  const rate = usage && seconds > 0 ? (usage.completion_tokens - 1) / seconds : 0;
  return { finish, usage, first: first ? (first - began) / 1000 : 0, rate };
}
