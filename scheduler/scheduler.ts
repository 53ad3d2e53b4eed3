/**
 * The scheduler's shell: what comes from the bus becomes events of the registry, what the registry says becomes steps of deployments,
 * requests are answered. Decisions are in registry.ts, reconcile.ts and planners/.
 * Long, because it is where the parts are put together and their starts and ends are put in order; what each does is in files of its own.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Decision, Gatehouse } from '../broker/credentials/gatehouse.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { LinkProbe } from '../broker/link-probe.js';
import type {
  Command,
  LaneHealth,
  ModelAnswer,
  ModelOffer,
  PeerEntry,
  ProfileReport,
  ProfileRequest,
  RequestBody,
  Response,
  StatusReport,
  Trouble,
  UpdateRequest,
} from '../broker/messages.js';
import { Refusals } from '../broker/refusals.js';
import { sealCommand } from '../broker/seal.js';
import type { Trust } from '../broker/trust.js';
import { Commands } from './commands.js';
import type { Deployment } from './deployment.js';
import { Deployments, type DeploymentsOptions } from './deployments.js';
import type { Dispatcher } from './dispatcher.js';
import { drained } from './draining.js';
import { DrainsFile } from './drains-file.js';
import { Learning } from './learning.js';
import { LinkFile } from './links/file.js';
import { CorrectionFile } from './live/file.js';
import { Members } from './members.js';
import type { ModelSource } from './model-source.js';
import type { Links } from './planners/problem.js';
import { Problems } from './problems.js';
import { Profiles } from './profiles/profiles.js';
import { Rebalancer } from './rebalance/rebalancer.js';
import type { Registry, RegistryOptions } from './registry.js';
import { Reigning, type ReigningOptions } from './reigning.js';
import { RequestDesk } from './request-desk.js';
import { SlowAgents } from './slow-agents.js';
import type { SavedDeployment } from './state.js';
import { agentStatus, deploymentStatus, EventLog, type Known, type Observed } from './status.js';
import { Tracing } from './tracing.js';
import { Updating, type UpdatingOptions } from './updating.js';

const TICK_MS = 250;

export interface SchedulerOptions extends ReigningOptions {
  readonly dispatcher: Dispatcher;
  readonly source: ModelSource;
  /** Folder of the profiles; default: models are not measured here. */
  readonly profileDirectory?: string;
  /** A client asks whether the gateway has a model; default: nothing can be sent here. */
  readonly offer?: (offer: ModelOffer) => Promise<ModelAnswer>;
  /** What planners take of links that nobody measured. */
  readonly links: Links;
  /** Measures the dispatcher's own lanes; default: links are not measured. */
  readonly probe?: Pick<LinkProbe, 'measure'>;
  /** The dispatcher's own lanes. */
  readonly lanes?: () => readonly LaneHealth[];
  /** How agents get other programs; default: they do not. */
  readonly updates?: Pick<UpdatingOptions, 'sign' | 'lend'>;
  /** Where agents and clients find the dispatcher's lane. */
  readonly dispatcherPeer: () => PeerEntry;
  /** The agents that can be reached changed. */
  readonly onPeers?: (peers: readonly PeerEntry[]) => void;
  /** See `DeploymentsOptions`; default: nothing is removed. */
  readonly clean?: (slices: ReadonlySet<string>, idle: boolean) => Promise<void>;
  /** Credentials of the gateway: commands are signed. Default: nobody has any. */
  readonly trust?: Trust;
  /** What silence means, and how agents that flap are held back. */
  readonly membership?: Pick<RegistryOptions, 'missedHealth' | 'holdDown'> | undefined;
  /** Counts what the gateway's other parts refuse, too. */
  readonly refusals?: Refusals;
  /** Plans change only when agents are lost or leave, or when somebody asks. Default false. */
  readonly holdPlans?: boolean;
  /** See `RepairsOptions`. */
  readonly standbyBytes?: number;
  /** Standing problems, for `status`. */
  readonly problems?: Problems;
  readonly files?: DeploymentsOptions['files'];
  /** Where links are kept over restarts; default: they are not. */
  readonly linksFile?: string;
  /** Where it is kept whom an operator drains; default: it is not. */
  readonly drainsFile?: string;
  /** Where what real frames say of predictions is kept; default: it is not. */
  readonly correctionsFile?: string;
  readonly removeDamaged?: DeploymentsOptions['removeDamaged'];
  /** Answers what operators ask on who may be here, and writes down what they decide. Default: everything is plain, and anybody may. */
  readonly gatehouse?: Pick<Gatehouse, 'answer' | 'decided'>;
  readonly now?: () => number;
  readonly log?: (line: string) => void;
}

