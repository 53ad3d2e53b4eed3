/**
 * Executes what reconcile.ts decides for a deployment: prepare, commit, switch, drain, release; after a loss the repair of the plan in force, after a restart the
 * plan that was saved. Plans come from plan-making.ts.
 */
import { ChairError, type ErrorCode, toChairError } from '../broker/errors.js';
import type { BlobRef } from '../broker/plan.js';
import { answerFirst, type Deployment, type Placed } from './deployment.js';
import type { Dispatcher } from './dispatcher.js';
import type { Drafting } from './drafting.js';
import { HandingOver } from './handing-over.js';
import { agentsOf, buildPlan, reportOf, slicesOf, turnsOf, type WrittenCut } from './plan-builder.js';
import type { PlanMaking } from './plan-making.js';
import { FILED } from './planners/filed.js';
import type { PlanDraft } from './planners/problem.js';
import { NO_HANDOVER } from './rebalance/handover.js';
import { reconcile, type SeatProgress, type Step } from './reconcile.js';
import type { Registry } from './registry.js';
import { REPAIR } from './repair.js';
import { type Repairs, writtenOf } from './repairs.js';
import { placedAgain, type Restoring, restoreStep } from './restoring.js';
import { hasRoute } from './router.js';
import type { Seating } from './seating.js';
import type { DeploymentFiles } from './state.js';

export interface ExecutingOptions {
  readonly registry: Registry;
  readonly dispatcher: Dispatcher;
  readonly term: () => number;
  /** Where deployments are kept over restarts; default: they are not. */
  readonly files?: Pick<DeploymentFiles, 'save' | 'remove'>;
  /** Removes from the store which of these blobs are damaged; resolves with how many were. Default: none is looked at. */
  readonly removeDamaged?: (blobs: readonly BlobRef[]) => Promise<number>;
  /** Plans change for no slow link; default false. */
  readonly holdPlans?: boolean;
  readonly log: (kind: string, text: string) => void;
  readonly now: () => number;
}

/** What it works with. */
export interface ExecutingParts {
  readonly drafting: Drafting;
  readonly seating: Seating;
  readonly repairs: Repairs;
  readonly planMaking: PlanMaking;
  readonly stopped: () => boolean;
}

export class Executing {
  readonly #o: ExecutingOptions;
  readonly #parts: ExecutingParts;
  readonly #handingOver: HandingOver;
  #epoch = 0;

  constructor(options: ExecutingOptions, parts: ExecutingParts) {
    this.#o = options;
    this.#parts = parts;
    const { dispatcher, log } = options;
    const isThere = (placed: Placed, agent: string): boolean => options.registry.serves(agent, placed.nonces.get(agent) ?? '');
    this.#handingOver = new HandingOver({ dispatcher, log, isThere, drafting: parts.drafting, seating: parts.seating });
  }

  /** Epochs of before a restart are not given again. */
  countFrom(epoch: number): void {
    this.#epoch = Math.max(this.#epoch, epoch);
  }

