// What each layer would say: a table with a row for each layer and a column for each token of the text.

import { h } from "/static/page.js";
import { figure, percent, short } from "/static/model/inside/grid.js";

/** Return the label of a token as an element whose direction does not disturb its surroundings. */
export function label(token, name = "bdi.token") {
  return h(name, { title: token.bytes ? `id ${token.id} · bytes ${token.bytes}` : `id ${token.id}` }, short(token.label));
}

/** Return the likeliest tokens as bars. `pairs` has indices into `vocabulary` and probabilities. */
export function bars(pairs, vocabulary, count) {
  const most = pairs[0]?.[1] || 1;
  return h("ol.bars", {}, ...pairs.slice(0, count).map(([place, probability]) => {
    const bar = h("span.bar");
    bar.style.width = `${(100 * probability) / most}%`;
    return h("li", {}, label(vocabulary[place]), h("span.track", {}, bar), h("span.share", {}, percent(probability)), h("span.id.muted", {}, String(vocabulary[place].id)));
  }));
}

/**
 * Return the table, and the details of the cell that is pointed at.
 *
 * @param {Object} found The answer of /api/inside/text.
 * @param {function} openLayer Called with the number of a layer that is clicked.
 */
export function lensTable(found, openLayer) {
  const { tokens, lens, vocabulary, first, sizes } = found;
  const shown = tokens.slice(first);
  const last = lens.length - 1;
  const detail = h("div.lens-detail", { "aria-live": "polite" });
  const cells = [];

  function tell(row, column) {
    const where = row === 0 ? "Before the first layer" : `After layer ${row - 1}`;
    detail.replaceChildren(
      h("h3", {}, where, ", after ", label(shown[column])),
      bars(lens[row][column], vocabulary, 5),
      h("p.muted", {}, `Size of the stream: ${figure(sizes[row][column])}.`, row === last ? " This is what the model says." : ""),
    );
    for (const each of body.querySelectorAll(".chosen")) each.classList.remove("chosen");
    cells[row][column].classList.add("chosen");
  }

  function cell(row, column) {
    const [[place, probability]] = lens[row][column];
    const token = vocabulary[place];
    const button = h("button.cell", {
      type: "button", tabIndex: -1, "aria-label": `${token.label}, ${percent(probability)}`,
      onpointerenter: () => tell(row, column), onfocus: () => tell(row, column),
      onclick: () => row > 0 && openLayer(row - 1),
    }, h("bdi", {}, short(token.label)));
    button.style.setProperty("--share", String(probability));
    (cells[row] ??= [])[column] = button;
    return h("td", {}, button);
  }

  const head = h("tr", {}, h("th", { scope: "col" }, "layer"), ...shown.map((token) => h("th", { scope: "col" }, label(token))));
  const body = h("tbody");
  for (let row = last; row >= 0; row--) {
    const name = row === 0 ? h("span", {}, "start") : h("button.quiet.layer", { type: "button", onclick: () => openLayer(row - 1), "aria-label": `Open layer ${row - 1}` }, String(row - 1));
    body.append(h("tr", {}, h("th", { scope: "row" }, name), ...shown.map((token, column) => cell(row, column))));
  }
  cells[last].at(-1).tabIndex = 0;
  body.addEventListener("keydown", (event) => move(event));

  function move(event) {
    const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    for (let row = 0; row <= last; row++) {
      const column = cells[row].indexOf(document.activeElement);
      if (column < 0) continue;
      const next = cells[row + step[0]]?.[column + step[1]];
      event.preventDefault();
      if (!next) return;
      cells[row][column].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      return;
    }
  }

  const scroll = h("div.lens-scroll", {}, h("table.lens", {}, h("thead", {}, head), body));
  const end = () => {
    scroll.scrollLeft = scroll.scrollWidth;
    tell(last, shown.length - 1);
  };
  return { table: scroll, detail, end };
}
