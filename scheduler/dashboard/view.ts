/**
 * What the dashboard shows, as plain data: from the scheduler's status and what was seen before. No I/O, no clock. `dashboard --json` prints it as it is;
 * scripts/dashboard/ draws it.
 */
import type { AgentStatus, DeploymentStatus, StatusReport } from '../../broker/messages.js';
import { coresOf, type History, isGone } from './history.js';
import { byName, type Lane, Lanes } from './lanes.js';
import { throttledBefore, throttledNow } from './throttling.js';
import { type Topology, topologyOf } from './topology.js';
import { type Verdict, verdictOf } from './verdict.js';

export interface AgentView {
  readonly agent: string;
  readonly state: string;
  readonly why: string;
  /** It gets seats after this time; 0 = not held back. */
  readonly heldMs: number;
  /** False: it is gone, or has not told its health yet; its figures are 0. */
  readonly live: boolean;
  /** Part of the cores it may use, 0 to 1, and those cores. */
  readonly cpu: number;
  readonly cores: number;
  readonly memoryUsedBytes: number;
  readonly memoryBytes: number;
  /** Celsius; 0 = not readable. */
  readonly temperature: number;
  /** Throttling by power or heat: now, and since the board was started. */
  readonly throttled: readonly string[];
  readonly throttledBefore: readonly string[];
  readonly queue: number;
  readonly framesPerSecond: number;
  /** Of its runs: waiting and computing. */
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly reconnects: number;
  readonly losses: number;
  readonly version: string;
  /** Deployments with seats here, and how many. */
  readonly seats: readonly { readonly deployment: string; readonly count: number }[];
  readonly addresses: readonly string[];
  readonly lanePort: number;
  readonly uptimeMs: number;
  /** Messages that it refused, by code. */
  readonly refusals: readonly { readonly code: string; readonly count: number; readonly latest: string }[];
  readonly damaged: number;
  readonly rawFallbacks: number;
  /** Measured times of real frames / predicted. */
  readonly correction: number;
  /** What its loss would mean for each deployment that it has seats of, as things are now. */
  readonly ifLost: readonly {
    readonly deployment: string;
    readonly outcome: string;
    readonly takers: readonly string[];
    readonly pauseMs: number;
    readonly why: string;
  }[];
  /** One value a sample, newest last. */
  readonly cpuSeries: readonly number[];
  readonly framesSeries: readonly number[];
}

export interface DeploymentView {
  readonly name: string;
  readonly state: string;
  readonly why: string;
  readonly model: string;
  readonly epoch: number;
  readonly objective: string;
  readonly planner: string;
  readonly agents: number;
  readonly framesPerSecond: number;
  /** 0 = nothing is predicted. */
  readonly predictedFps: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly predictedMs: number;
  readonly demandFps: number;
  readonly inFlight: number;
  readonly queued: number;
  readonly completed: number;
  readonly failed: number;
  readonly reissued: number;
  readonly outlook: string;
  readonly framesSeries: readonly number[];
  readonly p50Series: readonly number[];
}

export interface EventView {
  readonly agoMs: number;
  readonly kind: string;
  readonly text: string;
}

/** What of a view is worth making. */
export interface Wanted {
  readonly topology?: (deployment: string) => boolean;
  readonly lanes?: boolean;
}

export interface DashboardView {
  readonly cluster: string;
  readonly term: number;
  readonly uptimeMs: number;
  readonly verdict: Verdict;
  readonly agents: readonly AgentView[];
  readonly deployments: readonly DeploymentView[];
  readonly topologies: readonly Topology[];
  readonly lanes: readonly Lane[];
  /** Newest first. */
  readonly events: readonly EventView[];
}

/**
 * By name; `history` must have seen this report already. Topologies of other deployments, and lanes, are left out when they are not wanted: of a large
 * cluster they are most of the work.
 */