  /** Looks at what is to be done for it, and does it. */
  kick(deployment: Deployment): void {
    if (this.#parts.stopped() || (deployment.model === undefined && deployment.savedModel === undefined)) return;
    if (deployment.restoring !== undefined && !this.#restored(deployment, deployment.restoring)) return;
    const agents = {
      serves: (agent: string, nonce: string) => this.#o.registry.serves(agent, nonce),
      draining: (agent: string) => this.#o.registry.get(agent)?.state === 'draining',
      slow: this.#isInTheWay(deployment),
    };
    for (const step of reconcile(deployment, agents)) this.#take(deployment, step);
  }

  /** Whether an agent's link is slow, and frames have no way around all that are. */
  #isInTheWay({ serving }: Deployment): (agent: string) => boolean {
    const { registry, holdPlans } = this.#o;
    const isSlow = (agent: string): boolean => registry.isSlow(agent);
    if (holdPlans === true || serving === undefined || hasRoute(serving.plan.stages, isSlow)) return () => false;
    return isSlow;
  }

  /** True when it is not to be waited for any more: a plan is to be prepared, or to be made. */
  #restored(deployment: Deployment, restoring: Restoring): boolean {
    if (deployment.removing) return true;
    const step = restoreStep(restoring, (agent) => this.#o.registry.get(agent), this.#o.now());
    deployment.why = step.do === 'place' ? '' : step.why;
    if (step.do === 'wait') {
      restoring.arrivals = step.arrivals;
      return false;
    }
    const { placed } = restoring;
    deployment.restoring = undefined;
    if (step.do === 'plan') this.#o.log('restoring', `${deployment.name}: ${step.why}`);
    // What agents hold of it stays loaded until the next plan is in force.
    deployment.inherited = placed.plan.epoch;
    deployment.draining.set(placed.plan.epoch, placed);
    if (step.do === 'place') {
      deployment.next = placedAgain(placed, this.#o.term(), ++this.#epoch, step.nonces);
      deployment.state = 'preparing';
    }
    return true;
  }

  #take(deployment: Deployment, step: Step): void {
    const next = deployment.next ?? deployment.serving;
    if (step.do === 'plan') void this.#parts.planMaking.plan(deployment, step.why);
    else if (step.do === 'repair') this.#repair(deployment, step.why);
    else if (next === undefined) return;
    else if (step.do === 'vacate') void this.#vacate(deployment, step.agent);
    else if (step.do === 'fetch') void this.#handingOver.fetch(next, step.agent).then(() => this.kick(deployment));
    else if (step.do === 'abandon') {
      this.#o.log('abandoned', `${deployment.name} epoch ${next.plan.epoch}: ${step.why}`);
      this.#abandon(deployment, next);
      this.kick(deployment);
    } else if (step.do === 'switch') this.#switch(deployment, next);
    else if (step.do === 'prepare') void this.#seat(deployment, next, step.agent, 'asked', 'prepared');
    else void this.#seat(deployment, next, step.agent, 'committing', 'committed');
  }

  /** The same slices on other agents, at once; where that is not possible, another plan. */
  #repair(deployment: Deployment, why: string): void {
    const { serving } = deployment;
    // One that was restored may not have its model yet.
    const able = !deployment.unrepairable && deployment.model !== undefined;
    const draft = able ? this.#parts.repairs.draft(deployment) : undefined;
    if (draft === undefined && serving !== undefined && this.#parts.drafting.intact(deployment)) {
      deployment.unavoidable = true;
      this.#o.log('no repair', `${deployment.name}: ${why}, and nobody can take over: it goes on`);
      return;
    }
    if (draft === undefined || serving === undefined) {
      // A planner that is at work does not know of the loss: its plan will be given up, and then there is another.
      deployment.optional = false;
      if (!deployment.planning) void this.#parts.planMaking.plan(deployment, why);
      return;
    }
    deployment.why = why;
    deployment.afterLoss = true;
    deployment.repaired = true;
    // Whoever goes on shares what it has loaded between the two.
    this.place(deployment, draft, { cut: draft.cut, slices: writtenOf(serving) }, new Map());
    this.kick(deployment);
  }

