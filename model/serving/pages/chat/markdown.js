// Markdown as elements, while it arrives. It never becomes markup: every character of it is put into a text node.

import { copy, h } from "/static/page.js";
import { blocks, closes, indent } from "/static/model/chat/blocks.js";
import { inline } from "/static/model/chat/inline.js";

const LONGEST = 16384; // characters of an unfinished block; a longer one is cut, so that it is not parsed again and again
const LINES_IN_PART = 64; // lines of code that are laid out together

/**
 * Shows text as markdown. What is finished is never touched again: only the last block is built anew when text arrives.
 */
export class Markdown {
  /** @param {HTMLElement} element An empty element. */
  constructor(element) {
    this.element = element;
    this.tail = ""; // the text from the beginning of the last block on
    this.open = null; // the element of the last block
    this.code = null; // code whose end has not arrived
  }

  /** Show more text. */
  append(text) {
    this.tail += text;
    this.show(false);
  }

  /** Show that the text has ended. */
  finish() {
    this.show(true);
    this.open = null;
  }

  show(isEnd) {
    if (this.code && !this.continueCode(isEnd)) return;
    const lines = this.tail.split("\n");
    const found = blocks(lines);
    if (!found.length) return;
    this.open?.remove();
    this.open = null;
    let last = found.at(-1);
    // A block that begins in an unfinished line may still turn out to belong to the one before.
    const kept = isEnd ? found.length : last.from === lines.length - 1 ? found.length - 2 : found.length - 1;
    const settled = found.slice(0, Math.max(kept, 0));
    for (const block of settled) this.element.append(rendered(block));
    const rest = found.slice(settled.length);
    if (isEnd) {
      this.tail = "";
      return;
    }
    this.tail = lines.slice(rest[0].from).join("\n");
    last = rest.at(-1);
    if (rest.length === 1 && last.type === "code" && last.isOpen && lines.length - 1 > last.from) {
      this.beginCode(last);
      return;
    }
    if (rest.length === 1 && this.tail.length > LONGEST && this.cut(last, lines)) {
      this.show(false);
      return;
    }
    this.open = h("div.unfinished", {}, ...rest.map(rendered));
    this.element.append(this.open);
  }

  beginCode(block) {
    this.code = new Code(block.language);
    this.code.mark = block.mark;
    this.code.skipped = block.skipped;
    this.tail = this.tail.slice(this.tail.indexOf("\n") + 1);
    this.element.append(this.code.element);
    this.continueCode(false);
  }

  /** Add the lines that have arrived to the code. Returns whether it has ended. */
  continueCode(isEnd) {
    const lines = this.tail.split("\n");
    const { mark, skipped } = this.code;
    for (let at = 0; at < lines.length; at++) {
      const isWhole = at < lines.length - 1 || isEnd;
      if (isWhole && closes(lines[at], mark)) {
        this.code = null;
        this.tail = lines.slice(at + 1).join("\n");
        return true;
      }
      if (!isWhole) break;
      if (at < lines.length - 1 || lines[at]) this.code.add(lines[at].slice(Math.min(skipped, indent(lines[at]))));
    }
    this.tail = lines.at(-1);
    const mayClose = this.tail.trim() !== "" && closes(this.tail.trim().padEnd(mark.length, mark[0]), mark);
    this.code.preview(isEnd || mayClose ? "" : this.tail);
    if (isEnd) {
      this.tail = "";
      this.code = null;
    }
    return isEnd;
  }

  /** Finish the first part of a long block, and let the rest begin another one. Returns whether that is possible. */
  cut(block, lines) {
    if (block.type === "list" && block.items.length > 1) {
      const last = block.items.pop();
      this.element.append(rendered(block));
      this.tail = lines.slice(last.from).join("\n");
      return true;
    }
    if (block.type === "table" && block.rows.length > 2) {
      const [head, divider] = [lines[block.from], lines[block.from + 1]];
      const unfinished = lines.slice(block.to - 1).join("\n");
      block.rows.pop();
      this.element.append(rendered(block));
      this.tail = [head, divider, unfinished].join("\n");
      return true;
    }
    if (block.type === "paragraph" || block.type === "quote") {
      const end = Math.max(this.tail.lastIndexOf("\n"), block.type === "paragraph" ? this.tail.lastIndexOf(" ") : -1);
      if (end <= 0 && block.type === "quote") return false;
      const at = end > 0 ? end + 1 : wholeCharacters(this.tail);
      for (const each of blocks(this.tail.slice(0, at).split("\n"))) this.element.append(rendered(each));
      this.tail = this.tail.slice(at);
      return this.tail.length <= LONGEST;
    }
    return false;
  }
}

