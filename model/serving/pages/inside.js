// The part Inside: what the model computes for a text. The whole model first; a click leads to a layer, a head, a number.

import { counted, debounced, h, withCommas } from "/static/page.js";
import { notice } from "/static/model/chat/notices.js";
import { allHeads, headButtons, headMap, readLayer } from "/static/model/inside/maps.js";
import { bars, label, lensTable } from "/static/model/inside/lens.js";
import { stepList } from "/static/model/inside/steps.js";
import { icon } from "/static/model/icons.js";
import { ask } from "/static/model/server.js";

const ASKED_ABOVE = 1e9; // bytes: a model that takes more memory is loaded only when the reader says so

export async function mount(element, about, shell) {
  const inside = new Inside(element, shell);
  await inside.begin();
}

class Inside {
  constructor(element, shell) {
    Object.assign(this, { shell, status: null, text: "", found: null, grids: [], asking: null, layerData: new Map() });
    this.field = h("textarea.inside-text", { rows: 2, dir: "auto", "aria-label": "Text to look at", disabled: true, onkeydown: (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.read();
    } });
    this.button = h("button.button.primary", { type: "submit", disabled: true }, "Look inside");
    const form = h("form.inside-form", { onsubmit: (event) => { event.preventDefault(); this.read(); } }, this.field, this.button);
    this.trail = h("nav.trail", { "aria-label": "Depth" });
    this.state = h("div.inside-state", { role: "status" });
    this.body = h("div.inside-body");
    element.append(h("div.inside", {}, h("p.intro.muted", {}, "A text goes through the model, layer by layer. Point at a number to read it; click to go a layer deeper."), form, this.state, this.trail, this.body));
    shell.onState(debounced(() => this.followAddress(), 50));
  }

  async begin() {
    await this.trying(async () => {
      this.status = await (await ask("/api/inside")).json();
      const { status } = this;
      this.field.value = this.shell.state().get("text") ?? status.text;
      this.field.maxLength = status.most_characters;
      this.field.disabled = this.button.disabled = status.state === "impossible";
      if (status.state === "impossible") this.say(h("div.notice", {}, h("p", {}, h("strong", {}, "This page cannot look inside. ")), capital(status.why)));
      else if (status.state === "unloaded" && status.bytes > ASKED_ABOVE) this.offer();
      else await this.load();
    }, () => this.begin());
  }

  /** Ask before much memory is taken. */
  offer() {
    const { bytes, parameters } = this.status;
    const button = h("button.button.primary", { type: "button", onclick: () => this.trying(() => this.load(), () => this.load()) }, `Load ${inBytes(bytes)}`);
    this.say(h("div.notice", {}, h("p", {}, `To look inside, the server loads the ${withCommas(parameters)} weights a second time, in PyTorch's form: ${inBytes(bytes)} of memory.`), button));
    this.field.disabled = this.button.disabled = true;
  }

  async load() {
    const { status } = this;
    if (status.state !== "ready") {
      const words = status.bytes ? `Loading the weights in PyTorch's form: ${inBytes(status.bytes)} of memory. This happens once.` : "Preparing the model.";
      this.wait(words);
      this.status = await (await ask("/api/inside/load", { json: {} })).json();
    }
    this.field.disabled = this.button.disabled = false;
    await this.show(this.field.value, this.shell.state());
  }

  async read() {
    if (this.button.disabled) return;
    await this.trying(() => this.show(this.field.value, new URLSearchParams()), () => this.read());
  }

  async followAddress() {
    const state = this.shell.state();
    if (!this.found) return;
    this.field.value = state.get("text") ?? this.status.text;
    await this.trying(() => this.show(this.field.value, state), () => this.followAddress());
  }

