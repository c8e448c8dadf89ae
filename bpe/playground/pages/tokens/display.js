// How the text of a token is shown: white space and control characters are visible, and nothing runs over its edges.

import { h } from "/static/page.js";

const LONGEST = 400; // units of a token that are shown
const MOST_MARKS = 4; // combining marks on one character

// In groups: spaces, line breaks, tabs, what has no glyph or changes the direction of text, and too many marks.
const UNUSUAL =
  /( +)|(\r\n|\n|\r)|(\t+)|([\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\u115f\u1160\u3164\uffa0])|(\p{M}{5,})/gu;
const PLAIN = /^( ?)([!-~]+)$/; // most tokens of most texts, which need no search
const JOINERS = /^[\u200c\u200d]$/; // within a token they shape what is beside them

/**
 * Return the nodes that show a text.
 *
 * @param {string} text The text.
 * @param {boolean} whiteSpace Whether to mark spaces, tabs and line breaks.
 */
export function shown(text, whiteSpace) {
  const simple = text.length <= LONGEST && PLAIN.exec(text);
  if (simple) return simple[1] && whiteSpace ? [mark("\u00b7"), simple[2]] : [text];
  const nodes = [];
  let visible = text.length > LONGEST ? text.slice(0, LONGEST) : text;
  const alone = visible.match(/^\p{M}{1,4}/u); // marks whose character is in another token
  if (alone) {
    nodes.push(h("span.alone", {}, `\u25cc${alone[0]}`));
    visible = visible.slice(alone[0].length);
  }
  let from = 0;
  const plain = (to) => to > from && nodes.push(visible.slice(from, to));
  for (const match of visible.matchAll(UNUSUAL)) {
    const [all, spaces, breaks, tabs, other] = match;
    const { index } = match;
    if (spaces !== undefined && !whiteSpace) continue;
    if (other !== undefined && JOINERS.test(all) && index > 0 && index + all.length < text.length) continue;
    plain(index);
    from = index + all.length;
    if (spaces !== undefined) nodes.push(...(nodes.length ? [h("wbr")] : []), mark("\u00b7".repeat(all.length)));
    else if (breaks !== undefined) nodes.push(...lineBreak(all, whiteSpace));
    else if (tabs !== undefined) nodes.push(...(whiteSpace ? [mark("\u2192")] : []), all);
    else if (other !== undefined) nodes.push(h("span.control", {}, nameOf(all)));
    else nodes.push(all.slice(0, MOST_MARKS), h("span.control", {}, `+${all.length - MOST_MARKS} marks`));
  }
  plain(visible.length);
  if (text.length > LONGEST) nodes.push(h("span.control", {}, `+${text.length - LONGEST} more`));
  return nodes;
}

function mark(glyph) {
  const element = document.createElement("span");
  element.className = "space";
  element.textContent = glyph;
  return element;
}

function lineBreak(text, whiteSpace) {
  const glyph = { "\n": "\u23ce", "\r\n": "CR\u23ce", "\r": "CR" }[text];
  const end = text === "\r" ? "" : "\n";
  return whiteSpace || text !== "\n" ? [mark(glyph), end] : [end];
}

function nameOf(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return CONTROLS[code];
  if (code === 0x7f) return "DEL";
  return codePoint(character);
}

const CONTROLS = (
  "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI " +
  "DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US"
).split(" ");

/** Return the number of a character, as in "U+0301". */
export function codePoint(character) {
  const code = character.codePointAt(0);
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Return bytes in hexadecimal, as in "e2 9c". */
export function hexOf(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

/**
 * Return the nodes that show a token, from its pieces; see Places.pieces.
 *
 * @param {Array} pieces The pieces. Without any, the token stands for no text.
 * @param {boolean} whiteSpace As in `shown`.
 */
export function shownPieces(pieces, whiteSpace) {
  if (!pieces.length) return [h("span.control", {}, "∅")];
  return pieces.flatMap((piece) =>
    piece.text === undefined ? [h("span.bytes", {}, hexOf(piece.bytes))] : shown(piece.text, whiteSpace),
  );
}

/** Return the words that a screen reader says for the pieces of a token. */
export function spoken(pieces) {
  if (!pieces.length) return "no text";
  return pieces
    .map((piece) => (piece.text === undefined ? `bytes ${hexOf(piece.bytes)}` : spokenText(piece.text.slice(0, 80))))
    .join(" ");
}

function spokenText(text) {
  if (/^ +$/.test(text)) return text.length === 1 ? "space" : `${text.length} spaces`;
  if (/^[\r\n]+$/.test(text)) return "line break";
  return text;
}
