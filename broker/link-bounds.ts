/** What a link can be at all. A figure beyond it is a fault of a clock or of a peer, and must reach no plan. */
import { ChairError } from './errors.js';

/** 8 Tbit/s: no machine that runs this has such a link. */
export const MAX_BYTES_PER_SECOND = 1e12;
/** A byte in a second: what is slower carries nothing that anybody waits for, and times reckoned with it are beyond numbers. */
export const MIN_BYTES_PER_SECOND = 1;
/** Half a round trip that takes longer is a link that does not work. */
export const MAX_LATENCY_MS = 60_000;

/** Throws LINK_IMPLAUSIBLE unless both figures are finite, the speed is MIN_BYTES_PER_SECOND to MAX_BYTES_PER_SECOND, the latency 0 to MAX_LATENCY_MS. */
export function checkLink(what: string, link: { readonly bytesPerSecond: number; readonly latencyMs: number }): void {
  const { bytesPerSecond, latencyMs } = link;
  const wrong = (expected: string, came: string): never => {
    throw new ChairError('LINK_IMPLAUSIBLE', `${what} cannot be right`, { expected, came, todo: 'The last good value stays in use.' });
  };
  if (!(bytesPerSecond >= MIN_BYTES_PER_SECOND && bytesPerSecond <= MAX_BYTES_PER_SECOND)) {
    wrong(`a speed of ${MIN_BYTES_PER_SECOND} to ${MAX_BYTES_PER_SECOND} bytes/s`, `${bytesPerSecond} bytes/s`);
  }
  if (!(latencyMs >= 0 && latencyMs <= MAX_LATENCY_MS)) wrong(`a latency of 0 to ${MAX_LATENCY_MS} ms`, `${latencyMs} ms`);
}
