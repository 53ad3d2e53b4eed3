/** Which of those who say that they are the gateway is it? Each is tried once, many at a time: most may lie, and some may never answer. */
import { toChairError } from '../errors.js';

/** Resolves with what tells one true gateway from another: the serial number of its certificate. Rejects when somebody else is there, or nobody, or `signal` says so. */
export type GatewayProof = (url: string, signal: AbortSignal) => Promise<string>;

/** Tried at once: whoever does not answer holds up no other. */
const AT_ONCE = 32;
/** More than there are records of (gateway-notice.ts). */
const MOST = 1_000;

export class Proofs {
  /** URLs by what they have shown: addresses of one gateway count once. */
  readonly proven = new Map<string, string>();
  readonly refuted = new Map<string, Error>();
  readonly #seen = new Set<string>();
  readonly #waiting: string[] = [];
  readonly #running = new Set<Promise<void>>();
  readonly #stopped = new AbortController();

  /** `onProven`: one more is true. */
  constructor(
    private readonly proof: GatewayProof,
    private readonly onProven: () => void,
    private readonly random: () => number = Math.random,
  ) {}

  consider(urls: readonly string[]): void {
    for (const url of urls) {
      if (this.#seen.has(url) || this.#seen.size >= MOST) continue;
      this.#seen.add(url);
      this.#waiting.push(url);
    }
    this.#next();
  }

  /** Resolves when all have been tried, or one is true. */
  async settled(): Promise<void> {
    while (this.#running.size > 0 && this.proven.size === 0 && !this.#stopped.signal.aborted) await Promise.race(this.#running);
  }

  /** Whoever is being tried is let go. */
  stop(): void {
    this.#waiting.length = 0;
    this.#stopped.abort();
  }

  #next(): void {
    while (this.#running.size < AT_ONCE) {
      // In no order that somebody could know: who announces a hundred hosts that never answer does not always come before the one that counts.
      const [url] = this.#waiting.splice(Math.floor(this.random() * this.#waiting.length), 1);
      if (url === undefined) return;
      const trial = this.#try(url).finally(() => {
        this.#running.delete(trial);
        this.#next();
      });
      this.#running.add(trial);
    }
  }

  async #try(url: string): Promise<void> {
    try {
      const serial = await this.proof(url, this.#stopped.signal);
      if (!this.proven.has(serial)) this.proven.set(serial, url);
      this.onProven();
    } catch (error) {
      if (!this.#stopped.signal.aborted) this.refuted.set(url, toChairError(error));
    }
  }
}
