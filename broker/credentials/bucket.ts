/** Bounds on what strangers may make us do: token buckets, one or one per address. Pure: the time is an argument. */

export interface BucketOptions {
  /** So many at once. */
  readonly burst: number;
  /** And one more each so many ms. */
  readonly everyMs: number;
}

export class Bucket {
  readonly #o: BucketOptions;
  #left: number;
  #atMs: number | undefined;

  constructor(options: BucketOptions) {
    this.#o = options;
    this.#left = options.burst;
  }

  /** Takes one, if there is one. */
  take(nowMs: number): boolean {
    this.#fill(nowMs);
    if (this.#left < 1) return false;
    this.#left--;
    return true;
  }

  /** Gives one back that was taken for nothing. */
  give(): void {
    this.#left = Math.min(this.#o.burst, this.#left + 1);
  }

  /** True when nothing is lost by forgetting it. */
  full(nowMs: number): boolean {
    this.#fill(nowMs);
    return this.#left >= this.#o.burst;
  }

  /** ms until there is one. */
  waitMs(nowMs: number): number {
    this.#fill(nowMs);
    return this.#left >= 1 ? 0 : Math.ceil((1 - this.#left) * this.#o.everyMs);
  }

  /** A clock that goes back gives nothing, and takes nothing away. */
  #fill(nowMs: number): void {
    const passed = this.#atMs === undefined ? 0 : Math.max(0, nowMs - this.#atMs);
    this.#left = Math.min(this.#o.burst, this.#left + passed / this.#o.everyMs);
    this.#atMs = nowMs;
  }
}

const MAX_BUCKETS = 10_000;
/** Looking through all of them takes a moment: whoever comes with ever new addresses must not make us do it for each. */
const SWEEP_MS = 1_000;

/** A bucket per key; keys that have not been seen for long are forgotten, and when there are too many, all new ones share one. */
export class Buckets {
  readonly #o: BucketOptions;
  readonly #buckets = new Map<string, Bucket>();
  readonly #others: Bucket;
  #sweptMs = Number.NEGATIVE_INFINITY;

  constructor(options: BucketOptions) {
    this.#o = options;
    this.#others = new Bucket(options);
  }

  of(key: string, nowMs: number): Bucket {
    const known = this.#buckets.get(key);
    if (known !== undefined) return known;
    if (this.#buckets.size >= MAX_BUCKETS && nowMs - this.#sweptMs >= SWEEP_MS) this.#sweep(nowMs);
    if (this.#buckets.size >= MAX_BUCKETS) return this.#others;
    const made = new Bucket(this.#o);
    this.#buckets.set(key, made);
    return made;
  }

  #sweep(nowMs: number): void {
    this.#sweptMs = nowMs;
    for (const [key, bucket] of this.#buckets) if (bucket.full(nowMs)) this.#buckets.delete(key);
  }
}

/** What counts as one machine: an IPv4 address, or the /64 that an IPv6 host has for itself. */
export function networkOf(address: string | undefined): string {
  const plain = (address ?? '').replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
  if (!plain.includes(':')) return plain;
  const [head = '', tail] = plain.split('::');
  const groups = head === '' ? [] : head.split(':');
  const rest = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - groups.length - rest.length) }, () => '0');
  return `${[...groups, ...zeros, ...rest].slice(0, 4).join(':')}::/64`;
}
