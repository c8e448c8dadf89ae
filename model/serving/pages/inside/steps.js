// The steps of a layer: what is computed one after the other, a picture of the numbers of each, and all numbers of a row.

import { h, withCommas } from "/static/page.js";
import { Grid, figure, percent } from "/static/model/inside/grid.js";

/**
 * Return the steps.
 *
 * @param {Object[]} steps The steps of /api/inside/steps.
 * @param {Object[]} tokens The tokens of the text.
 * @param {function} numbersOf Returns the numbers of a row of a step, a promise of a Float32Array.
 * @param {Grid[]} grids Takes the pictures that are made, so that they can be removed.
 */
export function stepList(steps, tokens, numbersOf, grids) {
  const items = steps.map((step, place) => {
    const shape = `${step.shape.map(withCommas).join(" × ")} ${step.axes.join(" × ")}, ${step.dtype}`;
    const body = h("div.step-body");
    const details = h("details.step", {}, h("summary", {}, h("span.step-title", {}, step.title), h("span.shape.muted.mono", {}, shape)), h("p.step-text", {}, step.text), body);
    details.addEventListener("toggle", () => {
      if (details.open && !body.firstChild) fill(step, place, body);
    });
    return h("li", {}, details);
  });

  function fill(step, place, body) {
    if (!step.rows) {
      body.append(h("ol.chips", {}, ...tokens.map((token) => h("li.chip", {}, h("bdi", {}, token.label), h("span.muted", {}, String(token.id))))));
      return;
    }
    const more = h("div.row-numbers", { "aria-live": "polite" });
    const grid = stepGrid(step, tokens, (row) => showRow(step, place, row, more));
    grids.push(grid);
    body.append(h("p.muted.range", {}, `from ${figure(step.min)} to ${figure(step.max)}, mean ${figure(step.mean)}`), grid.element, more);
  }

  async function showRow(step, place, row, more) {
    more.replaceChildren(h("p.muted", {}, "Reading the numbers…"));
    try {
      const numbers = await numbersOf(place, row);
      const grid = numberGrid(numbers, `${step.title}, ${rowName(step, tokens, row)}`);
      grids.push(grid);
      more.replaceChildren(h("h4", {}, `${rowName(step, tokens, row)}: all ${withCommas(numbers.length)} numbers`), grid.element);
    } catch (error) {
      if (error.name === "AbortError") return;
      more.replaceChildren(h("p.notice.error", { role: "alert" }, error.message));
    }
  }

  return { element: h("ol.steps", {}, ...items), open: (place) => (items[place].firstChild.open = true) };
}

function rowName(step, tokens, row) {
  if (step.picture === "layers") return row === 0 ? "before the first layer" : `after layer ${row - 1}`;
  const place = tokens.length - step.rows.length + row; // the last steps have the last token only
  return `“${tokens[place].label}” (${place})`;
}

function stepGrid(step, tokens, choose) {
  const { rows } = step;
  const columns = rows[0].length;
  const isShare = step.picture === "shares" || step.picture === "next";
  const most = Math.max(Math.abs(step.min), Math.abs(step.max)) || 1;
  const names = rows.map((_, row) => rowName(step, tokens, row));
  const labels = rows.map((_, row) => (step.picture === "layers" ? (row ? `layer ${row - 1}` : "start") : tokens[tokens.length - rows.length + row].label));
  const width = step.shape.at(-1);
  const part = (column) => {
    if (step.axes.join() === "time,time") return `to “${tokens[column].label}” (${column})`;
    if (columns === width) return `number ${column}`;
    const size = Math.floor(width / columns);
    const extra = width % columns;
    const from = column * size + Math.min(column, extra);
    return `numbers ${from} to ${from + size - (column < extra ? 0 : 1)}, the farthest from 0`;
  };
  return new Grid({
    label: `${step.title}: ${rows.length} rows`, hint: "Click a row to see all its numbers.",
    rows: rows.length, columns, scale: isShare ? "share" : "signed", rowLabels: labels,
    level: (row, column) => {
      const value = rows[row][column];
      if (value === null) return -1;
      return isShare ? Math.round(255 * Math.sqrt(Math.max(value, 0) / (step.picture === "next" ? most : 1))) : Math.round(127.5 + 127.5 * signedRoot(value / most));
    },
    size: (space) => [Math.min(Math.max(space / columns, 2), step.axes.join() === "time,time" ? 24 : 16), rows.length > 60 ? 6 : 15],
    tell: (row, column) => `${names[row]}, ${part(column)}: ${isShare ? percent(rows[row][column]) : figure(rows[row][column])}`,
    choose,
  });
}

/** A root keeps small numbers visible beside a few large ones. */
function signedRoot(value) {
  return Math.sign(value) * Math.sqrt(Math.min(Math.abs(value), 1));
}

function numberGrid(numbers, label) {
  const columns = numbers.length > 4096 ? 256 : Math.min(64, numbers.length);
  const rows = Math.ceil(numbers.length / columns);
  let most = 0;
  for (const value of numbers) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
  return new Grid({
    label, hint: `Each cell is a number; ${columns} in a row.`, rows, columns, scale: "signed",
    level: (row, column) => {
      const value = numbers[row * columns + column];
      return value === undefined || !Number.isFinite(value) ? -1 : Math.round(127.5 + 127.5 * signedRoot(value / (most || 1)));
    },
    size: (width) => {
      const side = Math.max(columns > 64 ? 2 : 4, Math.min(width / columns, 12));
      return [side, side];
    },
    tell: (row, column) => {
      const place = row * columns + column;
      return place < numbers.length ? `number ${withCommas(place)}: ${figure(numbers[place])}` : "";
    },
  });
}
