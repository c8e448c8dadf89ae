// Markdown within a paragraph: code, emphasis, links. It builds elements and text, never markup, in linear time.

import { h } from "/static/page.js";

const SPECIAL = /[\\`*_~[\]!<\n]|https?:\/\//g;
const DESTINATION = /\(\s{0,9}<?([^\s<>()]{0,2000}(?:\([^\s<>()]{0,500}\)[^\s<>()]{0,500}){0,9})>?(?:\s{1,9}"[^"\n]{0,500}"|\s{1,9}'[^'\n]{0,500}')?\s{0,9}\)/y;
const ADDRESS = /https?:\/\/[^\s<>"'`]{1,2000}/y;
const ANGLED = /<(https?:\/\/[^\s<>]{1,2000})>/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const SPACE = /^\s?$/;
const DEEPEST = 24; // elements within each other

/** Return the nodes of a text. */
export function inline(text) {
  const items = pair(scan(text));
  const root = document.createDocumentFragment();
  build(root, items);
  return root;
}

/** Split a text into strings, nodes, line breaks, and the marks that may begin and end emphasis and links. */
function scan(text) {
  const items = [];
  const brackets = [];
  const runs = backticks(text);
  let plain = 0;
  let at = 0;
  const push = (item, from, to) => {
    if (from > plain) items.push(text.slice(plain, from));
    if (item !== null) items.push(item);
    plain = at = to;
  };
  SPECIAL.lastIndex = 0;
  for (let found; (found = SPECIAL.exec(text)); SPECIAL.lastIndex = at) {
    const from = found.index;
    const mark = text[from];
    at = from + found[0].length;
    if (mark === "\n") push({ element: "br" }, from, at);
    else if (mark === "\\" && PUNCTUATION.test(text[at] ?? "")) push(text[at], from, at + 1);
    else if (mark === "\\" && text[at] === "\n") push({ element: "br" }, from, at + 1);
    else if (mark === "`") {
      const run = runs.get(from);
      if (run.to < 0) push(text.slice(from, run.end), from, run.end);
      else push(code(text.slice(run.end, run.to)), from, run.to + run.end - from);
    } else if (mark === "h") {
      const address = addressAt(text, from);
      if (address) push(link(address, [address]), from, from + address.length);
    } else if (mark === "<") {
      ANGLED.lastIndex = from;
      const angled = ANGLED.exec(text);
      if (angled && isSafe(angled[1])) push(link(angled[1], [angled[1]]), from, ANGLED.lastIndex);
    } else if (mark === "[" || (mark === "!" && text[at] === "[")) {
      const item = { bracket: text.slice(from, mark === "!" ? ++at : at) };
      push(item, from, at);
      brackets.push(item);
    } else if (mark === "]") {
      const open = brackets.pop();
      DESTINATION.lastIndex = at;
      const target = open && text[at] === "(" && DESTINATION.exec(text);
      if (!target) continue;
      const end = DESTINATION.lastIndex;
      if (isSafe(target[1])) {
        push({ close: open }, from, end);
        open.target = target[1];
        if (open.bracket === "[") brackets.length = 0; // no link within a link
      } else {
        push(null, from, from);
        at = end;
      }
    } else if (mark === "*" || mark === "_" || mark === "~") {
      let end = from;
      while (text[end] === mark) end++;
      const item = delimiter(text, from, end, mark);
      if (item) push(item, from, end);
      else at = end;
    }
  }
  push(null, text.length, text.length);
  return items;
}

