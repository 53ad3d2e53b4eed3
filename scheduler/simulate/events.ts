/** The simulation's clock: events in order of time, and of scheduling where times are equal. Nothing here knows what an event means. */

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** Binary heap by a number; equal ones in order of insertion. */
export class Heap<T extends { readonly order: number }> {
  readonly #items: T[] = [];

  constructor(private readonly key: (item: T) => number) {}

  get size(): number {
    return this.#items.length;
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  push(item: T): void {
    const items = this.#items;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent];
      if (above === undefined || !this.#before(item, above)) break;
      items[at] = above;
      at = parent;
    }
    items[at] = item;
  }

  pop(): T | undefined {
    const items = this.#items;
    const first = items[0];
    const last = items.pop();
    if (items.length === 0 || last === undefined) return first;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const [l, r] = [items[left], items[left + 1]];
      if (l === undefined) break;
      const [child, index] = r !== undefined && this.#before(r, l) ? [r, left + 1] : [l, left];
      if (!this.#before(child, last)) break;
      items[at] = child;
      at = index;
    }
    items[at] = last;
    return first;
  }

  /** Takes out what `unwanted` says; in linear time, for rare events such as the end of an agent. */
  remove(unwanted: (item: T) => boolean): void {
    const kept = this.#items.filter((item) => !unwanted(item));
    this.#items.length = 0;
    for (const item of kept) this.push(item);
  }

  #before(a: T, b: T): boolean {
    const difference = this.key(a) - this.key(b);
    return difference < 0 || (difference === 0 && a.order < b.order);
  }
}

export class Clock {
  nowMs = 0;
  /** Events that have happened. */
  count = 0;
  readonly #events = new Heap<Event>((event) => event.atMs);
  #orders = 0;

  at(atMs: number, run: () => void): void {
    this.#events.push({ atMs: Math.max(atMs, this.nowMs), order: this.#orders++, run });
  }

  after(ms: number, run: () => void): void {
    this.at(this.nowMs + ms, run);
  }

  /** Until `done` says so, nothing is left, or the time is over. False when `untilMs` ended it. */
  run(done: () => boolean, untilMs: number): boolean {
    while (!done()) {
      const event = this.#events.pop();
      if (event === undefined) return true;
      if (event.atMs > untilMs) return false;
      this.nowMs = event.atMs;
      this.count++;
      event.run();
    }
    return true;
  }
}
