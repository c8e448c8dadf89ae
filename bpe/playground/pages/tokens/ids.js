// Ids that are written or pasted, and the text that they stand for.

import { counted, debounced, h, request } from "/static/page.js";

export class IdsInput {
  /**
   * @param {Object} settings tokenizer(): the name of the tokenizer that decodes; onText(text): called with the text,
   *   returns a promise of the ids that the tokenizer encodes it to.
   */
  constructor({ tokenizer, onText }) {
    this.tokenizer = tokenizer;
    this.onText = onText;
    this.area = h("textarea.text.mono", {
      id: "ids",
      spellcheck: false,
      autocomplete: "off",
      placeholder: "[9906, 1917]",
      "aria-describedby": "ids-problem",
    });
    this.area.addEventListener("input", debounced(() => this.decode(), 150));
    this.problem = h("p.ids-problem", { id: "ids-problem", role: "status" });
    this.output = h("pre.ids-text", { id: "ids-text", tabIndex: 0, "aria-label": "Text of the ids" });
    this.element = h(
      "div.ids",
      { hidden: true },
      h("label.visually-hidden", { for: "ids" }, "Ids"),
      this.area,
      this.problem,
      this.output,
    );
  }

  /** Begin with these ids. */
  start(ids) {
    this.area.value = ids.length > 100_000 ? "" : Array.from(ids).join(", ");
    this.problem.textContent = "";
    this.output.textContent = "";
    if (this.area.value) this.decode(false);
  }

  /** Show the text of the ids, and hand it on unless the ids come from it. */
  async decode(handOn = true) {
    const words = this.area.value.replace(/^\s*\[|\]\s*$/g, "").split(/[\s,;]+/).filter(Boolean);
    const wrong = words.findIndex((word) => !/^\d{1,10}$/.test(word));
    if (wrong >= 0) return this.#fail(`Entry ${wrong + 1} is not an id: ${words[wrong].slice(0, 40)}`);
    this.controller?.abort();
    this.controller = new AbortController();
    const { signal } = this.controller;
    try {
      const json = { tokenizer: this.tokenizer(), ids: words.map(Number) };
      const answer = await (await request("/api/tokens/decode", { json, signal })).json();
      if (signal.aborted) return;
      this.problem.className = "ids-problem muted";
      const broken = answer.is_text ? "" : "; some bytes are not UTF-8 and are shown as �";
      this.problem.textContent = `${counted(words.length, "id")} of ${json.tokenizer}, ${counted(answer.bytes, "byte")}${broken}`;
      this.output.textContent = answer.text;
      const encoded = handOn ? await this.onText(answer.text) : null;
      if (signal.aborted || !encoded || !answer.is_text) return;
      const isSame = encoded.length === words.length && words.every((word, place) => Number(word) === encoded[place]);
      if (!isSame) this.problem.textContent += `; ${json.tokenizer} encodes this text to other ids`;
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error.message);
    }
  }

  #fail(message) {
    this.problem.className = "ids-problem wrong";
    this.problem.textContent = message;
    this.output.textContent = "";
  }
}
