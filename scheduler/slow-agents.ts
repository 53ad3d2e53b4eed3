/**
 * Agents whose links have become slow in the middle of the work: the shell around links/slow.ts. What ends say of their lanes goes in; agents become suspect, so that
 * frames and seats go elsewhere, their links are measured, and they are counted on again.
 */
import { toChairError } from '../broker/errors.js';
import type { ProbeBudget } from '../broker/link-probe.js';
import type { Health, LaneHealth, LinkMeasurement } from '../broker/messages.js';
import { DISPATCHER } from '../broker/topics.js';
import type { Learning } from './learning.js';
import { SlowLinks, type SlowStep } from './links/slow.js';
import { mbps } from './links/table.js';
import type { Registry, RegistryEvent } from './registry.js';

export interface SlowAgentsOptions {
  readonly registry: Registry;
  readonly learning: Pick<Learning, 'knownLink' | 'doubtLink' | 'measureNow' | 'accept' | 'trust'>;
  /** The dispatcher's own lanes. */
  readonly lanes: () => readonly LaneHealth[];
  readonly apply: (event: RegistryEvent) => void;
  readonly now: () => number;
  readonly log: (kind: string, text: string) => void;
}

/** The dispatcher's own lanes are looked at this often, as agents do theirs. */
const OWN_LANES_MS = 500;
/** Enough to tell a link from a sixth of it; frames run meanwhile. */
const BUDGET: ProbeBudget = { budgetMs: 400, budgetBytes: 2 ** 20 };

export class SlowAgents {
  readonly #o: SlowAgentsOptions;
  readonly #links = new SlowLinks();
  #lanesReadMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(options: SlowAgentsOptions) {
    this.#o = options;
  }

  /** What an agent says of its lanes. */
  health({ agent, nonce, lanes }: Pick<Health, 'agent' | 'nonce' | 'lanes'>): void {
    if (this.#o.registry.serves(agent, nonce)) this.#see(agent, lanes);
  }

  /** Time passes. */
  tick(): void {
    const { lanes, now } = this.#o;
    if (now() - this.#lanesReadMs >= OWN_LANES_MS) {
      this.#lanesReadMs = now();
      this.#see(DISPATCHER, lanes());
    }
    this.#act();
  }

  /** How long an agent is left alone at least; 0 = its link is not slow, or being measured. */
  heldMs(agent: string): number {
    return this.#links.heldMs(agent, this.#o.now());
  }

  stop(): void {
    this.#stopped = true;
  }

  #see(from: string, lanes: readonly LaneHealth[]): void {
    const { registry, learning, now } = this.#o;
    const rows = lanes.flatMap(({ peer, lane, busyMs, busyBytesPerSecond }) => {
      // Of peers that are no agents (clients) there is nothing to plan.
      const concerns = peer === DISPATCHER || registry.get(peer) !== undefined;
      if (busyMs === 0 || lane !== 'direct' || peer === from || !concerns) return [];
      return [{ to: peer, busyMs, bytesPerSecond: busyBytesPerSecond, knownBytesPerSecond: learning.knownLink(from, peer) }];
    });
    this.#links.see(from, rows, now());
  }

  #act(): void {
    if (this.#stopped) return;
    const { registry, now } = this.#o;
    for (const agent of this.#links.avoided) if (!registry.isSlow(agent)) this.#links.forget(agent);
    const ready = registry.all().flatMap(({ agent, state }) => (state === 'ready' ? [agent] : []));
    for (const step of this.#links.steps(ready, now())) this.#take(step);
  }

  #take(step: SlowStep, found?: LinkMeasurement): void {
    const { apply, learning, log } = this.#o;
    if (step.do === 'doubt') {
      learning.doubtLink(step.from, step.to, step.bytesPerSecond);
      return;
    }
    const { agent } = step;
    if (step.do === 'avoid') {
      log('slow link', `agent ${agent}: ${step.why}; frames and seats go elsewhere`);
      apply({ kind: 'slow', agent, why: step.why });
    } else if (step.do === 'measure') void this.#measure(agent);
    else {
      if (step.as === 'measured' && found !== undefined) learning.accept(agent, found);
      else learning.trust(agent);
      log(
        'link',
        `agent ${agent}: ${step.as === 'before' ? 'its link carries again what it did' : `its link is known from now on as it was measured${found === undefined ? '' : `: ${mbps(found.upBytesPerSecond)} there, ${mbps(found.downBytesPerSecond)} back`}`}`,
      );
      apply({ kind: 'slow', agent, why: '' });
    }
  }

  /** Never rejects. */
  async #measure(agent: string): Promise<void> {
    const { learning, now, log } = this.#o;
    const known = { upBytesPerSecond: learning.knownLink(DISPATCHER, agent), downBytesPerSecond: learning.knownLink(agent, DISPATCHER) };
    let found: LinkMeasurement | undefined;
    try {
      found = await learning.measureNow(agent, BUDGET);
    } catch (error) {
      log('link', `dispatcher to ${agent} was not measured: ${toChairError(error).message}`);
    }
    if (this.#stopped) return;
    for (const step of this.#links.measured(agent, found, known, now())) this.#take(step, found);
  }
}
