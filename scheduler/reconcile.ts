/**
 * What to do next for one deployment: a pure function from what is wanted and what is observed. The shell (executing.ts) does it and asks
 * again whenever something happened; every step is safe to find missing, late or done.
 *
 *   plan -> prepare (each agent) -> commit (each agent) -> switch the dispatcher -> the old epoch drains -> release
 *
 * While another plan serves, agents prepare a few at a time: loading takes CPU from frames. Where old and new seats do not fit together, agents vacate the old ones
 * first, as rebalance/handover.ts orders them; those that the new plan can do without at first follow after the switch. What they need is on their disks before the
 * first of them lets go: what is loaded then is a pause, or service by fewer.
 *
 * After a loss the plan is a local repair of the one in force, where that is possible (repair.ts); the full plan follows it. So it is when an agent's link has become
 * so slow that frames have to be kept from it.
 */
import type { Plan } from '../broker/plan.js';
import type { Handover } from './rebalance/handover.js';

export type SeatProgress = 'wanted' | 'asked' | 'prepared' | 'committing' | 'committed';

/** One epoch of a deployment, bound to the processes that hold it: another process of the same name holds nothing. */
export interface Placement {
  readonly plan: Plan;
  readonly nonces: ReadonlyMap<string, string>;
  readonly seats: ReadonlyMap<string, SeatProgress>;
  /** Agents that cannot hold the seats of the plan before and these. */
  readonly handover?: Handover;
  /** Agents that let go of these seats, so that they can take others: frames of this epoch are leaving them, or have left and the seats are released. */
  readonly vacated?: ReadonlyMap<string, 'leaving' | 'left'>;
  /** Agents that are asked to have on disk what these seats need, or have been, as far as it could be done. */
  readonly fetched?: ReadonlyMap<string, 'asked' | 'done'>;
  /** Agents of which any one may be gone, and frames go on: a parity stands in for its parts. */
  readonly spare?: ReadonlySet<string>;
  /** The plan before is released everywhere: what had to wait for that may be prepared. */
  readonly settled?: boolean;
  /** It was made while the plan in force was whole: it may be given up for a repair of that. */
  readonly optional?: boolean;
}

type Held = Omit<Placement, 'plan'>;

export interface DeploymentView {
  readonly removing: boolean;
  /** A planner is at work. */
  readonly planning: boolean;
  /** It began while the plan in force was whole. */
  readonly optional?: boolean;
  /** The last planning failed, and no agent came since: trying again would fail again. */
  readonly stuck: boolean;
  /** The plan in force was made after a loss, and an agent has come since. */
  readonly recovering: boolean;
  /** The plan in force is a local repair, and a full plan was not made since. */
  readonly repaired?: boolean;
  /** The plan in force was made in a hurry: wire precision is still to be measured. */
  readonly unmeasured?: boolean;
  /** Somebody changed its objective since the plan was made. */
  readonly retargeted?: boolean;
  /** Nobody can take over from agents whose links are slow: they go on. */
  readonly unavoidable?: boolean;
  readonly serving: Held | undefined;
  readonly next: Held | undefined;
}

export interface AgentsView {
  /** This process is there and can hold seats. */
  serves(agent: string, nonce: string): boolean;
  draining(agent: string): boolean;
  /** Its link is slow, and frames have no way around it. Default: no. */
  slow?(agent: string): boolean;
}

export type Step =
  | { readonly do: 'plan'; readonly why: string }
  /** As `plan`, but a local repair will do. */
  | { readonly do: 'repair'; readonly why: string }
  | { readonly do: 'prepare' | 'commit' | 'vacate' | 'fetch'; readonly agent: string }
  | { readonly do: 'switch' }
  | { readonly do: 'abandon'; readonly why: string };

export function reconcile(deployment: DeploymentView, agents: AgentsView): Step[] {
  if (deployment.removing) return [];
  const { next, serving } = deployment;
  const gone = serving === undefined ? [] : missing(serving, agents);
  const slow = serving === undefined || deployment.unavoidable === true ? [] : crawling(serving, agents);
  const hurt = gone.length > 0 || slow.length > 0;
  if (next !== undefined) {
    // A repair serves sooner than a better plan that agents have only begun to fetch.
    const early = [...next.seats.values()].some((progress) => progress === 'wanted' || progress === 'asked');
    if (next.optional === true && early && hurt) {
      const what = gone.length > 0 ? `agent ${gone.join(', ')} was lost from the plan in force` : slowText(slow);
      return [{ do: 'abandon', why: what }];
    }
    return advance(next, serving, agents);
  }
  // Nor does a repair wait for a planner that looks for something better.
  if ((deployment.planning && !(deployment.optional === true && hurt)) || deployment.stuck) return [];
  if (serving === undefined) return [{ do: 'plan', why: 'no plan is in force' }];
  if (gone.length > 0) return [{ do: 'repair', why: `agent ${gone.join(', ')} was lost` }];
  if (slow.length > 0) return [{ do: 'repair', why: slowText(slow) }];
  const leaving = [...serving.nonces.keys()].filter((agent) => agents.draining(agent));
  if (leaving.length > 0) return [{ do: 'plan', why: `agent ${leaving.join(', ')} leaves` }];
  const vacated = [...(serving.vacated?.keys() ?? [])];
  if (vacated.length > 0) return [{ do: 'plan', why: `agent ${vacated.join(', ')} gave up seats for a plan that did not come about` }];
  if (deployment.recovering) return [{ do: 'plan', why: 'an agent came after a loss' }];
  if (deployment.retargeted === true) return [{ do: 'plan', why: 'its objective was changed' }];
  if (deployment.repaired === true) return [{ do: 'plan', why: 'the plan in force is a local repair' }];
  if (deployment.unmeasured === true) return [{ do: 'plan', why: 'wire precision is measured now' }];
  return serving.settled === true ? fill(serving, serving.handover?.after ?? [], 1) : [];
}

