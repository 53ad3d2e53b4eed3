/**
 * A plan that a running cluster made, ready to be simulated: where everybody sits from the plan file in its report, how long seats run from the report (what
 * the cluster knows of its agents by profiles, probes and live corrections), links as its status lists them.
 */
import { ChairError } from '../../broker/errors.js';
import type { LiveRow, PlanReport, StatusReport } from '../../broker/messages.js';
import type { Model } from '../../models/model.js';
import { hostShares } from '../hosts.js';
import { linkModel, linksOf } from '../links/model.js';
import type { LinkEntry } from '../links/table.js';
import { parsePlanFile, stagesOf } from '../plan-file.js';
import { estimate, type SeatEstimate } from '../planners/estimate.js';
import { type CutFacts, type Device, isRefusal, type Link, type ModelFacts } from '../planners/problem.js';
import { besidesComputing, leastOnMachine } from '../planning.js';
import type { SimulationOptions, SimulationResult } from './options.js';
import { simulatePlan } from './simulate.js';

/** What the gateway takes of links that nobody measured; see its settings. */
const USUAL: Link = { bytesPerSecond: 125e6, latencyMs: 1 };

/** What is known of the cluster; `live`: how long seats take in truth, in place of what was predicted of them. */
export type Observed = Pick<StatusReport, 'agents' | 'links'> & { readonly live?: readonly LiveRow[] };

export type Reported = Pick<SimulationOptions, 'draft' | 'devices' | 'links' | 'timesOfDrafts'>;

/** Links as the gateway plans with them. */
function linksOfStatus({ agents, links: rows }: Observed, usual: Link) {
  const hosts = new Map(agents.map(({ agent, host }) => [agent, host]));
  const sameHost = (a: string, b: string): boolean => a !== b && (hosts.get(a) ?? '') !== '' && hosts.get(a) === hosts.get(b);
  const entries = rows
    .filter(({ bytesPerSecond }) => bytesPerSecond > 0)
    .map((row): LinkEntry => ({ ...row, source: row.source === 'live' ? 'live' : 'measured', atMs: 0, doubt: undefined }));
  const model = linkModel(entries, usual, sameHost);
  return { links: linksOf(model, { usual, between: new Map() }), access: model.agents };
}

/** `model`: its sha256. Throws PLAN_MODEL_MISMATCH, PLAN_INVALID, PLAN_NOT_POSSIBLE. */
export function reported(report: PlanReport, model: string, facts: ModelFacts, status: Observed, usual: Link = USUAL): Reported {
  const file = report.details?.file ?? '';
  if (file === '') {
    throw new ChairError('PLAN_INVALID', `the plan of '${report.deployment}' cannot be simulated`, {
      expected: 'a report with the plan as a file',
      came: 'none: the plan is too large for one, or the report comes from a status',
    });
  }
  const stages = stagesOf(parsePlanFile(file), model, facts);
  const cut = facts.cut(stages.map(({ spec }) => spec));
  if (isRefusal(cut)) throw new ChairError('PLAN_NOT_POSSIBLE', cut.reason);
  const { links, access } = linksOfStatus(status, usual);
  const shares = hostShares(status.agents);
  const smallRun = leastOnMachine(status.agents, ({ probeSmallRunMs }) => probeSmallRunMs);
  const devices = status.agents.map((own): Device => {
    const { agent, probeMacsPerSecond, probeBytesPerSecond, memoryBytes } = own;
    const link = access.get(agent);
    const shared = shares.get(agent);
    return {
      ...{ agent, macsPerSecond: Math.max(1, probeMacsPerSecond), memoryBytes },
      ...(probeBytesPerSecond > 0 ? { memoryBytesPerSecond: probeBytesPerSecond } : {}),
      ...besidesComputing({ ...own, probeSmallRunMs: smallRun(own) }),
      ...(link === undefined ? {} : { link }),
      ...(shared === undefined ? {} : { host: shared.host, hostShare: shared.share }),
    };
  });
  const predicted = new Map(report.seats.map((seat) => [placeOf(seat), seat.predictedMs]));
  const ms = new Map(predicted);
  for (const row of status.live ?? []) if (row.measuredMs > 0) ms.set(placeOf(row), row.measuredMs);
  const inFlight = report.details?.inFlight ?? 1;
  const judged = estimate(cut, stages, devices, links, inFlight);
  const seats = judged.seats.map((seat) => ({ ...seat, ms: ms.get(placeOf(seat)) ?? seat.ms }));
  // The dispatcher divides frames by what the gateway knew when it planned.
  const { weights } = estimate(
    cut,
    stages,
    devices.map((device) => predictedAs(device, cut, judged.seats, predicted)),
    links,
    inFlight,
  );
  const draft = { planner: report.planner, why: report.why, stages, cut, inFlight, estimate: { ...judged, seats, weights } };
  return { draft, devices, links, timesOfDrafts: true };
}

/** The same device, as long as its seats were predicted to run. */
function predictedAs(device: Device, cut: CutFacts, seats: readonly SeatEstimate[], ms: ReadonlyMap<string, number>): Device {
  const stages = seats
    .filter(({ agent }) => agent === device.agent)
    .flatMap((seat) => {
      const spec = cut.stages[seat.stage]?.spec;
      return spec === undefined ? [] : [{ nodes: spec.nodes, cut: spec.cut, factor: (ms.get(placeOf(seat)) ?? seat.ms) / seat.ms }];
    });
  return { ...device, correction: { all: 1, stages } };
}

function placeOf({ stage, replica, part }: { readonly stage: number; readonly replica: number; readonly part: number }): string {
  return `${stage}/${replica}/${part}`;
}

/** What a deployed plan should reach, by simulation, under a load of a benchmark. Throws as `reported` and `simulatePlan` do. */
export function simulateReport(
  report: PlanReport,
  model: Pick<Model, 'sha256'>,
  facts: ModelFacts,
  status: Observed,
  load: Pick<SimulationOptions, 'load' | 'frames' | 'noise' | 'seed'>,
): SimulationResult {
  return simulatePlan({ ...reported(report, model.sha256, facts, status), ...load, limits: PATIENT });
}

/** As benchmarks ask: a slow frame is no lost frame. */
const PATIENT = { deadlineMs: 120_000 };
