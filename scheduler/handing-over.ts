/**
 * Seats that do not fit beside the old ones are handed over, in the order of rebalance/handover.ts: agents fetch what the new seats need, then let go of the old ones,
 * and then prepare the new ones.
 */
import { toChairError } from '../broker/errors.js';
import type { Deployment, Placed } from './deployment.js';
import type { Dispatcher } from './dispatcher.js';
import type { Drafting } from './drafting.js';
import { groupsOf, handover } from './rebalance/handover.js';
import type { MoveCost } from './rebalance/worth.js';
import type { Seating } from './seating.js';

/** How long frames have to leave an agent: this, and so many times what a frame takes. */
const VACATE_MS = 2000;
const PATIENCE = 10;

export interface HandingOverOptions {
  readonly dispatcher: Pick<Dispatcher, 'retire'>;
  readonly drafting: Pick<Drafting, 'loadMs'>;
  readonly seating: Pick<Seating, 'release' | 'fetch'>;
  /** Whether this agent, as the process that holds the seats, is there. */
  readonly isThere: (placed: Placed, agent: string) => boolean;
  readonly log: (kind: string, text: string) => void;
}

export class HandingOver {
  readonly #o: HandingOverOptions;

  constructor(options: HandingOverOptions) {
    this.#o = options;
  }

  /** Which agents have to let go of their old seats before they can take the new ones, in which order, and what that means: said before it begins. */
  arrange({ name, serving }: Deployment, next: Placed): void {
    if (serving === undefined || next.tight.size === 0) return;
    const drainMs = serving.draft.estimate.latencyMs;
    // What agents are lost of serves no frames: where no route is left there is nothing to spare, and all hand over at once.
    const from = groupsOf(serving.plan).map((stage) => stage.filter((agents) => agents.every((agent) => this.#o.isThere(serving, agent))));
    next.handover = handover({ from, to: groupsOf(next.plan), tight: next.tight, drainMs });
    const { before, after, pauseMs } = next.handover;
    const order = [...before.map((group) => group.join(' and ')), ...(after.length > 0 ? ['the switch', ...after] : [])];
    const pause = pauseMs === 0 ? 'no pause is expected' : `frames will wait for about ${(pauseMs / 1000).toFixed(1)} s`;
    const held = `${[...next.tight.keys()].join(', ')} cannot hold old and new seats together`;
    this.#o.log('handing over', `${name} epoch ${next.plan.epoch}: ${held}; one by one: ${order.join(', then ')}; ${pause}`);
  }

  /** The agent said that it has no memory for its new seats: true when it holds seats of the plan in force that it can let go of first. */
  makesRoom(deployment: Deployment, placed: Placed, agent: string): boolean {
    const { serving, next } = deployment;
    if (next !== placed || serving?.nonces.has(agent) !== true || placed.tight.has(agent)) return false;
    placed.tight.set(agent, this.#o.drafting.loadMs(serving.draft, placed.draft, agent));
    this.arrange(deployment, placed);
    return true;
  }

  /** Has the agent fetch what its new seats need, beside the old ones. Never rejects: what is missing then is fetched when the seats are prepared. */
  async fetch(next: Placed, agent: string): Promise<void> {
    next.fetched.set(agent, 'asked');
    try {
      const why = await this.#o.seating.fetch(next, agent);
      if (why !== '') this.#o.log('handing over', `${agent} has not all on disk that it will need: ${why}`);
    } catch (thrown) {
      this.#o.log('handing over', `${agent} did not fetch what it will need: ${toChairError(thrown).message}`);
    }
    next.fetched.set(agent, 'done');
  }

  /** Frames leave the agent's seats of the plan in force, then it gives them back. Resolves when it has; false when they are not in force any more. */
  async vacate(deployment: Deployment, agent: string): Promise<boolean> {
    const { name, serving } = deployment;
    if (serving === undefined) return false;
    serving.vacated.set(agent, 'leaving');
    await this.#o.dispatcher.retire(name, agent, VACATE_MS + PATIENCE * serving.draft.estimate.latencyMs);
    if (deployment.serving !== serving || deployment.removing) return false;
    await this.#o.seating.release(serving, agent);
    serving.vacated.set(agent, 'left');
    return true;
  }
}

/** What moving to another plan takes, for people. */
export function costText({ bytes, prepareMs, pauseMs }: MoveCost): string {
  const pause =
    pauseMs === 0 ? 'no pause' : `frames wait for about ${(pauseMs / 1000).toFixed(1)} s, as old and new seats do not fit together`;
  return `Moving to it: at most ${(bytes / 1e6).toFixed(1)} MB to fetch, about ${(prepareMs / 1000).toFixed(1)} s to prepare beside the frames; ${pause}.`;
}
