/**
 * From a deploy request and all that is known now to a draft of a plan: links it would use are measured first, wires get the precision that the allowed
 * error permits, and the plan in force is estimated anew by the same knowledge.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError, isChairError, toChairError } from '../broker/errors.js';
import type { PlanDetails } from '../broker/messages.js';
import { Calibrated } from './calibration.js';
import type { Deployment, Placed } from './deployment.js';
import { type Pair, pairsOf } from './links/keeper.js';
import type { SeatTimes } from './live/seat-times.js';
import type { LoadedModel, ModelSource } from './model-source.js';
import { detailsOf } from './plan-builder.js';
import { type Estimate, estimate, type SeatEstimate } from './planners/estimate.js';
import type { AccessLink, Device, Links, PlanDraft, ProfileTable } from './planners/problem.js';
import { arriving, deploymentsOn, draftPlan, explainedDraft, memoryOf, type PlanningInput, problemOf, timesOf } from './planning.js';
import { planWithPrecision } from './precision.js';
import { groupsOf, handover } from './rebalance/handover.js';
import { type AgentMove, agentMoves, prepareMs } from './rebalance/moving.js';
import type { Supposed } from './rebalance/rebalancer.js';
import type { MoveCost } from './rebalance/worth.js';
import type { AgentRecord, Registry } from './registry.js';
import type { RepairQuestion } from './repair.js';

/** For measuring links before a plan: so often it may be drafted anew, and so long in all. */
const MEASURE_ROUNDS = 3;
const MEASURE_MS = 6000;
/** For agents that have just come, before a first plan: an agent tells its health about once a second. */
const ARRIVE_MS = 5000;
const ARRIVE_LOOK_MS = 25;

export interface DraftingOptions {
  readonly registry: Registry;
  readonly source: ModelSource;
  /** What is known of links now. */
  readonly links: () => { readonly links: Links; readonly access: ReadonlyMap<string, AccessLink> };
  /** Measures pairs that a draft would use, where they are not known well; resolves with how many were. */
  readonly measureLinks: (pairs: readonly Pair[], budgetMs: number) => Promise<number>;
  /** What is measured of a model on an agent's class of device. */
  readonly profiles?: (model: LoadedModel, record: AgentRecord) => ProfileTable | undefined;
  /** How real frames ran. */
  readonly times: SeatTimes;
  readonly log: (kind: string, text: string) => void;
  readonly now: () => number;
}

export type RepairGround = Pick<RepairQuestion, 'lost' | 'slow' | 'devices' | 'mayTake' | 'links' | 'objective' | 'inFlight'>;

export class Drafting {
  readonly #o: DraftingOptions;
  readonly #all: () => Iterable<Deployment>;

  /** `all`: the deployments that share the agents. */
  constructor(options: DraftingOptions, all: () => Iterable<Deployment>) {
    this.#o = options;
    this.#all = all;
  }

  /**
   * Waits a little for agents that have just come, drafts, measures the links that the draft would use, and drafts again while that taught something new. Once
   * frames are served, or were before a restart, there is no time for it, and what is only supposed is no reason to: then what is known counts.
   */
  async draft(deployment: Deployment, supposed?: Supposed): Promise<PlanDraft> {
    if (supposed !== undefined || deployment.serving !== undefined || deployment.savedModel !== undefined)
      return this.#drafted(deployment, supposed);
    await this.#arrivals(deployment);
    let draft = await this.#drafted(deployment);
    const untilMs = this.#o.now() + MEASURE_MS;
    for (let round = 0; round < MEASURE_ROUNDS; round++) {
      const leftMs = untilMs - this.#o.now();
      if (leftMs <= 0 || (await this.#o.measureLinks(pairsOf(draft.estimate.links), leftMs)) === 0) break;
      draft = await this.#drafted(deployment);
    }
    return draft;
  }

  /** Whoever starts agents and deploys at once means these agents: they are here, but not accepted before their first health message. */
  async #arrivals(deployment: Deployment): Promise<void> {
    const { name, request, why } = deployment;
    for (let waitedMs = 0; waitedMs < ARRIVE_MS && !deployment.removing; waitedMs += ARRIVE_LOOK_MS) {
      const coming = arriving(request, this.#o.registry.all());
      if (coming.length === 0) break;
      deployment.why = `agents that have just come are waited for, ${ARRIVE_MS / 1000} s at most: ${coming.join(', ')}`;
      if (waitedMs === 0) this.#o.log('planning', `${name}: ${deployment.why}`);
      await delay(ARRIVE_LOOK_MS);
    }
    deployment.why = why;
  }

  #drafted(deployment: Deployment, supposed: Supposed = {}): Promise<PlanDraft> {
    const input = this.#input(deployment, supposed);
    return deployment.request.maxError > 0 ? this.#precise(deployment, this.#model(deployment), input) : draftPlan(input);
  }

  #model({ name, model }: Deployment): LoadedModel {
    if (model === undefined) throw new ChairError('DEPLOYMENT_NOT_READY', `deployment '${name}' has no model yet`);
    return model;
  }

