import { Bucket } from './credentials/bucket.js';
import { printable } from './printable.js';

export interface RepetitionOptions {
  /** The same once more within this is only counted; default 10,000 ms. */
  readonly quietMs?: number;
}

/**
 * A line about something that happens again and again is written now and then, with a count: what a stranger sends must not fill a disk. Whoever comes with something
 * else each time is held up by a bound on all lines together. What is written is one line of printable ASCII, whatever was said.
 */
export class Repetition {
  readonly #log: (line: string) => void;
  readonly #nowMs: () => number;
  readonly #quietMs: number;
  readonly #saidAtMs = new Map<string, { atMs: number; unsaid: number }>();
  readonly #lines = new Bucket(LINES);
  /** Lines of any kind that were too many. */
  #left = 0;

  constructor(log: (line: string) => void, nowMs: () => number = () => performance.now(), { quietMs = QUIET_MS }: RepetitionOptions = {}) {
    this.#log = log;
    this.#nowMs = nowMs;
    this.#quietMs = quietMs;
  }

  /** `key`: what counts as the same. */
  say(key: string, line: string): void {
    const now = this.#nowMs();
    const last = this.#saidAtMs.get(key);
    if (last !== undefined && now - last.atMs < this.#quietMs) {
      last.unsaid++;
      return;
    }
    if (!this.#lines.take(now)) {
      this.#left++;
      return;
    }
    this.#saidAtMs.delete(key);
    this.#saidAtMs.set(key, { atMs: now, unsaid: 0 });
    const [oldest] = this.#saidAtMs.keys();
    if (this.#saidAtMs.size > MOST_KEYS && oldest !== undefined) this.#saidAtMs.delete(oldest);
    const text = printable(line);
    const counts = [
      ...(last === undefined || last.unsaid === 0 ? [] : [`${last.unsaid} more like it before`]),
      ...(this.#left === 0 ? [] : [`${this.#left} lines before it that were too many to write`]),
    ];
    this.#left = 0;
    const said = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}...` : text;
    this.#log(counts.length === 0 ? said : `${said} (and ${counts.join(', ')})`);
  }
}

const QUIET_MS = 10_000;
const MOST_KEYS = 1000;
const MOST_CHARACTERS = 1000;
/** Of all keys together: so many at once, and one more each so many ms. */
const LINES = { burst: 200, everyMs: 5_000 };
