/**
 * The life of deployments: load, plan, prepare, commit, switch, drain, release. What comes next is decided by reconcile.ts; this does it.
 * Whatever an agent holds that no deployment here knows is released when its health shows it.
 */
import { ChairError, type ErrorCode, isChairError, toChairError } from '../broker/errors.js';
import type { CommandBody, DeployRequest, Health, PeerEntry, PlanDetails, PlanReport, Progress } from '../broker/messages.js';
import { NAME_PATTERN } from '../broker/topics.js';
import { Calibrated } from './calibration.js';
import type { Commands } from './commands.js';
import { createDeployment, type Deployment, type Placed } from './deployment.js';
import type { Dispatcher } from './dispatcher.js';
import { Housekeeping } from './housekeeping.js';
import { type Pair, pairsOf } from './links/keeper.js';
import type { SeatTimes } from './live/seat-times.js';
import type { LoadedModel, ModelSource } from './model-source.js';
import { agentsOf, buildPlan, detailsOf, reportOf, runMsOf, slicesOf } from './plan-builder.js';
import { checkSent, withPlanFile } from './plan-file.js';
import { type Estimate, estimate, type SeatEstimate } from './planners/estimate.js';
import { FILED } from './planners/filed.js';
import type { AccessLink, Device, Links, PlanDraft, ProfileTable } from './planners/problem.js';
import { checkRequest, deploymentsOn, draftPlan, explainedDraft, memoryOf, type PlanningInput, problemOf, timesOf } from './planning.js';
import { planWithPrecision } from './precision.js';
import { reconcile, type SeatProgress, type Step } from './reconcile.js';
import type { AgentRecord, Registry } from './registry.js';

const COMMAND_MS = 10_000;
/** An agent loads and warms up in this time, and fetches at least this fast. */
const PREPARE_MS = 60_000;
const PREPARE_BYTES_PER_MS = 500;
/** For measuring links before a plan: so often it may be drafted anew, and so long in all. */
const MEASURE_ROUNDS = 3;
const MEASURE_MS = 6000;
/** How long to wait before a seat that nobody knows is released again. */
const RELEASE_AGAIN_MS = 5000;

export interface DeploymentsOptions {
  readonly registry: Registry;
  readonly commands: Commands;
  readonly dispatcher: Dispatcher;
  readonly source: ModelSource;
  /** What is known of links now. */
  readonly links: () => { readonly links: Links; readonly access: ReadonlyMap<string, AccessLink> };
  /** Measures pairs that a draft would use, where they are not known well; resolves with how many were. */
  readonly measureLinks: (pairs: readonly Pair[], budgetMs: number) => Promise<number>;
  /** What is measured of a model on an agent's class of device. */
  readonly profiles?: (model: LoadedModel, record: AgentRecord) => ProfileTable | undefined;
  /** How real frames ran. */
  readonly times: SeatTimes;
  readonly term: () => number;
  readonly peers: (agents: Iterable<string>) => PeerEntry[];
  /** Removes files of the gateway: slices but `slices` (names of blobs), and, when nothing is deployed, what was made of models. */
  readonly clean: (slices: ReadonlySet<string>, idle: boolean) => Promise<void>;
  readonly log: (kind: string, text: string) => void;
  readonly now: () => number;
}

/** Plans under way that nobody deploys. */
const MOST_DRY_RUNS = 8;

export class Deployments {
  readonly #o: DeploymentsOptions;
  readonly #all = new Map<string, Deployment>();
  readonly #strangers = new Map<string, number>();
  readonly #files: Housekeeping;
  #epoch = 0;
  #stopped = false;
  #dryRuns = 0;