  /** Show a text, at the depth that the address names. */
  async show(text, state) {
    if (text !== this.text || !this.found) {
      this.wait("Reading the text…");
      this.clear();
      this.trail.replaceChildren();
      this.layerData.clear();
      this.found = null;
      const found = await (await this.request("text", { text })).json();
      Object.assign(this, { found, text });
    }
    this.say();
    const [layer, head] = ["layer", "head"].map((name) => wholeNumber(state.get(name)));
    if (layer === null || layer >= this.status.layers) this.showModel();
    else await this.showLayer(layer, head !== null && head < this.status.heads ? head : null);
  }

  request(name, json) {
    this.asking?.abort();
    this.asking = new AbortController();
    return ask(`/api/inside/${name}`, { json, signal: this.asking.signal });
  }

  async trying(act, retry) {
    try {
      await act();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error.kind)) console.error(error);
      this.say(notice(error, retry));
    }
  }

  say(...nodes) {
    this.state.replaceChildren(...nodes);
    this.body.removeAttribute("aria-busy");
  }

  wait(words) {
    this.state.replaceChildren(h("p.waiting", {}, h("span.spinner", { "aria-hidden": "true" }), words));
    this.body.setAttribute("aria-busy", "true");
  }

  clear() {
    for (const grid of this.grids) grid.remove();
    this.grids = [];
    this.body.replaceChildren();
  }

  keep(grid) {
    this.grids.push(grid);
    return grid.element;
  }

  /** Show where the reader is, and the way back; and put it into the address. */
  showTrail(...steps) {
    const whole = ["Whole model", () => this.go(() => this.showModel())];
    const all = [whole, ...steps];
    this.trail.hidden = !steps.length;
    this.trail.replaceChildren(h("ol", {}, ...all.map(([name, go], place) => {
      const isLast = place === all.length - 1;
      return h("li", {}, isLast ? h("span", { "aria-current": "location" }, name) : h("button.quiet", { type: "button", onclick: go }, name));
    })));
  }

  writeAddress(layer = null, head = null) {
    const state = new URLSearchParams();
    if (this.text !== this.status.text) state.set("text", this.text);
    if (layer !== null) state.set("layer", layer);
    if (head !== null) state.set("head", head);
    this.shell.setState(state);
  }

  /** Go to another depth, and put the focus on its heading. */
  async go(act) {
    await this.trying(async () => {
      await act();
      this.trail.scrollIntoView({ block: "nearest" });
      this.body.querySelector("h2")?.focus({ preventScroll: true });
    }, () => this.go(act));
  }

  heading(text, note) {
    return [h("h2", { tabIndex: -1 }, text), note && h("p.muted.note", {}, note)].filter(Boolean);
  }

  // The whole model.

  showModel() {
    this.clear();
    this.showTrail();
    this.writeAddress();
    const { found, status } = this;
    const lens = lensTable(found, (layer) => this.go(() => this.showLayer(layer)));
    const next = found.next.at(-1);
    const maps = h("div.maps", {}, h("p.waiting", {}, h("span.spinner", { "aria-hidden": "true" }), "Drawing the attention of all heads…"));
    const section = (name, ...content) => h(`section.${name}`, {}, ...content);
    const facts = `${counted(status.layers, "layer")} · ${counted(status.heads, "head")} each · ${withCommas(status.dim)} dimensions · ${withCommas(status.parameters)} parameters`;
    this.body.append(
      section("tokens-part", ...this.heading(counted(found.tokens.length, "token"), facts), this.chips()),
      h("div.two", {},
        section("lens-part", ...this.heading("What each layer would say", found.first
          ? `The likeliest next token if the model ended after that layer, for the last ${found.tokens.length - found.first} tokens. Click a row to open its layer.`
          : "The likeliest next token if the model ended after that layer. Click a cell to open its layer."), lens.table),
        h("div.beside", {}, lens.detail, section("next-part", ...this.heading("The likeliest next tokens", "After the last token."), bars(next, found.vocabulary, 12)))),
      section("maps-part", ...this.heading("Attention", "Which tokens each token reads from. Rows within a picture attend to columns; a stronger colour is more, on a square-root scale."), maps),
    );
    lens.end();
    this.showMaps(maps);
  }

  async showMaps(place) {
    try {
      const bytes = await (await this.request("maps", { text: this.text })).arrayBuffer();
      if (!place.isConnected) return;
      place.replaceChildren(this.keep(allHeads(bytes, (layer, head) => this.go(() => this.showLayer(layer, head)))));
    } catch (error) {
      if (error.name === "AbortError") return;
      place.replaceChildren(h("p.notice", { role: "alert" }, error.message, " Open a layer above to see its heads."));
    }
  }

  chips() {
    return h("ol.chips", {}, ...this.found.tokens.map((token, place) =>
      h(`li.chip.token-${place % 5}`, { title: `token ${place} · id ${token.id} · bytes ${token.bytes}` }, label(token, "bdi"), h("span.muted", {}, String(token.id)))));
  }

  // A layer, and a head of it.

  async showLayer(layer, head = null) {
    const { status, found } = this;
    if (status.image_layers.includes(layer)) {
      this.clear();
      this.showTrail([`Layer ${layer}`]);
      this.body.append(...this.heading(`Layer ${layer}`, "This layer reads images. A text has none, so the layer is passed over."));
      return;
    }
    if (!this.layerData.has(layer)) {
      this.wait(`Computing layer ${layer}…`);
      const bytes = await (await this.request("layer", { text: this.text, layer })).arrayBuffer();
      this.layerData.set(layer, readLayer(bytes));
    }
    const shown = head ?? 0;
    this.wait(`Computing the steps of layer ${layer}…`);
    const { steps } = await (await this.request("steps", { text: this.text, layer, head: shown })).json();
    this.say();
    this.clear();
    const toLayer = () => this.go(() => this.showLayer(layer));
    this.showTrail(...(head === null ? [[`Layer ${layer}`]] : [[`Layer ${layer}`, toLayer], [`Head ${head}`]]));
    this.writeAddress(layer, head);
    const data = this.layerData.get(layer);
    const heads = headButtons(data, (each) => this.go(() => this.showLayer(layer, each)), head);
    this.grids.push(...heads.grids);
    const numbersOf = async (step, row) =>
      new Float32Array(await (await this.request("numbers", { text: this.text, layer, head: shown, step, row })).arrayBuffer());
    const list = stepList(steps, found.tokens, numbersOf, this.grids);
    const neighbours = h("div.toolbar.neighbours", {}, this.neighbour("previous", layer - 1, head), this.neighbour("next", layer + 1, head));
    const title = head === null ? `Layer ${layer} of ${status.layers}` : `Layer ${layer}, head ${head}`;
    const map = head === null ? null : h("section.map-part", {}, this.keep(headMap(data, head, found.tokens, title.toLowerCase())));
    const others = h("section", {}, h("h3", {}, head === null ? "Heads" : "All heads of the layer"), heads.element);
    this.body.append(
      h("div.title-row", {}, ...this.heading(title), neighbours),
      map ? h("div.head-pair", {}, map, others) : others,
      h("section", {}, h("h3", {}, `Steps of layer ${layer}, head ${shown}`), h("p.muted.note", {}, "Open a step to see its numbers; click a row for all of them."), list.element),
    );
    if (head === null) list.open(1);
  }

  neighbour(name, layer, head) {
    const exists = layer >= 0 && layer < this.status.layers;
    const words = exists ? `Layer ${layer}` : name === "next" ? "Last layer" : "First layer";
    return h("button.button", { type: "button", disabled: !exists, onclick: () => this.go(() => this.showLayer(layer, head)) }, name === "previous" && icon(name), words, name === "next" && icon(name));
  }
}

function wholeNumber(text) {
  return text !== null && /^\d{1,6}$/.test(text) ? Number(text) : null;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");
}

function inBytes(bytes) {
  return bytes >= 1e8 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`;
}
