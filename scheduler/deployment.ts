/** One deployment as the scheduler knows it: changed by deployments.ts, plan-making.ts and executing.ts only, read by reconcile.ts and status.ts. */
import type { ChairError } from '../broker/errors.js';
import type { DeployRequest, PlanReport, Progress } from '../broker/messages.js';
import type { LoadedModel, ManualCut } from './model-source.js';
import type { SeatEstimate } from './planners/estimate.js';
import type { PlanDraft } from './planners/problem.js';
import type { Handover } from './rebalance/handover.js';
import type { Placement, SeatProgress } from './reconcile.js';
import type { Restoring } from './restoring.js';

export type DeploymentState = 'restoring' | 'planning' | 'preparing' | 'serving' | 'waiting' | 'failed' | 'removing';

export interface Placed extends Placement {
  readonly draft: PlanDraft;
  readonly report: PlanReport;
  readonly seats: Map<string, SeatProgress>;
  /** Agents whose memory does not hold these seats and those of the plan before; more may turn out when they prepare. */
  readonly tight: Map<string, number>;
  handover: Handover;
  readonly vacated: Map<string, 'leaving' | 'left'>;
  readonly fetched: Map<string, 'asked' | 'done'>;
  settled: boolean;
  /** Times of its seats without corrections and other deployments: what real frames are compared with. */
  readonly alone: readonly SeatEstimate[];
  /** Of each agent: what these times stand on. */
  readonly bases: ReadonlyMap<string, string>;
  /** sha256 of the model's file. */
  readonly model: string;
}

export interface Deployment {
  readonly name: string;
  request: DeployRequest;
  readonly manual: ManualCut | undefined;
  model: LoadedModel | undefined;
  state: DeploymentState;
  why: string;
  removing: boolean;
  planning: boolean;
  /** The planner that is at work began while the plan in force was whole. */
  optional: boolean;
  stuck: boolean;
  /** Agents came or went since the planner was asked: what it finds impossible may be possible now. */
  overtaken: boolean;
  /** The plan was made because an agent was lost; the first one to come (back) is reason for another. */
  afterLoss: boolean;
  recovering: boolean;
  /** The plan in force is a local repair, and a full plan was not made since. */
  repaired: boolean;
  /** An agent of the plan in force could not go on in a repair of it: it takes a full plan. */
  unrepairable: boolean;
  /** No repair does without the agents whose links are slow: not tried again until agents have changed. */
  unavoidable: boolean;
  /** The plan in force has raw wires because there was no time to measure errors. */
  unmeasured: boolean;
  /** Its objective was changed since the plan in force was made. */
  retargeted: boolean;
  verified: boolean;
  /** Largest difference found by verifying; -1 = not verified. */
  maxRelDiff: number;
  /** What was in force when the gateway was killed, until its agents are asked to hold it again. */
  restoring: Restoring | undefined;
  /** It was saved: its model is read when it is needed, and has to be this one (sha256). */
  readonly savedModel: string | undefined;
  /** The epoch of the term before whose seats are still to be released. */
  inherited: number | undefined;
  serving: Placed | undefined;
  next: Placed | undefined;
  readonly draining: Map<number, Placed>;
  /** Agents that could not prepare: by name, which process and why. */
  readonly excluded: Map<string, { readonly nonce: string; readonly why: string }>;
  /** Agents that it left to another deployment (by name), which needs them more. */
  readonly yielded: Map<string, string>;
  readonly progress: Map<string, Progress>;
  /** Settles the deploy request; undefined when it is answered. */
  first: { readonly resolve: () => void; readonly reject: (error: Error) => void } | undefined;
}

export function createDeployment(request: DeployRequest, manual: ManualCut | undefined, savedModel?: string): Deployment {
  return {
    name: request.name,
    request,
    manual,
    model: undefined,
    state: 'planning',
    why: '',
    removing: false,
    planning: false,
    optional: false,
    stuck: false,
    overtaken: false,
    afterLoss: false,
    recovering: false,
    repaired: false,
    unrepairable: false,
    unavoidable: false,
    unmeasured: false,
    retargeted: false,
    verified: false,
    maxRelDiff: -1,
    restoring: undefined,
    savedModel,
    inherited: undefined,
    serving: undefined,
    next: undefined,
    draining: new Map(),
    excluded: new Map(),
    yielded: new Map(),
    progress: new Map(),
    first: undefined,
  };
}

/** Settles the deploy request, if it still waits. */
export function answerFirst(deployment: Deployment, error?: ChairError): void {
  const { first } = deployment;
  deployment.first = undefined;
  if (error === undefined) first?.resolve();
  else first?.reject(error);
}

/** Agents that could not prepare, and why, for people. */
export function leftOut({ excluded }: Deployment): string[] {
  return [...excluded].map(([agent, { why }]) => `left out ${agent}: ${why}`);
}
