/**
 * Deployments as others see them: deployed, adjusted, removed, restored after a restart; told of agents, of time and of what is drained. Their plans are made by
 * plan-making.ts and put into force by executing.ts. Whatever an agent holds that no deployment here knows is released when its health shows it.
 */
import { ChairError, toChairError } from '../broker/errors.js';
import type { AdjustRequest, DeployRequest, Health, LossRow, PlanReport, Progress } from '../broker/messages.js';
import type { TensorInfo } from '../broker/tensor.js';
import { NAME_PATTERN } from '../broker/topics.js';
import { answerFirst, createDeployment, type Deployment, leftOut, type Placed } from './deployment.js';
import { Drafting, type DraftingOptions } from './drafting.js';
import { Executing, type ExecutingOptions } from './executing.js';
import { costText } from './handing-over.js';
import { Housekeeping } from './housekeeping.js';
import type { LoadedModel } from './model-source.js';
import { blobsOf, reportOf } from './plan-builder.js';
import { checkSent, withPlanFile } from './plan-file.js';
import { PlanMaking, type PlanMakingOptions } from './plan-making.js';
import type { Estimate } from './planners/estimate.js';
import type { PlanDraft } from './planners/problem.js';
import { checkRequest } from './planning.js';
import type { Supposed } from './rebalance/rebalancer.js';
import { Repairs, type RepairsOptions } from './repairs.js';
import { placedOf } from './restoring.js';
import { Seating, type SeatingOptions } from './seating.js';
import type { SavedDeployment } from './state.js';

export interface DeploymentsOptions extends DraftingOptions, SeatingOptions, RepairsOptions, PlanMakingOptions, ExecutingOptions {
  /** Removes files of the gateway: slices but `slices` (names of blobs), and, when nothing is deployed, what was made of models. */
  readonly clean: (slices: ReadonlySet<string>, idle: boolean) => Promise<void>;
}

/** Plans under way that nobody deploys. */
const MOST_DRY_RUNS = 8;

export class Deployments {
  readonly #o: DeploymentsOptions;
  readonly #all = new Map<string, Deployment>();
  readonly #drafting: Drafting;
  readonly #seating: Seating;
  readonly #repairs: Repairs;
  readonly #files: Housekeeping;
  readonly #planMaking: PlanMaking;
  readonly #executing: Executing;
  /** Asks other deployments to give up agents for one that has no plan; resolves with whether one has. */
  askForRoom: ((deployment: Deployment) => Promise<boolean>) | undefined;
  #stopped = false;
  #dryRuns = 0;

  constructor(options: DeploymentsOptions) {
    this.#o = options;
    this.#drafting = new Drafting(options, () => this.#all.values());
    this.#seating = new Seating(options);
    this.#repairs = new Repairs(options, this.#drafting, () => this.#all.values());
    this.#files = new Housekeeping(
      () => options.clean(this.#blobsInUse(), this.#all.size === 0),
      (error) => options.log('failed', `files that nobody needs were not removed: ${toChairError(error).message}`),
    );
    const stopped = (): boolean => this.#stopped;
    this.#planMaking = new PlanMaking(options, {
      ...{ drafting: this.#drafting, files: this.#files, stopped },
      askForRoom: (deployment) => this.askForRoom?.(deployment),
      place: (...plan) => this.#executing.place(...plan),
      kick: (deployment) => this.#executing.kick(deployment),
    });
    const parts = { drafting: this.#drafting, seating: this.#seating, repairs: this.#repairs, planMaking: this.#planMaking, stopped };
    this.#executing = new Executing(options, parts);
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
      await this.#planMaking.modelOf(deployment);
      this.#planMaking.checkWanted(deployment);
      this.#admit(deployment, deployment.model?.inputs ?? []);
      const settled = new Promise<void>((resolve, reject) => {
        deployment.first = { resolve, reject };
      });
      this.#executing.kick(deployment);
      await settled;
    } catch (error) {
      if (this.#all.get(request.name) === deployment && !deployment.removing) await this.#discard(deployment);
      throw error;
    }
    await this.#executing.save(deployment);
    const report = deployment.serving?.report;
    if (report === undefined) throw new ChairError('DEPLOYMENT_REMOVED', `deployment '${request.name}' was removed`);
    const details = deployment.serving === undefined ? null : this.#drafting.details(deployment, deployment.serving.draft);
    return { ...report, details, why: [report.why, ...leftOut(deployment)].filter(Boolean).join('\n') };
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
        this.#executing.countFrom(plan.epoch);
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
  modelOf(deployment: Deployment): Promise<LoadedModel> {
    return this.#planMaking.modelOf(deployment);
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
    deployment.model = await this.#planMaking.load(deployment);
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
    for (const deployment of this.#all.values()) deployment.unavoidable = false;
    this.kickAll(newAgents);
  }

  /** An agent is gone; `lost`: nobody was prepared for it. What failed while it was there may be done otherwise now. */
  agentGone(agent: string, lost: boolean): void {
    if (lost) this.#repairs.lost(agent);
    for (const deployment of this.#all.values()) {
      if (deployment.serving?.nonces.has(agent) === true) Object.assign(deployment, { stuck: false, overtaken: true });
    }
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
        deployment.overtaken = true;
        deployment.recovering = deployment.afterLoss;
      }
      this.#executing.kick(deployment);
    }
  }

