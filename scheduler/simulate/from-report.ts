/**
 * A plan that a running cluster made, ready to be simulated: where everybody sits from the plan file in its report, how long seats run from the report (what
 * the cluster knows of its agents by profiles, probes and live corrections), links as its status lists them.
 */
import { ChairError } from '../../broker/errors.js';
import type { AgentStatus, LinkStatus, PlanReport, StatusReport } from '../../broker/messages.js';
import type { Model } from '../../models/model.js';
import { parsePlanFile, stagesOf } from '../plan-file.js';
import { estimate } from '../planners/estimate.js';
import { type Device, isRefusal, type Link, type Links, type ModelFacts, type PlanDraft } from '../planners/problem.js';
import type { SimulationOptions, SimulationResult } from './options.js';
import { simulatePlan } from './simulate.js';

/** What the gateway takes of links that nobody measured; see its settings. */
const USUAL: Link = { bytesPerSecond: 125e6, latencyMs: 1 };

export type Reported = Pick<SimulationOptions, 'draft' | 'devices' | 'links' | 'seatMs'>;

export function linksOfStatus(rows: readonly LinkStatus[], usual: Link = USUAL): Links {
  const measured = rows.filter(({ bytesPerSecond }) => bytesPerSecond > 0);
  return {
    usual,
    between: new Map(measured.map(({ from, to, bytesPerSecond, latencyMs }) => [`${from}>${to}`, { bytesPerSecond, latencyMs }])),
  };
}

/** `model`: its sha256. Throws PLAN_MODEL_MISMATCH, PLAN_INVALID, PLAN_NOT_POSSIBLE. */
export function reported(report: PlanReport, model: string, facts: ModelFacts, agents: readonly AgentStatus[], links: Links): Reported {
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
  const devices = agents.map(({ agent, probeMacsPerSecond, memoryBytes, host, hostCores, engineThreads }): Device => {
    const shared = host !== '' && agents.some((other) => other.agent !== agent && other.host === host);
    const hostShare = Math.min(1, Math.max(1, engineThreads) / Math.max(1, hostCores));
    return { agent, macsPerSecond: Math.max(1, probeMacsPerSecond), memoryBytes, ...(shared ? { host, hostShare } : {}) };
  });
  const ms = new Map(report.seats.map((seat) => [`${seat.stage}/${seat.replica}/${seat.part}`, seat.predictedMs]));
  const inFlight = report.details?.inFlight ?? 1;
  const draft: PlanDraft = {
    ...{ planner: report.planner, why: report.why, stages, cut, inFlight },
    estimate: estimate(cut, stages, devices, links, inFlight),
  };
  return { draft, devices, links, seatMs: (stage, replica, part) => ms.get(`${stage}/${replica}/${part}`) };
}

/** What a deployed plan should reach, by simulation, under a load of a benchmark. Throws as `reported` and `simulatePlan` do. */
export function simulateReport(
  report: PlanReport,
  model: Pick<Model, 'sha256'>,
  facts: ModelFacts,
  status: Pick<StatusReport, 'agents' | 'links'>,
  load: Pick<SimulationOptions, 'load' | 'frames' | 'noise' | 'seed'>,
): SimulationResult {
  const { agents, links } = status;
  return simulatePlan({ ...reported(report, model.sha256, facts, agents, linksOfStatus(links)), ...load, limits: PATIENT });
}

/** As benchmarks ask: a slow frame is no lost frame. */
const PATIENT = { deadlineMs: 120_000 };