/** Return the length of a text without half of a surrogate pair at its end. */
function wholeCharacters(text) {
  return /[\ud800-\udbff]$/.test(text) ? text.length - 1 : text.length;
}

/** Show a whole text as markdown in an empty element. */
export function showMarkdown(element, text) {
  const view = new Markdown(element);
  view.tail = text;
  view.finish();
}

function rendered(block) {
  const builders = { heading, rule: () => h("hr"), quote, list, table, code, paragraph };
  return builders[block.type](block);
}

/** Let the text of an element choose its direction. With many children, Chromium is slow if this comes before them. */
function directed(element) {
  element.dir = "auto";
  return element;
}

/** Return a paragraph, or for a long one the pieces of it: Chromium lays out a million characters in 50 s otherwise. */
function paragraph({ text }) {
  if (text.length <= LONGEST) return directed(h("p", {}, inline(text)));
  const pieces = h("div");
  for (let from = 0, to; from < text.length; from = to) {
    to = pieceEnd(text, from);
    pieces.append(directed(h(to < text.length ? "p.piece" : "p", {}, inline(text.slice(from, to)))));
  }
  return pieces;
}

function pieceEnd(text, from) {
  const end = from + LONGEST;
  if (end >= text.length) return text.length;
  const space = Math.max(text.lastIndexOf(" ", end), text.lastIndexOf("\n", end));
  return space > from ? space + 1 : from + wholeCharacters(text.slice(from, end));
}

/** The page has its own h1 and h2, so that those of an answer begin below. */
function heading({ level, text }) {
  return directed(h(`h${Math.min(level + 2, 6)}.level-${level}`, {}, inline(text)));
}

function quote({ blocks: inner }) {
  const quoted = h("blockquote");
  for (const block of inner) quoted.append(rendered(block));
  return directed(quoted);
}

function list({ ordered, start, items, isLoose }) {
  const element = h(ordered ? "ol" : "ul");
  if (ordered && start !== 1) element.start = start;
  for (const item of items) {
    const entry = h("li");
    for (const block of item.blocks) {
      if (block.type === "paragraph" && !isLoose) entry.append(inline(withBox(block.text)));
      else entry.append(rendered(block));
    }
    element.append(entry);
  }
  return directed(element);
}

/** Show the box of a task. */
function withBox(text) {
  return text.replace(/^\[( |x|X)\] /, (found, mark) => (mark === " " ? "☐ " : "☑ "));
}

function table({ alignments, names, rows }) {
  const cell = (tag, text, column) => directed(h(`${tag}.${alignments[column]}`, {}, inline(text)));
  const head = h("tr", {}, ...names.map((text, column) => cell("th", text, column)));
  const body = rows.map((row) => h("tr", {}, ...row.map((text, column) => cell("td", text, column))));
  const rest = h("tbody");
  for (const row of body) rest.append(row);
  const whole = h("table", {}, h("thead", {}, head), rest);
  return h("div.wide", { tabIndex: 0, role: "region", "aria-label": "Table" }, whole);
}

function code({ language, lines }) {
  const view = new Code(language);
  for (const line of lines) view.add(line);
  return view.element;
}

/** A block of code with a button that copies it. Its lines are laid out in parts, so that adding some is cheap. */
class Code {
  constructor(language) {
    this.lines = [];
    this.pre = h("pre", { tabIndex: 0, dir: "ltr" });
    this.part = null;
    this.last = null;
    const button = h("button.quiet.copy", { type: "button", onclick: () => this.copy(button) }, "Copy");
    this.element = h("div.code", {}, h("div.code-head", {}, h("span", {}, language || "code"), button), this.pre);
  }

  add(line) {
    this.preview("");
    if (this.lines.length % LINES_IN_PART === 0) this.pre.append((this.part = h("code")));
    this.part.append(this.lines.length % LINES_IN_PART ? `\n${line}` : line || "\u200b");
    this.lines.push(line);
  }

  /** Show a line that has not ended. */
  preview(line) {
    if (!line && !this.last) return;
    this.last ??= h("code");
    this.last.textContent = line;
    if (!line) {
      this.last.remove();
      this.last = null;
    } else if (!this.last.isConnected) this.pre.append(this.last);
  }

  async copy(button) {
    button.textContent = (await copy(this.lines.join("\n"))) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }
}
