/** What `status` shows: read from the registry, the deployments and the dispatcher. */
import type { AgentStatus, DeploymentStatus, EventRow, LiveRow, LossRow } from '../broker/messages.js';
import type { Deployment } from './deployment.js';
import type { DispatcherStats } from './dispatcher.js';
import type { Estimate } from './planners/estimate.js';
import type { AgentRecord } from './registry.js';

const KEPT_EVENTS = 200;
const KEPT_CHARACTERS = 1000;

/** The last things that happened, newest last. */
export class EventLog {
  readonly #rows: EventRow[] = [];

  add(atMs: number, kind: string, text: string): void {
    this.#rows.push({ atMs, kind, text: text.slice(0, KEPT_CHARACTERS) });
    if (this.#rows.length > KEPT_EVENTS) this.#rows.shift();
  }

  rows(): readonly EventRow[] {
    return [...this.#rows];
  }
}

/** What is known of an agent beyond its own words. */
export interface Observed {
  readonly correction: number;
  readonly losses: number;
  readonly heldMs: number;
}

export function agentStatus(record: AgentRecord, observed: Observed): AgentStatus {
  const { agent, state, why, hello, health } = record;
  const {
    addresses,
    lanePort,
    cores,
    host,
    hostCores,
    cpuLimit,
    cpuPeriodMs,
    engineThreads,
    memoryBytes,
    probeMacsPerSecond,
    probeBytesPerSecond,
    probeSmallRunMs,
    softwareVersion,
    encrypted,
  } = hello;
  const probes = { probeMacsPerSecond, probeBytesPerSecond, probeSmallRunMs };
  const machine = { cores, host, hostCores, cpuLimit, cpuPeriodMs, engineThreads, memoryBytes, ...probes };
  return { agent, state, why, addresses, lanePort, ...machine, ...observed, softwareVersion, encrypted, health };
}

/** What is known beyond the deployment itself. */
export interface Known {
  readonly stats: DispatcherStats;
  readonly expected: Pick<Estimate, 'latencyMs' | 'usualLatencyMs' | 'fps'> | undefined;
  readonly live: readonly LiveRow[];
  readonly losses: readonly LossRow[];
  readonly demandFps: number;
  readonly outlook: string;
}

export function deploymentStatus(deployment: Deployment, { stats, expected, live, losses, demandFps, outlook }: Known): DeploymentStatus {
  const { submitted: _, ...shown } = stats;
  const { name, request, model, state, why, serving, next } = deployment;
  const planned = (serving ?? next ?? deployment.restoring?.placed)?.plan;
  const leftOut = [...deployment.excluded].map(([agent, excluded]) => `left out ${agent}: ${excluded.why}`);
  return {
    name,
    model: model?.sha256 ?? deployment.savedModel ?? request.model,
    state,
    why: [why, ...leftOut].filter(Boolean).join('; '),
    epoch: serving?.plan.epoch ?? 0,
    inputs: (model ?? planned)?.inputs ?? [],
    outputs: (model ?? planned)?.outputs ?? [],
    images: request.images,
    ...shown,
    plan: (serving ?? next ?? deployment.restoring?.placed)?.report ?? null,
    expectedLatencyMs: expected?.usualLatencyMs ?? expected?.latencyMs ?? 0,
    expectedFps: expected?.fps ?? 0,
    objective: request.objective,
    weight: request.weight,
    demandFps,
    outlook,
    losses,
    live,
    progress: [...deployment.progress.values()],
  };
}
