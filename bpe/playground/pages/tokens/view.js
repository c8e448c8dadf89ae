// The tokens of a text in a box that scrolls. Only the blocks of tokens near what is visible are elements, so that a text
// of a megabyte costs no more than a page.

import { h } from "/static/page.js";
import { shownPieces, spoken } from "./display.js";
import { firstWhere } from "./places.js";

const COLORS = 5;
const ENOUGH = 60; // tokens, after which a block ends at the next line break
const MOST = 240; // tokens of a block
const MARGIN = 350; // pixels above and below what is visible

export class TokenView {
  /**
   * @param {Object} listeners onActive(index or null, how) is called when a token becomes the active one: "hover",
   *   "key" or "click".
   */
  constructor({ label, onActive }) {
    this.strip = h("div.strip", { role: "presentation" });
    this.element = h("div.view", { role: "listbox", tabIndex: 0, "aria-label": label }, this.strip);
    this.id = `view-${Math.random().toString(36).slice(2)}`;
    this.onActive = onActive;
    this.tokens = null;
    this.rendered = new Map(); // number of a block -> its element
    this.marked = [0, 0];
    this.active = null;
    this.element.addEventListener("scroll", () => this.#later(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.strip.addEventListener("pointerover", (event) => this.#onPointer(event, "hover"));
    this.strip.addEventListener("click", (event) => this.#onPointer(event, "click"));
    this.element.addEventListener("pointerleave", () => this.onActive(null, "hover"));
    this.observer = new ResizeObserver(() => this.#resized());
    this.observer.observe(this.element);
  }

  /**
   * Show tokens.
   *
   * @param {Object} tokens {count, ids, begins, ends, specials}: arrays, the places in bytes.
   * @param {Places} places The text.
   * @param {Object} options {whiteSpace, ids}: whether to mark white space, and to show ids.
   */
  show(tokens, places, options) {
    this.tokens = tokens;
    this.places = places;
    this.options = options;
    this.active = null;
    this.#divide();
    this.#clear();
    this.render();
  }

  /** Mark the tokens that contain bytes of a part of the text, and unmark others. */
  mark(begin, end) {
    if (this.marked[0] === begin && this.marked[1] === end) return;
    this.marked = [begin, end];
    for (const element of this.strip.querySelectorAll(".token")) {
      element.classList.toggle("marked", this.#isMarked(Number(element.dataset.token)));
    }
  }

  /** Make a token the active one, or none if the index is null. */
  activate(index) {
    this.active = index;
    for (const element of this.strip.querySelectorAll(".token.active")) {
      element.classList.remove("active");
      element.setAttribute("aria-selected", "false");
    }
    const element = index === null ? null : this.#elementOf(index);
    element?.classList.add("active");
    element?.setAttribute("aria-selected", "true");
    if (element) this.element.setAttribute("aria-activedescendant", element.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  /** Scroll so that a token is visible. */
  reveal(index) {
    if (!this.tokens || !(index < this.tokens.count)) return;
    const block = firstWhere(this.starts.length, (at) => this.starts[at] > index) - 1;
    if (!this.rendered.has(block)) {
      this.element.scrollTop = this.tops[block] - this.element.clientHeight / 3;
      this.render();
    }
    const element = this.#elementOf(index);
    if (!element) return;
    const box = element.getBoundingClientRect();
    const view = this.element.getBoundingClientRect();
    if (box.top < view.top) this.element.scrollTop += box.top - view.top - 24;
    else if (box.bottom > view.bottom) this.element.scrollTop += box.bottom - view.bottom + 24;
    this.render();
  }

  /** Return the index of the first token that ends behind a byte of the text. */
  tokenAt(byte) {
    return firstWhere(this.tokens.count, (index) => this.tokens.ends[index] > byte);
  }

  destroy() {
    this.observer.disconnect();
  }

  // Blocks: their first tokens, their heights (estimated, then measured), and where each begins.

  #divide() {
    const { count, ends } = this.tokens;
    const { text, units } = this.places;
    const starts = [];
    let start = 0;
    for (let index = 0; index < count; index += 1) {
      const size = index + 1 - start;
      const isBreak = size >= ENOUGH && text.charCodeAt(units[ends[index]] - 1) === 10;
      if (isBreak || size >= MOST || index === count - 1) {
        starts.push(start);
        start = index + 1;
      }
    }
    this.starts = starts;
    this.#estimate();
  }

  #end(block) {
    return block + 1 < this.starts.length ? this.starts[block + 1] : this.tokens.count;
  }

  #estimate() {
    const { begins, ends } = this.tokens;
    const { units } = this.places;
    const style = getComputedStyle(this.element);
    const line = parseFloat(style.lineHeight) || 28;
    const columns = Math.max(10, this.element.clientWidth / (parseFloat(style.fontSize) * 0.62));
    this.heights = Float64Array.from(this.starts, (start, block) => {
      const characters = units[ends[this.#end(block) - 1]] - units[begins[start]];
      return line * Math.max(1, Math.ceil(characters / columns));
    });
    this.#place();
  }

  #place() {
    this.tops = new Float64Array(this.heights.length + 1);
    for (let block = 0; block < this.heights.length; block += 1) {
      this.tops[block + 1] = this.tops[block] + this.heights[block];
    }
  }

  #blockAt(pixel) {
    return Math.max(0, firstWhere(this.heights.length, (block) => this.tops[block + 1] > pixel));
  }

  // Elements

  #clear() {
    this.rendered.clear();
    this.strip.replaceChildren();
    this.element.removeAttribute("aria-activedescendant");
  }

  #later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.render();
    });
  }

  #resized() {
    const width = this.element.clientWidth;
    if (!this.tokens || width === 0 || (width === this.width && this.rendered.size)) return this.#later();
    this.width = width;
    const first = this.starts[this.#blockAt(this.element.scrollTop)] ?? 0;
    this.#estimate();
    this.#clear();
    this.element.scrollTop = this.tops[Math.max(0, firstWhere(this.starts.length, (at) => this.starts[at] > first) - 1)];
    this.render();
  }

  /** Make the elements of what is visible, and remove others. */
  render() {
    if (!this.tokens || this.element.clientHeight === 0) return;
    for (let attempt = 0; attempt < 4; attempt += 1) {
      if (!this.#renderOnce()) return;
    }
  }

  /** Returns whether heights have changed, so that other blocks may be visible. */
  #renderOnce() {
    const top = this.element.scrollTop;
    const anchor = this.#blockAt(top);
    const first = this.#blockAt(top - MARGIN);
    const last = Math.min(this.heights.length - 1, this.#blockAt(top + this.element.clientHeight + MARGIN));
    for (const [block, element] of this.rendered) {
      if (block < first || block > last) {
        element.remove();
        this.rendered.delete(block);
      }
    }
    const added = [];
    let before = null;
    for (let block = last; block >= first; block -= 1) {
      let element = this.rendered.get(block);
      if (!element) {
        element = this.#block(block);
        this.strip.insertBefore(element, before);
        this.rendered.set(block, element);
        added.push(block);
      }
      before = element;
    }
    const changed = this.#measure(added);
    const above = this.tops[first] ?? 0;
    this.strip.style.paddingTop = `${above}px`;
    this.strip.style.paddingBottom = `${(this.tops.at(-1) ?? 0) - (this.tops[last + 1] ?? 0)}px`;
    if (changed && anchor < this.heights.length) {
      // What is at the top of the view stays where it is.
      const moved = this.tops[anchor] - changed.tops[anchor];
      if (moved) this.element.scrollTop = top + moved;
    }
    return changed !== null;
  }

  #measure(blocks) {
    let changed = false;
    for (const block of blocks) {
      const height = this.rendered.get(block).getBoundingClientRect().height;
      if (Math.abs(height - this.heights[block]) > 0.5) {
        this.heights[block] = height;
        changed = true;
      }
    }
    if (!changed) return null;
    const tops = this.tops;
    this.#place();
    return { tops };
  }

  #block(block) {
    const element = h("div.block", { role: "presentation" });
    let end = block === 0 ? 0 : this.#furthest(this.starts[block]);
    for (let index = this.starts[block]; index < this.#end(block); index += 1) {
      const begin = this.tokens.begins[index];
      if (begin > end) element.append(this.#leftOut(end, begin));
      const token = this.#token(index);
      // A line may break before a space. Within the token, an empty part of it would stay on the line before.
      if (token.firstChild?.className === "space") element.append(document.createElement("wbr"));
      element.append(token);
      end = Math.max(end, this.tokens.ends[index]);
    }
    if (block === this.starts.length - 1 && end < this.places.bytes) {
      element.append(this.#leftOut(end, this.places.bytes));
    }
    return element;
  }

  /** Return where the tokens before a token end. Spans of a normalized text may overlap, but not far. */
  #furthest(index) {
    let end = 0;
    for (let before = Math.max(0, index - 16); before < index; before += 1) {
      end = Math.max(end, this.tokens.ends[before]);
    }
    return end;
  }

  #leftOut(begin, end) {
    const nodes = shownPieces(this.places.pieces(begin, end), this.options.whiteSpace);
    return h("span.left-out", { title: "The tokenizer leaves this text out." }, ...nodes);
  }

  #token(index) {
    const { ids, begins, ends, specials, count } = this.tokens;
    const pieces = this.places.pieces(begins[index], ends[index]);
    const element = document.createElement("span"); // there are thousands of them, so this is not `h`
    element.className = `token color-${index % COLORS}`;
    if (specials[index]) element.classList.add("special");
    if (this.#isMarked(index)) element.classList.add("marked");
    if (index === this.active) element.classList.add("active");
    element.id = `${this.id}-${index}`;
    element.dataset.token = index;
    element.setAttribute("role", "option");
    element.setAttribute("aria-selected", String(index === this.active));
    element.setAttribute("aria-setsize", count);
    element.setAttribute("aria-posinset", index + 1);
    const label = `${spoken(pieces)}, id ${ids[index]}${specials[index] ? ", special token" : ""}`;
    element.setAttribute("aria-label", label);
    element.append(...shownPieces(pieces, this.options.whiteSpace));
    if (this.options.ids) {
      const number = h("span.id", { "aria-hidden": "true" }, String(ids[index]));
      // Behind the text, but before a line break at its end.
      const end = element.lastChild;
      if (end?.nodeType === Node.TEXT_NODE && end.data === "\n") element.insertBefore(number, end);
      else element.append(number);
    }
    return element;
  }

  #elementOf(index) {
    return document.getElementById(`${this.id}-${index}`);
  }

  #isMarked(index) {
    const [begin, end] = this.marked;
    return this.tokens.begins[index] < end && this.tokens.ends[index] > begin;
  }

  // The pointer and the keyboard

  #onPointer(event, how) {
    if (how === "hover" && event.pointerType === "touch") return;
    const token = event.target.closest(".token");
    if (token) this.onActive(Number(token.dataset.token), how);
  }

  #onKey(event) {
    if (!this.tokens?.count || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = this.#target(event.key);
    if (to === undefined) return;
    event.preventDefault();
    const index = Math.min(Math.max(to, 0), this.tokens.count - 1);
    this.reveal(index);
    this.onActive(index, event.key === "Enter" || event.key === " " ? "click" : "key");
  }

  #target(key) {
    const at = this.active ?? -1;
    switch (key) {
      case "ArrowRight":
        return at + 1;
      case "ArrowLeft":
        return at - 1;
      case "ArrowDown":
        return this.#beside(at, 1);
      case "ArrowUp":
        return this.#beside(at, -1);
      case "PageDown":
        return at + 100;
      case "PageUp":
        return at - 100;
      case "Home":
        return 0;
      case "End":
        return this.tokens.count - 1;
      case "Enter":
      case " ":
        return Math.max(at, 0);
      default:
        return undefined;
    }
  }

  /** Return the token on the next line, or on the one before, that is nearest to a token. */
  #beside(index, direction) {
    const box = this.#elementOf(index)?.getClientRects()[0];
    if (!box) return Math.max(index, 0);
    let nearest = index + direction;
    let distance = Infinity;
    let line = null;
    for (let other = index + direction; other >= 0 && other < this.tokens.count; other += direction) {
      const place = this.#elementOf(other)?.getClientRects()[0];
      if (!place) break;
      if (Math.abs(place.top - box.top) < 4) continue;
      line ??= place.top;
      if (Math.abs(place.top - line) > 4) break;
      if (Math.abs(place.left - box.left) < distance) {
        distance = Math.abs(place.left - box.left);
        nearest = other;
      }
    }
    return nearest;
  }
}
