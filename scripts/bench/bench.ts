/** What a benchmark is. A new one is one file and one line in `index.ts`. */
import type { Figure } from './figures.js';

/** One part of a benchmark that can be asked for alone: a model, a number of agents, a setting. */
export interface Case {
  /** `vgg16, 4 agents`: the first words of its figures' names, and what `--only` looks at. */
  readonly name: string;
  readonly run: () => Promise<readonly Figure[]>;
}

export interface BenchContext {
  /** Fewer agents and samples: to see that it works, not to publish. */
  readonly quick: boolean;
  /** Profile each network on the agents before it is planned (`--profile`); otherwise planners know the agents by their probes. */
  readonly profile: boolean;
  /** How far it is, for people. */
  readonly note: (line: string) => void;
  /** Entry file of the compiled CLI: agents and gateway run as they are installed. */
  readonly cli: () => Promise<string>;
  /** Folder of networks made for benchmarks; kept between those of one command. */
  readonly models: string;
  /** Whether a case of this name is to be measured: `--only`. */
  readonly wants: (name: string) => boolean;
  /**
   * Runs those that are wanted, in their order. One that fails is said in the report and the others go on; none begins after the time of
   * `--within` is over, and that is said as well.
   */
  readonly cases: (cases: readonly Case[]) => Promise<void>;
  /** Figures of all cases together: asked for when the report is made, of the cases there are by then, also when the benchmark is stopped. */
  readonly summary: (make: (cases: readonly Figure[]) => readonly Figure[]) => void;
  /** What the figures so far depend on: for the report of a benchmark that is stopped before its end. */
  readonly depends: (conditions: object) => void;
  /** Something that could not be measured, and why: it stands in the report. */
  readonly trouble: (line: string) => void;
}

export interface Bench {
  readonly name: string;
  readonly summary: string;
  /** What a whole run takes on a quiet machine of 2 cores, about. */
  readonly seconds: number;
  /** Its figures are those of its cases; resolves with what they depend on. */
  readonly run: (context: BenchContext) => Promise<object>;
}
