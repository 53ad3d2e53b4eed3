/** Published speeds of clusters of Raspberry Pi 3, simulated: with the mapping they published, with their algorithm, and with `auto` on the same devices. */
import { ChairError } from '../../broker/errors.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { Model } from '../../models/model.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { PROFILES, pi3Table } from '../devices/profile.js';
import { PI3_2018, PUBLISHED_LINKS, type PublishedLink } from '../devices/published.js';
import { factsOf } from '../model-library.js';
import { draft } from '../planners/draft.js';
import { PLANNERS } from '../planners/planners.js';
import {
  type Device,
  isRefusal,
  type Links,
  type ModelFacts,
  type PlanDraft,
  type PlanProblem,
  type PlanRefusal,
  type ProfileTable,
  type SeatedStage,
} from '../planners/problem.js';
import type { ResourceUse } from './options.js';
import {
  ACTION,
  ACTION_MAPPINGS,
  ALEXNET,
  ALEXNET_MAPPINGS,
  type MappedStage,
  REPORTED,
  VGG16,
  VGG16_MAPPINGS,
} from './published-networks.js';
import { simulatePlan } from './simulate.js';
import { factsOfTasks, profileOfTasks } from './tasks.js';

/** What one plan reaches on the simulated devices. */
export interface Reached {
  readonly fps: number;
  /** For people: stages and how many devices each has. */
  readonly plan: string;
  /** Busiest resource. */
  readonly limit: string;
}

export interface ReproducedRow {
  readonly network: string;
  /** As the publication counts them, with the one that records the input. */
  readonly devices: number;
  readonly reported: number;
  /** With the mapping as published; undefined where none is. */
  readonly published: Reached | PlanRefusal | undefined;
  /** The same where all messages pass one radio channel. */
  readonly radio: Reached | PlanRefusal | undefined;
  readonly algorithm: Reached | PlanRefusal;
  readonly auto: Reached | PlanRefusal;
}

export interface LaterRow {
  readonly network: string;
  readonly devices: number;
  readonly reported: readonly number[];
  readonly pipeline: Reached | PlanRefusal;
  readonly algorithm: Reached | PlanRefusal;
  readonly auto: Reached | PlanRefusal;
}

interface Network {
  readonly name: string;
  readonly facts: ModelFacts;
  readonly table: ProfileTable;
  /** Nodes `[from, end)` of units. */
  readonly nodes: (units: readonly [number, number]) => readonly [number, number];
}

const FRAMES = 400;
/** Nothing is given up: frames take many seconds on these devices. */
const PATIENT = { deadlineMs: 1e9, queueFrames: 10_000, attemptFloorMs: 1e8 };

export function reproduce(): { readonly first: ReproducedRow[]; readonly later: LaterRow[] } {
  const action: Network = {
    name: 'action recognition',
    facts: factsOfTasks(ACTION),
    table: profileOfTasks('pi3-2018', ACTION),
    nodes: (units) => units,
  };
  // The whole of it was measured, too: more than its layers together.
  const alexnet = network('AlexNet', ALEXNET, 1000 * PI3_2018.tasks.alexnet);
  const vgg16 = network('VGG16', VGG16);
  const first = [
    ...rows(action, REPORTED.action, ACTION_MAPPINGS),
    ...rows(alexnet, REPORTED.alexnet, ALEXNET_MAPPINGS),
    ...rows(vgg16, REPORTED.vgg16, VGG16_MAPPINGS),
  ];
  return { first, later: [...laterRows(alexnet, REPORTED.alexnet2020), ...laterRows(vgg16, REPORTED.vgg162020)] };
}

function network(name: string, model: Model, wholeMs?: number): Network {
  const facts = factsOf(model);
  const table = pi3Table(model);
  const starts = model.nodes.flatMap(({ op }, i) => (op === 'Conv' || op === 'Gemm' ? [i] : []));
  const at = (unit: number): number => (unit === 0 ? 0 : (starts[unit] ?? model.nodes.length));
  const whole = wholeMs === undefined ? [] : [{ nodes: [0, model.nodes.length] as const, cut: 'whole' as const, parts: 1, ms: wholeMs }];
  return { name, facts, table: { ...table, rows: [...whole, ...table.rows] }, nodes: ([from, end]) => [at(from), at(end)] };
}

