// Conversations: a tree of turns each, so that an edited turn or another answer begins a branch and nothing is lost.

/** Return a new conversation. `kind` is "chat", or "text" for a text that the model continues. */
export function newConversation(kind, { system = "", settings = {} } = {}) {
  const now = Date.now();
  return { id: crypto.randomUUID?.() ?? fallbackId(), kind, title: "", created: now, updated: now, system, settings, text: "", nodes: [], leaf: null };
}

function fallbackId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return the title of a conversation: its own, or the beginning of its text. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.kind === "text" ? conversation.text : (conversation.nodes[0]?.content ?? "");
  const line = first.slice(0, 400).replace(/\s+/g, " ").trim();
  const characters = [...line];
  return characters.length > 60 ? `${characters.slice(0, 59).join("")}…` : line;
}

/** Add a turn, and make it the last one shown. Returns it. */
export function addTurn(conversation, parent, role, content) {
  const node = { id: conversation.nodes.length, parent: parent?.id ?? null, role, content };
  conversation.nodes.push(node);
  conversation.leaf = node.id;
  return node;
}

/** Return the turns that are shown, from the first to the last. */
export function turnsOf(conversation) {
  const turns = [];
  for (let id = conversation.leaf; id !== null; id = conversation.nodes[id].parent) turns.push(conversation.nodes[id]);
  return turns.reverse();
}

/** Return the turns in the place of a turn: itself, and its other versions. */
export function versionsOf(conversation, node) {
  return conversation.nodes.filter((other) => other.parent === node.parent);
}

/** Show a turn, and the newest turns after it. */
export function showVersion(conversation, node) {
  let leaf = node;
  for (const next of conversation.nodes) if (next.parent === leaf.id) leaf = newest(conversation, leaf);
  conversation.leaf = leaf.id;
}

function newest(conversation, node) {
  return conversation.nodes.filter((other) => other.parent === node.id).at(-1) ?? node;
}

const FORMAT = "bpe conversations";

/** Return conversations as the text of a file. */
export function exported(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

/**
 * Return the conversations in the text of a file, as new ones.
 *
 * @throws {Error} If the file is none that `exported` wrote; the message says where it is wrong.
 */
export function imported(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("the file is not JSON");
  }
  if (file?.format !== FORMAT || file.version !== 1) throw new Error("the file has no conversations of this page");
  if (!Array.isArray(file.conversations)) throw new Error("conversations is not a list");
  return file.conversations.map((each, place) => checked(each, `conversation ${place + 1}`));
}

function checked(found, where) {
  const must = (isRight, what) => {
    if (!isRight) throw new Error(`${where}: ${what}`);
  };
  must(found && typeof found === "object", "it is not an object");
  must(found.kind === "chat" || found.kind === "text", "its kind is neither chat nor text");
  for (const name of ["title", "system", "text"]) must(typeof found[name] === "string", `its ${name} is not a text`);
  must(Array.isArray(found.nodes), "its turns are not a list");
  const settings = {};
  for (const [name, value] of Object.entries(found.settings ?? {})) {
    must(["string", "number"].includes(typeof value), `its setting ${name} is neither a number nor a text`);
    settings[name] = value;
  }
  const nodes = found.nodes.map((node, id) => {
    const at = `turn ${id + 1}`;
    must(node && ["user", "assistant"].includes(node.role), `the role of ${at} is neither user nor assistant`);
    must(typeof node.content === "string", `the content of ${at} is not a text`);
    must(node.parent === null || (Number.isInteger(node.parent) && node.parent >= 0 && node.parent < id), `${at} follows no turn before it`);
    const { parent, role, content, note } = node;
    return { id, parent, role, content, ...(typeof note === "string" ? { note } : {}) };
  });
  const isLeaf = found.leaf === null ? !nodes.length : Number.isInteger(found.leaf) && nodes[found.leaf] !== undefined;
  must(isLeaf, "its last turn is not among its turns");
  const fresh = newConversation(found.kind, { system: found.system, settings });
  const time = Number.isFinite(found.updated) ? found.updated : fresh.updated;
  return { ...fresh, title: found.title, text: found.text, nodes, leaf: found.leaf, updated: time };
}