/** Of the agents that prepare beside frames that run, so many at once: a quarter, one at least; half when somebody waits to leave. */
const AT_ONCE = 4;
const AT_ONCE_LEAVING = 2;
/** Of those that only fetch: the gateway serves frames, too. */
const FETCH_AT_ONCE = 2;

function advance(next: Held, serving: Held | undefined, agents: AgentsView): Step[] {
  const gone = missing(next, agents);
  if (gone.length > 0) return [{ do: 'abandon', why: `agent ${gone.join(', ')} was lost while preparing` }];
  const { before, after } = next.handover ?? { before: [], after: [] };
  const late = new Set([...before.flat(), ...after]);
  const prompt = [...next.seats.keys()].filter((agent) => !late.has(agent));
  const serves = serving !== undefined && goesOn(serving, missing(serving, agents));
  const waits = serving !== undefined && [...serving.nonces.keys()].some((agent) => agents.draining(agent));
  const atOnce = Math.max(1, Math.floor(prompt.length / (waits ? AT_ONCE_LEAVING : AT_ONCE)));
  const preparing = prepare(next, prompt, serves ? atOnce : prompt.length);
  if (preparing !== undefined) return preparing;
  // Where frames wait already, there is nothing to spare.
  const fetching = serves ? fetch(next, serving, before.flat()) : undefined;
  if (fetching !== undefined) return fetching;
  for (const group of before) {
    const leaving = group.filter((agent) => serving !== undefined && serving.vacated?.get(agent) === undefined);
    if (leaving.length > 0) return leaving.map((agent) => ({ do: 'vacate', agent }));
    if (group.some((agent) => serving?.vacated?.get(agent) === 'leaving')) return [];
    const steps = prepare(next, group, group.length);
    if (steps !== undefined) return steps;
  }
  const first = [...prompt, ...before.flat()];
  const prepared = first.filter((agent) => next.seats.get(agent) === 'prepared');
  if (prepared.length > 0) return prepared.map((agent) => ({ do: 'commit', agent }));
  return first.every((agent) => next.seats.get(agent) === 'committed') ? [{ do: 'switch' }] : [];
}

/** Whether frames go on without these agents: then who prepares beside them is not to slow them down. */
function goesOn({ spare }: Held, [first, second]: readonly string[]): boolean {
  return first === undefined || (second === undefined && spare?.has(first) === true);
}

/** What is left to prepare of these agents, so many at a time; undefined when all are prepared. */
function prepare({ seats }: Held, of: readonly string[], atOnce: number): Step[] | undefined {
  const wanted = of.filter((agent) => seats.get(agent) === 'wanted');
  const asked = of.filter((agent) => seats.get(agent) === 'asked').length;
  if (wanted.length === 0 && asked === 0) return undefined;
  return wanted.slice(0, Math.max(0, atOnce - asked)).map((agent) => ({ do: 'prepare', agent }));
}

/** Who is still to have its blobs fetched before it lets go of what it holds; undefined when all have. */
function fetch({ fetched }: Held, serving: Held | undefined, of: readonly string[]): Step[] | undefined {
  const holding = fetched === undefined ? [] : of.filter((agent) => serving?.vacated?.get(agent) === undefined);
  const wanted = holding.filter((agent) => fetched?.get(agent) === undefined);
  const asked = holding.filter((agent) => fetched?.get(agent) === 'asked').length;
  if (wanted.length === 0 && asked === 0) return undefined;
  return wanted.slice(0, Math.max(0, FETCH_AT_ONCE - asked)).map((agent) => ({ do: 'fetch', agent }));
}

/** Seats of a plan in force that come after the switch: frames take their way as soon as each is committed. */
function fill(serving: Held, of: readonly string[], atOnce: number): Step[] {
  const prepared = of.filter((agent) => serving.seats.get(agent) === 'prepared');
  return [...prepared.map((agent): Step => ({ do: 'commit', agent })), ...(prepare(serving, of, atOnce) ?? [])];
}

function crawling(placement: Held, agents: AgentsView): string[] {
  return [...placement.nonces.keys()].filter((agent) => agents.slow?.(agent) === true);
}

function slowText(slow: readonly string[]): string {
  return `the link of agent ${slow.join(', ')} is slow`;
}

function missing(placement: Held, agents: AgentsView): string[] {
  return [...placement.nonces].filter(([agent, nonce]) => !agents.serves(agent, nonce)).map(([agent]) => agent);
}
