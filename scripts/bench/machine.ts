/** On what a figure was measured. */
import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { PACKAGE_ROOT, packageVersion } from '../package-root.js';

/** Above this, somebody else uses the machine, and figures are not worth publishing. */
export const QUIET_LOAD = 0.5;

export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly architecture: string;
  readonly node: string;
  /** Average over the minute before the run. */
  readonly loadBefore: number;
  readonly quiet: boolean;
}

export function machine(): Machine {
  const loadBefore = loadavg()[0] ?? 0;
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    architecture: process.arch,
    node: process.version,
    loadBefore,
    quiet: loadBefore < QUIET_LOAD,
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
