/** A line about something that happens again and again is written now and then, with a count: what a stranger sends must not fill a disk. */
export class Repetition {
  readonly #log: (line: string) => void;
  readonly #nowMs: () => number;
  readonly #saidAtMs = new Map<string, { atMs: number; unsaid: number }>();

  constructor(log: (line: string) => void, nowMs: () => number = () => performance.now()) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  /** `key`: what counts as the same. */
  say(key: string, line: string): void {
    const now = this.#nowMs();
    const last = this.#saidAtMs.get(key);
    if (last !== undefined && now - last.atMs < QUIET_MS) {
      last.unsaid++;
      return;
    }
    if (this.#saidAtMs.size >= MOST_KEYS) this.#saidAtMs.clear();
    this.#saidAtMs.set(key, { atMs: now, unsaid: 0 });
    this.#log(last === undefined || last.unsaid === 0 ? line : `${line} (and ${last.unsaid} more like it before)`);
  }
}

const QUIET_MS = 10_000;
const MOST_KEYS = 1000;
