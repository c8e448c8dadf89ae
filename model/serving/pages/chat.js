// The part Chat: conversations with the model of this server, kept in this browser.

import { counted, h, withCommas } from "/static/page.js";
import { addTurn, newConversation, showVersion, titleOf, turnsOf } from "/static/model/chat/conversations.js";
import { followDirection, setDirection } from "/static/model/chat/direction.js";
import { notice } from "/static/model/chat/notices.js";
import { requestSettings, settingsForm, wrongSetting } from "/static/model/chat/settings.js";
import { sidebar } from "/static/model/chat/sidebar.js";
import { openStorage } from "/static/model/chat/storage.js";
import { textView } from "/static/model/chat/text.js";
import { action, Turn } from "/static/model/chat/turn.js";
import { icon } from "/static/model/icons.js";
import { streamed } from "/static/model/server.js";

const WIDE = matchMedia("(min-width: 64rem)");
const SAVED_EVERY = 2000; // milliseconds, while an answer arrives
const QUESTIONS = ["Why is the sky blue?", "Write a short poem about the sea.", "Explain recursion with an example in Python."];

export async function mount(element, about, shell) {
  const chat = new Chat(element, about, shell, await openStorage());
  await chat.begin();
  return () => chat.leave();
}

class Chat {
  constructor(element, about, shell, storage) {
    Object.assign(this, { about, shell, storage, conversation: null, stopRunning: null, turns: [] });
    this.modelName = about.model?.name ?? "the model";
    this.canChat = about.model?.chat !== false;
    this.announce = shell.announce;
    this.settings = settingsForm(about.model?.defaults ?? {}, (name, value) => this.set(name, value));
    this.list = sidebar(storage, {
      open: (id) => this.openById(id),
      create: (kind) => this.create(kind),
      renamed: (id, title) => this.rename(id, title),
      deleted: (id) => this.delete(id),
      announce: shell.announce,
    }, this.canChat);
    this.text = textView({
      about, save: (each) => this.save(each), announce: shell.announce, used: (tokens) => this.showUsed(tokens),
      check: () => wrongSetting(this.settings.element),
      started: (stop) => this.setRunning(stop), ended: () => this.setRunning(null),
    });
    this.build(element);
    storage.onChange((id) => this.changedElsewhere(id));
  }