export class Scheduler {
  readonly #o: SchedulerOptions;
  readonly #now: () => number;
  readonly #members: Members;
  readonly #registry: Registry;
  readonly #commands: Commands;
  readonly #deployments: Deployments;
  readonly #profiles: Profiles | undefined;
  readonly #learning: Learning;
  /** Undefined: links are assumed, whatever they carry. */
  readonly #slowAgents: SlowAgents | undefined;
  /** Undefined: plans are held. */
  readonly #rebalancer: Rebalancer | undefined;
  readonly #events = new EventLog();
  readonly #refusals: Refusals;
  readonly #undo: (() => void | Promise<void>)[] = [];
  readonly #desk: RequestDesk;
  readonly #reigning: Reigning;
  readonly #tracing: Tracing;
  readonly #startedMs: number;
  readonly #updating: Updating | undefined;
  #wasConnected = false;

  constructor(options: SchedulerOptions) {
    this.#o = options;
    this.#now = options.now ?? (() => performance.now());
    this.#startedMs = this.#now();
    this.#refusals = options.refusals ?? new Refusals();
    const log = (kind: string, text: string): void => this.#log(kind, text);
    this.#reigning = new Reigning(options, this.#now, log);
    const { trust, cluster } = options;
    const seal = trust && ((agent: string, command: Command) => sealCommand(command, { cluster, agent }, trust.source.current));
    this.#commands = new Commands(options.bus, options.topics, this.#reigning.id, () => void this.#reigning.refused(), seal);
    this.#desk = new RequestDesk({
      ...{ bus: options.bus, topics: options.topics, log },
      ignore: (client) => this.#reigning.isOurs(client),
      answer: (body, client) => this.#answer(body, client),
    });
    this.#members = this.#makeMembers();
    this.#registry = this.#members.registry;
    this.#learning = new Learning({
      told: options.links,
      linkFile: this.#makeLinkFile(),
      correctionFile: this.#makeCorrectionFile(),
      probe: options.probe,
      lanes: options.lanes,
      registry: this.#registry,
      commands: this.#commands,
      isSecure: options.trust !== undefined,
      dispatcher: options.dispatcher,
      deployments: () => this.#deployments,
      isProfiling: (agent) => this.#profiles?.isMeasuring(agent) === true,
      term: () => this.#reigning.term,
      peers: (agents) => this.#members.peers.entries(agents),
      now: this.#now,
      log: (kind, text) => this.#log(kind, text),
    });
    this.#deployments = new Deployments({
      registry: this.#registry,
      commands: this.#commands,
      dispatcher: options.dispatcher,
      source: options.source,
      links: () => this.#learning.links(),
      measureLinks: (pairs, budgetMs) => this.#learning.measureLinks(pairs, budgetMs),
      profiles: (model, record) => this.#profiles?.tableFor(model, record),
      times: this.#learning.times,
      term: () => this.#reigning.term,
      peers: (agents) => this.#members.peers.entries(agents),
      clean: options.clean ?? (async () => undefined),
      holdPlans: options.holdPlans === true,
      ...(options.standbyBytes === undefined ? {} : { standbyBytes: options.standbyBytes }),
      ...(options.files === undefined ? {} : { files: options.files }),
      ...(options.removeDamaged === undefined ? {} : { removeDamaged: options.removeDamaged }),
      log: (kind, text) => this.#log(kind, text),
      now: this.#now,
    });
    this.#slowAgents = options.probe === undefined ? undefined : this.#makeSlowAgents();
    this.#updating = this.#makeUpdating();
    this.#profiles = this.#makeProfiles();
    this.#tracing = new Tracing({
      ...{ registry: this.#registry, commands: this.#commands, dispatcher: options.dispatcher, now: this.#now },
      serving: (name) => this.#deployments.all().find((deployment) => deployment.name === name)?.serving,
      term: () => this.#reigning.term,
    });
    this.#rebalancer = options.holdPlans === true ? undefined : this.#makeRebalancer();
    this.#deployments.askForRoom = async (deployment) => (await this.#rebalancer?.makeRoom(deployment)) ?? false;
  }

  #makeMembers(): Members {
    const { dispatcherPeer, lanes = () => [], onPeers = () => undefined, dispatcher, membership, drainsFile: file } = this.#o;
    const { problems = new Problems() } = this.#o;
    const log = (kind: string, text: string): void => this.#log(kind, text);
    return new Members({
      problems,
      drainsFile: file === undefined ? undefined : new DrainsFile({ file, problems, log }),
      ...{ dispatcherPeer, lanes, onPeers, dispatcher, membership, now: this.#now },
      ...{ commands: this.#commands, reigning: this.#reigning, refusals: this.#refusals },
      deployments: () => this.#deployments,
      learning: () => this.#learning,
      log,
    });
  }

  get term(): number {
    return this.#reigning.term;
  }

  #makeRebalancer(): Rebalancer {
    const deployments = this.#deployments;
    const { drafting } = deployments;
    return new Rebalancer({
      deployments: () => deployments.all(),
      sample: (name) => this.#o.dispatcher.stats(name),
      expected: (deployment, supposed) => drafting.expected(deployment, supposed),
      draft: (deployment, supposed) => drafting.draft(deployment, supposed),
      load: async (deployment) => void (await deployments.modelOf(deployment)),
      cost: (from, to) => drafting.cost(from, to),
      able: (deployment) => drafting.able(deployment),
      learned: (deployment) => drafting.learned(deployment),
      adopt: (deployment, draft, why) => deployments.adopt(deployment, draft, why),
      log: (kind, text) => this.#log(kind, text),
      pause: (ms) => delay(ms, undefined, { ref: false }),
      now: this.#now,
    });
  }

  #makeSlowAgents(): SlowAgents {
    return new SlowAgents({
      ...{ registry: this.#registry, learning: this.#learning, lanes: this.#o.lanes ?? (() => []), now: this.#now },
      apply: (event) => this.#members.apply(event),
      log: (kind, text) => this.#log(kind, text),
    });
  }

  #makeLinkFile(): LinkFile | undefined {
    const { linksFile: file, problems = new Problems() } = this.#o;
    return file === undefined ? undefined : new LinkFile({ file, problems, log: (kind, text) => this.#log(kind, text) });
  }

  #makeCorrectionFile(): CorrectionFile | undefined {
    const { correctionsFile: file, problems = new Problems() } = this.#o;
    return file === undefined ? undefined : new CorrectionFile({ file, problems, log: (kind, text) => this.#log(kind, text) });
  }

  #makeProfiles(): Profiles | undefined {
    const { profileDirectory: directory, source } = this.#o;
    if (directory === undefined) return undefined;
    return new Profiles({
      ...{ directory, source, now: this.#now, problems: this.#o.problems },
      agents: () => this.#registry.all(),
      measure: async ({ agent, nonce }, profile, deadlineMs, signal) => {
        const giveUp = { signal, body: (id: string) => ({ kind: 'stopProfile' as const, stopProfile: { id } }) };
        const reply = await this.#commands.send(agent, nonce, this.#reigning.term, { kind: 'profile', profile }, deadlineMs, giveUp);
        if (reply.profile === null) throw new ChairError('PROFILE_INVALID', `agent ${agent} answered a measurement without figures`);
        return reply.profile;
      },
      during: (work) => this.#deployments.during(work),
      log: (kind, text) => this.#log(kind, text),
    });
  }

  #makeUpdating(): Updating | undefined {
    const { updates } = this.#o;
    if (updates === undefined) return undefined;
    return new Updating({
      ...updates,
      registry: this.#registry,
      commands: this.#commands,
      term: () => this.#reigning.term,
      now: this.#now,
      log: (kind, text) => this.#log(kind, text),
    });
  }

  /** Takes the next term, above `atLeast`; before `start`. Throws CLUSTER_TAKEN when another scheduler answers, GATEWAY_STORE_FULL. */
  async claim(atLeast = 0): Promise<void> {
    await this.#reigning.begin(atLeast);
    await this.#learning.load();
    await this.#members.load();
  }

  /** What was deployed in an earlier term; before anything that brings frames is started. */
  restore(saved: readonly SavedDeployment[]): void {
    this.#deployments.restore(saved);
  }

  async start(): Promise<void> {
    const { bus, topics } = this.#o;
    this.#undo.push(
      await bus.subscribe(topics.hello, (hello) => this.#members.hello(hello)),
      await bus.subscribe(topics.peersQuestion, (question) => this.#members.peers.asked(question)),
      await bus.subscribe(topics.health, (health) => {
        this.#members.health(health);
        this.#deployments.observe(health);
        this.#learning.health(health);
        this.#slowAgents?.health(health);
      }),
      await bus.subscribe(topics.gone, (gone) => this.#members.apply({ kind: 'gone', gone })),
      await bus.subscribe(topics.reply, (reply) => this.#members.replied(reply)),
      await bus.subscribe(topics.progress, (progress) => this.#deployments.progress(progress)),
      await bus.subscribe(topics.request, (request) => void this.#desk.request(request)),
      await bus.subscribe(topics.ask, (request) => void this.#desk.asked(request)),
      await bus.subscribe(topics.reign, (reign) => void this.#reigning.reigned(reign)),
      bus.onConnect(() => {
        this.#members.apply({ kind: 'online' });
        void this.#connected();
      }),
      bus.onDisconnect((why) => {
        this.#log('offline', `the broker cannot be reached: ${why}`);
        this.#members.apply({ kind: 'offline' });
      }),
    );
    const timer = setInterval(() => {
      this.#members.apply({ kind: 'tick' });
      this.#deployments.tick();
      this.#learning.tick();
      this.#slowAgents?.tick();
      this.#members.peers.sync();
      this.#rebalancer?.tick().catch((error: unknown) => this.#log('failed', `looking for better plans: ${toChairError(error).message}`));
    }, TICK_MS);
    this.#undo.push(() => clearInterval(timer));
    this.#log('started', `term ${this.#reigning.term}`);
  }

  async stop(): Promise<void> {
    this.#desk.stop();
    this.#updating?.stop();
    this.#slowAgents?.stop();
    this.#reigning.stop();
    await this.#profiles?.stop();
    await this.#deployments.stop();
    await this.#learning.stop();
    await this.#members.kept();
    this.#commands.stop();
    for (const undo of this.#undo.splice(0)) await undo();
  }

  /** While this one was cut off, another scheduler may have been started in its place. */
  async #connected(): Promise<void> {
    const first = !this.#wasConnected;
    this.#wasConnected = true;
    if (first || (await this.#stillReigns())) this.#reigning.reign();
  }

  async #stillReigns(): Promise<boolean> {
    const { dispatcher, sharedBroker } = this.#o;
    if (sharedBroker !== true) return true;
    dispatcher.unsure = true;
    const reigns = await this.#reigning.confirm();
    dispatcher.unsure = !reigns;
    return reigns;
  }

  /** This process stood still for so long; before anything else is done. */
  stoodStill(ms: number): void {
    this.#log('stood still', `this process did nothing for ${(ms / 1000).toFixed(1)} s`);
    void this.#stillReigns();
  }

  /** The dispatcher forwards these; wired by the gateway. */
  drained(deployment: string, epoch: number): void {
    this.#deployments.drained(deployment, epoch);
  }

  trouble(trouble: Trouble): void {
    this.#members.trouble(trouble);
  }

  /** The dispatcher's lane to an agent has changed. */
  ownLane(agent: string, lane: 'direct' | 'relay' | 'down', why: string): void {
    this.#members.peers.ownLane(agent, lane, why);
  }

  /** Its certificate is void: others take its seats, whatever becomes of its connection, and have nothing to do with it any more. */
  revoked(agent: string): void {
    this.#members.revoked(agent);
  }

  /** What the deploy requests of all deployments call their models and calibration files. */
  modelsInUse(): string[] {
    return this.#deployments.all().flatMap(({ request }) => [request.model, ...request.calibration]);
  }

  status(name = ''): StatusReport {
    const { addresses, lanePort } = this.#o.dispatcherPeer();
    const deployments = this.#deployments.all().filter((deployment) => name === '' || deployment.name === name);
    return {
      cluster: this.#o.cluster,
      term: this.#reigning.term,
      encrypted: this.#o.trust !== undefined,
      problems: this.#o.problems?.all() ?? [],
      uptimeMs: this.#now() - this.#startedMs,
      dispatcherAddresses: addresses,
      dispatcherPort: lanePort,
      agents: this.#registry.all().map((record) => agentStatus(record, this.#observed(record.agent))),
      deployments: deployments.map((deployment) => deploymentStatus(deployment, this.#known(deployment))),
      lanes: this.#o.lanes?.() ?? [],
      host: this.#learning.host,
      links: this.#learning.status(),
      refusals: this.#refusals.rows(),
      events: this.#events.rows(),
    };
  }

  #observed(agent: string): Observed {
    const nowMs = this.#now();
    const { losses, heldMs } = this.#registry.flapping(agent, nowMs);
    const correction = this.#learning.times.correction.latest(agent, nowMs);
    return { correction, losses, heldMs: heldMs || (this.#slowAgents?.heldMs(agent) ?? 0) };
  }

  #known(deployment: Deployment): Known {
    const { name, serving } = deployment;
    const live = serving === undefined ? [] : this.#learning.times.rows(name, serving.plan.epoch, serving, this.#now());
    const outlook = { demandFps: this.#rebalancer?.demand(deployment).ratePerSecond ?? 0, outlook: this.#rebalancer?.found(name) ?? '' };
    const losses = this.#deployments.losses(deployment);
    return { ...outlook, stats: this.#o.dispatcher.stats(name), expected: this.#deployments.expected(deployment), live, losses };
  }

  async #answer(body: RequestBody, client: string): Promise<Partial<Response>> {
    const { gatehouse } = this.#o;
    switch (body.kind) {
      case 'deploy': {
        const plan = await this.#deployments.deploy(body.deploy);
        if (!body.deploy.dryRun) gatehouse?.decided('deployed', body.deploy.name, client, `model ${body.deploy.model}`);
        return { plan };
      }
      case 'undeploy':
        await this.#deployments.undeploy(body.undeploy.name);
        gatehouse?.decided('undeployed', body.undeploy.name, client, '');
        return {};
      case 'adjust': {
        const plan = await this.#deployments.adjust(body.adjust);
        if (!body.adjust.dryRun) gatehouse?.decided('adjusted', body.adjust.name, client, body.adjust.objective);
        return { plan };
      }
      case 'status':
        return { status: this.status(body.status.name) };
      case 'where':
        return { status: { ...this.status(body.where.name), agents: [], events: [] } };
      case 'links':
        await this.#learning.answer(body.links);
        return { status: { ...this.status(''), deployments: [], events: [] } };
      case 'offer':
        return { model: await this.#offer(body.offer) };
      case 'profile':
        return { profile: await this.#profile(body.profile) };
      case 'update':
        await this.#update(body.update, client);
        return {};
      case 'peers':
        return { peers: this.#members.peers.report(body.peers.agent) };
      case 'trust':
        if (gatehouse === undefined) throw new ChairError('TRUST_OFF', 'this gateway runs without certificates');
        return { trust: await gatehouse.answer(body.trust, client) };
      case 'drain':
        await drained(body.drain, {
          ...{ members: this.#members, deployments: this.#deployments, now: this.#now },
          onDecided: () => gatehouse?.decided(body.drain.undo ? 'drain undone' : 'drained', `agent ${body.drain.agent}`, client, ''),
        });
        return {};
      case 'trace':
        return { trace: await this.#tracing.answer(body.trace) };
    }
  }

  async #profile(request: ProfileRequest): Promise<ProfileReport> {
    if (this.#profiles === undefined) throw new ChairError('PROFILE_INVALID', 'this scheduler does not measure models');
    return this.#profiles.request(request);
  }

  /** Begin and end stand in the audit log: a gateway that is killed meanwhile has still said who wanted it. */
  async #update(request: UpdateRequest, client: string): Promise<void> {
    if (this.#updating === undefined) throw new ChairError('UPDATE_REFUSED', 'this scheduler does not update agents');
    const { agent, name } = request;
    const decided = (event: Decision, detail: string): void => this.#o.gatehouse?.decided(event, `agent ${agent}`, client, detail);
    decided('update ordered', `to ${name}`);
    try {
      const isNew = await this.#updating.update(request);
      decided('updated', isNew ? `runs ${name}` : `ran ${name} already`);
    } catch (error) {
      const { code, message } = toChairError(error);
      decided('update failed', `${code}: ${message}`);
      throw error;
    }
  }

  async #offer(offer: ModelOffer): Promise<ModelAnswer> {
    if (this.#o.offer === undefined) throw new ChairError('MODEL_NOT_FOUND', 'this scheduler takes no models from clients');
    return this.#o.offer(offer);
  }

  #log(kind: string, text: string): void {
    this.#events.add(this.#now() - this.#startedMs, kind, text);
    this.#o.log?.(`${kind}: ${text}`);
  }
}
