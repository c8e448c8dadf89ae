// The part Tokens: a text on one side, and on the other how tokenizers split it.

import { copy, counted, debounced, h, request } from "/static/page.js";
import { Column } from "/static/tokens/column.js";
import { IdsInput } from "/static/tokens/ids.js";
import { Places } from "/static/tokens/places.js";
import { SAMPLES } from "/static/tokens/samples.js";

const SHARED = 2000; // units of a text that the address holds
const LARGE = 20_000; // units of a text that is encoded only when the typing pauses
const MOST_COLUMNS = 6;

export async function mount(element, about, shell) {
  const part = new Tokens(element, about, shell);
  await part.start();
  return () => part.destroy();
}

class Tokens {
  constructor(element, about, shell) {
    this.element = element;
    this.about = about;
    this.shell = shell;
    this.columns = [];
    this.value = ""; // the text; a text box would turn all its line breaks into \n
    this.places = new Places("");
    this.soon = debounced(() => this.encode(), 60);
    this.later = debounced(() => this.encode(), 250);
  }

  async start() {
    const answer = await (await request("/api/tokens")).json();
    this.choices = answer.tokenizers;
    if (!this.choices.length) {
      this.element.append(withoutTokenizers(answer.missing));
      return;
    }
    this.#build();
    this.read(this.shell.state());
    this.shell.onState((state) => this.read(state));
  }