/** The gateway is the device that records the input. */
function problemOf({ facts, table }: Network, agents: number, link: PublishedLink, radio = false): PlanProblem {
  const { bytesPerSecond, latencyMs } = PUBLISHED_LINKS[link];
  const links: Links = {
    ...{ usual: { bytesPerSecond, latencyMs }, between: new Map() },
    ...(radio ? { sharedBytesPerSecond: bytesPerSecond } : {}),
  };
  const profile = PROFILES.get('pi3-2018');
  if (profile === undefined) throw new ChairError('INTERNAL', 'there is no profile pi3-2018');
  const devices = Array.from({ length: agents }, (_, i): Device => {
    const { vgg16Convolutions: vgg } = PI3_2018;
    return {
      ...{ agent: `pi-${i + 1}`, macsPerSecond: vgg.macs / vgg.seconds, profile: table },
      memoryBytes: profile.usableBytes(profile.memoryBytes),
    };
  });
  return { facts, devices, links, objective: 'throughput', inFlight: 0 };
}

function rows(
  on: Network,
  reported: { readonly [devices: number]: number },
  mappings: { readonly [devices: number]: readonly MappedStage[] },
): ReproducedRow[] {
  return Object.entries(reported).map(([text, value]): ReproducedRow => {
    const devices = Number(text);
    // One device does everything itself: there it is the agent.
    const agents = Math.max(1, devices - 1);
    const problem = problemOf(on, agents, 'regression-2018');
    const shared = problemOf(on, agents, 'regression-2018', true);
    const mapping = mappings[devices];
    return {
      ...{ network: on.name, devices, reported: value },
      published: mapping === undefined ? undefined : reached(problem, mapped(on, problem, mapping)),
      radio: mapping === undefined ? undefined : reached(shared, mapped(on, shared, mapping)),
      algorithm: reached(problem, planned(problem, 'musical-chair-2018')),
      auto: reached(problem, planned(problem, 'auto')),
    };
  });
}

function laterRows(on: Network, reported: { readonly [devices: number]: readonly number[] }): LaterRow[] {
  return Object.entries(reported).map(([text, values]): LaterRow => {
    const problem = problemOf(on, Number(text), 'ethernet-2020');
    const by = (planner: string): Reached | PlanRefusal => reached(problem, planned(problem, planner));
    return {
      ...{ network: on.name, devices: Number(text), reported: values },
      ...{ pipeline: by('pipeline'), algorithm: by('musical-chair-2018'), auto: by('auto') },
    };
  });
}

function planned(problem: PlanProblem, name: string): PlanDraft | PlanRefusal {
  const planner = PLANNERS.get(name);
  if (planner === undefined) throw new ChairError('INTERNAL', `there is no planner ${name}`);
  return planner(problem);
}

/** Devices in order, each stage on as many as it has replicas times parts. */
function mapped({ nodes }: Network, problem: PlanProblem, mapping: readonly MappedStage[]): PlanDraft | PlanRefusal {
  const names = problem.devices.map(({ agent }) => agent);
  const stages: SeatedStage[] = [];
  for (const { units, replicas = 1, parts = 1, on } of mapping) {
    const spec: StageSpec = { nodes: nodes(units), cut: parts > 1 ? 'channels' : 'whole', shares: new Array<number>(parts).fill(1) };
    const shared = on === undefined ? undefined : stages[on]?.agents;
    stages.push({ spec, agents: shared ?? Array.from({ length: replicas }, () => names.splice(0, parts)) });
  }
  return draft(problem, 'published', stages);
}

function reached(problem: PlanProblem, plan: PlanDraft | PlanRefusal): Reached | PlanRefusal {
  if (isRefusal(plan)) return plan;
  const { devices, links } = problem;
  const { fps, resources } = simulatePlan({
    ...{ draft: plan, devices, links, frames: FRAMES, limits: PATIENT },
    load: { kind: 'closed', inFlight: plan.inFlight },
  });
  const [busiest] = resources;
  return { fps, plan: stagesText(plan), limit: busiest === undefined ? '' : limitText(busiest) };
}

/** Which of several equal devices it is says nothing. */
function limitText({ kind, who }: ResourceUse): string {
  if (kind === 'medium') return 'the radio channel';
  if (kind === 'pair') return 'the way between two devices';
  if (who === DISPATCHER) return kind === 'compute' ? "the gateway's CPU" : "the gateway's link";
  return kind === 'compute' ? 'computing' : "a device's link";
}

/** `whole x 2, channels / 2, whole`. */
function stagesText({ stages }: PlanDraft): string {
  return stages
    .map(({ spec, agents }) => {
      const parts = spec.shares.length > 1 ? `${spec.cut} / ${spec.shares.length}` : 'whole';
      return agents.length > 1 ? `${parts} x ${agents.length}` : parts;
    })
    .join(', ');
}