  /**
   * Another objective or weight from now on, or only another look. Resolves when the plan that is then the best one serves; with `dryRun` it is only told, and what
   * moving to it would take. Throws DEPLOYMENT_UNKNOWN, DEPLOYMENT_NOT_READY, PLAN_INVALID, PLAN_NOT_POSSIBLE, NO_AGENTS, PREPARE_FAILED.
   */
  async adjust({ name, objective, weight, dryRun }: AdjustRequest): Promise<PlanReport> {
    const deployment = this.#known(name);
    await this.#planMaking.modelOf(deployment);
    const { serving, request, manual } = deployment;
    const changed = { ...request, objective: objective || request.objective, weight: weight || request.weight };
    checkRequest(changed);
    if (serving === undefined || isChanging(deployment)) throw changing(name);
    if (manual !== undefined || request.plan !== '') {
      throw new ChairError('PLAN_INVALID', `the plan of deployment '${name}' was made by hand`, {
        expected: 'a plan that a planner made',
        todo: 'Undeploy it, and deploy it without a cut or a plan file.',
      });
    }
    const draft = await this.#files.during(() => this.#drafting.draft(deployment, { objective: changed.objective }));
    const same = this.#planMaking.isInForce(deployment, draft);
    const report = { ...reportOf(name, serving.plan.epoch, draft), details: this.#drafting.details(deployment, draft) };
    const cost = this.#drafting.cost(serving.draft, draft);
    if (dryRun) return { ...report, why: `${draft.why}\n${same ? 'It is the plan in force.' : costText(cost)}` };
    this.#planMaking.checkWanted(deployment);
    // While the planner was at work another one may have asked for something, or an agent was lost.
    if (deployment.serving !== serving || deployment.request !== request || isChanging(deployment)) throw changing(name);
    deployment.request = changed;
    if (same) {
      await this.#executing.save(deployment);
      return report;
    }
    // At once: whoever asks, removes it, or has found a better plan while it is saved must find it.
    const settled = new Promise<void>((resolve, reject) => {
      deployment.first = { resolve, reject };
    });
    settled.catch(() => undefined);
    deployment.retargeted = true;
    this.#executing.kick(deployment);
    await this.#executing.save(deployment);
    await settled;
    const now = deployment.serving;
    return now === undefined ? report : { ...now.report, details: this.#drafting.details(deployment, now.draft) };
  }

  /** Moves a deployment to a plan that was found to be better, unless something else is under way. */
  adopt(deployment: Deployment, draft: PlanDraft, why: string): void {
    const { serving, next, planning, removing, model } = deployment;
    if (this.#stopped || serving === undefined || next !== undefined || planning || removing || model === undefined) return;
    void this.#planMaking.plan(deployment, why, draft);
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
    if (deployment !== undefined) this.#executing.drained(deployment, epoch);
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

  /** What the loss of each one agent of its plan would mean now. */
  losses(deployment: Deployment): readonly LossRow[] {
    return this.#repairs.losses(deployment);
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

  async #discard(deployment: Deployment): Promise<void> {
    deployment.removing = true;
    deployment.state = 'removing';
    this.#o.dispatcher.remove(deployment.name);
    answerFirst(deployment, new ChairError('DEPLOYMENT_REMOVED', `deployment '${deployment.name}' was removed meanwhile`));
    // Before anybody is told that it is gone.
    await this.#o.files?.remove(deployment.name);
    const held = [deployment.serving, deployment.next, deployment.restoring?.placed, ...deployment.draining.values()];
    await Promise.all(held.map((placed) => (placed === undefined ? undefined : this.#seating.release(placed))));
    this.#all.delete(deployment.name);
    for (const { yielded } of this.#all.values()) for (const [agent, by] of yielded) if (by === deployment.name) yielded.delete(agent);
    this.#repairs.changed();
    this.#files.request();
  }

  /** Does any plan, in force, prepared or draining, seat this agent? */
  seats(agent: string): boolean {
    return this.all().some(({ serving, next, draining, restoring }) =>
      [serving, next, restoring?.placed, ...draining.values()].some((placed) => placed?.nonces.has(agent) === true),
    );
  }

  #blobsInUse(): Set<string> {
    const held = this.all().flatMap(({ serving, next, draining, restoring }) => [serving, next, restoring?.placed, ...draining.values()]);
    return new Set(held.flatMap((placed) => (placed === undefined ? [] : blobsOf(placed.plan))));
  }
}

/** Its plan, or what is asked of it. */
function isChanging({ next, planning, first }: Deployment): boolean {
  return next !== undefined || planning || first !== undefined;
}

function changing(name: string): ChairError {
  return new ChairError('DEPLOYMENT_NOT_READY', `the plan of deployment '${name}' is being changed`, { todo: 'Ask again when it serves.' });
}
