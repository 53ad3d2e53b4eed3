/** What a simulation is asked and what it answers: plain data. Times are ms from its start. */
import type { FrameLimits } from '../frame-types.js';
import type { Estimate } from '../planners/estimate.js';
import type { Device, Links, Objective, PlanDraft, PlanRefusal } from '../planners/problem.js';
import type { Discipline } from './server.js';

/** How frames come. `closed`: so many are outstanding, and each answer is followed by the next; the others come whether answers do or not. */
export type Load =
  | { readonly kind: 'closed'; readonly inFlight: number }
  | { readonly kind: 'rate'; readonly framesPerSecond: number }
  | { readonly kind: 'poisson'; readonly framesPerSecond: number };

export type Incident =
  /** Its process ends: connections break, the broker tells at once. */
  | { readonly kind: 'crash'; readonly agent: string; readonly atMs: number }
  /** Power or cable: it falls silent, and only that tells. */
  | { readonly kind: 'vanish'; readonly agent: string; readonly atMs: number }
  /** A new process on the same device, with what is on its disk. */
  | { readonly kind: 'return'; readonly agent: string; readonly atMs: number }
  /** From now on it computes at this part of its speed; 1 = as before. */
  | { readonly kind: 'speed'; readonly agent: string; readonly atMs: number; readonly factor: number }
  /** The same of its link, in both directions. */
  | { readonly kind: 'link'; readonly agent: string; readonly atMs: number; readonly factor: number };

export interface SimulationOptions {
  readonly draft: PlanDraft;
  /** What the devices really are. */
  readonly devices: readonly Device[];
  readonly links: Links;
  readonly load: Load;
  /** Seats run as long as the estimates of the drafts say, which know better than `devices`. Default false. */
  readonly timesOfDrafts?: boolean;
  /** Default 200. */
  readonly frames?: number;
  /** Frames in flight that the dispatcher admits; default: the draft's. */
  readonly budget?: number;
  readonly limits?: Partial<FrameLimits>;
  readonly incidents?: readonly Incident[];
  /** What repairs and the plans after them are judged by; default: throughput. */
  readonly objective?: Objective;
  /** Plans for the devices that are left, or back, besides local repairs; undefined = the plan stays whatever happens. */
  readonly replan?: (devices: readonly Device[]) => PlanDraft | PlanRefusal;
  /** How long the planner takes, ms; default 200. Slices that agents lack are fetched and warmed up besides, by simulation. */
  readonly planningMs?: number;
  /** How messages share a link; default `fifo`, as in the planners' latency. */
  readonly discipline?: Discipline;
  /** Standard deviation of the logarithm of each run's time about its prediction; default 0. The mean stays. */
  readonly noise?: number;
  /** Of noise and Poisson arrivals; default 1. */
  readonly seed?: number;
  /** Messages and runs noted for a drawing; default 0. */
  readonly spans?: number;
  /** Ends the simulation although frames are unfinished, ms; default: never. */
  readonly untilMs?: number;
}

export interface Quantiles {
  readonly mean: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly most: number;
}

export interface ResourceUse {
  /** Of a pair: `from>to`. */
  readonly who: string;
  readonly kind: 'compute' | 'up' | 'down' | 'pair' | 'medium';
  /** Of the time over which `fps` is counted, 0..1. */
  readonly busy: number;
}

export interface Span {
  readonly who: string;
  readonly what: 'run' | 'up';
  readonly frame: number;
  readonly stage: number;
  readonly fromMs: number;
  readonly toMs: number;
}

/** What an incident did to the stream of results. */
export interface Interruption {
  readonly incident: Incident;
  /** Longest time without a result between this incident and the next, and the median time between results before it. */
  readonly gapMs: number;
  readonly usualMs: number;
  /** From the incident until the scheduler knew, and until another plan was in force; undefined = never. */
  readonly noticedMs?: number;
  readonly replannedMs?: number;
}

export interface SimulationResult {
  /** Results per second after the pipe has filled and while frames still come. */
  readonly fps: number;
  /** From the client's submission to its answer. */
  readonly latencyMs: Quantiles;
  readonly frames: { readonly sent: number; readonly completed: number; readonly failed: number; readonly reissued: number };
  /** Frames by error code. */
  readonly errors: Readonly<Record<string, number>>;
  readonly durationMs: number;
  /** Busiest first. */
  readonly resources: readonly ResourceUse[];
  readonly interruptions: readonly Interruption[];
  /** What happened, for people. */
  readonly events: readonly { readonly atMs: number; readonly text: string }[];
  /** Of completed frames in the order of their answers. */
  readonly endedAtMs: readonly number[];
  readonly latenciesMs: readonly number[];
  readonly spans: readonly Span[];
  /** What the planners' cost model says of the first plan on these devices. */
  readonly predicted: Pick<Estimate, 'fps' | 'latencyMs' | 'bottleneck'>;
  /** Bytes on links and messages, all frames together. */
  readonly traffic: { readonly messages: number; readonly bytes: number };
  /** Steps of the simulation itself. */
  readonly steps: number;
}
