/** The figures of a run, and how they are made from what happened. Pure. */
import type { Conditions } from '../testbed/testbed.js';
import type { Violation } from './fencing.js';
import type { Outcome } from './inside.js';
import type { Sample } from './resources.js';
import type { FaultKind } from './schedule.js';

export interface RoundRecord {
  readonly round: number;
  readonly faults: readonly string[];
  readonly kinds: readonly FaultKind[];
  /** From the last act until it stayed as it was, ms; null = it did not. */
  readonly convergedMs: number | null;
  /** Of that, slices travelled. */
  readonly transferMs: number;
  readonly frames: number;
  readonly failures: Readonly<Record<string, number>>;
  readonly reissued: number;
  /** Longest time without a result, by deployment, ms. */
  readonly gapMs: Readonly<Record<string, number>>;
  readonly violations: readonly Violation[];
}

export interface ChaosRecord {
  readonly seed: number;
  readonly conditions: Conditions;
  readonly seconds: number;
  readonly rounds: readonly RoundRecord[];
  readonly events: number;
  readonly frames: number;
  readonly failures: Readonly<Record<string, number>>;
  readonly reissued: number;
  /** Largest difference of any result from the single machine's, relative. */
  readonly maxRelDiff: number;
  /** Commands obeyed, and refused as over. */
  readonly accepted: number;
  readonly refused: number;
  /** What was counted as refused by whom it came to, as `status` showed it, by code. */
  readonly refusals: Readonly<Record<string, number>>;
  /** What a supervisor had to start again besides what was killed. */
  readonly restarts: readonly string[];
  /** Requests that failed with a code in the middle of faults. */
  readonly requests: readonly string[];
  readonly peaks: readonly {
    readonly name: string;
    readonly anonymousBytes: number;
    readonly sockets: number;
    readonly timers: number;
    readonly storeBytes: number;
  }[];
  readonly violations: readonly Violation[];
}

export function failuresOf(outcomes: readonly Outcome[]): Record<string, number> {
  const failures: Record<string, number> = {};
  for (const { code } of outcomes) if (code !== '') failures[code] = (failures[code] ?? 0) + 1;
  return failures;
}

/** The longest time without a result of a deployment between two moments, and when it began. */
export function longestGap(
  outcomes: readonly Outcome[],
  deployment: string,
  fromMs: number,
  toMs: number,
): { readonly ms: number; readonly fromMs: number } {
  const ends = outcomes.flatMap((one) => (one.deployment === deployment && one.code === '' ? [one.endedMs] : []));
  const marks = [fromMs, ...ends.filter((at) => at > fromMs && at < toMs).sort((a, b) => a - b), toMs];
  let longest = { ms: 0, fromMs };
  for (const [i, at] of marks.entries()) {
    const next = marks[i + 1] ?? at;
    if (next - at > longest.ms) longest = { ms: Math.round(next - at), fromMs: at };
  }
  return longest;
}

export function peaksOf(samples: readonly Sample[]): ChaosRecord['peaks'] {
  const most = (own: readonly Sample[], of: (one: Sample) => number): number => Math.max(0, ...own.map(of).filter(Number.isFinite));
  return [...new Set(samples.map(({ name }) => name))].map((name) => {
    const own = samples.filter((one) => one.name === name);
    return {
      name,
      anonymousBytes: most(own, (one) => one.anonymousBytes),
      sockets: most(own, (one) => one.sockets),
      timers: most(own, (one) => one.timers),
      storeBytes: most(own, (one) => one.storeBytes),
    };
  });
}
