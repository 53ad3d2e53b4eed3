/**
 * How a CPU quota is handed out in truth. Kernels hand it out in periods, but look at what was used only at their ticks (every 4 ms with CONFIG_HZ=250): a busy thread runs on until
 * the next one, and pays with the periods after it. Of 1.8 ms in 10 it runs some 4 ms at a time, every 20 ms. That is what a rested process is ahead by, and how long it may have
 * to wait for its turn.
 */

const MOST_MS = 400;
const CYCLES = 8;
const LEAST_CYCLES = 3;
/** A pause of this part of a period is one of the quota: others get their turn sooner. */
const PAUSE_PART = 0.3;

/**
 * Keeps this thread busy for up to 400 ms, and returns how long it takes from one turn to the next, ms, at least `periodMs`. 0 where there is no quota; `periodMs` where one
 * thread cannot use up its quota, or is not stopped often enough to tell. `nowMs`: monotonic.
 */
export function quotaGrainMs(cpuLimit: number, periodMs: number, nowMs: () => number = () => performance.now()): number {
  if (!(cpuLimit > 0) || cpuLimit >= 1 || !(periodMs > 0)) return periodMs;
  const began = nowMs();
  const pauses: number[] = [];
  for (let last = began; last - began < MOST_MS && pauses.length <= CYCLES; ) {
    const now = nowMs();
    if (now - last >= PAUSE_PART * periodMs) pauses.push(now);
    last = now;
  }
  const [first = 0] = pauses;
  const cycles = pauses.length - 1;
  return cycles < LEAST_CYCLES ? periodMs : Math.max(periodMs, ((pauses.at(-1) ?? 0) - first) / cycles);
}
