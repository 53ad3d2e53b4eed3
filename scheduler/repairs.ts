/**
 * Local repairs, the part with effects: works out what has to be on whose disk before anybody is lost (repair-ahead.ts), has it brought there
 * (standby-lists.ts), and answers with a repaired plan when agents of the plan in force are lost (repair.ts).
 */
import { setImmediate as otherWork } from 'node:timers/promises';
import { toChairError } from '../broker/errors.js';
import type { LossRow } from '../broker/messages.js';
import type { SliceRef } from '../broker/plan.js';
import type { Deployment, Placed } from './deployment.js';
import type { Drafting } from './drafting.js';
import { lossRows, type WorkedOut } from './loss-rows.js';
import { agentsOf, slicesOf } from './plan-builder.js';
import { isRefusal, type PlanDraft, type PlanRefusal } from './planners/problem.js';
import { type Repair, repair } from './repair.js';
import { type Ahead, type Holdings, likelyFirst, pauseBy, planAhead } from './repair-ahead.js';
import { blobBytes, StandbyLists, type StandbyListsOptions, type Wanted } from './standby-lists.js';

/** After a change: what comes next is often another change. */
const SETTLE_MS = 1000;
/** Losses prepared for, of one deployment; the others get their repair when it is needed. */
const MOST_LOSSES = 256;
/** A loss counts half after an hour. */
const LOSS_HALVES_MS = 3_600_000;
const DEFAULT_STANDBY_BYTES = 2 ** 30;
/** What a loss would mean is looked at so often at most, however many ask. */
const ROWS_AGAIN_MS = 1000;
const NOTHING: Ahead = { standby: new Map(), repairs: new Map(), open: new Map() };

export interface RepairsOptions extends StandbyListsOptions {
  /** Of each agent's disk, for what may never be needed; default 1 GiB, 0 = nothing stands by. */
  readonly standbyBytes?: number;
}

export class Repairs {
  readonly #o: RepairsOptions;
  readonly #drafting: Drafting;
  readonly #all: () => Iterable<Deployment>;
  readonly #lists: StandbyLists;
  readonly #losses = new Map<string, { readonly count: number; readonly atMs: number }>();
  readonly #ahead = new Map<string, WorkedOut & { readonly epoch: number }>();
  readonly #rows = new Map<string, { readonly epoch: number; readonly atMs: number; readonly rows: readonly LossRow[] }>();
  #changedAtMs: number | undefined;
  #working = false;
  #stopped = false;

  constructor(options: RepairsOptions, drafting: Drafting, all: () => Iterable<Deployment>) {
    this.#o = options;
    this.#drafting = drafting;
    this.#all = all;
    this.#lists = new StandbyLists(options);
  }

