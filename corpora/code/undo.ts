/** A history of states with undo and redo, and listeners that are told of changes. */

export type Listener<S> = (state: Readonly<S>, reason: Reason) => void;
export type Reason = "change" | "undo" | "redo" | "clear";

export interface HistoryOptions<S> {
  /** How many states to keep for undo; older ones are forgotten. */
  limit?: number;
  /** Two states for which this returns true count as the same. */
  equals?: (a: S, b: S) => boolean;
}

export class History<S> {
  private past: S[] = [];
  private future: S[] = [];
  private current: S;
  private readonly listeners = new Set<Listener<S>>();
  private readonly limit: number;
  private readonly equals: (a: S, b: S) => boolean;

  constructor(initial: S, { limit = 100, equals = Object.is }: HistoryOptions<S> = {}) {
    if (!Number.isInteger(limit) || limit < 1) {
      throw new RangeError(`limit must be a positive integer, not ${limit}`);
    }
    this.current = initial;
    this.limit = limit;
    this.equals = equals;
  }

  get state(): Readonly<S> {
    return this.current;
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  get canRedo(): boolean {
    return this.future.length > 0;
  }

  /** Replace the state by the result of a function of the old state. */
  update(change: (state: Readonly<S>) => S): void {
    const next = change(this.current);
    if (this.equals(next, this.current)) return;
    this.past.push(this.current);
    if (this.past.length > this.limit) this.past.shift();
    this.future = [];
    this.current = next;
    this.tell("change");
  }

  undo(): boolean {
    return this.step(this.past, this.future, "undo");
  }

  redo(): boolean {
    return this.step(this.future, this.past, "redo");
  }

  clear(): void {
    this.past = [];
    this.future = [];
    this.tell("clear");
  }

  /** Add a listener; call the returned function to remove it again. */
  subscribe(listener: Listener<S>): () => void {
    this.listeners.add(listener);
    return () => void this.listeners.delete(listener);
  }

  private step(from: S[], to: S[], reason: Reason): boolean {
    if (from.length === 0) return false;
    to.push(this.current);
    this.current = from.pop() as S;
    this.tell(reason);
    return true;
  }

  private tell(reason: Reason): void {
    for (const listener of [...this.listeners]) {
      listener(this.current, reason);
    }
  }
}

// A small example: a shopping list.

interface Item {
  readonly name: string;
  readonly count: number;
}

const list = new History<readonly Item[]>([]);
const log: string[] = [];
const stop = list.subscribe((items, reason) => {
  log.push(`${reason}: ${items.map((i) => `${i.count} × ${i.name}`).join(", ") || "nothing"}`);
});

const add = (name: string, count = 1): void =>
  list.update((items) => [...items, { name, count }]);

add("bread");
add("apples", 6);
list.undo();
list.undo();
list.redo();
add("milk", 2);
stop();
add("not logged");

console.log(log.join("\n"));
console.log(`can redo: ${list.canRedo}, items: ${list.state.length}`);
