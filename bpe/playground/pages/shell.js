// The shell: tabs, colours, and the protocol of the parts.
//
// /api/about lists the parts: {"parts": [{"name", "title", "module", "style"?}, ...], ...}. When a tab is opened for the
// first time, its style sheet and its module are loaded, and the module's function is called:
//
//     export function mount(element, about, shell)
//
// element: an empty element to fill. about: the answer of /api/about. shell: see `shellFor` below. mount may be async and
// may return a function, which is called when the page is left. A part stays in the page, hidden, while others are open,
// so that it keeps what it shows and goes on with its work. Its style sheet applies only while it is shown, so that parts
// may use the same names of classes.
//
// The Content-Security-Policy admits only files of this server: no inline script or style, no innerHTML. element.style
// works; setAttribute("style") does not. page.js has what builds elements and sends requests.

import { h, request } from "/static/page.js";

const tabs = document.getElementById("tabs");
const panels = document.getElementById("panels");
const announcements = document.getElementById("announcements");
const parts = new Map(); // name -> {tab, panel, module, style, sheet, mounted, query, listeners}
const leaving = [];

/** Read a text aloud in a screen reader. */
function announce(text) {
  announcements.textContent = "";
  requestAnimationFrame(() => (announcements.textContent = text));
}

/** Return the name of the part and the state in the address: "#tokens?text=hello". */
function address() {
  const [name, query = ""] = splitOnce(location.hash.slice(1), "?");
  return { name, query };
}

function splitOnce(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

/** What a part may ask of the shell. */
function shellFor(name) {
  const part = parts.get(name);
  return {
    announce,
    /** Return the state of the part in the address, as URLSearchParams. */
    state: () => new URLSearchParams(part.query),
    /** Put the state of the part into the address, without a new entry in the history. */
    setState(parameters) {
      part.query = String(parameters);
      if (part.tab.getAttribute("aria-selected") === "true") writeAddress(name);
    },
    /** Call a function when another address with a state of this part is opened. */
    onState: (listener) => part.listeners.push(listener),
  };
}

function writeAddress(name) {
  const { query } = parts.get(name);
  history.replaceState(null, "", `#${name}${query ? `?${query}` : ""}`);
}

async function open(name, { focus = false } = {}) {
  const part = parts.get(name);
  for (const [other, { tab, panel, sheet }] of parts) {
    tab.setAttribute("aria-selected", String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
    panel.hidden = other !== name;
    if (sheet) sheet.media = other === name ? "all" : "not all";
  }
  if (focus) part.tab.focus();
  document.title = `${part.title} · bpe`;
  writeAddress(name);
  part.mounted ??= mount(name);
  await part.mounted;
}

async function mount(name) {
  const part = parts.get(name);
  part.panel.replaceChildren();
  try {
    if (part.style) await addStyle(part);
    if (part.panel.hidden && part.sheet) part.sheet.media = "not all"; // another tab was opened meanwhile
    const module = await import(part.module);
    const unmount = await module.mount(part.panel, about, shellFor(name));
    if (typeof unmount === "function") leaving.push(unmount);
  } catch (error) {
    part.mounted = null; // to be tried again when the tab is opened again
    part.panel.replaceChildren(h("p.notice.error", { role: "alert" }, `This part cannot be shown: ${error.message}`));
    throw error;
  }
}

function addStyle(part) {
  return new Promise((resolve, reject) => {
    const failed = () => reject(new Error(`${part.style} cannot be loaded.`));
    part.sheet?.remove();
    part.sheet = h("link", { rel: "stylesheet", href: part.style, onload: resolve, onerror: failed });
    document.head.append(part.sheet);
  });
}

function addPart({ name, title, module, style }) {
  const tab = h(
    "button.tab",
    { id: `tab-${name}`, type: "button", role: "tab", "aria-controls": `panel-${name}`, onclick: () => open(name) },
    title,
  );
  const panel = h("section.panel", {
    id: `panel-${name}`,
    role: "tabpanel",
    "aria-labelledby": `tab-${name}`,
    hidden: true,
  });
  parts.set(name, { title, tab, panel, module, style, sheet: null, query: "", mounted: null, listeners: [] });
  tabs.append(tab);
  panels.append(panel);
}

tabs.addEventListener("keydown", (event) => {
  const names = [...parts.keys()];
  const at = names.findIndex((name) => parts.get(name).tab === document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  open(names[(to + names.length) % names.length], { focus: true });
});

function openAddress() {
  const { name, query } = address();
  if (!parts.has(name)) return name !== "content" && open(parts.keys().next().value);
  const part = parts.get(name);
  const changed = part.query !== query;
  part.query = query;
  const opened = open(name);
  if (changed) for (const listener of part.listeners) listener(new URLSearchParams(query));
  return opened;
}

// Colours: those of the system, or light or dark as chosen, which theme.js applies before the first paint.

const themes = { system: "Colours of the system", light: "Light colours", dark: "Dark colours" };
const themeButton = document.getElementById("theme");

function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  themeButton.textContent = { system: "◐", light: "☀︎", dark: "☾" }[theme];
  themeButton.title = themes[theme];
  themeButton.setAttribute("aria-label", `${themes[theme]}; change`);
}

themeButton.addEventListener("click", () => {
  const order = Object.keys(themes);
  const theme = order[(order.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % order.length];
  showTheme(theme);
  announce(themes[theme]);
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Storage is blocked; the colours last as long as the page.
  }
});

showTheme(document.documentElement.dataset.theme ?? "system");

// The skip link must not change the address, which holds the state of the part.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("content").focus();
});

let about;
try {
  about = await (await request("/api/about")).json();
  document.getElementById("subject").textContent = about.subject ?? "";
  for (const part of about.parts) addPart(part);
  tabs.hidden = about.parts.length < 2 && !about.parts[0];
  addEventListener("hashchange", openAddress);
  addEventListener("pagehide", () => leaving.forEach((unmount) => unmount()));
  await openAddress();
} catch (error) {
  if (!about) panels.replaceChildren(h("p.notice.error", { role: "alert" }, error.message));
  else console.error(error);
}
