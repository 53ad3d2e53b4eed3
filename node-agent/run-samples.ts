/**
 * How long a run takes, from several. Times are those of long work, which is what planners reckon with: under a CPU quota below the engine's threads that is the CPU time of a
 * run over the cores of the quota. The clock on the wall says nothing of short runs there: a thread that runs for less than a tick of the kernel is stopped between its runs and
 * hardly ever in one, so runs of 1.1 ms of CPU on 0.09 core took 1.1 ms by the clock, or 5, and not the 12 that each of them costs in a row.
 *
 * A run that keeps fewer cores busy than the quota leaves, even at its busiest, is not what the quota stops: it waits for the disk that its weights are read from, or has work for
 * one of its threads only. Then those cores count: the run takes what it takes by the clock.
 */
import type { RunResult } from '../models/engine/engine.js';
import type { MeasureOptions } from './profiling.js';

/** Fewer say nothing about the spread. */
const LEAST_SAMPLES = 3;
/** But a run of many seconds is not waited for thrice. */
const PATIENCE = 4;

/** Of one run, or the mean of several, ms. */
interface Timed {
  readonly runMs: number;
  readonly cpuMs: number;
}

/** The engine's threads together may not use the cores that they could. */
export function isLimited({ cpuLimit, threads }: Pick<MeasureOptions, 'cpuLimit' | 'threads'>): boolean {
  return cpuLimit > 0 && cpuLimit < threads;
}

/**
 * Each a run, or the mean of a batch of runs that are short, ms; the first run warms up and is not counted, unless it alone takes longer than is waited for: what warms
 * up is nothing beside that, and a slice of a minute a run is measured in one minute. `run` says its CPU time where `isLimited`; where its clock is too coarse for any, the
 * wall's is taken.
 */
export async function samplesOf(
  run: () => Promise<Pick<RunResult, 'runMs' | 'cpuMs'>>,
  options: Pick<MeasureOptions, 'runs' | 'budgetMs' | 'batchMs' | 'cpuLimit' | 'threads'>,
  nowMs: () => number,
): Promise<number[]> {
  const { runs, budgetMs, batchMs, cpuLimit } = options;
  let mostCores = 0;
  const timed = async (): Promise<Timed> => {
    const { runMs, cpuMs = 0 } = await run();
    if (cpuMs > 0) mostCores = Math.max(mostCores, cpuMs / runMs);
    return { runMs, cpuMs };
  };
  const longMs = ({ runMs, cpuMs }: Timed): number => (isLimited(options) && cpuMs > 0 ? cpuMs / Math.min(cpuLimit, mostCores) : runMs);
  const begun = nowMs();
  const first = await timed();
  const start = nowMs();
  if (start - begun > PATIENCE * budgetMs) return [longMs(first)];
  const samples: Timed[] = [];
  const spentMs = (): number => nowMs() - start;
  while (samples.length < runs && (spentMs() < budgetMs || (samples.length < LEAST_SAMPLES && spentMs() < PATIENCE * budgetMs))) {
    const from = spentMs();
    let [runMs, cpuMs, count] = [0, 0, 0];
    do {
      const one = await timed();
      runMs += one.runMs;
      cpuMs += one.cpuMs;
      count++;
    } while (spentMs() - from < batchMs);
    samples.push({ runMs: runMs / count, cpuMs: cpuMs / count });
  }
  return samples.map(longMs);
}
