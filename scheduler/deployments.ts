/**
 * The life of deployments: load, plan, prepare, commit, switch, drain, release. What comes next is decided by reconcile.ts; this does it.
 * Whatever an agent holds that no deployment here knows is released when its health shows it.
 */
import { ChairError, type ErrorCode, isChairError, toChairError } from '../broker/errors.js';
import type { AdjustRequest, DeployRequest, Health, PlanReport, Progress } from '../broker/messages.js';
import type { BlobRef } from '../broker/plan.js';
import type { TensorInfo } from '../broker/tensor.js';
import { NAME_PATTERN } from '../broker/topics.js';
import { createDeployment, type Deployment, type Placed } from './deployment.js';
import type { Dispatcher } from './dispatcher.js';
import { Drafting, type DraftingOptions } from './drafting.js';
import { costText, HandingOver } from './handing-over.js';
import { Housekeeping } from './housekeeping.js';
import type { LoadedModel } from './model-source.js';
import { agentsOf, blobsOf, buildPlan, reportOf, runMsOf, slicesOf, type WrittenCut } from './plan-builder.js';
import { checkSent, withPlanFile } from './plan-file.js';
import type { Estimate } from './planners/estimate.js';
import { FILED } from './planners/filed.js';
import type { PlanDraft } from './planners/problem.js';
import { checkRequest, parseObjective } from './planning.js';
import { NO_HANDOVER } from './rebalance/handover.js';
import { planKey } from './rebalance/moving.js';
import type { Supposed } from './rebalance/rebalancer.js';
import { decide, USUAL_HORIZON_MS, worthOf } from './rebalance/worth.js';
import { reconcile, type SeatProgress, type Step } from './reconcile.js';
import { REPAIR } from './repair.js';
import { Repairs, type RepairsOptions, writtenOf } from './repairs.js';
import { placedAgain, placedOf, type Restoring, restoreStep } from './restoring.js';
import { hasRoute } from './router.js';
import { Seating, type SeatingOptions } from './seating.js';
import type { DeploymentFiles, SavedDeployment } from './state.js';

export interface DeploymentsOptions extends DraftingOptions, SeatingOptions, RepairsOptions {
  readonly dispatcher: Dispatcher;
  /** Removes files of the gateway: slices but `slices` (names of blobs), and, when nothing is deployed, what was made of models. */
  readonly clean: (slices: ReadonlySet<string>, idle: boolean) => Promise<void>;
  /** Where deployments are kept over restarts; default: they are not. */
  readonly files?: Pick<DeploymentFiles, 'save' | 'remove'>;
  /** Removes from the store which of these blobs are damaged; resolves with how many were. Default: none is looked at. */
  readonly removeDamaged?: (blobs: readonly BlobRef[]) => Promise<number>;
}

/** Plans under way that nobody deploys. */
const MOST_DRY_RUNS = 8;

export class Deployments {
  readonly #o: DeploymentsOptions;
  readonly #all = new Map<string, Deployment>();
  readonly #drafting: Drafting;
  readonly #seating: Seating;
  readonly #handingOver: HandingOver;
  readonly #repairs: Repairs;
  readonly #files: Housekeeping;
  /** Asks other deployments to give up agents for one that has no plan; resolves with whether one has. */
  askForRoom: ((deployment: Deployment) => Promise<boolean>) | undefined;
  #epoch = 0;
  #stopped = false;
  #dryRuns = 0;

  constructor(options: DeploymentsOptions) {
    this.#o = options;
    this.#drafting = new Drafting(options, () => this.#all.values());
    this.#seating = new Seating(options);
    const { dispatcher, log } = options;
    const isThere = (placed: Placed, agent: string): boolean => options.registry.serves(agent, placed.nonces.get(agent) ?? '');
    this.#handingOver = new HandingOver({ dispatcher, log, isThere, drafting: this.#drafting, seating: this.#seating });
    this.#repairs = new Repairs(options, this.#drafting, () => this.#all.values());
    this.#files = new Housekeeping(
      () => options.clean(this.#blobsInUse(), this.#all.size === 0),
      (error) => options.log('failed', `files that nobody needs were not removed: ${toChairError(error).message}`),
    );
  }

