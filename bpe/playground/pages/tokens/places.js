// Places in a text: the server counts bytes of UTF-8, JavaScript counts units of UTF-16.

const encoder = new TextEncoder();

/** A text, with the unit of UTF-16 in which the character of each of its bytes begins. */
export class Places {
  constructor(text) {
    this.text = text;
    /** The UTF-8 of the text. As in every encoder of UTF-8, a lone surrogate becomes U+FFFD. */
    this.content = encoder.encode(text);
    this.units = new Uint32Array(this.content.length + 1);
    this.characters = this.#fill();
  }

  #fill() {
    const { text, units } = this;
    const { length } = text;
    let byte = 0;
    let pairs = 0;
    for (let unit = 0; unit < length; unit += 1) {
      const code = text.charCodeAt(unit);
      units[byte++] = unit;
      if (code < 0x80) continue;
      units[byte++] = unit;
      if (code < 0x800) continue;
      units[byte++] = unit;
      if (isHigh(code) && unit + 1 < length && isLow(text.charCodeAt(unit + 1))) {
        units[byte++] = unit;
        unit += 1;
        pairs += 1;
      }
    }
    units[byte] = length;
    return length - pairs;
  }

  get bytes() {
    return this.content.length;
  }

  /** Return whether a character begins at a byte, or the text ends there. */
  isBoundary(byte) {
    return byte === 0 || this.units[byte] !== this.units[byte - 1];
  }

  /** Return the number of characters before a unit. */
  charactersBefore(unit) {
    if (this.characters === this.text.length) return unit;
    let characters = 0;
    for (let at = 0; at < unit; at += 1) {
      if (!isLow(this.text.charCodeAt(at)) || at === 0 || !isHigh(this.text.charCodeAt(at - 1))) characters += 1;
    }
    return characters;
  }

  /** Return the byte at which the character of a unit begins. */
  byteOf(unit) {
    return firstWhere(this.units.length, (byte) => this.units[byte] >= unit);
  }

  /**
   * Return the pieces of a token: {text} for whole characters, {bytes, character} for a part of one.
   *
   * @param {number} begin The first byte of the token in the text.
   * @param {number} end The byte behind it.
   */
  pieces(begin, end) {
    const pieces = [];
    let from = begin;
    while (from < end && !this.isBoundary(from)) from += 1;
    if (from > begin) pieces.push(this.#part(begin, from));
    let to = end;
    while (to > from && !this.isBoundary(to)) to -= 1;
    if (to > from) pieces.push({ text: this.text.slice(this.units[from], this.units[to]) });
    if (end > to) pieces.push(this.#part(to, end));
    return pieces;
  }

  #part(begin, end) {
    let first = begin;
    while (!this.isBoundary(first)) first -= 1;
    let last = begin + 1;
    while (!this.isBoundary(last)) last += 1;
    return {
      bytes: this.content.subarray(begin, end),
      character: this.text.slice(this.units[first], this.units[last]),
      from: begin - first,
      size: last - first,
    };
  }
}

function isHigh(code) {
  return code >= 0xd800 && code < 0xdc00;
}

function isLow(code) {
  return code >= 0xdc00 && code < 0xe000;
}

/** Return the first number below a limit for which a test holds, or the limit; the test holds for all after it. */
export function firstWhere(limit, test) {
  let low = 0;
  let high = limit;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (test(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