  #build() {
    this.text = h("textarea.text.mono", {
      id: "text",
      spellcheck: false,
      autocomplete: "off",
      placeholder: "Write or paste a text, or drop a file here.",
      oninput: () => this.typed(),
    });
    this.text.setAttribute("autocapitalize", "off");
    this.textFacts = h("p.text-facts.muted", { id: "text-facts" });
    this.text.setAttribute("aria-describedby", "text-facts");
    this.ids = new IdsInput({
      tokenizer: () => this.columns[0].name,
      onText: async (text) => {
        await this.setText(text, true);
        return this.columns[0].tokens?.ids;
      },
    });
    this.special = check("Recognise special tokens", "special", () => this.encode());
    this.whiteSpace = check("Show white space", "white-space", () => this.redraw());
    this.showIds = check("Show ids", "show-ids", () => this.redraw());
    this.modeText = mode("Text", "mode-text", () => this.setMode(false));
    this.modeIds = mode("Ids", "mode-ids", () => this.setMode(true));
    this.columnsElement = h("div.columns");
    this.notice = h("p.notice", { role: "status", hidden: true });
    this.add = h("button.button.add", { type: "button", onclick: () => this.addColumn() }, "Add a tokenizer");
    this.link = h("button.button", { type: "button", onclick: () => this.copyLink() }, "Copy link");
    this.element.append(
      h(
        "div.tokens-part",
        {},
        h(
          "section.input",
          { "aria-label": "Input" },
          h(
            "div.toolbar.input-top",
            {},
            h("div.modes", { role: "group", "aria-label": "Input as" }, this.modeText, this.modeIds),
            this.#samples(),
            this.#file(),
          ),
          h("label.visually-hidden", { for: "text" }, "Text"),
          this.text,
          this.ids.element,
          this.textFacts,
        ),
        h(
          "section.output",
          { "aria-label": "Tokens" },
          h(
            "div.toolbar.output-top",
            {},
            this.special.label,
            this.whiteSpace.label,
            this.showIds.label,
            h("div.actions", {}, this.add, this.link),
          ),
          this.notice,
          this.columnsElement,
        ),
      ),
    );
    this.#takeDroppedFiles();
  }

  #samples() {
    const options = Object.keys(SAMPLES).map((name) => h("option", { value: name }, name));
    const select = h("select.samples", { "aria-label": "Examples" }, h("option", { value: "" }, "Examples"), ...options);
    select.addEventListener("change", () => {
      if (select.value) this.setText(SAMPLES[select.value]);
      select.value = "";
    });
    return select;
  }

  #file() {
    const input = h("input.visually-hidden", { type: "file", id: "file", tabIndex: -1, "aria-label": "File" });
    input.addEventListener("change", async () => {
      if (input.files[0]) this.setText(await input.files[0].text());
      input.value = "";
    });
    return h("span", {}, h("button.button", { type: "button", title: "Open a file", onclick: () => input.click() }, "Open…"), input);
  }

  #takeDroppedFiles() {
    this.element.addEventListener("dragover", (event) => event.preventDefault());
    this.element.addEventListener("drop", async (event) => {
      const [file] = event.dataTransfer.files;
      if (!file) return;
      event.preventDefault();
      this.setText(await file.text());
    });
  }

  // The state, which the address holds

  read(state) {
    const known = new Set(this.choices.map((choice) => choice.name));
    const asked = state.getAll("tokenizer");
    const names = asked.filter((name) => known.has(name)).slice(0, MOST_COLUMNS);
    this.#warn(asked.filter((name) => !known.has(name)), asked.length > MOST_COLUMNS, state);
    this.special.input.checked = state.get("special") !== "0";
    this.whiteSpace.input.checked = state.get("space") !== "0";
    this.showIds.input.checked = state.get("ids") === "1";
    this.value = state.get("text") ?? (state.has("long") ? this.value : SAMPLES["A few words"]);
    this.text.value = this.value;
    this.setMode(false);
    for (const column of this.columns) column.destroy();
    this.columns = [];
    for (const name of names.length ? names : this.#defaults()) this.#addColumn(name);
    this.encode();
  }

  /** Say what of a link cannot be shown. */
  #warn(unknown, isMore, state) {
    const said = [];
    if (unknown.length) said.push(`Not on this machine: ${unknown.join(", ").slice(0, 200)}.`);
    if (isMore) said.push(`The page shows at most ${MOST_COLUMNS} tokenizers.`);
    if (state.has("long") && !this.value) said.push("The text was too long for the link.");
    this.notice.textContent = said.join(" ");
    this.notice.hidden = !said.length;
  }

  #defaults() {
    const given = this.about.tokenizers ?? [];
    if (given.length) return given.slice(0, MOST_COLUMNS);
    const preferred = ["llama3", "cl100k_base"].filter((name) => this.choices.some((choice) => choice.name === name));
    return preferred.length ? preferred : [this.choices[0].name];
  }

  #write() {
    const state = new URLSearchParams();
    for (const column of this.columns) state.append("tokenizer", column.name);
    if (!this.special.input.checked) state.set("special", "0");
    if (!this.whiteSpace.input.checked) state.set("space", "0");
    if (this.showIds.input.checked) state.set("ids", "1");
    if (this.value.length <= SHARED) state.set("text", this.value);
    else state.set("long", "1");
    this.shell.setState(state);
  }

  async copyLink() {
    this.#write();
    const copied = await copy(location.href);
    const isLong = this.value.length > SHARED;
    const words = isLong ? "Link copied, without the text, which is too long" : "Link copied";
    this.link.textContent = copied ? (isLong ? "Copied without text" : "Copied") : "Not allowed";
    this.shell.announce(copied ? words : "The browser does not allow copying");
    setTimeout(() => (this.link.textContent = "Copy link"), 2000);
  }

  // The text

  setMode(ids) {
    this.modeText.setAttribute("aria-pressed", String(!ids));
    this.modeIds.setAttribute("aria-pressed", String(ids));
    this.text.hidden = ids;
    this.ids.element.hidden = !ids;
    if (ids) this.ids.start(this.columns[0]?.tokens?.ids ?? []);
  }

  setText(text, fromIds = false) {
    this.value = text;
    this.text.value = text;
    if (!fromIds) {
      this.setMode(false);
      this.text.scrollTop = 0;
    }
    return this.encode();
  }

  typed() {
    this.value = this.text.value;
    if (this.value.length > LARGE) this.later();
    else this.soon();
  }

  encode() {
    this.soon.cancel();
    this.later.cancel();
    this.places = new Places(this.value);
    const { characters, bytes } = this.places;
    this.textFacts.textContent = `${counted(characters, "character")} · ${counted(bytes, "byte")}`;
    const caret = document.activeElement === this.text ? this.text.selectionStart : null;
    this.#write();
    return Promise.all(this.columns.map((column) => this.#update(column, caret)));
  }

  async #update(column, caret = null) {
    const { places } = this;
    await column.update(places, this.#options());
    if (caret !== null && column.places === places) column.view.reveal(column.view.tokenAt(places.byteOf(caret) - 1));
  }

  #options() {
    return {
      special: this.special.input.checked,
      whiteSpace: this.whiteSpace.input.checked,
      ids: this.showIds.input.checked,
    };
  }

  redraw() {
    for (const column of this.columns) column.redraw(this.#options());
    this.#write();
  }

  // Columns

  addColumn() {
    const used = new Set(this.columns.map((column) => column.name));
    const next = this.choices.find((choice) => !used.has(choice.name)) ?? this.choices[0];
    const column = this.#addColumn(next.name);
    this.#update(column);
    this.#write();
    column.select.focus();
  }

  #addColumn(name) {
    const column = new Column({
      name,
      choices: this.choices,
      announce: (text) => this.shell.announce(text),
      onChoose: (chosen) => {
        column.choose(chosen);
        this.#update(column);
        this.#write();
      },
      onRemove: () => this.#removeColumn(column),
      onHover: (span, how) => this.#mark(column, span, how),
      onCount: () => this.#compare(),
    });
    this.columns.push(column);
    this.columnsElement.append(column.element);
    this.#countColumns();
    return column;
  }

  #removeColumn(column) {
    column.destroy();
    this.columns = this.columns.filter((other) => other !== column);
    this.#countColumns();
    this.#compare();
    this.#write();
    this.add.focus();
  }

  #countColumns() {
    for (const column of this.columns) column.remove.hidden = this.columns.length === 1;
    this.add.disabled = this.columns.length >= MOST_COLUMNS;
    this.columnsElement.dataset.count = String(this.columns.length);
  }

  #compare() {
    const counts = this.columns.filter((column) => column.tokens).map((column) => column.tokens.count);
    this.columns.forEach((column, index) => column.compare(index ? this.columns[0].tokens?.count : 0, Math.max(...counts)));
  }

  /** Mark the text of a column's active token in all columns. */
  #mark(column, span, how) {
    const [begin, end] = span ?? [0, 0];
    for (const other of this.columns) {
      if (!other.tokens || other.places !== this.places) continue;
      other.view.mark(begin, end);
      if (other !== column && how !== "hover") {
        other.release();
        if (span && begin < end) other.view.reveal(other.view.tokenAt(begin));
      }
    }
  }

  destroy() {
    for (const column of this.columns) column.destroy();
  }
}

function check(label, id, onchange) {
  const input = h("input", { type: "checkbox", id, onchange });
  return { input, label: h("label.check", {}, input, label) };
}

function mode(label, id, onclick) {
  return h("button.mode", { type: "button", id, onclick }, label);
}

function withoutTokenizers(missing) {
  const entries = Object.entries(missing).flatMap(([name, remedy]) => [h("dt.mono", {}, name), h("dd", {}, remedy)]);
  return h(
    "div.card",
    {},
    h("h2", {}, "No tokenizer is on this machine"),
    h("p", {}, "Train one with bpe train, start bpe playground with the path of a file, or get one of these:"),
    h("dl.remedies", {}, ...entries),
  );
}
