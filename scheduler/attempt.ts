/** One attempt of one frame: whom it counts on, and whether it can do without some of them. Pure; frames.ts says what follows. */
import type { AttemptTrouble, CancelAttempt } from './frame-types.js';
import type { Route, Router } from './router.js';

export interface Attempt {
  readonly attempt: number;
  readonly router: Router;
  readonly route: Route;
  /** On its route, without those that it never counted on. */
  readonly agents: ReadonlySet<string>;
  /** Of coded stages: agents whose parts it does without. */
  readonly missing: Set<string>;
  /** What was lost on the way, each by one of these agents: it does without one of them. */
  readonly unheard: (readonly string[])[];
  readonly sinceMs: number;
  /** Given up by time, but its result would still be welcome. */
  overdue: boolean;
}

export function beginAttempt(attempt: number, router: Router, route: Route, lost: ReadonlySet<string>, nowMs: number): Attempt {
  const agents = router.agentsOf(route);
  const missing = new Set([...agents].filter((agent) => lost.has(agent)));
  for (const agent of missing) agents.delete(agent);
  return { attempt, router, route, agents, missing, unheard: [], sinceMs: nowMs, overdue: false };
}

/** True when the result comes all the same: what is missing belongs to coded stages. A message that did not arrive is its sender's part or its receiver's. */
export function survivesTrouble({ router, route, agents, missing, unheard }: Attempt, { agent, peer }: AttemptTrouble): boolean {
  const either = (peer === '' ? [agent] : [peer, agent]).filter((one) => agents.has(one) || missing.has(one));
  if (!router.survivesAny(route, missing, [...unheard, either])) return false;
  unheard.push(either);
  return true;
}

/** The same when an agent is gone. */
export function survivesLoss(attempt: Attempt, agent: string): boolean {
  if (!survivesWithout(attempt, [agent])) return false;
  attempt.missing.add(agent);
  return true;
}

/** Whether the result would come without these, too. */
export function survivesWithout({ router, route, missing, unheard }: Attempt, agents: readonly string[]): boolean {
  return router.survivesAny(route, new Set([...missing, ...agents]), unheard);
}

export function cancelOf(frame: number, { attempt, router, agents }: Attempt): CancelAttempt {
  return { kind: 'cancel', frame, attempt, epoch: router.epoch, agents: [...agents] };
}
