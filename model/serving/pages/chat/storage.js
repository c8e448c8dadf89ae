// Where conversations are kept: in this browser, in IndexedDB. Where that is blocked, they last as long as the page.

import { titleOf } from "/static/model/chat/conversations.js";

const NAME = "bpe-chat";

/** Open the storage. `isKept` says whether conversations outlast the page. */
export async function openStorage() {
  try {
    return new Kept(await opened());
  } catch {
    return new Forgotten();
  }
}

function opened() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore("list", { keyPath: "id" }); // what the list shows, so that it is read at once
      opening.result.createObjectStore("conversations", { keyPath: "id" });
    };
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
    opening.onblocked = () => reject(new Error("blocked"));
  });
}

function entryOf(conversation) {
  const { id, kind, updated } = conversation;
  return { id, kind, updated, title: titleOf(conversation) };
}

class Kept {
  isKept = true;

  constructor(database) {
    this.database = database;
    database.onversionchange = () => database.close();
    this.channel = "BroadcastChannel" in window ? new BroadcastChannel(NAME) : null;
  }

  /** Call a function when another tab changes a conversation. */
  onChange(listener) {
    if (this.channel) this.channel.onmessage = ({ data }) => listener(data);
  }

  /** Return id, kind, title and time of the last change of each conversation, the newest first. */
  async list() {
    const entries = await this.run("readonly", (list) => list.getAll());
    return entries.sort((one, other) => other.updated - one.updated);
  }

  get(id) {
    return this.run("readonly", (list, conversations) => conversations.get(id));
  }

  all() {
    return this.run("readonly", (list, conversations) => conversations.getAll());
  }

  async put(conversation) {
    await this.run("readwrite", (list, conversations) => {
      list.put(entryOf(conversation));
      return conversations.put(conversation);
    });
    this.channel?.postMessage(conversation.id);
  }

  async delete(id) {
    await this.run("readwrite", (list, conversations) => {
      list.delete(id);
      return conversations.delete(id);
    });
    this.channel?.postMessage(id);
  }

  run(mode, act) {
    return new Promise((resolve, reject) => {
      const transaction = this.database.transaction(["list", "conversations"], mode);
      const asked = act(transaction.objectStore("list"), transaction.objectStore("conversations"));
      transaction.oncomplete = () => resolve(asked.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  }
}

class Forgotten {
  isKept = false;
  conversations = new Map();

  onChange() {}

  async list() {
    return [...this.conversations.values()].map(entryOf).sort((one, other) => other.updated - one.updated);
  }

  async get(id) {
    return structuredClone(this.conversations.get(id));
  }

  async all() {
    return [...this.conversations.values()];
  }

  async put(conversation) {
    this.conversations.set(conversation.id, structuredClone(conversation));
  }

  async delete(id) {
    this.conversations.delete(id);
  }
}