export function viewOf(
  report: StatusReport,
  history: History,
  { topology = () => true, lanes: wantsLanes = true }: Wanted = {},
): DashboardView {
  const lanes = new Lanes(report, history);
  const states = new Map(report.agents.map(({ agent, state }) => [agent, state]));
  const deployments = [...report.deployments].sort((a, b) => byName(a.name, b.name));
  const seats = seatsByAgent(deployments);
  return {
    cluster: report.cluster,
    term: report.term,
    uptimeMs: report.uptimeMs,
    verdict: verdictOf(report, history),
    agents: [...report.agents]
      .sort((a, b) => byName(a.agent, b.agent))
      .map((agent) => agentView(agent, seats.get(agent.agent), deployments, history)),
    deployments: deployments.map((one) => deploymentView(one, history)),
    topologies: deployments.filter(({ name }) => topology(name)).map((one) => topologyOf(one, states, lanes)),
    lanes: wantsLanes ? lanes.all(deployments.flatMap(({ plan }) => plan ?? [])) : [],
    events: report.events.map(({ atMs, kind, text }) => ({ agoMs: Math.max(0, report.uptimeMs - atMs), kind, text })).reverse(),
  };
}

function agentView(
  agent: AgentStatus,
  seats: ReadonlyMap<string, number> | undefined,
  deployments: readonly DeploymentStatus[],
  history: History,
): AgentView {
  const { state, why, heldMs, losses, memoryBytes, softwareVersion, addresses, lanePort, correction } = agent;
  const health = isGone(state) ? null : agent.health;
  const past = history.agents.get(agent.agent);
  const cores = coresOf(agent);
  const flags = health?.throttled ?? -1;
  return {
    ...{ agent: agent.agent, state, why, heldMs, losses, memoryBytes, addresses, lanePort, correction, cores, version: softwareVersion },
    live: health !== null,
    cpu: Math.min(1, (health?.cpu ?? 0) / cores),
    memoryUsedBytes: health?.rssBytes ?? 0,
    temperature: health?.temperature ?? 0,
    throttled: throttledNow(flags),
    throttledBefore: throttledBefore(flags),
    queue: health?.queue ?? 0,
    framesPerSecond: health === null ? 0 : (past?.framesPerSecond ?? 0),
    p50Ms: health?.p50Ms ?? 0,
    p95Ms: health?.p95Ms ?? 0,
    reconnects: health?.reconnects ?? 0,
    seats: [...(seats ?? [])].map(([deployment, count]) => ({ deployment, count })),
    uptimeMs: health?.uptimeMs ?? 0,
    refusals: health?.refusals ?? [],
    damaged: health?.damaged ?? 0,
    rawFallbacks: health?.rawFallbacks ?? 0,
    ifLost: deployments.flatMap(({ name, losses }) =>
      losses.flatMap(({ agent: who, outcome, takers, pauseMs, why }) =>
        who === agent.agent ? [{ deployment: name, outcome, takers, pauseMs, why }] : [],
      ),
    ),
    cpuSeries: past?.cpu ?? [],
    framesSeries: past?.frames ?? [],
  };
}

function deploymentView(one: DeploymentStatus, history: History): DeploymentView {
  const { name, state, why, model, epoch, objective, framesPerSecond, p50Ms, p95Ms, demandFps, inFlight, queued, completed, failed } = one;
  const { plan, reissued, outlook, expectedFps, expectedLatencyMs } = one;
  const past = history.deployments.get(name);
  const figures = { framesPerSecond, p50Ms, p95Ms, demandFps, inFlight, queued, completed, failed, reissued };
  return {
    ...{ name, state, why, model, epoch, objective, outlook, ...figures },
    planner: plan?.planner ?? '',
    agents: new Set(plan?.seats.map(({ agent }) => agent)).size,
    predictedFps: expectedFps || plan?.predictedFps || 0,
    predictedMs: expectedLatencyMs || plan?.predictedLatencyMs || 0,
    framesSeries: past?.frames ?? [],
    p50Series: past?.p50Ms ?? [],
  };
}

function seatsByAgent(deployments: readonly DeploymentStatus[]): Map<string, Map<string, number>> {
  const all = new Map<string, Map<string, number>>();
  for (const { name, plan } of deployments) {
    for (const { agent } of plan?.seats ?? []) {
      const mine = all.get(agent) ?? new Map<string, number>();
      all.set(agent, mine.set(name, (mine.get(name) ?? 0) + 1));
    }
  }
  return all;
}