/** Return where each run of backticks ends, and where the run that closes it begins; -1 if there is none. */
function backticks(text) {
  const runs = new Map();
  const open = new Map(); // length -> the run before, whose closing run this is
  for (const { index, 0: run } of text.matchAll(/`+/g)) {
    const entry = { end: index + run.length, to: -1 };
    const before = open.get(run.length);
    if (before) before.to = index;
    open.set(run.length, entry);
    runs.set(index, entry);
  }
  return runs;
}

function code(text) {
  let shown = text.replaceAll("\n", " ");
  if (/^ .* $/.test(shown) && shown.trim()) shown = shown.slice(1, -1);
  return h("code", {}, shown);
}

function addressAt(text, from) {
  if (from > 0 && WORD.test(text[from - 1])) return null;
  ADDRESS.lastIndex = from;
  let address = ADDRESS.exec(text)?.[0] ?? "";
  let end = address.length;
  const closed = (address.match(/\)/g) ?? []).length - (address.match(/\(/g) ?? []).length;
  let extra = closed;
  while (end && (/[.,:;!?*_~\]]/.test(address[end - 1]) || (address[end - 1] === ")" && extra-- > 0))) end--;
  address = address.slice(0, end);
  return isSafe(address) ? address : null;
}

/** Return whether an address may become a link: http and https only, without a name and password. */
export function isSafe(address) {
  if (!/^https?:\/\//i.test(address) || !URL.canParse(address)) return false;
  const url = new URL(address);
  return /^https?:$/.test(url.protocol) && !url.username && !url.password;
}

function link(address, children) {
  return h("a", { href: address, rel: "noopener noreferrer nofollow", target: "_blank", title: address }, ...children);
}

function delimiter(text, from, end, mark) {
  const count = end - from;
  if (mark === "~" && count !== 2) return null;
  const [before, after] = [text[from - 1] ?? "", text[end] ?? ""];
  const left = !SPACE.test(after) && (!PUNCTUATION.test(after) || SPACE.test(before) || PUNCTUATION.test(before));
  const right = !SPACE.test(before) && (!PUNCTUATION.test(before) || SPACE.test(after) || PUNCTUATION.test(after));
  const inWord = mark === "_" && WORD.test(before) && WORD.test(after);
  const opens = left && !inWord && !(mark === "_" && right && !PUNCTUATION.test(before));
  const closes = right && !inWord && !(mark === "_" && left && !PUNCTUATION.test(after));
  return opens || closes ? { mark, count, whole: count, opens, closes, begins: [], ends: [], open: null } : null;
}

/** Pair the marks of emphasis (CommonMark, "process emphasis"), within each link and outside. */
function pair(items) {
  const levels = [newLevel()];
  for (const item of items) {
    if (item.target !== undefined) levels.push(newLevel());
    else if (item.close) levels.pop();
    else if (item.mark) match(levels.at(-1), item);
  }
  return items;
}

function newLevel() {
  return { openers: [], bottoms: new Map() };
}

function match({ openers, bottoms }, closer) {
  while (closer.closes && closer.count > 0) {
    const kind = `${closer.mark}${closer.opens}${closer.whole % 3}`;
    const bottom = bottoms.get(kind) ?? 0;
    let place = openers.length - 1;
    while (place >= bottom && !fits(openers[place], closer)) place--;
    if (place < bottom) {
      bottoms.set(kind, openers.length);
      break;
    }
    const opener = openers[place];
    const size = closer.mark === "~" || (opener.count >= 2 && closer.count >= 2) ? 2 : 1;
    const element = closer.mark === "~" ? "del" : size === 2 ? "strong" : "em";
    opener.begins.unshift(element);
    closer.ends.push(element);
    opener.count -= size;
    closer.count -= size;
    openers.length = opener.count > 0 ? place + 1 : place;
    for (const [name, value] of bottoms) if (value > openers.length) bottoms.set(name, openers.length);
  }
  if (closer.opens && closer.count > 0) openers.push(closer);
}

function fits(opener, closer) {
  if (opener.mark !== closer.mark) return false;
  const odd = (opener.closes || closer.opens) && (opener.whole + closer.whole) % 3 === 0;
  return !(odd && (opener.whole % 3 || closer.whole % 3));
}

/** Build the elements. Marks that found no partner are text. */
function build(root, items) {
  const stack = [root];
  let tooDeep = 0;
  const open = (element) => {
    if (stack.length > DEEPEST) return tooDeep++;
    stack.at(-1).append(element);
    stack.push(element);
    return 0;
  };
  const close = () => {
    if (tooDeep) tooDeep--;
    else stack.pop();
  };
  for (const item of items) {
    if (typeof item === "string" || item instanceof Node) stack.at(-1).append(item);
    else if (item.element) stack.at(-1).append(document.createElement(item.element));
    else if (item.close) close();
    else if (item.target !== undefined) open(opening(item));
    else if (item.bracket) stack.at(-1).append(item.bracket);
    else {
      item.ends.forEach(close);
      if (item.count) stack.at(-1).append(item.mark.repeat(item.count));
      item.begins.forEach((name) => open(document.createElement(name)));
    }
  }
}

/** Return the element of a link. An image is not loaded, so it is a link as well. */
function opening({ bracket, target }) {
  return link(target, bracket === "[" ? [] : ["Image: "]);
}
