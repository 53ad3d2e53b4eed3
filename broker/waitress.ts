/** Requests that wait for their reply: each has a key, a deadline, and an error made where the request was made, so that its stack is the caller's. */
import { ChairError } from './errors.js';

interface Waiter<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** A reply that is awaited. */
export interface Wait<T> {
  /** Rejects with REQUEST_TIMEOUT after the deadline, or with what `cancel` or `cancelAll` gave. */
  readonly reply: Promise<T>;
  cancel(error: Error): void;
}

export class Waitress<T> {
  readonly #waiters = new Map<string, Waiter<T>>();

  get size(): number {
    return this.#waiters.size;
  }

  /** Waits for `settle(key, ...)`. `what` completes "no reply to ...": say whom was asked for what. Throws INTERNAL when the key is waited for already. */
  wait(key: string, timeoutMs: number, what: string): Wait<T> {
    if (this.#waiters.has(key)) throw new ChairError('INTERNAL', `a reply with key ${key} is waited for already`);
    const late = new ChairError('REQUEST_TIMEOUT', `no reply to ${what}`, {
      expected: `one within ${Math.round(timeoutMs)} ms`,
      came: 'none',
    });
    const reply = new Promise<T>((resolve, reject) => {
      const timer = setTimeout(() => this.#take(key)?.reject(late), timeoutMs);
      this.#waiters.set(key, { resolve, reject, timer });
    });
    // Whoever asks may first await something else; a rejection in between is not unhandled.
    reply.catch(() => undefined);
    return { reply, cancel: (error) => this.#take(key)?.reject(error) };
  }

  /** Hands over a reply. False when nobody waits for it (too late, or never asked). */
  settle(key: string, value: T): boolean {
    const waiter = this.#take(key);
    waiter?.resolve(value);
    return waiter !== undefined;
  }

  /** Rejects all that wait, as on stop. */
  cancelAll(error: Error): void {
    for (const key of [...this.#waiters.keys()]) this.#take(key)?.reject(error);
  }

  #take(key: string): Waiter<T> | undefined {
    const waiter = this.#waiters.get(key);
    if (waiter === undefined) return undefined;
    clearTimeout(waiter.timer);
    this.#waiters.delete(key);
    return waiter;
  }
}