  /** The plan in force without the agents that are gone from it, and if it can be without those whose links are slow. Undefined when no local repair is possible: then it takes a full plan. */
  draft(deployment: Deployment): PlanDraft | undefined {
    const slow = [...(deployment.serving?.nonces.keys() ?? [])].some((agent) => this.#o.registry.isSlow(agent));
    const spared = slow ? this.#draft(deployment, true) : undefined;
    // Where nobody was lost, there is nothing else to repair.
    return spared ?? (slow && this.#drafting.intact(deployment) ? undefined : this.#draft(deployment, false));
  }

  #draft(deployment: Deployment, spared: boolean): PlanDraft | undefined {
    const { serving, name } = deployment;
    const ground = serving === undefined ? undefined : this.#drafting.ground(deployment, serving, spared);
    if (serving === undefined || ground === undefined) return undefined;
    const holdings = this.#holdingsNow();
    const pauseMs = pauseBy(holdings, ground.devices, ground.links);
    const answer = orRefusal(() => repair({ ...ground, draft: serving.draft, slices: writtenOf(serving), pauseMs }));
    if (isRefusal(answer)) {
      this.#o.log('no repair', `${name}: ${answer.reason}`);
      return undefined;
    }
    const pause = answer.pauseMs < 50 ? '' : `, in about ${(answer.pauseMs / 1000).toFixed(1)} s`;
    this.#o.log('repair', `${name}: ${answer.draft.why.split('\n')[0]}${pause}`);
    return answer.draft;
  }

  /** What the loss of each one agent of the plan in force would mean now; at most a second old. */
  losses({ name, serving }: Deployment): readonly LossRow[] {
    if (serving === undefined) return [];
    const { epoch, stages } = serving.plan;
    const atMs = this.#o.now();
    const known = this.#rows.get(name);
    if (known !== undefined && known.epoch === epoch && atMs - known.atMs < ROWS_AGAIN_MS) return known.rows;
    const worked = this.#ahead.get(name);
    const gone = [...serving.nonces].flatMap(([agent, nonce]) => (this.#o.registry.serves(agent, nonce) ? [] : [agent]));
    const rows = lossRows({
      ...{ stages, gone: new Set(gone), holdings: this.#holdingsNow() },
      worked: worked?.epoch === epoch ? worked : undefined,
    });
    this.#rows.set(name, { epoch, atMs, rows });
    return rows;
  }

  /** Plans or agents changed. Where they always do, it is worked out all the same. */
  changed(): void {
    this.#changedAtMs ??= this.#o.now();
  }

  /** An agent was lost: it may be lost again. */
  lost(agent: string): void {
    this.#losses.set(agent, { count: this.#lossesOf(agent) + 1, atMs: this.#o.now() });
  }

  /** Time passes. */
  tick(): void {
    if (this.#stopped) return;
    this.#lists.tick();
    if (this.#working || this.#changedAtMs === undefined || this.#o.now() - this.#changedAtMs < SETTLE_MS) return;
    this.#working = true;
    this.#changedAtMs = undefined;
    void this.#workOut()
      .catch((error: unknown) => this.#o.log('failed', `repairs were not worked out ahead: ${toChairError(error).message}`))
      .finally(() => {
        this.#working = false;
      });
  }

  stop(): void {
    this.#stopped = true;
    this.#lists.stop();
  }

  async #workOut(): Promise<void> {
    const wanted: Wanted[] = [];
    const broken = new Set<string>();
    const disk = new Map<string, number>();
    for (const deployment of [...this.#all()]) {
      const { name, serving } = deployment;
      if (serving === undefined || deployment.removing) continue;
      if (!this.#drafting.intact(deployment)) {
        // What stands by for it is needed just now.
        broken.add(name);
        continue;
      }
      const ahead = await this.#aheadOf(deployment, serving, disk);
      // Things went on meanwhile: what was there stays until the next time.
      if (ahead === undefined) return this.changed();
      for (const [agent, slices] of ahead.standby) wanted.push({ agent, deployment: name, slices });
    }
    const there = new Set([...this.#all()].map(({ name }) => name));
    for (const of of [this.#ahead, this.#rows]) for (const name of of.keys()) if (!there.has(name)) of.delete(name);
    if (!this.#stopped) this.#lists.replace(wanted, broken);
  }

  /** Undefined when the deployment changed meanwhile. */
  async #aheadOf(deployment: Deployment, serving: Placed, disk: Map<string, number>): Promise<Ahead | undefined> {
    const { standbyBytes = DEFAULT_STANDBY_BYTES } = this.#o;
    const ground = standbyBytes > 0 ? this.#drafting.ground(deployment, serving) : undefined;
    if (ground === undefined) {
      const none = standbyBytes > 0 ? 'its model is not read yet' : 'nothing may stand by here (gateway.standbyMb is 0)';
      this.#tell(deployment.name, serving, { none });
      return NOTHING;
    }
    const sizes = new Map(ground.devices.map(({ agent, memoryBytes }) => [agent, memoryBytes]));
    const taken = new Map(serving.draft.estimate.memory.map(({ agent, needBytes }) => [agent, needBytes]));
    const work = planAhead({
      ...ground,
      draft: serving.draft,
      slices: writtenOf(serving),
      likely: this.#likely(serving).slice(0, MOST_LOSSES),
      holdings: this.#holdings(true),
      diskBytes: (agent) => this.#roomOn(agent, standbyBytes) - (disk.get(agent) ?? 0),
      memoryBytes: (agent) => (sizes.get(agent) || Number.POSITIVE_INFINITY) - (taken.get(agent) ?? 0),
    });
    for (let step = work.next(); ; step = work.next()) {
      if (this.#stopped || deployment.serving !== serving || deployment.removing) return undefined;
      if (step.done === true) {
        this.#tell(deployment.name, serving, { ahead: step.value, devices: ground.devices, links: ground.links });
        for (const [agent, slices] of step.value.standby) disk.set(agent, (disk.get(agent) ?? 0) + blobBytes(slices));
        return step.value;
      }
      await otherWork();
    }
  }

  #tell(name: string, { plan: { epoch } }: Placed, worked: WorkedOut): void {
    const before = this.#ahead.get(name);
    this.#ahead.set(name, { ...worked, epoch });
    this.#rows.delete(name);
    if ('none' in worked) return;
    const known = before?.epoch === epoch && 'ahead' in before ? before.ahead.open : new Map<string, string>();
    for (const [agent, why] of worked.ahead.open) {
      if (known.has(agent)) continue;
      this.#o.log('no repair', `${name}: when ${agent} is lost, frames will wait for another plan (${why})`);
    }
  }

  #likely({ plan }: Placed): string[] {
    const members = [...agentsOf(plan)];
    return likelyFirst(
      members.map((agent) => {
        // Where another replica is whole without it, or a parity stands in for it, frames go on.
        const needed = plan.stages.filter(
          ({ agents, redundancy }) => redundancy === 0 && agents.every((replica) => replica.includes(agent)),
        );
        const bytes = blobBytes(slicesOf({ ...plan, stages: needed }, agent));
        const suspect = this.#o.registry.get(agent)?.state === 'suspect';
        return { agent, suspect, losses: Math.round(this.#lossesOf(agent)), bytes };
      }),
    );
  }

  #lossesOf(agent: string): number {
    const known = this.#losses.get(agent);
    return known === undefined ? 0 : known.count * 0.5 ** ((this.#o.now() - known.atMs) / LOSS_HALVES_MS);
  }

  /** Bytes of disk that may stand by on an agent, those that do already included. */
  #roomOn(agent: string, standbyBytes: number): number {
    const free = this.#o.registry.get(agent)?.hello.storeBytesFree ?? 0;
    return Math.min(standbyBytes, free + this.#lists.bytesOn(agent));
  }

  /** With what stands by. */
  #holdingsNow(): Known {
    const holdings = this.#holdings(false);
    for (const { agent, slice, loaded } of this.#lists.standing()) holdings.add(agent, slice, loaded);
    return holdings;
  }

  /** What agents have of their seats, or had on their disks when they said hello. `lasting`: of plans in force only. */
  #holdings(lasting: boolean): Known {
    const known = new Known((agent) => this.#o.registry.get(agent)?.hello.slices ?? []);
    for (const { serving, next, draining } of this.#all()) {
      for (const placed of lasting ? [serving] : [serving, next, ...draining.values()]) {
        if (placed === undefined) continue;
        for (const [agent, nonce] of placed.nonces) {
          if (!HAS_SLICES.has(placed.seats.get(agent) ?? '') || this.#o.registry.get(agent)?.nonce !== nonce) continue;
          for (const slice of slicesOf(placed.plan, agent)) known.add(agent, slice, true);
        }
      }
    }
    return known;
  }
}

/** Whatever fails here, there is another way: a full plan. */
function orRefusal(work: () => Repair | PlanRefusal): Repair | PlanRefusal {
  try {
    return work();
  } catch (error) {
    return { refused: true, reason: toChairError(error).message };
  }
}

const HAS_SLICES: ReadonlySet<string> = new Set(['prepared', 'committing', 'committed']);

class Known implements Holdings {
  readonly #loaded = new Set<string>();
  readonly #stored = new Set<string>();
  readonly #told = new Map<string, ReadonlySet<string>>();
  readonly #hello: (agent: string) => readonly string[];

  constructor(hello: (agent: string) => readonly string[]) {
    this.#hello = hello;
  }

  add(agent: string, { graph, blobs }: SliceRef, loaded: boolean): void {
    if (loaded) this.#loaded.add(`${agent} ${graph.sha256}`);
    for (const { sha256 } of [graph, ...blobs]) this.#stored.add(`${agent} ${sha256}`);
  }

  loaded(agent: string, sha256: string): boolean {
    return this.#loaded.has(`${agent} ${sha256}`);
  }

  stored(agent: string, sha256: string): boolean {
    if (this.#stored.has(`${agent} ${sha256}`)) return true;
    const told = this.#told.get(agent) ?? new Set(this.#hello(agent));
    this.#told.set(agent, told);
    return told.has(sha256);
  }
}

/** `[stage][part]` */
export function writtenOf({ plan }: Pick<Placed, 'plan'>): SliceRef[][] {
  return plan.stages.map(({ parts }) => parts.flatMap(({ slice }) => plan.slices[slice] ?? []));
}