  /** What is known now, and what is supposed instead. */
  #input(deployment: Deployment, supposed: Supposed = {}): PlanningInput {
    const { manual } = deployment;
    const request = { ...deployment.request, objective: supposed.objective ?? deployment.request.objective };
    const model = this.#model(deployment);
    const { registry, times, now } = this.#o;
    for (const [agent, { nonce }] of deployment.excluded) {
      if (registry.get(agent)?.nonce !== nonce) deployment.excluded.delete(agent);
    }
    const excluded = new Map([...deployment.excluded].map(([agent, { why }]) => [agent, why]));
    for (const [agent, by] of deployment.yielded) excluded.set(agent, `left to deployment '${by}', which needs it more`);
    const { only, plans } = supposed;
    if (only !== undefined) for (const { agent } of registry.all()) if (!only.has(agent)) excluded.set(agent, 'left to another deployment');
    const others = [...this.#all()].filter((other) => other !== deployment);
    const held = others.flatMap((other) => plans?.get(other.name) ?? (other.next ?? other.serving ?? other.restoring?.placed)?.draft ?? []);
    const usedBytes = memoryOf(held);
    const fewerParts = deployment.serving !== undefined || deployment.savedModel !== undefined;
    return {
      request,
      facts: model.facts,
      manual,
      agents: registry.all(),
      excluded,
      usedBytes,
      otherDeployments: supposed.others ?? deploymentsOn(held),
      ...this.#o.links(),
      profiles: (record) => this.#o.profiles?.(model, record),
      corrections: (agent, basis) => times.correction.correction(agent, model.sha256, basis, now()),
      fewerParts,
      model: model.sha256,
    };
  }

  /** As `draft`, with the reasons for it when the request asks for them. */
  async explained(deployment: Deployment): Promise<PlanDraft> {
    const draft = await this.draft(deployment);
    return deployment.request.explain ? explainedDraft(problemOf(this.#input(deployment)), draft) : draft;
  }

  /** Seats of a draft as a run alone would take, without what was learned from real frames: what these are compared with. */
  alone(
    deployment: Deployment,
    draft: PlanDraft,
  ): { readonly alone: readonly SeatEstimate[]; readonly bases: ReadonlyMap<string, string> } {
    const { corrections, otherDeployments, ...input } = this.#input(deployment);
    const { devices, figures } = this.#estimate(input, draft) ?? { devices: [], figures: { seats: [] } };
    return { alone: figures.seats, bases: new Map(devices.map((device) => [device.agent, timesOf(device)])) };
  }

  /** Undefined when too few of the plan's agents are there to ask about it. */
  #estimate(input: PlanningInput, draft: PlanDraft): { readonly devices: readonly Device[]; readonly figures: Estimate } | undefined {
    try {
      const { devices, links } = problemOf({ ...input, request: { ...input.request, agents: [] }, excluded: new Map() }).problem;
      return { devices, figures: estimate(draft.cut, draft.stages, devices, links, draft.inFlight) };
    } catch (error) {
      if (isChairError(error)) return undefined;
      throw error;
    }
  }

  /** What the plan in force should do by what is known now. Undefined without one, or while one of its agents is away. */
  expected(deployment: Deployment, supposed: Supposed = {}): Estimate | undefined {
    const { serving } = deployment;
    // Without its model nothing is known of what times stand on.
    if (serving === undefined || deployment.model === undefined || !this.intact(deployment)) return undefined;
    const now = this.#estimate(this.#input(deployment, supposed), serving.draft)?.figures;
    return now !== undefined && Number.isFinite(now.latencyMs) ? now : undefined;
  }

  /** With wires as short as the allowed error permits. After a loss frames wait: then only what is known already counts, and the rest follows. */
  async #precise(deployment: Deployment, model: LoadedModel, input: PlanningInput): Promise<PlanDraft> {
    const { name, request, afterLoss, serving } = deployment;
    const { calibration, maxError } = request;
    const given = calibration.length === 0 ? undefined : () => this.#o.source.frames(calibration, model.inputs);
    const onStart = (inputs: string): void => {
      deployment.why = `measuring the error of short wires on ${inputs}`;
      this.#o.log('precision', `${name}: ${deployment.why}`);
    };
    const identity = JSON.stringify([model.sha256, request.shapes, request.images, calibration]);
    const hindered = afterLoss ? 'not measured while frames wait after a loss' : '';
    const measuring = new Calibrated(model, { identity, frames: given, count: calibration.length, hindered, onStart });
    deployment.unmeasured = false;
    try {
      const plan = await planWithPrecision(name, problemOf(input), maxError, measuring);
      deployment.unmeasured = afterLoss && measuring.missed;
      return plan;
    } catch (error) {
      // What is served goes on being served: the next plan is raw.
      if (serving === undefined || isChairError(error, 'PLAN_NOT_POSSIBLE') || isChairError(error, 'NO_AGENTS')) throw error;
      this.#o.log('precision', `${name}: wires are raw, their error could not be measured: ${toChairError(error).message}`);
      return draftPlan(input);
    } finally {
      await measuring.close();
    }
  }

