/**
 * The gateway's time on a machine that may have none of its own: a monotonic clock from a moment that the gateway named. The system's clock is never set, and it
 * may jump as it likes meanwhile. Before the gateway was asked, the system's clock has to do.
 */
export class GatewayClock {
  readonly #system: () => number;
  readonly #monotonic: () => number;
  #known: { readonly gatewayMs: number; readonly atMs: number; readonly errorMs: number } | undefined;

  /** `system`: ms since 1970; `monotonic`: ms since whenever. */
  constructor(system: () => number = Date.now, monotonic: () => number = () => performance.now()) {
    this.#system = system;
    this.#monotonic = monotonic;
  }

  /** ms since 1970. */
  nowMs(): number {
    const known = this.#known;
    return known === undefined ? this.#system() : known.gatewayMs + (this.#monotonic() - known.atMs);
  }

  /** A moment on the monotonic clock, for `learn`. */
  mark(): number {
    return this.#monotonic();
  }

  /** The gateway said `gatewayMs`, asked at `mark`: it is taken as the time halfway (as NTP does, RFC 5905), with half of the way there and back as its error. */
  learn(gatewayMs: number, mark: number): void {
    const atMs = this.#monotonic();
    const errorMs = (atMs - mark) / 2;
    this.#known = { gatewayMs: gatewayMs + errorMs, atMs, errorMs };
  }

  /** By how much the system's clock is ahead of the gateway's, and the error of that; undefined before the gateway was asked. */
  get skew(): { readonly ms: number; readonly errorMs: number } | undefined {
    return this.#known === undefined ? undefined : { ms: this.#system() - this.nowMs(), errorMs: this.#known.errorMs };
  }
}
