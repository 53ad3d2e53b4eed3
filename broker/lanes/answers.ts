/**
 * Answers to small packets (pings, subscriptions, QoS 1) on their way out. Whoever asks for many and reads none must not cost memory: while the kernel has not taken one,
 * the next are gathered, to go in one write, and there is a bound on what waits.
 */

export interface AnswersOptions {
  /** `done`, when the kernel has it. */
  readonly write: (bytes: Uint8Array, done: () => void) => void;
  /** Not taken by the kernel. What a peer of ours has on its way at once are some hundred pings of two bytes. */
  readonly mostBytes: number;
}

export class Answers {
  readonly #o: AnswersOptions;
  #gathered: Uint8Array[] = [];
  #gatheredBytes = 0;
  #writingBytes = 0;

  constructor(options: AnswersOptions) {
    this.#o = options;
  }

  /** Not yet taken by the kernel. */
  get waitingBytes(): number {
    return this.#writingBytes + this.#gatheredBytes;
  }

  /** Some wait for others to be taken. */
  get isGathering(): boolean {
    return this.#gathered.length > 0;
  }

  /** False: too much waits already, and it was not taken. */
  give(answer: Uint8Array): boolean {
    if (this.waitingBytes + answer.length > this.#o.mostBytes && this.#writingBytes > 0) return false;
    this.#gathered.push(answer);
    this.#gatheredBytes += answer.length;
    this.#pump();
    return true;
  }

  clear(): void {
    this.#gathered = [];
    this.#gatheredBytes = 0;
  }

  #pump(): void {
    const [first] = this.#gathered;
    if (first === undefined || this.#writingBytes > 0) return;
    const bytes = this.#gathered.length === 1 ? first : Buffer.concat(this.#gathered);
    this.clear();
    this.#writingBytes = bytes.length;
    this.#o.write(bytes, () => {
      this.#writingBytes = 0;
      this.#pump();
    });
  }
}

/** A peer that takes nothing is given so much longer, for each byte of it. Half a megabit per second. */
const SLOWEST_BYTES_PER_MS = 64;

/**
 * Whether a peer has stopped reading. Counted in looks and not by the clock, so that a stall of our own process is not taken for the peer's: what came meanwhile is seen
 * between two looks.
 */
export class StallMeter {
  readonly #stalledMs: number;
  #taken = 0;
  #stillMs = 0;

  constructor(stalledMs: number) {
    this.#stalledMs = stalledMs;
  }

  /** A look, at least `sinceMs` after the last one: so many bytes wait, and so many writes have been taken in all. True: nothing was for too long. */
  look(waitingBytes: number, taken: number, sinceMs: number): boolean {
    if (waitingBytes === 0 || taken !== this.#taken) {
      this.#taken = taken;
      this.#stillMs = 0;
      return false;
    }
    this.#stillMs += sinceMs;
    return this.#stillMs > this.#stalledMs + waitingBytes / SLOWEST_BYTES_PER_MS;
  }
}