  all(): Deployment[] {
    return [...this.#all.values()];
  }

  get(name: string): Deployment | undefined {
    return this.#all.get(name);
  }

  /** Resolves when frames are served. Throws DEPLOYMENT_EXISTS, MODEL_..., PLAN_..., NO_AGENTS, PREPARE_FAILED, VERIFY_FAILED. */
  async deploy(request: DeployRequest): Promise<PlanReport> {
    const deployment = this.#create(request);
    if (request.dryRun) return this.#files.during(() => this.#dryRun(deployment)).finally(() => this.#files.request());
    this.#all.set(request.name, deployment);
    try {
      await this.modelOf(deployment);
      this.#checkWanted(deployment);
      this.#admit(deployment, deployment.model?.inputs ?? []);
      const settled = new Promise<void>((resolve, reject) => {
        deployment.first = { resolve, reject };
      });
      this.kick(deployment);
      await settled;
    } catch (error) {
      if (this.#all.get(request.name) === deployment && !deployment.removing) await this.#discard(deployment);
      throw error;
    }
    // What is said to serve comes back after a restart.
    await this.#saved(deployment);
    const report = deployment.serving?.report;
    if (report === undefined) throw new ChairError('DEPLOYMENT_REMOVED', `deployment '${request.name}' was removed`);
    const details = deployment.serving === undefined ? null : this.#drafting.details(deployment, deployment.serving.draft);
    return { ...report, details, why: [report.why, ...this.#leftOut(deployment)].filter(Boolean).join('\n') };
  }

  /**
   * Deployments of before a restart: frames of theirs are taken from now on, and are served as soon as their agents are back. Before `start` of whatever brings
   * frames and agents.
   */
  restore(saved: readonly SavedDeployment[]): void {
    for (const one of saved) {
      const { request, plan, verified, maxRelDiff, afterLoss } = one;
      try {
        const manual = request.cut === '' ? undefined : this.#o.source.parseCut(request.cut, request.shares);
        const deployment = createDeployment(request, manual, plan.model);
        Object.assign(deployment, { verified, maxRelDiff, afterLoss, state: 'restoring' });
        deployment.restoring = { placed: placedOf(one), arrivals: { present: 0, sinceMs: this.#o.now() } };
        this.#epoch = Math.max(this.#epoch, plan.epoch);
        this.#all.set(request.name, deployment);
        this.#admit(deployment, plan.inputs);
        this.#o.log('restoring', `${request.name}: epoch ${plan.epoch} of term ${plan.term}`);
      } catch (error) {
        this.#o.log('failed', `deployment '${request.name}' was not restored: ${toChairError(error).message}`);
      }
    }
  }

  #admit({ name, request }: Deployment, inputs: readonly TensorInfo[]): void {
    this.#o.dispatcher.add(name, inputs, request.deadlineMs > 0 ? { deadlineMs: request.deadlineMs } : {});
  }

  /** The model, read once. Throws MODEL_...; MODEL_NOT_FOUND when another one stands where the saved one was. */
  async modelOf(deployment: Deployment): Promise<LoadedModel> {
    if (deployment.model !== undefined) return deployment.model;
    const model = await this.#files.during(() => this.#load(deployment));
    const { savedModel, request } = deployment;
    if (savedModel !== undefined && model.sha256 !== savedModel) {
      throw new ChairError('MODEL_NOT_FOUND', `the model of deployment '${deployment.name}' was changed while it served`, {
        expected: `sha256 ${savedModel} at ${request.model}`,
        came: model.sha256,
        todo: 'What is loaded goes on; to plan anew, put the file back, or undeploy it and deploy the new one.',
      });
    }
    deployment.model = model;
    return model;
  }

  /** Calibration inputs that do not fit are refused now, whether or not they will be needed. */
  async #load({ request }: Deployment): Promise<LoadedModel> {
    const model = await this.#o.source.load(request);
    if (request.calibration.length > 0) await this.#o.source.frames(request.calibration, model.inputs);
    return model;
  }

  async #saved(deployment: Deployment): Promise<void> {
    if (!deployment.removing) await this.#o.files?.save(deployment);
  }

  /** Each loads a model and asks planners dozens of questions: a hundred at once would take gigabytes, and the broker's time. */
  async #dryRun(deployment: Deployment): Promise<PlanReport> {
    if (this.#dryRuns >= MOST_DRY_RUNS) {
      throw new ChairError('QUEUE_FULL', `${MOST_DRY_RUNS} plans are being made already`, { todo: 'Ask again when one of them is done.' });
    }
    this.#dryRuns++;
    try {
      return await this.#planned(deployment);
    } finally {
      this.#dryRuns--;
    }
  }

  async #planned(deployment: Deployment): Promise<PlanReport> {
    deployment.model = await this.#load(deployment);
    const draft = await this.#drafting.explained(deployment);
    return { ...reportOf(deployment.name, 0, draft), details: this.#drafting.details(deployment, draft) };
  }

  /** Resolves when the agents have let go. Frames under way get DEPLOYMENT_REMOVED. Throws DEPLOYMENT_UNKNOWN. */
  async undeploy(name: string): Promise<void> {
    await this.#discard(this.#known(name));
    this.#o.log('undeployed', `${name} was removed`);
  }

  /** Throws DEPLOYMENT_UNKNOWN. */
  #known(name: string): Deployment {
    const deployment = this.#all.get(name);
    if (deployment !== undefined && !deployment.removing) return deployment;
    throw new ChairError('DEPLOYMENT_UNKNOWN', `there is no deployment '${name}'`, {
      todo: `There are: ${[...this.#all.keys()].join(', ') || 'none'}.`,
    });
  }

  /** Files that `write` makes are not cleaned away meanwhile; afterwards those that nobody needs are. */
  during<T>(write: () => Promise<T>): Promise<T> {
    return this.#files.during(write).finally(() => this.#files.request());
  }

  /** Agents changed: look at every deployment again. `newAgents`: plans that were impossible may be possible now. */
  agentsChanged(newAgents: boolean): void {
    this.#repairs.changed();
    this.kickAll(newAgents);
  }

  /** An agent is gone; `lost`: nobody was prepared for it. What failed while it was there may be done otherwise now. */
  agentGone(agent: string, lost: boolean): void {
    if (lost) this.#repairs.lost(agent);
    for (const deployment of this.#all.values()) if (deployment.serving?.nonces.has(agent) === true) deployment.stuck = false;
  }

  /** Time passes. */
  tick(): void {
    this.kickAll();
    this.#repairs.tick();
  }

  /** Something happened: look at every deployment again. */
  kickAll(newAgents = false): void {
    for (const deployment of this.#all.values()) {
      if (newAgents) {
        deployment.stuck = false;
        deployment.recovering = deployment.afterLoss;
      }
      this.kick(deployment);
    }
  }

  kick(deployment: Deployment): void {
    if (this.#stopped || (deployment.model === undefined && deployment.savedModel === undefined)) return;
    if (deployment.restoring !== undefined && !this.#restored(deployment, deployment.restoring)) return;
    const agents = {
      serves: (agent: string, nonce: string) => this.#o.registry.serves(agent, nonce),
      draining: (agent: string) => this.#o.registry.get(agent)?.state === 'draining',
    };
    for (const step of reconcile(deployment, agents)) this.#take(deployment, step);
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

  /**
   * Another objective or weight from now on, or only another look. Resolves when the plan that is then the best one serves; with `dryRun` it is only told, and what
   * moving to it would take. Throws DEPLOYMENT_UNKNOWN, DEPLOYMENT_NOT_READY, PLAN_INVALID, PLAN_NOT_POSSIBLE, NO_AGENTS, PREPARE_FAILED.
   */
  async adjust({ name, objective, weight, dryRun }: AdjustRequest): Promise<PlanReport> {
    const deployment = this.#known(name);
    await this.modelOf(deployment);
    const { serving, request, manual } = deployment;
    const changed = { ...request, objective: objective || request.objective, weight: weight || request.weight };
    checkRequest(changed);
    if (serving === undefined || deployment.next !== undefined || deployment.planning || deployment.first !== undefined) {
      throw new ChairError('DEPLOYMENT_NOT_READY', `the plan of deployment '${name}' is being changed`, {
        todo: 'Ask again when it serves.',
      });
    }
    if (manual !== undefined || request.plan !== '') {
      throw new ChairError('PLAN_INVALID', `the plan of deployment '${name}' was made by hand`, {
        expected: 'a plan that a planner made',
        todo: 'Undeploy it, and deploy it without a cut or a plan file.',
      });
    }
    const draft = await this.#files.during(() => this.#drafting.draft(deployment, { objective: changed.objective }));
    const same = this.#isInForce(deployment, draft);
    const report = { ...reportOf(name, serving.plan.epoch, draft), details: this.#drafting.details(deployment, draft) };
    const cost = this.#drafting.cost(serving.draft, draft);
    if (dryRun) return { ...report, why: `${draft.why}\n${same ? 'It is the plan in force.' : costText(cost)}` };
    this.#checkWanted(deployment);
    deployment.request = changed;
    await this.#saved(deployment);
    if (same) return report;
    const settled = new Promise<void>((resolve, reject) => {
      deployment.first = { resolve, reject };
    });
    deployment.retargeted = true;
    this.kick(deployment);
    await settled;
    const now = deployment.serving;
    return now === undefined ? report : { ...now.report, details: this.#drafting.details(deployment, now.draft) };
  }

  /** Moves a deployment to a plan that was found to be better, unless something else is under way. */
  adopt(deployment: Deployment, draft: PlanDraft, why: string): void {
    const { serving, next, planning, removing, model } = deployment;
    if (this.#stopped || serving === undefined || next !== undefined || planning || removing || model === undefined) return;
    void this.#plan(deployment, why, draft);
  }

  /** An agent of a plan in force came back as the same process: its seats are still there. */
  agentBack(agent: string, nonce: string): void {
    for (const { name, serving } of this.#all.values()) {
      const there = serving?.nonces.get(agent) === nonce && serving.seats.get(agent) === 'committed' && !serving.vacated.has(agent);
      if (there) this.#o.dispatcher.agentBack(name, agent);
    }
  }

  /** No frame uses this epoch any more. */
  drained(name: string, epoch: number): void {
    const deployment = this.#all.get(name);
    const placed = deployment?.draining.get(epoch);
    if (deployment === undefined || placed === undefined) return;
    void this.#seating.release(placed).then(() => {
      deployment.draining.delete(epoch);
      if (deployment.draining.size > 0 || deployment.serving === undefined) return;
      deployment.serving.settled = true;
      this.kick(deployment);
    });
  }

  progress(progress: Progress): void {
    const deployment = this.#all.get(progress.deployment);
    if (deployment?.next?.plan.epoch === progress.epoch && deployment.next.nonces.has(progress.agent))
      deployment.progress.set(progress.agent, progress);
  }

  /** The plan of this epoch, while it is in force. */
  inForce(name: string, epoch: number): Placed | undefined {
    const serving = this.#all.get(name)?.serving;
    return serving?.plan.epoch === epoch ? serving : undefined;
  }

  /** What the plan in force should do by what is known now. Undefined without one, or while one of its agents is away. */
  expected(deployment: Deployment, supposed: Supposed = {}): Estimate | undefined {
    return this.#drafting.expected(deployment, supposed);
  }

  /** What planning knows of deployments, for whoever looks for better plans. */
  get drafting(): Drafting {
    return this.#drafting;
  }

  /** Releases seats that no deployment knows: of an earlier term, of an agent that was away when its seat was moved. */
  observe(health: Health): void {
    this.#seating.observe(health, this.#all);
  }

  /** Resolves when no file is being removed. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#repairs.stop();
    const error = new ChairError('STOPPED', 'the scheduler was stopped');
    for (const deployment of this.#all.values()) deployment.first?.reject(error);
    await this.#files.settled();
  }

  #create(request: DeployRequest): Deployment {
    if (!NAME_PATTERN.test(request.name)) {
      const expected = 'letters, digits, dot, dash, underscore; at most 64';
      throw new ChairError('AGENT_NAME_INVALID', 'a deployment cannot have this name', { expected, came: `'${request.name}'` });
    }
    if (!request.dryRun && this.#all.has(request.name)) {
      throw new ChairError('DEPLOYMENT_EXISTS', `deployment '${request.name}' exists`, {
        todo: 'Undeploy it first, or take another name.',
      });
    }
    checkSent(request.plan);
    checkRequest(request);
    return createDeployment(withPlanFile(request), request.cut === '' ? undefined : this.#o.source.parseCut(request.cut, request.shares));
  }

  #checkWanted(deployment: Deployment): void {
    if (this.#stopped) throw new ChairError('STOPPED', 'the scheduler was stopped');
    if (deployment.removing) throw new ChairError('DEPLOYMENT_REMOVED', `deployment '${deployment.name}' was removed meanwhile`);
  }

  #take(deployment: Deployment, step: Step): void {
    const next = deployment.next ?? deployment.serving;
    if (step.do === 'plan') void this.#plan(deployment, step.why);
    else if (step.do === 'repair') this.#repair(deployment, step.why);
    else if (next === undefined) return;
    else if (step.do === 'vacate') void this.#vacate(deployment, step.agent);
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
    const draft = able ? this.#repairs.draft(deployment) : undefined;
    if (draft === undefined || serving === undefined) {
      // A planner that is at work does not know of the loss: its plan will be given up, and then there is another.
      deployment.optional = false;
      if (!deployment.planning) void this.#plan(deployment, why);
      return;
    }
    deployment.why = why;
    deployment.afterLoss = true;
    deployment.repaired = true;
    // Whoever goes on shares what it has loaded between the two.
    this.#place(deployment, draft, { cut: draft.cut, slices: writtenOf(serving) }, new Map());
    this.kick(deployment);
  }

  async #plan(deployment: Deployment, why: string, found?: PlanDraft): Promise<void> {
    deployment.planning = true;
    deployment.optional = this.#drafting.intact(deployment);
    try {
      const model = await this.modelOf(deployment);
      await this.#files.during(() => this.#makePlan(deployment, model, why, found));
    } catch (error) {
      deployment.planning = false;
      this.#planFailed(deployment, toChairError(error));
    }
    this.kick(deployment);
  }

  /** `found`: the plan is there already, and nothing forces anybody to move to it. */
  async #makePlan(deployment: Deployment, model: LoadedModel, why: string, found?: PlanDraft): Promise<void> {
    const { name, recovering, unmeasured, retargeted, serving } = deployment;
    deployment.why = why;
    deployment.afterLoss = serving !== undefined && !recovering && !unmeasured && !retargeted && found === undefined;
    const better = deployment.repaired && !recovering && !retargeted && found === undefined;
    deployment.recovering = false;
    deployment.retargeted = false;
    deployment.repaired = false;
    if (serving === undefined) deployment.state = 'planning';
    else this.#o.log('re-planning', `${name}: ${why}`);
    try {
      const draft = found ?? (await this.#draft(deployment));
      if (this.#isInForce(deployment, draft)) {
        this.#o.log('planned', `${name}: the plan in force is still the best one`);
        deployment.state = 'serving';
        deployment.why = '';
        this.#answerFirst(deployment);
        return;
      }
      if (better && this.#staysAsItIs(deployment, draft)) return;
      const written = await model.write(draft);
      if (deployment.request.verify && !deployment.verified) deployment.maxRelDiff = await model.verify(written);
      deployment.verified = true;
      this.#checkWanted(deployment);
      if (deployment.serving !== serving || deployment.next !== undefined) {
        this.#o.log('abandoned', `${name}: the plan was repaired while a planner looked for another one`);
        return;
      }
      this.#place(deployment, draft, written, serving === undefined ? new Map() : this.#drafting.tight(serving.draft, draft));
    } catch (error) {
      if (found === undefined || !this.#drafting.intact(deployment)) this.#planFailed(deployment, toChairError(error));
      else {
        deployment.state = 'serving';
        deployment.why = '';
        this.#o.log('failed', `${name}: a better plan could not be made: ${toChairError(error).message}`);
      }
    } finally {
      deployment.planning = false;
    }
  }

  /** Where there is no plan on what others leave, they are asked for room once. */
  async #draft(deployment: Deployment): Promise<PlanDraft> {
    try {
      return await this.#drafting.draft(deployment);
    } catch (error) {
      if (deployment.serving !== undefined || !isChairError(error, 'PLAN_NOT_POSSIBLE')) throw error;
      if ((await this.askForRoom?.(deployment)) !== true) throw error;
      this.#checkWanted(deployment);
      return this.#drafting.draft(deployment);
    }
  }

  /** A repair is in force that is as good as the full plan, or its agents are being lost, too. */
  #staysAsItIs(deployment: Deployment, draft: PlanDraft): boolean {
    const { name, serving, request } = deployment;
    const now = this.#drafting.expected(deployment);
    if (now === undefined || serving === undefined) return false;
    const want = { ...parseObjective(request.objective), pressed: false };
    const { move, why } = decide({
      current: worthOf(now, want),
      candidate: worthOf(draft.estimate, want),
      cost: this.#drafting.cost(serving.draft, draft),
      horizonMs: USUAL_HORIZON_MS,
      recent: 0,
    });
    if (move) return false;
    deployment.state = 'serving';
    deployment.why = '';
    this.#o.log('kept', `${name}: the repaired plan stays; of a full one (${draft.planner}) ${why}`);
    return true;
  }

  /** The next epoch: agents are asked to prepare it. `tight`: see `Placed`. */
  #place(deployment: Deployment, draft: PlanDraft, written: WrittenCut, tight: Map<string, number>): void {
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
      ...this.#drafting.alone(deployment, draft),
      model: model.sha256,
      nonces: new Map(agents.map((agent) => [agent, this.#o.registry.get(agent)?.nonce ?? ''])),
      seats: new Map(agents.map((agent) => [agent, 'wanted'])),
      tight,
      handover: NO_HANDOVER,
      vacated: new Map(),
      settled: serving === undefined,
      optional: this.#drafting.intact(deployment),
    };
    deployment.state = 'preparing';
    deployment.progress.clear();
    this.#o.log('planned', `${name} epoch ${epoch}: ${draft.planner} on ${agents.join(', ')}`);
    this.#handingOver.arrange(deployment, deployment.next);
  }

  /** The very plan that serves, on agents that all hold their seats: there is nothing to do. */
  #isInForce(deployment: Deployment, draft: PlanDraft): boolean {
    const { serving } = deployment;
    if (serving === undefined || serving.vacated.size > 0 || !this.#drafting.intact(deployment)) return false;
    return [...serving.seats.values()].every((progress) => progress === 'committed') && planKey(draft) === planKey(serving.draft);
  }

  async #vacate(deployment: Deployment, agent: string): Promise<void> {
    if (await this.#handingOver.vacate(deployment, agent)) this.kick(deployment);
  }

  #planFailed(deployment: Deployment, error: ChairError): void {
    if (error.code === 'STOPPED' || deployment.removing) return;
    if (deployment.yielded.size > 0) {
      // What was left to others is asked for again: one plan for each is better than none for one.
      deployment.yielded.clear();
      return;
    }
    const leftOut = this.#leftOut(deployment);
    // That no agent is left says nothing that the reasons do not.
    const rest = error.code === 'NO_AGENTS' ? 'no other agent is ready' : `without: ${error.message}`;
    this.#wait(deployment, leftOut.length === 0 ? error : new ChairError('PREPARE_FAILED', `${leftOut.join('; ')}; ${rest}`));
  }

  /** No plan for now: the first deploy request fails; later, frames wait until an agent comes. */
  #wait(deployment: Deployment, error: ChairError): void {
    const waits = error.code === 'NO_AGENTS' || error.code === 'PLAN_NOT_POSSIBLE' ? 'waiting' : 'failed';
    deployment.stuck = true;
    deployment.why = error.message;
    this.#o.log(waits, `${deployment.name}: ${error.message}`);
    deployment.state = this.#isPassable(deployment) ? 'serving' : waits;
    if (deployment.state !== 'serving') this.#o.dispatcher.withdraw(deployment.name, error.message);
    this.#answerFirst(deployment, error);
  }

  /** Whether frames still find a way through the plan in force, by other replicas or without a part that a parity stands in for. */
  #isPassable({ serving }: Deployment): boolean {
    const { registry } = this.#o;
    return serving !== undefined && hasRoute(serving.plan.stages, (agent) => !registry.serves(agent, serving.nonces.get(agent) ?? ''));
  }

  #answerFirst(deployment: Deployment, error?: ChairError): void {
    const { first } = deployment;
    deployment.first = undefined;
    if (error === undefined) first?.resolve();
    else first?.reject(error);
  }

  /** Asks one agent to prepare or commit its seats. */
  async #seat(deployment: Deployment, placed: Placed, agent: string, asking: SeatProgress, done: SeatProgress): Promise<void> {
    const before = placed.seats.get(agent) ?? 'wanted';
    placed.seats.set(agent, asking);
    try {
      if (done === 'prepared') await this.#seating.prepare(placed, agent);
      else await this.#seating.commit(placed, agent);
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
    this.#wait(deployment, new ChairError('PREPARE_FAILED', `agent ${agent} could not prepare: ${why}`));
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

  #leftOut(deployment: Deployment): string[] {
    return [...deployment.excluded].map(([agent, { why }]) => `left out ${agent}: ${why}`);
  }

  #abandon(deployment: Deployment, placed: Placed): void {
    deployment.next = undefined;
    deployment.state = deployment.serving === undefined ? 'planning' : 'serving';
    void this.#seating.release(placed);
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
    this.#o.dispatcher.install(placed.plan, placed.draft.inFlight, runMsOf(placed.draft), placed.handover.after);
    this.#answerFirst(deployment);
    this.#repairs.changed();
    void this.#saved(deployment);
    if (deployment.inherited !== undefined) this.drained(deployment.name, deployment.inherited);
    deployment.inherited = undefined;
    // Not before: reading a model takes CPU that agents' return needed.
    if (deployment.model === undefined) void this.#readAgain(deployment);
  }

  /** A deployment that was restored serves without its model; the next plan cannot be made without. */
  async #readAgain(deployment: Deployment): Promise<void> {
    try {
      await this.modelOf(deployment);
      deployment.repaired = deployment.serving?.draft.planner === REPAIR;
      this.#repairs.changed();
      this.kick(deployment);
    } catch (thrown) {
      const { code, message } = toChairError(thrown);
      deployment.why = `it serves, but cannot be planned anew: ${message}`;
      this.#o.log('failed', `${deployment.name}: ${code}: ${message}`);
    }
  }

  async #discard(deployment: Deployment): Promise<void> {
    deployment.removing = true;
    deployment.state = 'removing';
    this.#o.dispatcher.remove(deployment.name);
    this.#answerFirst(deployment, new ChairError('DEPLOYMENT_REMOVED', `deployment '${deployment.name}' was removed meanwhile`));
    // Before anybody is told that it is gone.
    await this.#o.files?.remove(deployment.name);
    const held = [deployment.serving, deployment.next, deployment.restoring?.placed, ...deployment.draining.values()];
    await Promise.all(held.map((placed) => (placed === undefined ? undefined : this.#seating.release(placed))));
    this.#all.delete(deployment.name);
    for (const { yielded } of this.#all.values()) for (const [agent, by] of yielded) if (by === deployment.name) yielded.delete(agent);
    this.#repairs.changed();
    this.#files.request();
  }

  #blobsInUse(): Set<string> {
    const held = this.all().flatMap(({ serving, next, draining, restoring }) => [serving, next, restoring?.placed, ...draining.values()]);
    return new Set(held.flatMap((placed) => (placed === undefined ? [] : blobsOf(placed.plan))));
  }
}

/** Codes by which an agent says that it could not fetch a slice. */
const BLOBS: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['BLOB_CORRUPT', 'BLOB_NOT_FOUND']);
/** Codes that say nothing about the agent: our link, or that this scheduler has to take a higher term, or to stop. */
const OURS: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['BROKER_LOST', 'BROKER_UNREACHABLE', 'QUEUE_FULL', 'TERM_STALE']);
