// A turn of a conversation: what was said, its versions, and what can be done with it.

import { copy, counted, h, withCommas } from "/static/page.js";
import { versionsOf } from "/static/model/chat/conversations.js";
import { followDirection, setDirection } from "/static/model/chat/direction.js";
import { Markdown, showMarkdown } from "/static/model/chat/markdown.js";
import { icon } from "/static/model/icons.js";

const LONG = 20_000; // characters of a question that is shown in part at first
const SHOWN = 4_000;

/** Return the button of an action. */
export function action(name, label, act, extra = {}) {
  return h("button.quiet.action", { type: "button", title: label, "aria-label": label, onclick: act, ...extra }, icon(name));
}

/**
 * The element of a turn.
 *
 * @param {Object} chat What the buttons call: edit, regenerate, showVersion.
 * @param {Object} conversation The conversation.
 * @param {Object} node The turn.
 */
export class Turn {
  constructor(chat, conversation, node) {
    Object.assign(this, { chat, conversation, node, waiting: "", timer: 0 });
    const isUser = node.role === "user";
    this.body = h(isUser ? "div.said" : "div.markdown", isUser ? { dir: "auto" } : {});
    this.meta = h("div.meta.muted");
    this.actions = h("div.actions");
    const name = h("h3.visually-hidden", {}, isUser ? "You" : chat.modelName);
    this.element = h(`article.turn.${node.role}`, { dataset: { turn: String(node.id) } }, name, h("div.body", {}, this.body), h("div.foot", {}, this.actions, this.meta));
    this.show();
  }

  show() {
    const { node } = this;
    if (node.role === "user") this.showQuestion();
    else {
      this.body.replaceChildren();
      showMarkdown(this.body, node.content);
    }
    this.showFoot();
  }

  showQuestion() {
    const { content } = this.node;
    if (content.length <= LONG) {
      this.body.replaceChildren(content);
      return;
    }
    const all = h("button.quiet.more", { type: "button", onclick: () => {
      setDirection(this.body, content.length);
      this.body.replaceChildren(content);
    } });
    all.append(`Show all ${counted(content.length, "character")}`);
    this.body.replaceChildren(`${content.slice(0, SHOWN).replace(/[\ud800-\udbff]$/, "")}…`, h("div", {}, all));
  }

  showFoot(isRunning = false) {
    const { chat, conversation, node } = this;
    this.actions.hidden = isRunning;
    if (isRunning) return;
    const isUser = node.role === "user";
    const versions = versionsOf(conversation, node);
    const place = versions.indexOf(node);
    const step = (by, name, label) =>
      action(name, label, () => chat.showVersion(versions[place + by], this), { disabled: !versions[place + by] });
    const copyButton = action("copy", "Copy", async () => {
      const worked = await copy(node.content);
      chat.announce(worked ? "Copied" : "Not copied");
      copyButton.classList.toggle("done", worked);
      setTimeout(() => copyButton.classList.remove("done"), 1200);
    });
    this.actions.replaceChildren(
      ...(versions.length > 1
        ? [h("span.versions", { role: "group", "aria-label": "Versions" }, step(-1, "previous", "Previous version"),
            h("span", {}, `${place + 1} / ${versions.length}`), step(1, "next", "Next version"))]
        : []),
      copyButton,
      action("edit", isUser ? "Edit and ask again" : "Edit", () => this.edit()),
      ...(isUser ? [] : [action("again", "Another answer", () => chat.regenerate(node))]),
    );
    this.meta.textContent = isUser ? "" : facts(node);
  }

  /** Show an answer while it arrives. */
  begin() {
    this.view = new Markdown(this.body);
    this.body.setAttribute("aria-busy", "true");
    this.element.classList.add("running");
    this.showFoot(true);
    this.cost = 0;
  }

  /** Add text. It is shown at the next frame, or later if showing takes long. */
  add(text) {
    this.node.content += text;
    this.waiting += text;
    this.timer ||= setTimeout(() => this.flush(), Math.max(30, 6 * this.cost));
  }

  flush() {
    clearTimeout(this.timer);
    this.timer = 0;
    const began = performance.now();
    const { waiting } = this;
    this.waiting = "";
    if (waiting) this.chat.keepingEnd(() => this.view.append(waiting));
    this.cost = Math.min(performance.now() - began, 500);
  }

  end() {
    this.flush();
    this.view.finish();
    this.body.removeAttribute("aria-busy");
    this.element.classList.remove("running");
    this.showFoot();
  }

  /** Replace the text by a field in which it is edited. */
  edit() {
    if (this.chat.isRunning || this.form) return;
    const isUser = this.node.role === "user";
    const field = h("textarea", { value: this.node.content, "aria-label": isUser ? "Edit your question" : "Edit the answer" });
    followDirection(field);
    const done = () => {
      this.form.remove();
      this.form = null;
      this.element.classList.remove("editing");
    };
    const cancel = () => {
      done();
      this.chat.focusInput();
    };
    const use = () => {
      const content = field.value;
      if (!content.trim()) return;
      done();
      if (content === this.node.content && !isUser) return;
      this.chat.replace(this.node, content);
    };
    const buttons = h("div.toolbar", {}, h("button.button.primary", { type: "submit" }, isUser ? "Ask again" : "Keep"),
      h("button.button", { type: "button", onclick: cancel }, "Cancel"));
    this.form = h("form.edit", { onsubmit: (event) => { event.preventDefault(); use(); } }, field, buttons);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && (isUser || event.ctrlKey || event.metaKey)) use();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.element.classList.add("editing");
    this.element.append(this.form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

const ENDS = { length: "the limit of tokens is reached", content_filter: "filtered", stopped: "stopped", lost: "the connection was lost" };

/** Return the numbers of an answer in words. */
function facts({ usage, rate, first, finish, note }) {
  const parts = [];
  if (usage) parts.push(counted(usage.completion_tokens, "token"));
  if (rate) parts.push(`${withCommas(Number(rate.toPrecision(3)))} tokens/s`);
  if (first) parts.push(`first after ${first < 10 ? first.toFixed(2) : Math.round(first)} s`);
  if (ENDS[finish]) parts.push(ENDS[finish]);
  if (note) parts.push(note);
  return parts.join(" · ");
}
