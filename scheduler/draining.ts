/** An operator drains an agent: its seats are moved as if it left, but it goes on running. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../broker/errors.js';
import type { DrainRequest } from '../broker/messages.js';
import type { Deployments } from './deployments.js';
import type { Members } from './members.js';

/** Its seats are moved by then, and are looked at so often. */
const DRAIN_MS = 60_000;
const LOOK_MS = 50;

export interface DrainingParts {
  readonly members: Pick<Members, 'drain' | 'kept' | 'registry'>;
  readonly deployments: Pick<Deployments, 'seats' | 'all'>;
  readonly now: () => number;
  /** It is so from now on, and known over a restart. */
  readonly onDecided?: () => void;
}

/**
 * Resolves when the agent holds no seat any more: then it can be stopped, and nobody notices. Throws AGENT_UNKNOWN, AGENT_BUSY when it is not, or not any more, one
 * that can be drained, REQUEST_TIMEOUT when its seats have nowhere to go; then it goes on draining.
 */
export async function drained(
  { agent, undo }: DrainRequest,
  { members, deployments, now, onDecided = () => undefined }: DrainingParts,
): Promise<void> {
  members.drain(agent, undo);
  // Before anybody believes it: a gateway that is killed now knows it when it is back.
  await members.kept();
  onDecided();
  if (undo) return;
  const until = now() + DRAIN_MS;
  while (deployments.seats(agent)) {
    const state = members.registry.get(agent)?.state ?? 'not known';
    if (state !== 'draining') throw new ChairError('AGENT_BUSY', `agent ${agent} does not drain any more`, { came: state });
    if (now() > until) {
      const why = deployments.all().flatMap((one) => (one.why === '' ? [] : [`${one.name}: ${one.why}`]));
      throw new ChairError('REQUEST_TIMEOUT', `agent ${agent} still holds seats after ${DRAIN_MS / 1000} s; it goes on draining`, {
        ...(why.length === 0 ? {} : { came: why.join('; ') }),
        todo: 'Seats move when others have room for them.',
      });
    }
    await delay(LOOK_MS, undefined, { ref: false });
  }
}
