/** What a benchmark is. A new one is one file and one line in `index.ts`. */
import type { Conditions } from '../testbed/testbed.js';
import type { Figure } from './figures.js';

export interface BenchContext {
  /** Fewer agents and samples: to see that it works, not to publish. */
  readonly quick: boolean;
  /** How far it is, for people. */
  readonly note: (line: string) => void;
  /** Entry file of the compiled CLI: agents and gateway run as they are installed. */
  readonly cli: () => Promise<string>;
}

export interface BenchResult {
  readonly figures: readonly Figure[];
  /** What the figures depend on. */
  readonly conditions: Readonly<Record<string, unknown>> | Conditions;
}

export interface Bench {
  readonly name: string;
  readonly summary: string;
  readonly run: (context: BenchContext) => Promise<BenchResult>;
}
