/**
 * What to do next for one deployment: a pure function from what is wanted and what is observed. The shell (scheduler.ts) does it and asks
 * again whenever something happened; every step is safe to find missing, late or done.
 *
 *   plan -> prepare (each agent) -> commit (each agent) -> switch the dispatcher -> the old epoch drains -> release
 */
import type { Plan } from '../broker/plan.js';

export type SeatProgress = 'wanted' | 'asked' | 'prepared' | 'committing' | 'committed';

/** One epoch of a deployment, bound to the processes that hold it: another process of the same name holds nothing. */
export interface Placement {
  readonly plan: Plan;
  readonly nonces: ReadonlyMap<string, string>;
  readonly seats: ReadonlyMap<string, SeatProgress>;
}

type Held = Pick<Placement, 'nonces' | 'seats'>;

export interface DeploymentView {
  readonly removing: boolean;
  /** A planner is at work. */
  readonly planning: boolean;
  /** The last planning failed, and no agent came since: trying again would fail again. */
  readonly stuck: boolean;
  /** The plan in force was made after a loss, and an agent has come since. */
  readonly recovering: boolean;
  /** The plan in force was made in a hurry: wire precision is still to be measured. */
  readonly unmeasured?: boolean;
  readonly serving: Held | undefined;
  readonly next: Held | undefined;
}

export interface AgentsView {
  /** This process is there and can hold seats. */
  serves(agent: string, nonce: string): boolean;
  draining(agent: string): boolean;
}

export type Step =
  | { readonly do: 'plan'; readonly why: string }
  | { readonly do: 'prepare' | 'commit'; readonly agent: string }
  | { readonly do: 'switch' }
  | { readonly do: 'abandon'; readonly why: string };

export function reconcile(deployment: DeploymentView, agents: AgentsView): Step[] {
  if (deployment.removing) return [];
  const { next, serving } = deployment;
  if (next !== undefined) return advance(next, agents);
  if (deployment.planning || deployment.stuck) return [];
  if (serving === undefined) return [{ do: 'plan', why: 'no plan is in force' }];
  const gone = missing(serving, agents);
  if (gone.length > 0) return [{ do: 'plan', why: `agent ${gone.join(', ')} was lost` }];
  const leaving = [...serving.nonces.keys()].filter((agent) => agents.draining(agent));
  if (leaving.length > 0) return [{ do: 'plan', why: `agent ${leaving.join(', ')} leaves` }];
  if (deployment.recovering) return [{ do: 'plan', why: 'an agent came after a loss' }];
  return deployment.unmeasured === true ? [{ do: 'plan', why: 'wire precision is measured now' }] : [];
}

function advance(next: Held, agents: AgentsView): Step[] {
  const gone = missing(next, agents);
  if (gone.length > 0) return [{ do: 'abandon', why: `agent ${gone.join(', ')} was lost while preparing` }];
  const seats = [...next.seats];
  const wanted = seats.filter(([, progress]) => progress === 'wanted');
  if (wanted.length > 0) return wanted.map(([agent]) => ({ do: 'prepare', agent }));
  if (seats.some(([, progress]) => progress === 'asked')) return [];
  const prepared = seats.filter(([, progress]) => progress === 'prepared');
  if (prepared.length > 0) return prepared.map(([agent]) => ({ do: 'commit', agent }));
  return seats.every(([, progress]) => progress === 'committed') ? [{ do: 'switch' }] : [];
}

function missing(placement: Held, agents: AgentsView): string[] {
  return [...placement.nonces].filter(([agent, nonce]) => !agents.serves(agent, nonce)).map(([agent]) => agent);
}
