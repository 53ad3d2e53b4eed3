/** Who has a certificate of ours, and is not our peer: how often each came. Of many, those that came first are forgotten: a client may have as many names as it has sessions. */
const MOST_NAMES = 256;

export class Strangers {
  readonly #times = new Map<string, number>();

  get size(): number {
    return this.#times.size;
  }

  /** How often it has come, with this time. */
  came(name: string): number {
    const times = (this.#times.get(name) ?? 0) + 1;
    this.#times.delete(name);
    this.#times.set(name, times);
    const [oldest] = this.#times.keys();
    if (this.#times.size > MOST_NAMES && oldest !== undefined) this.#times.delete(oldest);
    return times;
  }

  /** It is a peer now. */
  forget(name: string): void {
    this.#times.delete(name);
  }
}
