// The list of conversations: open, rename, delete, export, import.

import { h } from "/static/page.js";
import { exported, imported, titleOf } from "/static/model/chat/conversations.js";
import { icon } from "/static/model/icons.js";
import { action } from "/static/model/chat/turn.js";

const LARGEST = 256 << 20; // bytes of a file to import

/**
 * Return the list.
 *
 * @param {Object} storage Where conversations are kept.
 * @param {Object} calls open(id), create(kind), renamed(id, title), deleted(id), announce(text).
 * @param {boolean} canChat Whether the model can chat; otherwise it continues texts only.
 */
export function sidebar(storage, calls, canChat) {
  const list = h("ul.list");
  const problem = h("p.notice.error", { role: "alert", hidden: true });
  const empty = h("p.muted.empty", {}, "No conversations yet.");
  const file = h("input", { type: "file", accept: ".json,application/json", hidden: true, "aria-label": "File to import", onchange: () => load(file.files[0]) });
  const create = (kind, label, name) => h(`button.${name}`, { type: "button", onclick: () => calls.create(kind) }, icon("add"), label);
  const element = h("nav.sidebar", { "aria-label": "Conversations" },
    h("div.create", {}, canChat && create("chat", "New chat", "button"), create("text", "New text", canChat ? "quiet" : "button")),
    list, empty, problem,
    h("div.files", {},
      h("button.quiet", { type: "button", onclick: () => download(storage.all()) }, icon("save"), "Export all"),
      h("button.quiet", { type: "button", onclick: () => file.click() }, icon("open"), "Import"), file),
    storage.isKept
      ? h("p.muted.where", {}, "Kept in this browser only.")
      : h("p.muted.where", {}, "This browser keeps nothing for this page: conversations end with the page."));
  let current = null;
  let isEditing = false; // a row is renamed or may be deleted, so the list must not be replaced

  async function refresh(id = current) {
    current = id;
    if (isEditing) return;
    const entries = await storage.list();
    if (isEditing) return;
    list.replaceChildren(...entries.map(entry));
    empty.hidden = entries.length > 0;
  }

  function entry({ id, title }) {
    const shown = title || "Untitled";
    const name = h("button.name", { type: "button", onclick: () => calls.open(id), title: shown }, h("bdi", {}, shown));
    if (id === current) name.setAttribute("aria-current", "true");
    const row = h("li", { dataset: { id } }, name, h("span.row-actions", {},
      action("edit", `Rename ${shown}`, () => rename(row, id, title)),
      action("save", `Export ${shown}`, () => download(storage.get(id).then((each) => [each]))),
      action("delete", `Delete ${shown}`, () => confirm(row, id, shown))));
    return row;
  }

  function rename(row, id, title) {
    const field = h("input", { type: "text", value: title, maxLength: 200, dir: "auto", "aria-label": "New name" });
    let isDone = false;
    const end = async (isKept) => {
      if (isDone) return;
      isDone = true;
      isEditing = false;
      if (isKept && field.value.trim() && field.value !== title) await calls.renamed(id, field.value.trim());
      await refresh();
      list.querySelector(`[data-id="${CSS.escape(id)}"] .name`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(true);
      if (event.key === "Escape") {
        event.preventDefault(); // or it would close the dialog
        event.stopPropagation();
        end(false);
      }
    });
    field.addEventListener("blur", () => end(true));
    isEditing = true;
    row.replaceChildren(field);
    field.select();
  }

  function confirm(row, id, shown) {
    const yes = h("button.button.danger", { type: "button", onclick: async () => {
      isEditing = false;
      await calls.deleted(id);
      calls.announce(`${shown} is deleted`);
    } }, "Delete");
    const no = h("button.button", { type: "button", onclick: async () => {
      isEditing = false;
      await refresh();
      list.querySelector(`[data-id="${CSS.escape(id)}"] .name`)?.focus();
    } }, "Keep");
    row.replaceChildren(h("span.question", {}, "Delete “", h("bdi", {}, shown), "”?"), h("span.toolbar", {}, yes, no));
    isEditing = true;
    no.focus();
  }

  async function download(promise) {
    const conversations = await promise;
    const [only] = conversations;
    const name = conversations.length === 1 ? titleOf(only).replace(/[^\p{L}\p{N} _-]/gu, "").trim().slice(0, 40) : "";
    const address = URL.createObjectURL(new Blob([exported(conversations)], { type: "application/json" }));
    const link = h("a", { href: address, download: `${name || "conversations"}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  async function load(chosen) {
    file.value = "";
    if (!chosen) return;
    problem.hidden = true;
    try {
      if (chosen.size > LARGEST) throw new Error("the file is too large");
      const found = imported(await chosen.text());
      for (const conversation of found) await storage.put(conversation);
      await refresh();
      calls.announce(`${found.length} imported`);
      if (found.length) calls.open(found.at(-1).id);
    } catch (error) {
      problem.replaceChildren(h("bdi", {}, chosen.name), `: ${error.message}`);
      problem.hidden = false;
    }
  }

  return { element, refresh };
}
