/**
 * How a CPU quota is handed out in truth. Kernels hand it out in periods, but look at what was used only at their ticks (every 4 ms with CONFIG_HZ=250): a busy thread runs on until
 * the next one, and pays with the periods after it. Of 1.8 ms in 10 it runs some 4 ms at a time, every 20 ms. That is what a rested process is ahead by, and how long it may have
 * to wait for its turn.
 *
 * Told from the CPU time of each turn, not from the clock: a thread that waits for a core beside its quota, as when all agents of a machine start at once, has the same quota.
 */

const MOST_MS = 400;
const CYCLES = 12;
const LEAST_CYCLES = 3;
/** A pause of this part of a period is one of the quota: others get their turn sooner. */
const PAUSE_PART = 0.3;
/** The longest tick of a kernel (CONFIG_HZ=100): nobody runs on for longer than that beyond his quota. */
const LONGEST_TICK_MS = 10;

export interface Clocks {
  /** Monotonic, ms. */
  readonly nowMs: () => number;
  /** CPU time of this process, ms. */
  readonly cpuMs: () => number;
}

const CLOCKS: Clocks = {
  nowMs: () => performance.now(),
  cpuMs: () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  },
};

/**
 * Keeps this thread busy for up to 400 ms, and returns how long it takes from one turn to the next, ms, at least `periodMs`: the CPU time of a turn, in the median, over the part
 * of a core that the quota is. 0 where there is no quota; `periodMs` where one thread cannot use up its quota, or is not stopped often enough to tell.
 */
export function quotaGrainMs(cpuLimit: number, periodMs: number, { nowMs, cpuMs }: Clocks = CLOCKS): number {
  if (!(cpuLimit > 0) || cpuLimit >= 1 || !(periodMs > 0)) return periodMs;
  const began = nowMs();
  const turns: number[] = [];
  let usedMs = cpuMs();
  for (let last = began; last - began < MOST_MS && turns.length <= CYCLES; ) {
    const now = nowMs();
    if (now - last >= PAUSE_PART * periodMs) {
      const used = cpuMs();
      turns.push(used - usedMs);
      usedMs = used;
    }
    last = now;
  }
  // The first turn had begun before.
  const whole = turns.slice(1).sort((a, b) => a - b);
  if (whole.length < LEAST_CYCLES) return periodMs;
  const turnMs = whole[Math.floor(whole.length / 2)] ?? 0;
  return Math.min(Math.max(periodMs, turnMs / cpuLimit), periodMs + LONGEST_TICK_MS / cpuLimit);
}
