/**
 * What one status alone cannot tell: rates between two of them, and how figures went. A reducer: `observe(history, report, atMs)` gives the next history; the
 * clock is an argument. Health messages carry their own time, so a status that comes twice between two of them changes no rate.
 */
import type { AgentStatus, DeploymentStatus, Health, LaneHealth, StatusReport } from '../../broker/messages.js';

/** Samples a series keeps: two minutes at one a second. */
export const SERIES_LENGTH = 120;
/** Frames that failed are said for so long. */
const FAILED_LATELY_MS = 60_000;

export interface AgentPast {
  readonly nonce: string;
  readonly uptimeMs: number;
  /** Runs so far, by seat. */
  readonly runs: ReadonlyMap<string, number>;
  /** Bytes sent so far, by peer. */
  readonly sent: ReadonlyMap<string, number>;
  /** Frames per second that it took part in; each once, however many seats it holds. */
  readonly framesPerSecond: number;
  /** Bytes per second to each peer, now. */
  readonly rates: ReadonlyMap<string, number>;
  readonly frames: readonly number[];
  /** Part of the cores it may use, 0 to 1. */
  readonly cpu: readonly number[];
}

export interface DeploymentPast {
  readonly failed: number;
  /** Increases of `failed` within the last minute. */
  readonly failures: readonly { readonly atMs: number; readonly count: number }[];
  readonly frames: readonly number[];
  readonly p50Ms: readonly number[];
}

export interface History {
  readonly atMs: number;
  readonly agents: ReadonlyMap<string, AgentPast>;
  readonly deployments: ReadonlyMap<string, DeploymentPast>;
  /** The dispatcher's own lanes: bytes sent so far, and per second. */
  readonly sent: ReadonlyMap<string, number>;
  readonly rates: ReadonlyMap<string, number>;
}

export const NO_HISTORY: History = { atMs: 0, agents: new Map(), deployments: new Map(), sent: new Map(), rates: new Map() };

/** `report` came at `atMs`. Agents and deployments that are not in it are forgotten. */
export function observe(history: History, report: StatusReport, atMs: number): History {
  const sent = sentBy(report.lanes);
  return {
    atMs,
    agents: new Map(report.agents.map((agent) => [agent.agent, agentPast(history.agents.get(agent.agent), agent)])),
    deployments: new Map(report.deployments.map((one) => [one.name, deploymentPast(history.deployments.get(one.name), one, atMs)])),
    sent,
    rates: history.sent.size === 0 ? new Map() : ratesOf(history.sent, sent, atMs - history.atMs),
  };
}

/** Cores that the agent may use. */
export function coresOf({ cores, cpuLimit }: Pick<AgentStatus, 'cores' | 'cpuLimit'>): number {
  return Math.max(0.01, cpuLimit > 0 ? Math.min(cpuLimit, cores) : cores);
}

function agentPast(before: AgentPast | undefined, agent: AgentStatus): AgentPast {
  const { health } = agent;
  // One that is gone does nothing, whatever it said last.
  const now = isGone(agent.state) ? null : health;
  if (now === null)
    return { ...rest(before, 0, 0), nonce: '', uptimeMs: 0, runs: new Map(), sent: new Map(), framesPerSecond: 0, rates: new Map() };
  const runs = runsOf(now);
  const sent = sentBy(now.lanes);
  const passedMs = before?.nonce === now.nonce ? now.uptimeMs - before.uptimeMs : 0;
  const share = Math.min(1, now.cpu / coresOf(agent));
  if (before === undefined || passedMs <= 0) {
    const same = before?.nonce === now.nonce;
    const figures = { framesPerSecond: same ? (before?.framesPerSecond ?? 0) : 0, rates: same ? (before?.rates ?? new Map()) : new Map() };
    return { nonce: now.nonce, uptimeMs: now.uptimeMs, runs, sent, ...figures, ...rest(before, figures.framesPerSecond, share) };
  }
  const framesPerSecond = framesBetween(before.runs, runs) / (passedMs / 1000);
  const rates = ratesOf(before.sent, sent, passedMs);
  return { nonce: now.nonce, uptimeMs: now.uptimeMs, runs, sent, framesPerSecond, rates, ...rest(before, framesPerSecond, share) };
}

function rest(before: AgentPast | undefined, frames: number, cpu: number): Pick<AgentPast, 'frames' | 'cpu'> {
  return { frames: push(before?.frames, frames), cpu: push(before?.cpu, cpu) };
}

function deploymentPast(before: DeploymentPast | undefined, now: DeploymentStatus, atMs: number): DeploymentPast {
  const recent = (before?.failures ?? []).filter((one) => atMs - one.atMs <= FAILED_LATELY_MS);
  // A gateway that was started anew counts from 0.
  const more = before === undefined ? 0 : Math.max(0, now.failed - before.failed);
  return {
    failed: now.failed,
    failures: more === 0 ? recent : [...recent, { atMs, count: more }],
    frames: push(before?.frames, now.framesPerSecond),
    p50Ms: push(before?.p50Ms, now.p50Ms),
  };
}

function push(series: readonly number[] = [], value: number): readonly number[] {
  return [...series.slice(1 - SERIES_LENGTH), value];
}

/** Key: deployment, epoch, stage, replica, part. */
function runsOf({ seats }: Health): ReadonlyMap<string, number> {
  return new Map(
    seats.map(({ deployment, epoch, stage, replica, part, framesRun }) => [[deployment, epoch, stage, replica, part].join(' '), framesRun]),
  );
}

/**
 * Frames that an agent ran between two health messages. A frame passes all its seats of one replica: of each deployment the busiest stage counts, its replicas
 * added up, and of parts the busiest.
 */
function framesBetween(before: ReadonlyMap<string, number>, now: ReadonlyMap<string, number>): number {
  const parts = new Map<string, number>();
  for (const [seat, runs] of now) {
    const [deployment = '', epoch = '', stage = '', replica = ''] = seat.split(' ');
    const key = [deployment, epoch, stage, replica].join(' ');
    const more = Math.max(0, runs - (before.get(seat) ?? 0));
    parts.set(key, Math.max(parts.get(key) ?? 0, more));
  }
  const stages = new Map<string, number>();
  for (const [key, count] of parts) {
    const stage = key.slice(0, key.lastIndexOf(' '));
    stages.set(stage, (stages.get(stage) ?? 0) + count);
  }
  const plans = new Map<string, number>();
  for (const [stage, count] of stages) {
    const plan = stage.slice(0, stage.lastIndexOf(' '));
    plans.set(plan, Math.max(plans.get(plan) ?? 0, count));
  }
  return [...plans.values()].reduce((sum, count) => sum + count, 0);
}

function sentBy(lanes: readonly LaneHealth[]): ReadonlyMap<string, number> {
  return new Map(lanes.map(({ peer, bytesSent }) => [peer, bytesSent]));
}

function ratesOf(before: ReadonlyMap<string, number>, now: ReadonlyMap<string, number>, passedMs: number): ReadonlyMap<string, number> {
  if (passedMs <= 0) return new Map();
  return new Map([...now].map(([peer, bytes]) => [peer, Math.max(0, bytes - (before.get(peer) ?? 0)) / (passedMs / 1000)]));
}

/** No process answers for it any more, whether it said so or not. */
export function isGone(state: string): boolean {
  return state === 'lost' || state === 'stopped' || state === 'refused';
}