  build(element) {
    const drawer = (name, label, content) => {
      const close = action("close", "Close", () => dialog.close());
      const dialog = h(`dialog.drawer.${name}`, { "aria-label": label, onclick: (event) => event.target === dialog && dialog.close() }, h("div.drawer-top", {}, h("h2", {}, label), close));
      const side = h(`aside.side.${name}`, { "aria-label": label });
      const place = () => {
        if (dialog.open) dialog.close();
        (WIDE.matches ? side : dialog).append(content);
      };
      WIDE.addEventListener("change", place);
      place();
      return { dialog, side };
    };
    this.lists = drawer("left", "Conversations", this.list.element);
    this.options = drawer("right", "Settings", this.settings.element);
    this.options.side.hidden = true;
    this.title = h("h2.title", { dir: "auto" });
    this.listButton = action("menu", "Conversations", () => this.lists.dialog.showModal());
    this.listButton.classList.add("narrow");
    this.settingsButton = action("settings", "Settings", () => this.toggleSettings(), { "aria-expanded": "false" });
    const bar = h("div.talk-bar", {}, this.listButton, this.title, action("add", "New", () => this.create(this.canChat ? "chat" : "text")), this.settingsButton);
    this.log = h("div.log", { role: "log", "aria-live": "polite", "aria-relevant": "additions", "aria-label": "Conversation" });
    this.problems = h("div.problems");
    this.thread = h("div.thread", { tabIndex: -1, onscroll: () => this.showJump() }, h("div.column", {}, this.log, this.problems));
    this.jump = h("button.button.jump", { type: "button", title: "To the end", "aria-label": "To the end", hidden: true, onclick: () => this.toEnd() }, icon("down"));
    this.input = h("textarea.input", { rows: 1, placeholder: `Message ${this.modelName}`, "aria-label": "Message", "aria-describedby": "chat-keys", oninput: () => this.showButton() });
    followDirection(this.input);
    this.send = h("button.button.primary.send", { type: "submit" });
    this.used = h("span.used.muted");
    const keys = h("span.keys.muted", { id: "chat-keys" }, "Enter sends · Shift+Enter breaks the line · Esc stops · ↑ edits");
    this.form = h("form.composer", { onsubmit: (event) => { event.preventDefault(); this.act(); } },
      h("div.column", {}, h("div.box", {}, this.input, this.send), h("div.below", {}, keys, this.used)));
    this.talk = h("section.talk", {}, bar, h("div.thread-place", {}, this.thread, this.jump), this.form);
    this.textUsed = h("span.used.muted");
    this.text.element.querySelector(".toolbar").append(this.textUsed);
    element.append(h("div.chat", {}, this.lists.side, this.talk, this.options.side, this.lists.dialog, this.options.dialog));
    this.input.addEventListener("keydown", (event) => this.inputKey(event));
    this.talk.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isRunning) {
        event.preventDefault();
        this.stop();
      }
    });
  }

  get isRunning() {
    return this.stopRunning !== null;
  }

  async begin() {
    const id = this.shell.state().get("c");
    const found = id ? await this.storage.get(id) : undefined;
    this.open(found ?? newConversation(this.canChat ? "chat" : "text"));
    await this.list.refresh(this.conversation.id);
    this.shell.onState((state) => state.get("c") && this.openById(state.get("c")));
    this.focusInput();
  }

  leave() {
    if (this.isRunning) this.stop();
  }

  // Conversations.

  create(kind) {
    const { system, settings } = this.conversation;
    this.open(newConversation(kind, { system, settings: { ...settings } }));
    this.list.refresh(this.conversation.id);
    this.focusInput();
  }

  async openById(id) {
    if (id === this.conversation.id) {
      this.closeDrawers();
      return;
    }
    const found = await this.storage.get(id);
    if (!found) return;
    this.open(found);
    await this.list.refresh(id);
    this.focusInput();
  }

  open(conversation) {
    if (this.isRunning) this.stop(); // what has arrived is kept
    this.conversation = conversation;
    const isText = conversation.kind === "text";
    this.settings.show(conversation);
    this.problems.replaceChildren();
    this.talk.classList.toggle("is-text", isText);
    if (isText) this.text.open(conversation);
    const place = this.talk.querySelector(".thread-place");
    if (isText && !this.text.element.isConnected) place.after(this.text.element);
    else if (!isText) this.text.element.remove();
    place.hidden = this.form.hidden = isText;
    this.showTurns();
    this.showTitle();
    this.showUsed(turnsOf(conversation).findLast((node) => node.usage)?.usage.total_tokens);
    this.closeDrawers();
    this.writeAddress();
  }

  closeDrawers() {
    for (const { dialog } of [this.lists, this.options]) if (dialog.open) dialog.close();
  }

  writeAddress() {
    const { id, nodes, text } = this.conversation;
    this.shell.setState(new URLSearchParams(nodes.length || text ? { c: id } : {}));
  }

  async rename(id, title) {
    const conversation = id === this.conversation.id ? this.conversation : await this.storage.get(id);
    conversation.title = title;
    await this.storage.put(conversation);
    this.showTitle();
  }

  async delete(id) {
    const isShown = id === this.conversation.id;
    if (isShown && this.isRunning) this.stop();
    await this.storage.delete(id);
    if (isShown) this.open(newConversation(this.canChat ? "chat" : "text"));
    await this.list.refresh(this.conversation.id);
    if (isShown) this.focusInput();
    else this.list.element.querySelector("button")?.focus();
  }

  async save(conversation) {
    conversation.updated = Date.now();
    try {
      await this.storage.put(conversation);
    } catch (error) {
      this.problems.replaceChildren(h("div.notice.error", { role: "alert" }, `The browser does not keep this conversation: ${error.message}`));
    }
    if (conversation === this.conversation) {
      this.showTitle();
      this.writeAddress();
    }
    await this.list.refresh(this.conversation.id);
  }

  async changedElsewhere(id) {
    if (id === this.conversation.id && !this.isRunning) {
      const found = await this.storage.get(id);
      if (found) this.open(found);
    }
    await this.list.refresh();
  }

  set(name, value) {
    const { conversation } = this;
    if (name === "system") conversation.system = value;
    else if (value === undefined) delete conversation.settings[name];
    else conversation.settings[name] = value;
    if (conversation.nodes.length || conversation.text) {
      clearTimeout(this.settingTimer);
      this.settingTimer = setTimeout(() => this.storage.put(conversation).catch(() => {}), 400);
    }
  }

  // What is shown.

  showTitle() {
    this.title.textContent = titleOf(this.conversation) || (this.conversation.kind === "text" ? "New text" : "New chat");
  }

  showTurns() {
    this.turns = turnsOf(this.conversation).map((node) => new Turn(this, this.conversation, node));
    this.log.replaceChildren(...(this.turns.length ? this.turns.map((turn) => turn.element) : [this.welcome()]));
    this.showButton();
    this.toEnd();
  }

  welcome() {
    const { name, parameters, context, place } = this.about.model ?? {};
    const facts = [parameters && `${inShort(parameters)} parameters`, context && `a context of ${withCommas(context)} tokens`, place].filter(Boolean);
    const suggestions = QUESTIONS.map((question) => h("button.button.suggestion", { type: "button", onclick: () => this.ask(question) }, question));
    return h("div.welcome", {}, h("h3", {}, `Talk to ${name ?? "the model"}`), h("p.muted", {}, facts.join(" · ")), h("div.suggestions", {}, ...suggestions));
  }

  showButton() {
    const { isRunning } = this;
    this.send.replaceChildren(icon(isRunning ? "stop" : "send"));
    this.send.title = isRunning ? "Stop (Esc)" : "Send (Enter)";
    this.send.setAttribute("aria-label", isRunning ? "Stop" : "Send");
    this.send.disabled = !isRunning && !this.input.value.trim();
    if (!CSS.supports("field-sizing", "content")) this.input.rows = Math.min(this.input.value.slice(0, 4000).split("\n").length, 8);
  }

  showUsed(tokens) {
    const context = this.about.model?.context;
    const words = tokens ? (context ? `${withCommas(tokens)} of ${counted(context, "token")}` : counted(tokens, "token")) : "";
    for (const place of [this.used, this.textUsed]) {
      const meter = tokens && context ? h("meter", { max: context, value: tokens, high: 0.8 * context, "aria-label": "Context used" }) : null;
      place.replaceChildren(...(words ? [meter, words].filter(Boolean) : []));
      place.title = words && `Context used: ${words}`;
    }
  }

  isAtEnd() {
    const { scrollTop, clientHeight, scrollHeight } = this.thread;
    return scrollTop + clientHeight > scrollHeight - 60;
  }

  toEnd() {
    this.thread.scrollTop = this.thread.scrollHeight;
    this.showJump();
  }

  /** Change what is shown, and stay at its end if the reader is there. */
  keepingEnd(change) {
    const isAtEnd = this.isAtEnd();
    change();
    if (isAtEnd) this.toEnd();
    else this.showJump();
  }

  showJump() {
    this.jump.hidden = this.isAtEnd();
  }

  toggleSettings() {
    if (!WIDE.matches) {
      this.options.dialog.showModal();
      return;
    }
    const { side } = this.options;
    side.hidden = !side.hidden;
    this.settingsButton.setAttribute("aria-expanded", String(!side.hidden));
    if (!side.hidden) side.querySelector("textarea:not([hidden]), input")?.focus();
  }

  focusInput() {
    if (this.conversation.kind === "text") this.text.focus();
    else this.input.focus();
  }

  // Asking and answering.

  inputKey(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.isRunning) this.act();
    } else if (event.key === "ArrowUp" && !this.input.value && !this.isRunning) {
      const last = this.turns.findLast((turn) => turn.node.role === "user");
      if (!last) return;
      event.preventDefault();
      last.edit();
    }
  }

  act() {
    if (this.isRunning) this.stop();
    else if (this.input.value.trim()) {
      const { value } = this.input;
      if (this.ask(value)) {
        this.input.value = "";
        setDirection(this.input, 0);
      }
      this.showButton();
      this.input.focus();
    }
  }

  stop() {
    this.stopRunning?.();
  }

  setRunning(stop) {
    this.stopRunning = stop;
    this.talk.classList.toggle("is-running", stop !== null);
    this.showButton();
  }

  /** Ask a question after the last turn. Returns whether it is asked. */
  ask(content) {
    if (this.isRunning || !this.settingsAreRight()) return false;
    const { conversation } = this;
    this.addQuestion(conversation.nodes[conversation.leaf] ?? null, content);
    return true;
  }

  settingsAreRight() {
    const wrong = wrongSetting(this.settings.element);
    this.problems.replaceChildren(...(wrong ? [h("div.notice.error", { role: "alert" }, `Settings, ${wrong}`)] : []));
    if (wrong) this.toEnd();
    return !wrong;
  }

  addQuestion(parent, content) {
    const question = addTurn(this.conversation, parent, "user", content);
    this.showTurns();
    this.save(this.conversation);
    this.answer(question);
  }

  /** Put another text in the place of a turn, as a new version of it. A question is asked again. */
  replace(node, content) {
    if (this.isRunning || !this.settingsAreRight()) return;
    const parent = this.conversation.nodes[node.parent] ?? null;
    if (node.role === "user") this.addQuestion(parent, content);
    else {
      addTurn(this.conversation, parent, "assistant", content).note = "edited";
      this.showTurns();
      this.save(this.conversation);
    }
    this.focusInput();
  }

  regenerate(node) {
    if (this.isRunning || !this.settingsAreRight()) return;
    this.conversation.leaf = node.parent;
    this.showTurns();
    this.answer(this.conversation.nodes[node.parent]);
    this.input.focus();
  }

  showVersion(node, turn) {
    if (this.isRunning) return;
    showVersion(this.conversation, node);
    const { scrollTop } = this.thread;
    const place = this.turns.indexOf(turn);
    this.problems.replaceChildren();
    this.showTurns();
    this.thread.scrollTop = scrollTop;
    this.save(this.conversation);
    this.turns[place]?.element.querySelector(".versions button:not(:disabled)")?.focus();
  }

  /** Request the answer to a question, and show it as it arrives. */
  async answer(question) {
    const { conversation } = this;
    const messages = turnsOf(conversation).map(({ role, content }) => ({ role, content }));
    if (conversation.system.trim()) messages.unshift({ role: "system", content: conversation.system });
    const node = addTurn(conversation, question, "assistant", "");
    const turn = new Turn(this, conversation, node);
    const stopping = new AbortController();
    this.problems.replaceChildren();
    this.turns.push(turn);
    this.log.append(turn.element);
    turn.begin();
    const stop = () => stopping.abort();
    this.setRunning(stop);
    this.toEnd();
    const saving = setInterval(() => node.content && this.storage.put(conversation).catch(() => {}), SAVED_EVERY);
    let failure = null;
    try {
      const json = { model: this.modelName, messages, ...requestSettings(conversation) };
      Object.assign(node, await streamed("/v1/chat/completions", json, { signal: stopping.signal, onText: (text) => turn.add(text) }));
    } catch (error) {
      if (error.name === "AbortError") node.finish = "stopped";
      else {
        failure = error;
        node.finish = error.kind === "lost" ? "lost" : null;
      }
    }
    clearInterval(saving);
    this.keepingEnd(() => turn.end());
    if (this.stopRunning === stop) this.setRunning(null);
    if (failure && !node.content) this.withdraw(conversation, node, turn);
    if (conversation === this.conversation) {
      if (failure) this.keepingEnd(() => this.showFailure(failure, question, node));
      else this.announce(node.finish === "stopped" ? "Stopped" : "The answer has ended");
      if (node.usage) this.showUsed(node.usage.total_tokens);
    }
    await this.save(conversation);
  }

  /** Take back an answer of which nothing arrived. */
  withdraw(conversation, node, turn) {
    conversation.nodes.pop();
    conversation.leaf = node.parent;
    turn.element.remove();
    this.turns = this.turns.filter((each) => each !== turn);
  }

  showFailure(failure, question, node) {
    const retry = () => {
      if (this.isRunning) return;
      if (node.content) this.regenerate(node);
      else this.answer(question);
      this.input.focus();
    };
    this.problems.replaceChildren(notice(failure, retry));
    this.problems.querySelector("input")?.focus();
    this.toEnd();
  }
}

function inShort(number) {
  const [size, unit] = number >= 1e9 ? [1e9, "billion"] : [1e6, "million"];
  return number < 1e6 ? withCommas(number) : `${Number((number / size).toPrecision(3))} ${unit}`;
}
