/**
 * What a prediction stood on, kept beside its figures: the links and agents as the planner saw them, what it took each seat for, and what the seats did. Whoever asks
 * later why a prediction was wrong finds here which of its numbers was. Pure.
 */
import type { AgentStatus, LinkStatus, LiveRow, PlanReport } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { Device, Links, PlanDraft } from '../../scheduler/planners/problem.js';
import type { Reported } from '../../scheduler/simulate/from-report.js';
import type { Busy } from './usage.js';

export interface Basis {
  /** The bottleneck first, then what came second and what would change the choice. */
  readonly why: readonly string[];
  readonly standsOn: string;
  readonly inFlight: number;
  readonly predictedFps: number;
  /** Of each stage with replicas the part of frames of each; empty where the plan leaves it to their speed. */
  readonly weights: readonly (readonly number[])[];
  /** `predictedMs`: inside the engine. `measuredMs`, `frames`: of real frames, 0 = none. */
  readonly seats: readonly (Pick<LiveRow, 'stage' | 'replica' | 'part' | 'agent' | 'predictedMs'> &
    Partial<Pick<LiveRow, 'measuredMs' | 'frames'>>)[];
  /** As probed, and what the planner makes of it. */
  readonly agents: readonly (Pick<AgentStatus, 'agent' | 'probeMacsPerSecond' | 'probeBytesPerSecond' | 'probeSmallRunMs' | 'cpuLimit'> &
    Pick<AgentStatus, 'cpuPeriodMs' | 'engineThreads' | 'correction'> &
    Pick<Device, 'runMs' | 'nodeMs' | 'aroundMs' | 'messageMs' | 'copyBytesPerSecond' | 'host' | 'hostShare' | 'link'>)[];
  /** Between those who sit in the plan, as measured. */
  readonly measuredLinks: readonly Pick<
    LinkStatus,
    'from' | 'to' | 'lane' | 'bytesPerSecond' | 'latencyMs' | 'spread' | 'source' | 'ageMs' | 'problem'
  >[];
  readonly gateway: Links['gateway'];
  /** Pairs that their ends do not explain, by `from>to`. */
  readonly pairs: Readonly<Record<string, { readonly bytesPerSecond: number; readonly latencyMs: number }>>;
  /** How busy everything was while throughput was measured. */
  readonly busy: readonly Busy[];
}

export interface Sources {
  readonly report: Pick<PlanReport, 'why' | 'basis' | 'predictedFps' | 'seats'>;
  /** Before any frame. */
  readonly status: { readonly agents: readonly AgentStatus[]; readonly links: readonly LinkStatus[] };
  readonly reported: Pick<Reported, 'devices' | 'links'> & { readonly draft: Pick<PlanDraft, 'inFlight' | 'stages'> };
  /** After the frames. */
  readonly live: readonly LiveRow[];
  readonly busy: readonly Busy[];
}

export function basisOf({ report, status, reported, live, busy }: Sources): Basis {
  const seated = new Set(report.seats.map(({ agent }) => agent));
  const ends = new Set([...seated, DISPATCHER]);
  const devices = new Map(reported.devices.map((device) => [device.agent, device]));
  return rounded({
    ...{ why: report.why.split('\n'), standsOn: report.basis, inFlight: reported.draft.inFlight, predictedFps: report.predictedFps, busy },
    weights: reported.draft.stages.flatMap(({ agents, weights = [] }) => (agents.length > 1 ? [weights] : [])),
    seats: report.seats.map(({ stage, replica, part, agent, predictedMs }) => {
      const row = live.find((one) => one.stage === stage && one.replica === replica && one.part === part && one.agent === agent);
      return { stage, replica, part, agent, predictedMs, ...(row === undefined ? {} : { measuredMs: row.measuredMs, frames: row.frames }) };
    }),
    agents: status.agents.filter(({ agent }) => seated.has(agent)).map((agent) => agentOf(agent, devices.get(agent.agent))),
    measuredLinks: status.links
      .filter(({ from, to }) => ends.has(from) && ends.has(to))
      .map(({ from, to, lane, bytesPerSecond, latencyMs, spread, source, ageMs, problem }) => ({
        ...{ from, to, lane, bytesPerSecond, latencyMs, spread, source, ageMs, problem },
      })),
    gateway: reported.links.gateway,
    pairs: Object.fromEntries([...reported.links.between].filter(([pair]) => pair.split('>').every((end) => ends.has(end)))),
  });
}

function agentOf(status: AgentStatus, device: Device | undefined): Basis['agents'][number] {
  const { agent, probeMacsPerSecond, probeBytesPerSecond, probeSmallRunMs, cpuLimit, cpuPeriodMs, engineThreads, correction } = status;
  const { runMs, nodeMs, aroundMs, messageMs, copyBytesPerSecond, host, hostShare, link } = device ?? {};
  return {
    ...{ agent, probeMacsPerSecond, probeBytesPerSecond, probeSmallRunMs, cpuLimit, cpuPeriodMs, engineThreads, correction },
    ...defined({ runMs, nodeMs, aroundMs, messageMs, copyBytesPerSecond, host, hostShare, link }),
  };
}

function defined<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

/** Four digits: more are noise, and are kept with every result. */
function rounded<T>(value: T): T {
  const text = JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'number' && !Number.isInteger(part) ? Number(part.toPrecision(4)) : part,
  );
  return JSON.parse(text) as T;
}
