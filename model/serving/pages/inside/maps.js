// Attention: which tokens each token reads from, in all heads at once, in the heads of a layer, and in one head.

import { h } from "/static/page.js";
import { Grid, figure, percent } from "/static/model/inside/grid.js";

/** Return a picture of all heads, from the bytes of /api/inside/maps. A column is a layer, a row a head. */
export function allHeads(bytes, open) {
  const view = new DataView(bytes);
  const [layers, heads, time] = [0, 4, 8].map((place) => view.getUint32(place, true));
  const numbers = Array.from({ length: layers }, (_, place) => view.getUint32(12 + 4 * place, true));
  const shares = new Uint8Array(bytes, 12 + 4 * layers);
  const gap = Math.max(1, Math.round(time / 10));
  const pitch = time + gap;
  const level = (y, x) => {
    const [head, row, layer, column] = [Math.floor(y / pitch), y % pitch, Math.floor(x / pitch), x % pitch];
    if (row >= time || column > row) return -1;
    return shares[((layer * heads + head) * time + row) * time + column];
  };
  return new Grid({
    label: `Attention of ${heads} heads in ${layers} layers`, hint: "A column is a layer, a row is a head. Click one to open it.",
    marks: {
      columns: numbers.map((layer, place) => [place * pitch + time / 2, String(layer)]),
      rows: Array.from({ length: heads }, (_, head) => [head * pitch + time / 2, String(head)]),
    },
    rows: heads * pitch - gap, columns: layers * pitch - gap, scale: "share", level,
    size: (width) => {
      const side = Math.max(22, Math.min(width / layers, 64)) / pitch;
      return [side, side];
    },
    tell: (y, x) => {
      const [head, layer] = [Math.floor(y / pitch), numbers[Math.floor(x / pitch)]];
      const [row, column] = [y % pitch, x % pitch];
      const name = `Layer ${layer}, head ${head}`;
      if (row >= time || column > row) return name;
      return `${name}: token ${row} attends to token ${column} with ${percent((level(y, x) / 255) ** 2)}`;
    },
    choose: (y, x) => open(numbers[Math.floor(x / pitch)], Math.floor(y / pitch)),
  });
}

/** Read the bytes of /api/inside/layer. */
export function readLayer(bytes) {
  const view = new DataView(bytes);
  const [heads, time] = [view.getUint32(0, true), view.getUint32(4, true)];
  const shares = new Float32Array(bytes.slice(8));
  return { heads, time, share: (head, row, column) => shares[(head * time + row) * time + column] };
}

const shade = (share) => Math.round(255 * Math.sqrt(Math.min(Math.max(share, 0), 1)));

/** Return small pictures of the heads of a layer, each a button that opens the head. */
export function headButtons(layer, open, current) {
  const grids = [];
  const buttons = Array.from({ length: layer.heads }, (_, head) => {
    const grid = new Grid({
      label: `Head ${head}`, rows: layer.time, columns: layer.time, scale: "share",
      level: (row, column) => (column > row ? -1 : shade(layer.share(head, row, column))),
      size: (width) => [width / layer.time, width / layer.time], tell: () => "",
    });
    grids.push(grid);
    grid.canvas.tabIndex = -1;
    grid.canvas.setAttribute("aria-hidden", "true");
    grid.readout.remove();
    const button = h("button.head", { type: "button", onclick: () => open(head) }, grid.element, h("span", {}, `head ${head}`));
    if (head === current) button.setAttribute("aria-current", "true");
    return button;
  });
  return { element: h("div.heads", {}, ...buttons), grids };
}

/** Return the picture of a head, with the labels of the tokens. */
export function headMap(layer, head, tokens, name) {
  const labels = tokens.map((token) => token.label);
  const quoted = (place) => `“${labels[place]}” (${place})`;
  return new Grid({
    label: `Attention of ${name}`, hint: "A row is a token that attends, a column a token that is attended to.",
    rows: layer.time, columns: layer.time, scale: "share", rowLabels: labels, columnLabels: labels,
    level: (row, column) => (column > row ? -1 : shade(layer.share(head, row, column))),
    size: (width) => {
      const side = Math.max(5, Math.min(width / layer.time, 34));
      return [side, Math.min(side, 34)];
    },
    write: (row, column) => (column > row || layer.share(head, row, column) < 0.005 ? "" : String(Math.round(100 * layer.share(head, row, column)))),
    tell: (row, column) =>
      column > row ? `${quoted(row)} does not see ${quoted(column)}, which is later` : `${quoted(row)} attends to ${quoted(column)}: ${percent(layer.share(head, row, column))} (${figure(layer.share(head, row, column))})`,
  });
}
