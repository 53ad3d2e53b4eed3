/**
 * The life of deployments: load, plan, prepare, commit, switch, drain, release. What comes next is decided by reconcile.ts; this does it.
 * Whatever an agent holds that no deployment here knows is released when its health shows it.
 */
import { ChairError, type ErrorCode, toChairError } from '../broker/errors.js';
import type { DeployRequest, Health, PlanReport, Progress } from '../broker/messages.js';
import { NAME_PATTERN } from '../broker/topics.js';
import { createDeployment, type Deployment, type Placed } from './deployment.js';
import type { Dispatcher } from './dispatcher.js';
import { Drafting, type DraftingOptions } from './drafting.js';
import { Housekeeping } from './housekeeping.js';
import type { LoadedModel } from './model-source.js';
import { agentsOf, buildPlan, reportOf, runMsOf } from './plan-builder.js';
import { checkSent, withPlanFile } from './plan-file.js';
import type { Estimate } from './planners/estimate.js';
import { FILED } from './planners/filed.js';
import { checkRequest } from './planning.js';
import { reconcile, type SeatProgress, type Step } from './reconcile.js';
import { Seating, type SeatingOptions } from './seating.js';

export interface DeploymentsOptions extends DraftingOptions, SeatingOptions {
  readonly dispatcher: Dispatcher;
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
  readonly #files: Housekeeping;
  #epoch = 0;
  #stopped = false;
  #dryRuns = 0;

  constructor(options: DeploymentsOptions) {
    this.#o = options;
    this.#drafting = new Drafting(options, () => this.#all.values());
    this.#seating = new Seating(options);
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
      deployment.model = await this.#files.during(() => this.#load(deployment));
      this.#checkWanted(deployment);
      this.#o.dispatcher.add(request.name, deployment.model.inputs, request.deadlineMs > 0 ? { deadlineMs: request.deadlineMs } : {});
      const settled = new Promise<void>((resolve, reject) => {
        deployment.first = { resolve, reject };
      });
      this.kick(deployment);
      await settled;
    } catch (error) {
      if (this.#all.get(request.name) === deployment && !deployment.removing) await this.#discard(deployment);
      throw error;
    }
    const report = deployment.serving?.report;
    if (report === undefined) throw new ChairError('DEPLOYMENT_REMOVED', `deployment '${request.name}' was removed`);
    const details = deployment.serving === undefined ? null : this.#drafting.details(deployment, deployment.serving.draft);
    return { ...report, details, why: [report.why, ...this.#leftOut(deployment)].filter(Boolean).join('\n') };
  }

  /** Calibration inputs that do not fit are refused now, whether or not they will be needed. */
  async #load({ request }: Deployment): Promise<LoadedModel> {
    const model = await this.#o.source.load(request);
    if (request.calibration.length > 0) await this.#o.source.frames(request.calibration, model.inputs);
    return model;
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
    const deployment = this.#all.get(name);
    if (deployment === undefined || deployment.removing) {
      throw new ChairError('DEPLOYMENT_UNKNOWN', `there is no deployment '${name}'`, {
        todo: `There are: ${[...this.#all.keys()].join(', ') || 'none'}.`,
      });
    }
    await this.#discard(deployment);
    this.#o.log('undeployed', `${name} was removed`);
  }

  /** Files that `write` makes are not cleaned away meanwhile; afterwards those that nobody needs are. */
  during<T>(write: () => Promise<T>): Promise<T> {
    return this.#files.during(write).finally(() => this.#files.request());
  }

  /** Something happened: look at every deployment again. `newAgents`: plans that were impossible may be possible now. */
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
    if (this.#stopped || deployment.model === undefined) return;
    const agents = {
      serves: (agent: string, nonce: string) => this.#o.registry.serves(agent, nonce),
      draining: (agent: string) => this.#o.registry.get(agent)?.state === 'draining',
    };
    for (const step of reconcile(deployment, agents)) this.#take(deployment, step);
  }

  /** An agent of a plan in force came back as the same process: its seats are still there. */
  agentBack(agent: string, nonce: string): void {
    for (const { name, serving } of this.#all.values()) {
      if (serving?.nonces.get(agent) === nonce) this.#o.dispatcher.agentBack(name, agent);
    }
  }

  /** No frame uses this epoch any more. */
  drained(name: string, epoch: number): void {
    const deployment = this.#all.get(name);
    const placed = deployment?.draining.get(epoch);
    if (deployment === undefined || placed === undefined) return;
    deployment.draining.delete(epoch);
    void this.#seating.release(placed);
  }

  progress(progress: Progress): void {
    const deployment = this.#all.get(progress.deployment);
    if (deployment?.next?.plan.epoch === progress.epoch) deployment.progress.set(progress.agent, progress);
  }

  /** The plan of this epoch, while it is in force. */
  inForce(name: string, epoch: number): Placed | undefined {
    const serving = this.#all.get(name)?.serving;
    return serving?.plan.epoch === epoch ? serving : undefined;
  }

  /** What the plan in force should do by what is known now. Undefined without one, or while one of its agents is away. */
  expected(deployment: Deployment): Estimate | undefined {
    return this.#drafting.expected(deployment);
  }

  /** Releases seats that no deployment knows: of an earlier term, of an agent that was away when its seat was moved. */
  observe(health: Health): void {
    this.#seating.observe(health, this.#all);
  }

  /** Resolves when no file is being removed. */
  async stop(): Promise<void> {
    this.#stopped = true;
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
    const { next } = deployment;
    if (step.do === 'plan') void this.#plan(deployment, step.why);
    else if (next === undefined) return;
    else if (step.do === 'abandon') {
      this.#o.log('abandoned', `${deployment.name} epoch ${next.plan.epoch}: ${step.why}`);
      this.#abandon(deployment, next);
      this.kick(deployment);
    } else if (step.do === 'switch') this.#switch(deployment, next);
    else if (step.do === 'prepare') void this.#seat(deployment, next, step.agent, 'asked', 'prepared');
    else void this.#seat(deployment, next, step.agent, 'committing', 'committed');
  }

  async #plan(deployment: Deployment, why: string): Promise<void> {
    const { model } = deployment;
    if (model === undefined) return;
    deployment.planning = true;
    await this.#files.during(() => this.#makePlan(deployment, model, why));
    this.kick(deployment);
  }

