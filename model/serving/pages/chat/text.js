// A text that the model continues: what is written and what is added are one text, which can be edited at any time.

import { counted, debounced, h, withCommas } from "/static/page.js";
import { followDirection, setDirection } from "/static/model/chat/direction.js";
import { requestSettings } from "/static/model/chat/settings.js";
import { icon } from "/static/model/icons.js";
import { notice } from "/static/model/chat/notices.js";
import { streamed } from "/static/model/server.js";

/**
 * Return the part of the page for a text.
 *
 * @param {Object} host What the page offers: about, save, announce, started, ended, check.
 */
export function textView(host) {
  let conversation = null;
  let running = null;
  let before = null; // the text before the last continuation
  const keep = debounced((each) => host.save(each), 200);
  const field = h("textarea.text", { "aria-label": "Text", placeholder: "Write a beginning, and let the model go on.", oninput: () => {
    conversation.text = field.value;
    before = null;
    show();
    keep(conversation);
  } });
  followDirection(field);
  const go = h("button.button.primary", { type: "button", onclick: () => (running ? stop() : start()) });
  const undo = h("button.button", { type: "button", onclick: () => {
    field.value = conversation.text = before;
    before = null;
    host.save(conversation);
    show();
    field.focus();
  } }, "Undo");
  const facts = h("span.muted", { role: "status" });
  const problems = h("div");
  const element = h("div.text-view", {}, field, problems, h("div.toolbar", {}, go, undo, facts));
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) stop();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) start();
    else return;
    event.preventDefault();
  });

  function show() {
    go.replaceChildren(...(running ? [icon("stop"), "Stop"] : ["Continue"]));
    go.title = running ? "Stop (Esc)" : "Continue (Ctrl+Enter)";
    undo.hidden = before === null || running !== null;
    field.readOnly = running !== null;
    field.setAttribute("aria-busy", String(running !== null));
  }

  function stop() {
    running?.abort();
  }

  async function start() {
    problems.replaceChildren();
    const wrong = host.check();
    if (wrong) {
      problems.replaceChildren(h("div.notice.error", { role: "alert" }, wrong));
      return;
    }
    const mine = conversation;
    running = new AbortController();
    before = mine.text;
    host.started(stop);
    show();
    facts.textContent = "Reading…";
    let waiting = "";
    let timer = 0;
    const flush = () => {
      clearTimeout(timer);
      timer = 0;
      const isAtEnd = field.scrollTop + field.clientHeight > field.scrollHeight - 40;
      mine.text += waiting;
      if (mine === conversation) field.setRangeText(waiting, field.value.length, field.value.length, "end");
      waiting = "";
      if (isAtEnd) field.scrollTop = field.scrollHeight;
    };
    const onText = (text) => {
      waiting += text;
      timer ||= setTimeout(flush, 60);
    };
    const json = { model: host.about.model.name, prompt: mine.text, max_tokens: 256, ...requestSettings(mine) };
    try {
      const { usage, rate } = await streamed("/v1/completions", json, { signal: running.signal, onText });
      facts.textContent = usage ? `${counted(usage.completion_tokens, "token")} · ${withCommas(Number(rate.toPrecision(3)))} tokens/s` : "";
      if (usage) host.used(usage.total_tokens);
    } catch (error) {
      facts.textContent = error.name === "AbortError" && mine === conversation ? "Stopped" : "";
      if (error.name !== "AbortError") problems.replaceChildren(notice(error, start));
    }
    flush();
    if (mine !== conversation || mine.text === before) before = null;
    running = null;
    host.ended();
    await host.save(mine);
    show();
    host.announce("The text has ended");
  }

  /** Show a text. */
  function open(opened) {
    conversation = opened;
    field.value = opened.text;
    setDirection(field, opened.text.length);
    before = null;
    facts.textContent = "";
    problems.replaceChildren();
    show();
  }

  return { element, open, focus: () => field.focus() };
}
