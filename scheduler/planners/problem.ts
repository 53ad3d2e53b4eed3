/**
 * What a planner is asked and what it answers: plain data and pure functions, so that planners can be tested, compared and run in numbers.
 * A planner is one function `(problem) => PlanDraft | PlanRefusal` in a file of its name.
 */
import type { PlanDetails, PrecisionReport } from '../../broker/messages.js';
import type { Port, Wire } from '../../broker/plan.js';
import type { TensorInfo } from '../../broker/tensor.js';
import type { Block } from '../../models/model.js';
import type { CutKind, StageSpec } from '../../models/slicing/partition.js';
import type { Estimate } from './estimate.js';
import type { Ladder } from './roofline.js';

export type Objective = 'latency' | 'throughput';

/** Of replicas times replicas: the links of more pairs than this are not listed one by one. */
export const MOST_LISTED_PAIRS = 400;

export interface Device {
  readonly agent: string;
  /** As probed at its start; > 0. */
  readonly macsPerSecond: number;
  /** What this deployment may use: the device's memory less what other deployments hold on it. 0 = unknown. */
  readonly memoryBytes: number;
  /** Largest memory while a slice loads, over its weights; default: LOAD_PEAK_FACTOR. Agents that prepack need more. */
  readonly loadPeakFactor?: number;
  /** Bytes per second that its memory moves in memory-bound layers; default: DEFAULT_MEMORY_BYTES_PER_SECOND. */
  readonly memoryBytesPerSecond?: number;
  /** Fixed cost of one run of a slice, ms; default: RUN_OVERHEAD_MS. */
  readonly runMs?: number;
  /** What its agent does around each run besides messages, ms; default 0. */
  readonly aroundMs?: number;
  /** Fixed cost of one node of a run, ms; default: NODE_OVERHEAD_MS. */
  readonly nodeMs?: number;
  /** Devices of the same host share its cores: each is as fast as said only while the others rest. undefined = a host of its own. */
  readonly host?: string;
  /** Of the cores of its host, what a run here keeps busy, 0..1; default 1. Under a quota or with few threads it is less. */
  readonly hostShare?: number;
  /** Its CPU time is limited by a quota; times here are those of long work under it. undefined = no quota, or its period is not known. */
  readonly quota?: CpuQuota;
  /** How real frames ran here, against what was predicted; undefined = as predicted. */
  readonly correction?: Correction;
  /** Other deployments that hold seats here: its CPU and link are divided evenly among all that are busy. Default 0. */
  readonly otherDeployments?: number;
  /** Its own access link, as measured: equal ones keep devices in one class. undefined = as `links.usual`. */
  readonly link?: AccessLink;
  /** CPU of encoding and sending, or of receiving and placing, bytes/s; default: SERIALISE_BYTES_PER_SECOND. */
  readonly copyBytesPerSecond?: number;
  /** CPU of one message at one end besides its bytes, ms; default: MESSAGE_CPU_MS. */
  readonly messageMs?: number;
  /** Measured times of this class of device; where they say nothing, MACs and bytes do. */
  readonly profile?: ProfileTable;
}

/** A limit of CPU time that is handed out in periods: who has rested runs at full speed until what one period gives is used up. */
export interface CpuQuota {
  readonly periodMs: number;
  /** What work takes at full speed / what it takes under the quota in the long run, 0..1. */
  readonly fullSpeed: number;
}

/** Measured time / predicted time of real frames, already weighed by how far it can be trusted. Factors are rounded, so that like devices stay alike. */
export interface Correction {
  /** Of whatever is not named in `stages`. */
  readonly all: number;
  readonly stages: readonly { readonly nodes: readonly [number, number]; readonly cut: CutKind; readonly factor: number }[];
}

