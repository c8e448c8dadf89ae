// The colours of canvases, taken from the style sheet, so that they follow the theme.

const listeners = new Set();
let scales = null;

/** Call a function when the colours of the page change. Returns a function that ends this. */
export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed() {
  scales = null;
  for (const listener of listeners) listener();
}

new MutationObserver(changed).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);

/** Return the colour of a variable of the style sheet, as the canvas takes it. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.hidden = true;
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

/** Return the scales: `share` from 0 to 1, `signed` from -1 to 1, each 256 colours as bytes of red, green, blue, alpha. */
export function palettes() {
  scales ??= {
    share: gradient([colour("--sunken"), colour("--share-middle"), colour("--share-end")]),
    signed: gradient([colour("--cold"), colour("--sunken"), colour("--warm")]),
  };
  return scales;
}

function gradient(stops) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [256, 1];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const fill = context.createLinearGradient(0, 0, 256, 0);
  stops.forEach((stop, place) => fill.addColorStop(place / (stops.length - 1), stop));
  context.fillStyle = fill;
  context.fillRect(0, 0, 256, 1);
  return context.getImageData(0, 0, 256, 1).data;
}

/** Return whether dark letters are legible on a colour of a scale. */
export function isBright(scale, level) {
  const [red, green, blue] = scale.subarray(4 * level, 4 * level + 3);
  return 0.3 * red + 0.59 * green + 0.11 * blue > 140;
}
