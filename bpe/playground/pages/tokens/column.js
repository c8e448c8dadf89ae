// A tokenizer's column: which tokenizer, how many tokens, the tokens, and what the active one is.

import { copy, counted, h, request, withCommas } from "/static/page.js";
import { codePoint, hexOf, shown, shownPieces } from "./display.js";
import { TokenView } from "./view.js";

const described = new Map(); // name of a tokenizer -> id -> its description

export class Column {
  /**
   * @param {Object} settings name: the tokenizer; choices: the tokenizers to choose from; announce: reads a text aloud;
   *   onChoose(name), onRemove(), onHover([begin, end] or null, pinned): called when the reader does so; onCount():
   *   called when there are new tokens.
   */
  constructor({ name, choices, announce, onChoose, onRemove, onHover, onCount }) {
    this.name = name;
    this.announce = announce;
    this.onHover = onHover;
    this.onCount = onCount;
    this.tokens = null;
    this.pinned = null;
    this.select = chooser(name, choices);
    this.select.addEventListener("change", () => onChoose(this.select.value));
    this.remove = h("button.quiet.remove", { type: "button", title: "Remove", onclick: onRemove }, "×");
    this.count = h("span.count");
    this.facts = h("span.facts.muted");
    this.share = h("div.share", { "aria-hidden": "true" }, h("div.share-bar"));
    this.problem = h("p.notice.error", { role: "alert", hidden: true });
    this.view = new TokenView({ label: `Tokens of ${name}`, onActive: (index, how) => this.#activate(index, how) });
    this.detail = h("div.detail");
    this.copyButton = h("button.quiet", { type: "button", onclick: () => this.#copy() }, "Copy ids");
    this.element = h(
      "section.column.card",
      { "aria-label": name },
      h("div.column-top", {}, this.select, this.remove),
      h("div.column-facts", {}, this.count, this.copyButton, this.facts),
      this.share,
      this.problem,
      this.view.element,
      this.detail,
    );
    this.#label();
    this.#showDetail(null);
  }

  /** Take another tokenizer. */
  choose(name) {
    this.name = name;
    this.select.value = name;
    this.#label();
  }

  #label() {
    this.element.setAttribute("aria-label", this.name);
    this.select.setAttribute("aria-label", "Tokenizer");
    this.view.element.setAttribute("aria-label", `Tokens of ${this.name}`);
    this.copyButton.setAttribute("aria-label", `Copy the ids of ${this.name}`);
    this.remove.setAttribute("aria-label", `Remove ${this.name}`);
  }

  /**
   * Encode a text and show its tokens. An earlier request that is still running is cancelled.
   *
   * @param {Places} places The text.
   * @param {Object} options {special, whiteSpace, ids}: whether special tokens are recognised, and what is shown.
   */
  async update(places, options) {
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    this.element.setAttribute("aria-busy", "true");
    const query = new URLSearchParams({ tokenizer: this.name, special: options.special ? "1" : "0" });
    try {
      const response = await request(`/api/tokens/encode?${query}`, {
        method: "POST",
        headers: { "content-type": "text/plain; charset=utf-8" },
        body: places.content,
        signal: controller.signal,
      });
      const tokens = tokensOf(await response.arrayBuffer());
      if (controller.signal.aborted) return;
      this.problem.hidden = true;
      this.tokens = tokens;
      this.places = places;
      this.#show(options);
    } catch (error) {
      if (controller.signal.aborted || error.name === "AbortError") return;
      this.#fail(error);
    }
    this.element.setAttribute("aria-busy", "false");
    this.onCount();
  }

  /** Show the same tokens with other options. */
  redraw(options) {
    if (this.tokens) this.#show(options);
  }

  #show(options) {
    this.options = options;
    this.pinned = null;
    this.view.show(this.tokens, this.places, options);
    const { count } = this.tokens;
    this.count.replaceChildren(h("strong", {}, withCommas(count)), ` token${count === 1 ? "" : "s"}`);
    this.#showDetail(null);
  }

  #fail(error) {
    this.tokens = null;
    this.count.textContent = "";
    this.facts.textContent = "";
    this.problem.textContent = error.message;
    this.problem.hidden = false;
    this.view.show(tokensOf(new ArrayBuffer(4)), this.places ?? emptyPlaces, this.options ?? {});
    this.#showDetail(null);
  }

  /** Show how the number of tokens compares with that of the first column, and with the most of all. */
  compare(first, most) {
    if (!this.tokens) return;
    const { count } = this.tokens;
    const facts = [`${count ? (this.places.bytes / count).toFixed(2) : "0"} bytes per token`];
    if (first && count && first !== count) {
      const percent = Math.round((count / first - 1) * 100);
      facts.push(percent ? `${percent > 0 ? "+" : "−"}${Math.abs(percent)}%` : "about as many");
    }
    this.facts.textContent = facts.join(" · ");
    this.share.firstChild.style.width = `${most ? (count / most) * 100 : 0}%`;
  }

  // The active token

  #activate(index, how) {
    if (how === "hover" && this.pinned !== null) return;
    if (how === "click") {
      this.pinned = this.pinned === index ? null : index;
    } else if (how === "key") this.pinned = null;
    this.view.activate(index);
    this.#showDetail(index);
    const span = index === null ? null : [this.tokens.begins[index], this.tokens.ends[index]];
    this.onHover(span, how);
  }