/** One measurement: a run of nodes `[start, end)` cut so, on one device of the class, by the largest part. */
export interface ProfileRow {
  readonly nodes: readonly [number, number];
  readonly cut: CutKind;
  readonly parts: number;
  readonly ms: number;
  /** Of that part: its work and what it takes in and puts out. */
  readonly macs?: number;
  readonly inBytes?: number;
  readonly outBytes?: number;
  readonly weightBytes?: number;
  /** What its work takes among its neighbours / by itself, run and boundary apart; default 1. Of the whole run of nodes, and so of its parts. */
  readonly context?: number;
  /** Peaks of memory above a process with an engine and no model. */
  readonly loadPeakBytes?: number;
  readonly runPeakBytes?: number;
}

export interface ProfileTable {
  /** Of people: which class of device, measured by whom. */
  readonly name: string;
  readonly rows: readonly ProfileRow[];
  /** Part of each `ms`: what a run costs however little it computes. undefined = not known, and not to be taken off. */
  readonly runMs?: number;
  /** Part of each `ms`: handing tensors in and out, per byte; a longer run of nodes pays it at its ends only. */
  readonly boundaryMsPerByte?: number;
}

export interface Link {
  readonly bytesPerSecond: number;
  readonly latencyMs: number;
}

/** What one end of all its lanes can carry. One way from a to b takes the latency of both ends. */
export interface AccessLink {
  readonly upBytesPerSecond: number;
  readonly downBytesPerSecond: number;
  readonly latencyMs: number;
}

export interface Links {
  readonly usual: Link;
  /** The gateway's own link; undefined = as `usual`. */
  readonly gateway?: AccessLink;
  /** The gateway's CPU for bytes that it encodes and decodes; undefined = SERIALISE_BYTES_PER_SECOND. */
  readonly gatewayCopyBytesPerSecond?: number;
  /** CPU of the gateway for each frame besides: decoding a picture, cropping, ms. Default 0. */
  readonly gatewayFrameMs?: number;
  /** One medium that all bytes between machines pass, such as Wi-Fi, bytes/s; undefined = each end has a link of its own only. */
  readonly sharedBytesPerSecond?: number;
  /** Pairs that differ from what their ends say. Keep it small: a device named here is a class of its own. */
  /** Key: `from>to`, agent names or `dispatcher`. */
  readonly between: ReadonlyMap<string, Link>;
}

/** What is known of one part before any byte of it is written. */
export interface PartFacts {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly macs: number;
  readonly weightBytes: number;
  readonly activationBytes: number;
  /** Nodes that the part runs; absent = 1. */
  readonly nodes?: number;
  /** Bytes of weights and activations that its nodes read and write; absent = unknown, then MACs alone count. */
  readonly movedBytes?: number;
  /** The same MACs and bytes, apart by what limits a node; absent = all nodes are taken for alike. */
  readonly ladder?: Ladder;
}

