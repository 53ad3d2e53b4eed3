/** On what a figure was measured. */
import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { PACKAGE_ROOT, packageVersion } from '../package-root.js';

/** Above this, somebody else uses the machine, and figures are not worth publishing. */
export const QUIET_LOAD = 0.5;
/** The same of what is busy at this moment: load is an average that one's own last benchmark still raises. */
const QUIET_BUSY_CORES = 0.2;
const LOOK_MS = 1000;
const LOOKS = 5;

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly architecture: string;
  readonly node: string;
  /** Average over the minute before the run; of a run of several benchmarks, before the first. */
  readonly loadBefore: number;
  /** Cores that were busy just before the run. */
  readonly busyBefore: number;
  readonly quiet: boolean;
}

/** Cores busy from now on for a moment. */
async function busyCores(): Promise<number> {
  const idleMs = (): number => cpus().reduce((sum, { times }) => sum + times.idle, 0);
  const [idle, from] = [idleMs(), performance.now()];
  await delay(LOOK_MS);
  return Math.max(0, cpus().length - (idleMs() - idle) / (performance.now() - from));
}

/** The least of some looks: what the last benchmark left is still being removed. */
async function busyAtRest(): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let look = 0; look < LOOKS && least >= QUIET_BUSY_CORES; look++) least = Math.min(least, await busyCores());
  return least;
}

/** `loadBefore`: what it was before the first of several benchmarks, which raise it themselves. */
export async function machine(loadBefore = loadavg()[0] ?? 0): Promise<Machine> {
  const busyBefore = await busyAtRest();
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    architecture: process.arch,
    node: process.version,
    loadBefore,
    busyBefore,
    quiet: loadBefore < QUIET_LOAD && busyBefore < QUIET_BUSY_CORES,
  };
}

/** The commit measured, `+changes` when the checkout differs from it; outside of a checkout the version. */
export function commit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: PACKAGE_ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    return git('rev-parse', '--short=12', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+changes');
  } catch {
    return `v${packageVersion()}`;
  }
}
