/** What the processes inside the testbed's network are asked, and what they answer: see inside-process.ts. */
import type { StatusReport } from '../../broker/messages.js';
import type { Tensor } from '../../broker/tensor.js';
import type { DeployOptions } from '../../scheduler/client.js';
import type { Child } from '../children.js';
import type { Violation } from './fencing.js';
import type { Lie } from './schedule.js';

export type Tensors = Readonly<Record<string, Tensor>>;

/** Frames of one deployment, and what the whole model makes of them on one machine. */
export interface LoadRequest {
  readonly deployment: string;
  readonly frames: readonly { readonly inputs: Tensors; readonly expected: Tensors }[];
  readonly inFlight: number;
  /** Pause of each sender after an answer, ms: the load is steady, not as much as possible. */
  readonly pauseMs: number;
  readonly deadlineMs: number;
}

/** One frame's end. Times are wall-clock ms, comparable between processes of one machine. */
export interface Outcome {
  readonly deployment: string;
  readonly sentMs: number;
  readonly endedMs: number;
  /** '' = a result. */
  readonly code: string;
  readonly message: string;
  readonly attempts: number;
  /** Largest difference from the single machine's result, relative; NaN without a result. */
  readonly maxRelDiff: number;
  /** Why the result is wrong; '' = it is right. */
  readonly wrong: string;
}

/** What happened since it was asked last. */
export interface Account {
  readonly outcomes: readonly Outcome[];
  readonly violations: readonly Violation[];
  /** Frames without an outcome, and how long the oldest of them is overdue, ms. */
  readonly outstanding: number;
  readonly overdueMs: number;
  /** So often an outcome came for a frame that had one. */
  readonly twice: number;
  readonly transfers: readonly { readonly agent: string; readonly fromMs: number; readonly toMs: number; readonly bytes: number }[];
  /** Commands obeyed, and refused because their term or epoch is over. */
  readonly accepted: number;
  readonly refused: number;
}

/** Wall-clock ms that never jump. */
export const wallMs = (): number => performance.timeOrigin + performance.now();

const STATUS_MS = 5000;
/** Of a machine that is busy with everything else, too. */
const ACCOUNT_MS = 60_000;
const DEPLOY_MS = 120_000;

/** Calls a process inside. */
export class Inside {
  constructor(private readonly child: Child) {}

  async load(request: LoadRequest): Promise<void> {
    await this.child.ask('load', { argument: request, withinMs: 10_000 });
  }

  /** No more frames are sent; resolves when all have an outcome. */
  async settle(withinMs: number): Promise<void> {
    await this.child.ask('settle', { withinMs });
  }

  async account(): Promise<Account> {
    return (await this.child.ask('account', { withinMs: ACCOUNT_MS })) as Account;
  }

  /** Throws what the client threw. */
  async status(): Promise<StatusReport> {
    return (await this.child.ask('status', { withinMs: STATUS_MS })) as StatusReport;
  }

  async deploy(options: DeployOptions): Promise<void> {
    await this.child.ask('deploy', { argument: options, withinMs: DEPLOY_MS });
  }

  async adjust(name: string, objective: string): Promise<void> {
    await this.child.ask('adjust', { argument: { name, objective }, withinMs: DEPLOY_MS });
  }

  async undeploy(name: string): Promise<void> {
    await this.child.ask('undeploy', { argument: name, withinMs: 30_000 });
  }

  async lie(lie: Lie, agent: string): Promise<void> {
    await this.child.ask('lie', { argument: { lie, agent }, withinMs: 10_000 });
  }
}