  /** Forget the active token, since one of another column has become active. */
  release() {
    this.pinned = null;
    this.view.activate(null);
    this.#showDetail(null);
  }

  #showDetail(index) {
    this.shownIndex = index;
    if (index === null || !this.tokens) {
      const hint = this.tokens?.count ? "Point at a token for details." : "";
      this.detail.replaceChildren(h("p.muted.hint", {}, hint));
      return;
    }
    const { ids, begins, ends, specials, count } = this.tokens;
    const id = ids[index];
    const begin = begins[index];
    const end = ends[index];
    const pieces = this.places.pieces(begin, end);
    const { units } = this.places;
    const content = h("dd.mono.token-bytes", {}, hexOf(this.places.content.subarray(begin, Math.min(end, begin + 64))));
    const text = h("span.detail-text.mono", {}, ...shownPieces(pieces, true));
    this.detail.replaceChildren(
      h("div.detail-top", {}, text, h("span.muted", {}, kind(pieces, specials[index]))),
      h(
        "dl.detail-facts",
        {},
        fact("id", h("dd.mono.token-id", {}, String(id))),
        fact("token", h("dd", {}, `${withCommas(index + 1)} of ${withCommas(count)}`)),
        fact("characters", h("dd.token-characters", {}, this.#characters(units[begin], begin, end))),
        fact("bytes", h("dd.token-span", {}, range(begin, end))),
        fact("content", content),
      ),
    );
    this.#describe(id).then((token) => {
      if (this.shownIndex !== index || !token || this.tokens.ids[index] !== id) return;
      content.textContent = grouped(token.bytes.slice(0, 128)) + (token.bytes.length > 128 ? " …" : "");
      if (!pieces.length) text.replaceChildren(...shown(token.text, true));
    });
  }

  #characters(unit, begin, end) {
    const { places } = this;
    const first = places.charactersBefore(unit);
    let to = end;
    while (!places.isBoundary(to)) to += 1;
    return range(first, begin === end ? first : places.charactersBefore(places.units[to]));
  }

  async #describe(id) {
    const { name } = this;
    if (!described.has(name)) described.set(name, new Map());
    const known = described.get(name);
    if (!known.has(id)) {
      known.set(
        id,
        request("/api/tokens/describe", { json: { tokenizer: name, ids: [id] } })
          .then(async (response) => (await response.json()).tokens[0])
          .catch(() => {
            known.delete(id);
            return null;
          }),
      );
    }
    return known.get(id);
  }

  async #copy() {
    if (!this.tokens) return;
    const copied = await copy(`[${Array.from(this.tokens.ids).join(", ")}]`);
    const words = copied ? `Copied ${counted(this.tokens.count, "id")}` : "The browser does not allow copying";
    this.announce(words);
    this.copyButton.textContent = copied ? "Copied" : "Not allowed";
    setTimeout(() => (this.copyButton.textContent = "Copy ids"), 1500);
  }

  destroy() {
    this.controller?.abort();
    this.view.destroy();
    this.element.remove();
  }
}

const emptyPlaces = { text: "", units: new Uint32Array(1), bytes: 0, pieces: () => [] };

/** Return the tokens in an answer of /api/tokens/encode. */
function tokensOf(buffer) {
  const count = new DataView(buffer).getUint32(0, true);
  const numbers = (at) => new Uint32Array(buffer, 4 + 4 * count * at, count);
  const specials = new Uint8Array(buffer, 4 + 12 * count, count);
  return { count, ids: numbers(0), begins: numbers(1), ends: numbers(2), specials };
}

const GROUPS = { given: "Given", known: "Known names", hub: "Hub", folder: "This folder" };

function chooser(name, choices) {
  const select = h("select.chooser");
  for (const [group, label] of Object.entries(GROUPS)) {
    const options = choices.filter((choice) => choice.group === group);
    if (!options.length) continue;
    const entries = options.map((choice) => h("option", { value: choice.name }, choice.name));
    select.append(h("optgroup", { label }, ...entries));
  }
  select.value = name;
  return select;
}

function fact(term, definition) {
  return h("div", {}, h("dt", {}, term), definition);
}

function range(begin, end) {
  return begin === end ? `at ${withCommas(begin)}` : `${withCommas(begin)}–${withCommas(end)}`;
}

function grouped(hex) {
  return hex.replace(/..(?=.)/g, "$& ");
}

function kind(pieces, special) {
  if (special) return "special token";
  if (!pieces.length) return "stands for no text";
  const part = pieces.find((piece) => piece.text === undefined);
  if (!part) return "";
  const last = part.from + part.bytes.length;
  const which = part.bytes.length === 1 ? `byte ${last}` : `bytes ${part.from + 1}–${last}`;
  const shownAs = /^\p{M}/u.test(part.character) ? `\u25cc${part.character}` : part.character;
  return `${pieces.length > 1 ? "with " : ""}${which} of ${part.size} of ${shownAs} (${codePoint(part.character)})`;
}
