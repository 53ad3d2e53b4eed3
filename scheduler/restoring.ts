/**
 * A deployment that was saved, on its way back: as soon as the agents of its plan are there again, each is asked to hold in this term what it held in the last one. An
 * agent that lived on has it loaded, one that was started anew has it on its disk; nothing is planned, cut or fetched. The decision is pure.
 */
import type { PlanReport } from '../broker/messages.js';
import type { Placed } from './deployment.js';
import { agentsOf } from './plan-builder.js';
import { NO_HANDOVER } from './rebalance/handover.js';
import { type AgentState, RETURN_MS } from './registry.js';
import type { SavedDeployment } from './state.js';

/** Machines that were all started anew come one after another; once nobody came for so long, those that are missing are not waited for. */
export const PATIENCE_MS = 10_000;

/** Agents of the plan that are there, and since when it has been so many. */
export interface Arrivals {
  readonly present: number;
  readonly sinceMs: number;
  /** Since when there has been somebody; undefined = nobody is there. */
  readonly firstMs?: number;
}

export interface Restoring {
  readonly placed: Placed;
  arrivals: Arrivals;
}

export type RestoreStep =
  | { readonly do: 'wait'; readonly why: string; readonly arrivals: Arrivals }
  | { readonly do: 'place'; readonly nonces: ReadonlyMap<string, string> }
  | { readonly do: 'plan'; readonly why: string };

interface Known {
  readonly nonce: string;
  readonly state: AgentState;
}

/** With nobody there at all it waits on: a plan for no agents is none, and the whole cluster may be starting. */
export function restoreStep(
  { placed, arrivals }: Readonly<Restoring>,
  find: (agent: string) => Known | undefined,
  nowMs: number,
): RestoreStep {
  const agents = [...agentsOf(placed.plan)];
  const there = new Map(
    agents.flatMap((agent) => {
      const known = find(agent);
      return known?.state === 'ready' ? [[agent, known.nonce] as const] : [];
    }),
  );
  if (there.size === agents.length) return { do: 'place', nonces: there };
  const away = agents.filter((agent) => !there.has(agent));
  const missing = away.join(', ');
  // Who leaves takes no seats any more, though it still holds the old ones: it is not waited for.
  if (there.size > 0 && away.every((agent) => LEAVES.has(find(agent)?.state ?? 'joining'))) {
    return { do: 'plan', why: `after the gateway's restart ${missing} leaves` };
  }
  const since = { present: there.size, sinceMs: there.size === arrivals.present ? arrivals.sinceMs : nowMs };
  const firstMs = there.size === 0 ? undefined : (arrivals.firstMs ?? nowMs);
  const wait = { do: 'wait', why: `it was saved, and waits for ${missing} to come back` } as const;
  if (firstMs === undefined) return { ...wait, arrivals: since };
  // Who lived on through the restart is back, as those are that are here, within the longest back-off: what is missing after that did not live on.
  const livedOn = [...there].some(([agent, nonce]) => placed.nonces.get(agent) === nonce);
  const onTheirWay = away.some((agent) => find(agent)?.state === 'joining');
  const enough = nowMs - since.sinceMs >= PATIENCE_MS || (livedOn && !onTheirWay && nowMs - firstMs >= RETURN_MS);
  if (!enough) return { ...wait, arrivals: { ...since, firstMs } };
  return { do: 'plan', why: `after the gateway's restart ${missing} did not come back` };
}

const LEAVES: ReadonlySet<AgentState> = new Set<AgentState>(['draining', 'stopped', 'refused']);

/** As it was in force when it was saved. */
export function placedOf({ plan, draft, report, alone, bases, nonces }: SavedDeployment): Placed {
  return {
    ...{ plan, draft, report, alone, bases: new Map(bases), nonces: new Map(nonces), model: plan.model },
    seats: new Map(nonces.map(([agent]) => [agent, 'committed'])),
    spare: new Set(report.redundancy?.covered),
    ...{ tight: new Map(), handover: NO_HANDOVER, vacated: new Map(), fetched: new Map(), settled: true },
  };
}

/** The same plan for this term, to be prepared by these processes. */
export function placedAgain(placed: Placed, term: number, epoch: number, nonces: ReadonlyMap<string, string>): Placed {
  const report: PlanReport = { ...placed.report, epoch };
  const seats = new Map([...nonces.keys()].map((agent) => [agent, 'wanted' as const]));
  const fresh = { vacated: new Map(), fetched: new Map(), tight: new Map(), settled: true };
  return { ...placed, plan: { ...placed.plan, term, epoch }, report, nonces, seats, ...fresh };
}