  constructor(options: DeploymentsOptions) {
    this.#o = options;
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
    const details = deployment.serving === undefined ? null : this.#details(deployment, deployment.serving.draft);
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
    const drafted = await this.#draft(deployment);
    const draft = deployment.request.explain ? await explainedDraft(problemOf(this.#input(deployment)), drafted) : drafted;
    return { ...reportOf(deployment.name, 0, draft), details: this.#details(deployment, draft) };
  }

  #details({ request, model, maxRelDiff }: Deployment, draft: PlanDraft): PlanDetails | null {
    return model === undefined ? null : detailsOf(request, model, draft, maxRelDiff);
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
    void this.#release(placed);
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

  /** Releases seats that no deployment knows: of an earlier term, of an agent that was away when its seat was moved. */
  observe(health: Health): void {
    for (const { deployment: name, epoch } of health.seats) {
      const deployment = this.#all.get(name);
      const known = [deployment?.serving, deployment?.next, ...(deployment?.draining.values() ?? [])];
      if (known.some((placed) => placed?.plan.epoch === epoch && placed.nonces.get(health.agent) === health.nonce)) continue;
      const key = `${health.agent} ${health.nonce} ${name} ${epoch}`;
      const askedMs = this.#strangers.get(key);
      if (askedMs !== undefined && this.#o.now() - askedMs < RELEASE_AGAIN_MS) continue;
      if (this.#strangers.size > 10_000) this.#strangers.clear();
      this.#strangers.set(key, this.#o.now());
      void this.#command(health.agent, health.nonce, { kind: 'release', release: { deployment: name, epoch } }).catch(() => undefined);
    }
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
      const draft = await this.#draft(deployment);
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
        ...this.#alone(deployment, draft),
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

  /**
   * Drafts, measures the links that the draft would use, and drafts again while that taught something new. Once frames are served there is no time for it:
   * then what is known counts.
   */
  async #draft(deployment: Deployment): Promise<PlanDraft> {
    if (deployment.serving !== undefined) return this.#drafted(deployment);
    let draft = await this.#drafted(deployment);
    const untilMs = this.#o.now() + MEASURE_MS;
    for (let round = 0; round < MEASURE_ROUNDS; round++) {
      const leftMs = untilMs - this.#o.now();
      if (leftMs <= 0 || (await this.#o.measureLinks(pairsOf(draft.estimate.links), leftMs)) === 0) break;
      draft = await this.#drafted(deployment);
    }
    return draft;
  }

  #drafted(deployment: Deployment): Promise<PlanDraft> {
    const input = this.#input(deployment);
    return deployment.request.maxError > 0 ? this.#precise(deployment, this.#model(deployment), input) : draftPlan(input);
  }

  #model({ name, model }: Deployment): LoadedModel {
    if (model === undefined) throw new ChairError('DEPLOYMENT_NOT_READY', `deployment '${name}' has no model yet`);
    return model;
  }

  /** What is known now. */
  #input(deployment: Deployment): PlanningInput {
    const { request, manual } = deployment;
    const model = this.#model(deployment);
    const { registry, times, now } = this.#o;
    for (const [agent, { nonce }] of deployment.excluded) {
      if (registry.get(agent)?.nonce !== nonce) deployment.excluded.delete(agent);
    }
    const excluded = new Map([...deployment.excluded].map(([agent, { why }]) => [agent, why]));
    const others = this.all().filter((other) => other !== deployment);
    const held = others.flatMap((other) => [other.next ?? other.serving].flatMap((placed) => (placed === undefined ? [] : [placed.draft])));
    const usedBytes = memoryOf(held);
    const fewerParts = deployment.serving !== undefined;
    return {
      request,
      facts: model.facts,
      manual,
      agents: registry.all(),
      excluded,
      usedBytes,
      otherDeployments: deploymentsOn(held),
      ...this.#o.links(),
      profiles: (record) => this.#o.profiles?.(model, record),
      corrections: (agent, basis) => times.correction.correction(agent, model.sha256, basis, now()),
      fewerParts,
      model: model.sha256,
    };
  }

  /** Seats of a draft as a run alone would take, without what was learned from real frames: what these are compared with. */
  #alone(
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
  expected(deployment: Deployment): Estimate | undefined {
    const { serving } = deployment;
    if (serving === undefined || !this.#intact(deployment)) return undefined;
    const now = this.#estimate(this.#input(deployment), serving.draft)?.figures;
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
    if (!this.#intact(deployment)) this.#o.dispatcher.withdraw(deployment.name, error.message);
    this.#answerFirst(deployment, error);
  }

  #intact(deployment: Deployment): boolean {
    const { serving } = deployment;
    return serving !== undefined && [...serving.nonces].every(([agent, nonce]) => this.#o.registry.serves(agent, nonce));
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
    const { plan } = placed;
    const { deployment: name, epoch } = plan;
    try {
      if (done === 'prepared') await this.#prepare(placed, agent);
      else await this.#command(agent, placed.nonces.get(agent) ?? '', { kind: 'commit', commit: { deployment: name, epoch } });
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

  async #prepare(placed: Placed, agent: string): Promise<void> {
    const { plan } = placed;
    const slices = slicesOf(plan, agent);
    const bytes = slices.reduce((sum, slice) => sum + slice.graph.sizeBytes + slice.blobs.reduce((b, blob) => b + blob.sizeBytes, 0), 0);
    const { deployment, epoch, inputs, outputs, stages, wires } = plan;
    const peers = this.#o.peers(agentsOf(plan));
    const prepare = { deployment, epoch, inputs, outputs, stages, wires, slices, peers };
    const deadlineMs = PREPARE_MS + bytes / PREPARE_BYTES_PER_MS;
    await this.#command(agent, placed.nonces.get(agent) ?? '', { kind: 'prepare', prepare }, deadlineMs);
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
    void this.#release(placed);
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
    await Promise.all(held.map((placed) => (placed === undefined ? undefined : this.#release(placed))));
    this.#all.delete(deployment.name);
    this.#files.request();
  }

  #blobsInUse(): Set<string> {
    const held = this.all().flatMap(({ serving, next, draining }) => [serving, next, ...draining.values()]);
    const slices = held.flatMap((placed) => Object.values(placed?.plan.slices ?? {}));
    return new Set(slices.flatMap(({ graph, blobs }) => [graph.sha256, ...blobs.map((blob) => blob.sha256)]));
  }

  /** Best effort: what is missed shows up in the agent's health and is released then. */
  async #release(placed: Placed): Promise<void> {
    const { deployment, epoch } = placed.plan;
    const there = [...placed.nonces].filter(([agent, nonce]) => this.#o.registry.serves(agent, nonce));
    await Promise.allSettled(
      there.map(([agent, nonce]) => this.#command(agent, nonce, { kind: 'release', release: { deployment, epoch } })),
    );
  }

  async #command(agent: string, nonce: string, body: CommandBody, deadlineMs = COMMAND_MS): Promise<void> {
    await this.#o.commands.send(agent, nonce, this.#o.term(), body, deadlineMs);
  }
}

const OUR_OWN_LINK: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['BROKER_LOST', 'BROKER_UNREACHABLE', 'QUEUE_FULL']);