  /** The next epoch: agents are asked to prepare it. `tight`: see `Placed`. */
  place(deployment: Deployment, draft: PlanDraft, written: WrittenCut, tight: Map<string, number>): void {
    const { name, model, serving } = deployment;
    if (model === undefined) return;
    const epoch = ++this.#epoch;
    const plan = buildPlan({ deployment: name, model: model.sha256, term: this.#o.term(), epoch }, draft, written);
    const agents = [...agentsOf(plan)];
    const report = reportOf(name, epoch, draft, written.slices);
    deployment.next = {
      plan,
      draft,
      report,
      spare: new Set(report.redundancy?.covered),
      ...this.#parts.drafting.alone(deployment, draft),
      model: model.sha256,
      nonces: new Map(agents.map((agent) => [agent, this.#o.registry.get(agent)?.nonce ?? ''])),
      seats: new Map(agents.map((agent) => [agent, 'wanted'])),
      tight,
      handover: NO_HANDOVER,
      vacated: new Map(),
      fetched: new Map(),
      settled: serving === undefined,
      optional: draft.planner !== REPAIR && this.#parts.drafting.intact(deployment),
    };
    deployment.state = 'preparing';
    deployment.progress.clear();
    this.#o.log('planned', `${name} epoch ${epoch}: ${draft.planner} on ${agents.join(', ')}`);
    this.#handingOver.arrange(deployment, deployment.next);
  }

  async #vacate(deployment: Deployment, agent: string): Promise<void> {
    if (await this.#handingOver.vacate(deployment, agent)) this.kick(deployment);
  }

  /** Asks one agent to prepare or commit its seats. */
  async #seat(deployment: Deployment, placed: Placed, agent: string, asking: SeatProgress, done: SeatProgress): Promise<void> {
    const before = placed.seats.get(agent) ?? 'wanted';
    placed.seats.set(agent, asking);
    try {
      if (done === 'prepared') await this.#parts.seating.prepare(placed, agent);
      else await this.#parts.seating.commit(placed, agent);
      placed.seats.set(agent, done);
      // It comes to a plan that serves already: from now on frames take their way through it.
      if (done === 'committed' && deployment.serving === placed) this.#o.dispatcher.agentBack(deployment.name, agent);
    } catch (thrown) {
      const error = toChairError(thrown);
      if ((deployment.next ?? deployment.serving) !== placed || error.code === 'STOPPED') return;
      if (OURS.has(error.code)) {
        // Not the agent's fault: asked again at the next tick.
        placed.seats.set(agent, before);
        return;
      }
      if (error.code === 'AGENT_OUT_OF_MEMORY' && this.#handingOver.makesRoom(deployment, placed, agent)) {
        placed.seats.set(agent, 'wanted');
        return this.kick(deployment);
      }
      // A lost agent is seen by reconcile, which plans again without it.
      if (error.code !== 'AGENT_UNKNOWN') await this.#seatFailed(deployment, placed, agent, error);
    }
    this.kick(deployment);
  }

  async #seatFailed(deployment: Deployment, placed: Placed, agent: string, error: ChairError): Promise<void> {
    if (BLOBS.has(error.code) && (await this.#rewrites(deployment, placed, agent))) return;
    const why = `${error.code}: ${error.message}`;
    this.#o.log('prepare failed', `${deployment.name} on ${agent}: ${why}`);
    if (placed.draft.planner === REPAIR && deployment.serving?.nonces.has(agent) === true) deployment.unrepairable = true;
    deployment.excluded.set(agent, { nonce: placed.nonces.get(agent) ?? '', why });
    if (deployment.serving === placed) {
      // It should have followed after the switch; the others serve without it until there is another plan.
      placed.vacated.set(agent, 'left');
      return;
    }
    this.#abandon(deployment, placed);
    if (placed.draft.planner === REPAIR || (deployment.manual === undefined && placed.draft.planner !== FILED)) return;
    // After a restart as after a loss: a cut made by hand goes on in fewer parts.
    if (deployment.savedModel !== undefined && deployment.serving === undefined) return;
    // A cut made by hand names its number of agents, a plan file the agents themselves: another division is not ours to choose.
    this.#parts.planMaking.wait(deployment, new ChairError('PREPARE_FAILED', `agent ${agent} could not prepare: ${why}`));
  }

  /** The agent could not fetch its slices: when ours are damaged or gone, they are written anew with the next plan, and it is not the agent's fault. */
  async #rewrites(deployment: Deployment, placed: Placed, agent: string): Promise<boolean> {
    const damaged = await this.#o.removeDamaged?.(slicesOf(placed.plan, agent).flatMap(({ graph, blobs }) => [graph, ...blobs]));
    if (damaged === undefined || damaged === 0 || deployment.next !== placed) return false;
    this.#o.log('damaged', `${damaged} files of slices of ${deployment.name} were damaged or gone; they are written anew`);
    if (placed.draft.planner === REPAIR) deployment.unrepairable = true;
    this.#abandon(deployment, placed);
    return true;
  }

  #abandon(deployment: Deployment, placed: Placed): void {
    deployment.next = undefined;
    deployment.state = deployment.serving === undefined ? 'planning' : 'serving';
    void this.#parts.seating.release(placed);
  }

  #switch(deployment: Deployment, placed: Placed): void {
    const old = deployment.serving;
    deployment.serving = placed;
    deployment.next = undefined;
    deployment.state = 'serving';
    deployment.why = '';
    deployment.unrepairable = false;
    deployment.progress.clear();
    if (old !== undefined) deployment.draining.set(old.plan.epoch, old);
    this.#o.log('serving', `${deployment.name} epoch ${placed.plan.epoch}`);
    this.#o.dispatcher.install(placed.plan, placed.draft.inFlight, turnsOf(placed.draft), placed.handover.after);
    answerFirst(deployment);
    this.#parts.repairs.changed();
    void this.save(deployment);
    if (deployment.inherited !== undefined) this.drained(deployment, deployment.inherited);
    deployment.inherited = undefined;
    // Not before: reading a model takes CPU that agents' return needed.
    if (deployment.model === undefined) void this.#readAgain(deployment);
  }

  /** A deployment that was restored serves without its model; the next plan cannot be made without. */
  async #readAgain(deployment: Deployment): Promise<void> {
    try {
      await this.#parts.planMaking.modelOf(deployment);
      deployment.repaired = deployment.serving?.draft.planner === REPAIR;
      this.#parts.repairs.changed();
      this.kick(deployment);
    } catch (thrown) {
      const { code, message } = toChairError(thrown);
      deployment.why = `it serves, but cannot be planned anew: ${message}`;
      this.#o.log('failed', `${deployment.name}: ${code}: ${message}`);
    }
  }

  /** No frame uses this epoch any more. */
  drained(deployment: Deployment, epoch: number): void {
    const placed = deployment.draining.get(epoch);
    if (placed === undefined) return;
    void this.#parts.seating.release(placed).then(() => {
      deployment.draining.delete(epoch);
      if (deployment.draining.size > 0 || deployment.serving === undefined) return;
      deployment.serving.settled = true;
      this.kick(deployment);
    });
  }

  /** What is said to serve comes back after a restart. */
  async save(deployment: Deployment): Promise<void> {
    if (!deployment.removing) await this.#o.files?.save(deployment);
  }
}

/** Codes by which an agent says that it could not fetch a slice. */
const BLOBS: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['BLOB_CORRUPT', 'BLOB_NOT_FOUND']);
/** Codes that say nothing about the agent: our link, or that this scheduler has to take a higher term, or to stop. */
const OURS: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['BROKER_LOST', 'BROKER_UNREACHABLE', 'QUEUE_FULL', 'TERM_STALE']);