  async #makePlan(deployment: Deployment, model: LoadedModel, why: string): Promise<void> {
    const { name } = deployment;
    deployment.why = why;
    deployment.afterLoss = deployment.serving !== undefined && !deployment.recovering && !deployment.unmeasured;
    deployment.recovering = false;
    if (deployment.serving === undefined) deployment.state = 'planning';
    else this.#o.log('re-planning', `${name}: ${why}`);
    try {
      const draft = await this.#drafting.draft(deployment);
      const written = await model.write(draft);
      if (deployment.request.verify && !deployment.verified) deployment.maxRelDiff = await model.verify(written);
      deployment.verified = true;
      this.#checkWanted(deployment);
      const epoch = ++this.#epoch;
      const plan = buildPlan({ deployment: name, model: model.sha256, term: this.#o.term(), epoch }, draft, written);
      const agents = [...agentsOf(plan)];
      deployment.next = {
        plan,
        draft,
        report: reportOf(name, epoch, draft, written.slices),
        ...this.#drafting.alone(deployment, draft),
        model: model.sha256,
        nonces: new Map(agents.map((agent) => [agent, this.#o.registry.get(agent)?.nonce ?? ''])),
        seats: new Map(agents.map((agent) => [agent, 'wanted'])),
      };
      deployment.state = 'preparing';
      deployment.progress.clear();
      this.#o.log('planned', `${name} epoch ${epoch}: ${draft.planner} on ${agents.join(', ')}`);
    } catch (error) {
      this.#planFailed(deployment, toChairError(error));
    } finally {
      deployment.planning = false;
    }
  }

  #planFailed(deployment: Deployment, error: ChairError): void {
    if (error.code === 'STOPPED' || deployment.removing) return;
    const leftOut = this.#leftOut(deployment);
    // That no agent is left says nothing that the reasons do not.
    const rest = error.code === 'NO_AGENTS' ? 'no other agent is ready' : `without: ${error.message}`;
    this.#wait(deployment, leftOut.length === 0 ? error : new ChairError('PREPARE_FAILED', `${leftOut.join('; ')}; ${rest}`));
  }

  /** No plan for now: the first deploy request fails; later, frames wait until an agent comes. */
  #wait(deployment: Deployment, error: ChairError): void {
    deployment.stuck = true;
    deployment.state = error.code === 'NO_AGENTS' || error.code === 'PLAN_NOT_POSSIBLE' ? 'waiting' : 'failed';
    deployment.why = error.message;
    this.#o.log(deployment.state, `${deployment.name}: ${error.message}`);
    if (!this.#drafting.intact(deployment)) this.#o.dispatcher.withdraw(deployment.name, error.message);
    this.#answerFirst(deployment, error);
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
    } catch (thrown) {
      const error = toChairError(thrown);
      if (deployment.next !== placed || error.code === 'STOPPED') return;
      if (OUR_OWN_LINK.has(error.code)) {
        // Not the agent's fault: asked again at the next tick.
        placed.seats.set(agent, before);
        return;
      }
      // A lost agent is seen by reconcile, which plans again without it.
      if (error.code !== 'AGENT_UNKNOWN') this.#seatFailed(deployment, placed, agent, error);
    }
    this.kick(deployment);
  }

  #seatFailed(deployment: Deployment, placed: Placed, agent: string, error: ChairError): void {
    const why = `${error.code}: ${error.message}`;
    this.#o.log('prepare failed', `${deployment.name} on ${agent}: ${why}`);
    deployment.excluded.set(agent, { nonce: placed.nonces.get(agent) ?? '', why });
    this.#abandon(deployment, placed);
    if (deployment.manual === undefined && placed.draft.planner !== FILED) return;
    // A cut made by hand names its number of agents, a plan file the agents themselves: another division is not ours to choose.
    this.#wait(deployment, new ChairError('PREPARE_FAILED', `agent ${agent} could not prepare: ${why}`));
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
    deployment.progress.clear();
    if (old !== undefined) deployment.draining.set(old.plan.epoch, old);
    this.#o.log('serving', `${deployment.name} epoch ${placed.plan.epoch}`);
    this.#o.dispatcher.install(placed.plan, placed.draft.inFlight, runMsOf(placed.draft));
    this.#answerFirst(deployment);
  }

  async #discard(deployment: Deployment): Promise<void> {
    deployment.removing = true;
    deployment.state = 'removing';
    this.#o.dispatcher.remove(deployment.name);
    this.#answerFirst(deployment, new ChairError('DEPLOYMENT_REMOVED', `deployment '${deployment.name}' was removed meanwhile`));
    const held = [deployment.serving, deployment.next, ...deployment.draining.values()];
    await Promise.all(held.map((placed) => (placed === undefined ? undefined : this.#seating.release(placed))));
    this.#all.delete(deployment.name);
    this.#files.request();
  }

  #blobsInUse(): Set<string> {
    const held = this.all().flatMap(({ serving, next, draining }) => [serving, next, ...draining.values()]);
    const slices = held.flatMap((placed) => Object.values(placed?.plan.slices ?? {}));
    return new Set(slices.flatMap(({ graph, blobs }) => [graph.sha256, ...blobs.map((blob) => blob.sha256)]));
  }
}

const OUR_OWN_LINK: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['BROKER_LOST', 'BROKER_UNREACHABLE', 'QUEUE_FULL']);