/** A model cut into stages of parts; a `Partition` of models/slicing is one. */
export interface CutFacts {
  readonly stages: readonly { readonly spec: StageSpec; readonly parts: readonly PartFacts[]; readonly partShares: readonly number[] }[];
  readonly wires: readonly Wire[];
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

export interface PlanRefusal {
  readonly refused: true;
  /** For people: what is in the way, with the tightest limit. */
  readonly reason: string;
}

/** The model as planners see it. Both functions are pure; they may be slow, and may remember what they answered. */
export interface ModelFacts {
  readonly blocks: readonly Pick<Block, 'nodes' | 'macs' | 'weightBytes' | 'outBytes'>[];
  readonly inputBytes: number;
  cut(stages: readonly StageSpec[]): CutFacts | PlanRefusal;
  /** Stages that cut as much of the model as this kind can (`rows`, `channels`, ..., `auto` mixes them). */
  cover(kind: string, shares: readonly number[]): readonly StageSpec[] | PlanRefusal;
  /** Stages that code all of the model that can be coded, in one part per share and a parity. Undefined = nothing can. */
  coded?(shares: readonly number[]): readonly StageSpec[] | PlanRefusal;
  /** The parts of one stage by itself, without wires: much cheaper than `cut`. */
  stage(spec: StageSpec): readonly PartFacts[] | PlanRefusal;
  /** Runs the planner of this name where it holds nobody up. Undefined = here. Throws PLANNER_FAILED. */
  elsewhere?(planner: string, question: Omit<PlanProblem, 'facts'>): Promise<PlanDraft | PlanRefusal>;
}

export interface PlanProblem {
  readonly facts: ModelFacts;
  readonly devices: readonly Device[];
  readonly links: Links;
  readonly objective: Objective;
  /** Frames in flight; 0 = the planner's choice. */
  readonly inFlight: number;
  /** Of objective throughput: no frame may take longer than this, alone in the system. */
  readonly maxLatencyMs?: number;
  /** A cut made by hand, such as rows in 4 parts; undefined = the planner's choice. */
  readonly manual?: { readonly kind: string; readonly parts: number; readonly shares: readonly number[] };
  /** Of every stage that can be coded any one part may be missing. Where no such plan is possible: refuse, or go on without. */
  readonly redundancy?: { readonly otherwise: 'refuse' | 'without' };
  /** A whole plan from a file, and who made it; only the planner `filed` looks at it. */
  readonly seated?: { readonly by: string; readonly stages: readonly SeatedStage[] };
}

/** `agents[replica][share]`: who holds the part made of share i of the stage; of a coded stage, after them who holds the parity. */
export interface SeatedStage {
  readonly spec: StageSpec;
  readonly agents: readonly (readonly string[])[];
  /** Of the frames, how many go to each replica, relative to the others; absent: as many as its speed allows. Needed where some agents hold other seats, too. */
  readonly weights?: readonly number[];
  /** Replicas take frames strictly in turn, however fast they are and whatever waits for them: as published clusters of equal devices do. */
  readonly inTurn?: boolean;
}

export interface PlanDraft {
  readonly planner: string;
  /** At most three lines: the bottleneck, the runner-up, what would change the choice. */
  readonly why: string;
  readonly stages: readonly SeatedStage[];
  readonly cut: CutFacts;
  readonly inFlight: number;
  readonly estimate: Estimate;
  /** What wire encodings were chosen, and why; absent = none was allowed. */
  readonly precision?: PrecisionReport;
  /** For people: which figures it stands on. */
  readonly basis?: string;
  /** Compared with other planners, and planned again with changes: only when it was to be explained. */
  readonly explained?: Pick<PlanDetails, 'alternatives' | 'changes'>;
  /** What came second, and what would have to change: for `--explain`. */
  readonly alternatives?: readonly Alternative[];
}

export interface Alternative {
  readonly planner: string;
  readonly agents: number;
  readonly latencyMs: number;
  readonly fps: number;
}

export type Planner = (problem: PlanProblem) => PlanDraft | PlanRefusal;

export function isRefusal(value: object): value is PlanRefusal {
  return 'refused' in value;
}

/** Fastest first; equal ones by name, so that the same question has the same answer. */
export function bySpeed(devices: readonly Device[]): Device[] {
  return [...devices].sort((a, b) => b.macsPerSecond - a.macsPerSecond || (a.agent < b.agent ? -1 : 1));
}

/** The class of each device: equal for those that are equal in all that a plan can depend on. A device with a link of its own to another is its own class. */
export function classKeys(devices: readonly Device[], links: Links): string[] {
  const named = new Set([...links.between.keys()].flatMap((pair) => pair.split('>')));
  const together = new Map<string, number>();
  for (const { host } of devices) if (host !== undefined) together.set(host, (together.get(host) ?? 0) + 1);
  return devices.map((device) => {
    const { agent, profile, host, ...rest } = device;
    // A host that nobody shares says nothing.
    const shared = host !== undefined && (together.get(host) ?? 0) > 1 ? host : undefined;
    return named.has(agent) ? agent : JSON.stringify([rest, shared, profile?.name]);
  });
}

/** Devices by class, in order of the first of each. */
export function classesOf(devices: readonly Device[], links: Links): Device[][] {
  const classes = new Map<string, Device[]>();
  const keys = classKeys(devices, links);
  for (const [d, device] of devices.entries()) {
    const key = keys[d] ?? '';
    const known = classes.get(key);
    if (known === undefined) classes.set(key, [device]);
    else known.push(device);
  }
  return [...classes.values()];
}