  /** What a local repair of a plan in force stands on; agents whose links are slow count as lost where they are to be `spared`. Undefined when it cannot be told: too few agents are there, or the model is not read yet. */
  ground(deployment: Deployment, { nonces }: Placed, spared = false): RepairGround | undefined {
    const { registry } = this.#o;
    const goesOn = (agent: string, nonce: string): boolean => registry.serves(agent, nonce) && !(spared && registry.isSlow(agent));
    const here = new Set([...nonces].flatMap(([agent, nonce]) => (goesOn(agent, nonce) ? [agent] : [])));
    const lost = new Set([...nonces.keys()].filter((agent) => !here.has(agent)));
    try {
      const input = this.#input(deployment);
      const able = new Set(input.agents.flatMap(({ agent, state }) => (state === 'ready' && !input.excluded.has(agent) ? [agent] : [])));
      // Whoever holds seats goes on with them, and cannot always take others.
      const agents = input.agents.map((record) => (here.has(record.agent) ? { ...record, state: 'ready' as const } : record));
      const excluded = new Map([...input.excluded].filter(([agent]) => !here.has(agent)));
      const { devices, links, objective, inFlight } = problemOf({ ...input, agents, excluded }).problem;
      const slow = new Set([...lost].filter((agent) => registry.serves(agent, nonces.get(agent) ?? '')));
      return { lost, slow, devices, links, objective, inFlight, mayTake: (agent) => able.has(agent) };
    } catch (error) {
      if (isChairError(error)) return undefined;
      throw error;
    }
  }

  /** Whether every agent of the plan in force serves, as the process that it was made for. */
  intact(deployment: Deployment): boolean {
    const { serving } = deployment;
    return serving !== undefined && [...serving.nonces].every(([agent, nonce]) => this.#o.registry.serves(agent, nonce));
  }

  /** Agents that a plan of this deployment could use now. */
  able({ request, excluded, yielded }: Deployment): string[] {
    return this.#o.registry.all().flatMap(({ agent, nonce, state }) => {
      const allowed = request.agents.length === 0 || request.agents.includes(agent);
      return state === 'ready' && allowed && excluded.get(agent)?.nonce !== nonce && !yielded.has(agent) ? [agent] : [];
    });
  }

  /** What times of its agents stand on now, where that is other than when the plan was made; '' = nothing. */
  learned(deployment: Deployment): string {
    const { serving } = deployment;
    if (serving === undefined || deployment.model === undefined || !this.intact(deployment)) return '';
    const devices = this.#estimate(this.#input(deployment), serving.draft)?.devices ?? [];
    const other = devices.filter((device) => (serving.bases.get(device.agent) ?? timesOf(device)) !== timesOf(device));
    return other.length === 0 ? '' : `there are new figures of ${other.map(({ agent }) => agent).join(', ')}`;
  }

  /** What moving from one plan to another takes by what is known now. */
  cost(from: PlanDraft, to: PlanDraft): MoveCost {
    const { links, access } = this.#o.links();
    const moves = this.#moves(from, to);
    const tight = this.tight(from, to);
    const { pauseMs } = handover({ from: groupsOf(from), to: groupsOf(to), tight, drainMs: from.estimate.latencyMs });
    return { prepareMs: prepareMs(moves, links, access), pauseMs, bytes: moves.reduce((sum, { bytes }) => sum + bytes, 0) };
  }

  /** The agents whose memory does not hold both plans' seats, and how long each of them loads, ms. */
  tight(from: PlanDraft, to: PlanDraft): Map<string, number> {
    return new Map(this.#moves(from, to).flatMap(({ agent, tight, loadMs }) => (tight ? [[agent, loadMs]] : [])));
  }

  /** How long an agent loads what is new to it, ms. */
  loadMs(from: PlanDraft, to: PlanDraft, agent: string): number {
    return this.#moves(from, to).find((move) => move.agent === agent)?.loadMs ?? 0;
  }

  #moves(from: PlanDraft, to: PlanDraft): AgentMove[] {
    const { registry } = this.#o;
    return agentMoves({ from, to, cpuOf: (agent) => Math.min(1, registry.get(agent)?.hello.cpuLimit || 1) });
  }

  details({ request, model, maxRelDiff }: Deployment, draft: PlanDraft): PlanDetails | null {
    return model === undefined ? null : detailsOf(request, model, draft, maxRelDiff);
  }
}
