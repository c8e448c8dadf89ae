// A picture of numbers in rows and columns, on a canvas. The mouse, a finger and the arrow keys choose a cell.

import { h } from "/static/page.js";
import { colour, isBright, onTheme, palettes } from "/static/model/inside/palette.js";

const FONT = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
const LABEL = 14; // characters of a label

/**
 * @param {Object} picture What to show:
 *   rows, columns: the numbers of both; level(row, column): a colour from 0 to 255, or -1 for none;
 *   scale: "share" or "signed"; size(width): width and height of a cell in pixels, for a width of the page;
 *   rowLabels, columnLabels: texts, or undefined; marks: texts for places [row or column, text], instead; write(row, column): a text for a cell that is large enough;
 *   tell(row, column): what a cell is, in words; choose(row, column): called by a click; label: what the picture is.
 */
export class Grid {
  constructor(picture) {
    this.picture = picture;
    this.at = null;
    this.canvas = h("canvas.grid", { tabIndex: 0, role: "img", "aria-label": `${picture.label}. Arrow keys show the numbers${picture.choose ? ", Enter opens" : ""}.` });
    this.readout = h("output.readout", { "aria-live": "polite" }, picture.hint ?? "\u00a0");
    this.element = h("figure.grid-figure", {}, h("div.grid-scroll", {}, this.canvas), this.readout);
    const { canvas } = this;
    canvas.classList.toggle("chooses", Boolean(picture.choose));
    canvas.addEventListener("pointermove", (event) => this.point(this.cellAt(event)));
    canvas.addEventListener("pointerdown", (event) => this.point(this.cellAt(event)));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("click", (event) => this.choose(this.cellAt(event)));
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.forget = onTheme(() => this.draw());
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.element);
  }

  remove() {
    this.forget();
    this.observer.disconnect();
    this.element.remove();
  }

  resize() {
    const width = Math.floor(this.element.clientWidth);
    if (!width || width === this.width) return;
    this.width = width;
    this.layout();
    this.draw();
  }

  layout() {
    const { rowLabels, columnLabels, rows, columns, marks } = this.picture;
    const widest = (labels) => Math.max(0, ...labels.map((label) => Math.min([...label].length, LABEL)));
    this.left = marks ? 24 : rowLabels ? Math.ceil(widest(rowLabels) * 6.8 + 10) : 0;
    this.top = marks ? 20 : columnLabels ? Math.ceil(widest(columnLabels) * 6.8 + 10) : 0;
    [this.cellWidth, this.cellHeight] = this.picture.size(this.width - this.left - 1);
    const [width, height] = [this.left + columns * this.cellWidth, this.top + rows * this.cellHeight];
    const ratio = Math.min(devicePixelRatio || 1, 3, Math.sqrt(3e7 / (width * height)));
    this.ratio = ratio;
    this.canvas.width = Math.ceil(width * ratio);
    this.canvas.height = Math.ceil(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
  }

  draw() {
    if (!this.width) return;
    const { rows, columns, level, scale: name } = this.picture;
    const scale = palettes()[name];
    const small = document.createElement("canvas");
    [small.width, small.height] = [columns, rows];
    const image = new ImageData(columns, rows);
    for (let row = 0, to = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, to += 4) {
        const shade = level(row, column);
        if (shade >= 0) image.data.set(scale.subarray(4 * shade, 4 * shade + 4), to);
      }
    }
    small.getContext("2d").putImageData(image, 0, 0);
    const context = this.canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, this.left, this.top, columns * this.cellWidth, rows * this.cellHeight);
    this.drawLabels(context);
    this.drawTexts(context, scale);
    this.drawMark(context);
  }

  drawLabels(context) {
    const { rowLabels, columnLabels, marks } = this.picture;
    const each = (labels, size, act) => {
      const step = Math.max(1, Math.ceil(11 / size));
      for (let at = 0; at < labels.length; at += step) act(short(labels[at]), at, this.isMarked(labels, at));
    };
    const [ink, muted] = [colour("--ink"), colour("--muted")];
    context.font = `11px ${FONT}`;
    context.textBaseline = "middle";
    if (rowLabels) {
      context.textAlign = "right";
      each(rowLabels, this.cellHeight, (text, row, isMarked) => {
        context.fillStyle = isMarked ? ink : muted;
        context.fillText(text, this.left - 6, this.top + (row + 0.5) * this.cellHeight);
      });
    }
    if (columnLabels) {
      context.textAlign = "left";
      each(columnLabels, this.cellWidth, (text, column, isMarked) => {
        context.fillStyle = isMarked ? ink : muted;
        context.save();
        context.translate(this.left + (column + 0.5) * this.cellWidth, this.top - 5);
        context.rotate(-Math.PI / 2);
        context.fillText(text, 0, 0);
        context.restore();
      });
    }
    if (!marks) return;
    context.fillStyle = muted;
    context.textAlign = "center";
    for (const [column, text] of marks.columns) context.fillText(text, this.left + column * this.cellWidth, 9);
    context.textAlign = "right";
    for (const [row, text] of marks.rows) context.fillText(text, this.left - 7, this.top + row * this.cellHeight);
  }

  isMarked(labels, at) {
    return this.at !== null && this.at[labels === this.picture.rowLabels ? 0 : 1] === at;
  }

  drawTexts(context, scale) {
    const { write, rows, columns, level } = this.picture;
    if (!write || this.cellWidth < 26 || this.cellHeight < 15) return;
    context.font = `10px ${FONT}`;
    context.textAlign = "center";
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const text = write(row, column);
        if (!text) continue;
        context.fillStyle = isBright(scale, level(row, column)) ? "#15171a" : "#ffffff";
        context.fillText(text, this.left + (column + 0.5) * this.cellWidth, this.top + (row + 0.5) * this.cellHeight);
      }
    }
  }

  drawMark(context) {
    if (!this.at) return;
    const [row, column] = this.at;
    context.strokeStyle = colour("--ink");
    context.lineWidth = 1.5;
    const [x, y] = [this.left + column * this.cellWidth, this.top + row * this.cellHeight];
    context.strokeRect(x + 0.5, y + 0.5, Math.max(this.cellWidth - 1, 2), Math.max(this.cellHeight - 1, 2));
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.left) / this.cellWidth);
    const row = Math.floor((event.clientY - box.top - this.top) / this.cellHeight);
    const { rows, columns } = this.picture;
    return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
  }

  point(cell) {
    if (cell?.[0] === this.at?.[0] && cell?.[1] === this.at?.[1]) return;
    this.at = cell;
    this.readout.textContent = (cell && this.picture.tell(...cell)) || this.picture.hint || "\u00a0";
    this.draw();
  }

  choose(cell) {
    if (cell && this.picture.choose) this.picture.choose(...cell);
  }

  key(event) {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    if (event.key === "Enter" || event.key === " ") this.choose(this.at);
    else if (down || right) {
      const { rows, columns } = this.picture;
      const [row, column] = this.at ?? [-down, -right]; // the first key chooses the first cell
      const inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
      this.point([inside(row + down, rows), inside(column + right, columns)]);
    } else return;
    event.preventDefault();
  }
}

/** Return a label that is short enough for its place. */
export function short(label) {
  const characters = [...label.slice(0, 4 * LABEL)];
  return characters.length > LABEL ? `${characters.slice(0, LABEL - 1).join("")}…` : label;
}

/** Return a number as it is shown: 0.0123, 12.3, 1.2e-7. */
export function figure(value) {
  if (value === null || value === -Infinity) return "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  return text.replace("-", "−");
}

/** Return a share in percent. */
export function percent(share) {
  const value = 100 * share;
  if (value === 0) return "0%";
  return `${value >= 0.995 ? value.toFixed(1) : value >= 0.01 ? value.toFixed(2) : "<0.01"}%`;
}
