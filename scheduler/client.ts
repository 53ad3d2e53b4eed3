/** What programs use: one object for requests to the scheduler and for frames. See client-requests.ts and client-frames.ts. */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { Bus } from '../broker/bus.js';
import { trackBroker } from '../broker/discovery/finder.js';
import { gatewayProof } from '../broker/discovery/gateway-proof.js';
import { ChairError } from '../broker/errors.js';
import type {
  AdjustRequest,
  DeployRequest,
  LinksRequest,
  ModelAnswer,
  ModelOffer,
  PeerEntry,
  PeersReport,
  PlanReport,
  ProfileReport,
  ProfileRequest,
  StatusReport,
  TraceReport,
  TraceRequest,
  TrustReport,
  TrustRequest,
  UpdateRequest,
} from '../broker/messages.js';
import { connectBus } from '../broker/mqtt-bus.js';
import type { Tensor } from '../broker/tensor.js';
import { DISPATCHER, sessionName, type Topics, topicsOf } from '../broker/topics.js';
import { ownIdentity, type Trust } from '../broker/trust.js';
import { ClientFrames, type InferResult } from './client-frames.js';
import { ClientRequests } from './client-requests.js';
import { DEPLOY_DEFAULTS, PROFILE_DEFAULTS } from './deploy-defaults.js';
import { answeredDeploy } from './deploy-watch.js';
import { answeredProfile } from './profiles/ask.js';
import type { UploadOptions } from './upload.js';

export type { InferResult } from './client-frames.js';

export interface ClientOptions {
  /** `mqtt://host:1883`; default: the cluster's gateway is looked for on the local network (mDNS), again when it is not where it was. */
  readonly brokerUrl?: string;
  readonly cluster: string;
  /** TLS with these credentials, of an operator or viewer. Default: everything is plain. */
  readonly trust?: Trust;
  /** With `trust`, and without `brokerUrl`: URLs where it may be, whether or not it is heard on the network. */
  readonly knownBrokers?: readonly string[];
  /**
   * Name under which frames are numbered; default: random. A program that names itself must not run twice. With credentials it is a session of the certificate's name:
   * `alice-1a2b3c4d`, where the digits are made of this name.
   */
  readonly name?: string;
  /** Frames outstanding at once; more wait in here. Default 16. */
  readonly window?: number;
  /** For status and undeploy; default 10,000 ms. A gateway that is silent for three times as long is given up, whatever it does. */
  readonly requestTimeoutMs?: number;
  /** Send frames through the broker even when the dispatcher could be reached directly. */
  readonly relayOnly?: boolean;
}

export interface InferOptions {
  /** From now until the result must be here; default 30,000 ms. */
  readonly deadlineMs?: number;
  /** Resolve no earlier than the frames given before, in their order. */
  readonly ordered?: boolean;
}

/** What to measure; the rest has defaults. */
export type ProfileOptions = Partial<Omit<ProfileRequest, 'job' | 'cancel'>> & Pick<ProfileRequest, 'model'>;
/** The minimum of a deploy request; everything else has the scheduler's defaults. */
export type DeployOptions = Partial<DeployRequest> & Pick<DeployRequest, 'name' | 'model'>;

const DEADLINE_MS = 30_000;
const DEPLOY_TIMEOUT_MS = 30 * 60_000;
/** Fetching a bundle over a slow link, and unpacking it onto a card. */
const UPDATE_TIMEOUT_MS = 40 * 60_000;
/** More than the gateway waits for the seats to move. */
const DRAIN_TIMEOUT_MS = 70_000;
/** Clocks of all agents are compared, and thousands of spans come. */
const TRACE_TIMEOUT_MS = 60_000;
/** All links of a large cluster, one after another. */
const MEASURE_LINKS_MS = 3 * 60_000;
/** The gateway may have to hash gigabytes on a slow card. */
const OFFER_TIMEOUT_MS = 5 * 60_000;

/** A gateway that is just starting hears a question only when it listens already. */
const ASK_AGAIN_MS = 500;
/** Between questions how far a profile job is. */
const PROFILE_ASK_MS = 500;

function clientName({ name, trust }: ClientOptions): string {
  const nonce = randomBytes(4).toString('hex');
  if (trust === undefined) return name ?? sessionName('client', nonce);
  return sessionName(ownIdentity(trust).name, name === undefined ? nonce : createHash('sha256').update(name).digest('hex').slice(0, 8));
}

export class ChairClient {
  readonly name: string;
  readonly #o: ClientOptions;
  readonly #bus: Bus;
  readonly #topics: Topics;
  readonly #requests: ClientRequests;
  readonly #frames: ClientFrames;
  readonly #closing = new AbortController();
  #previous: Promise<unknown> = Promise.resolve();
  #closed = false;

  /** Throws BROKER_UNREACHABLE; without `brokerUrl` also GATEWAY_NOT_FOUND, GATEWAY_AMBIGUOUS, DISCOVERY_UNAVAILABLE. */
  static async connect(options: ClientOptions): Promise<ChairClient> {
    const { brokerUrl, cluster, trust, knownBrokers = [] } = options;
    const name = clientName(options);
    const url = brokerUrl ?? trackBroker({ cluster, ...(trust === undefined ? {} : { proof: gatewayProof(trust), known: knownBrokers }) });
    const bus = await connectBus({ url, id: name, ...(trust === undefined ? {} : { trust }) });
    const client = new ChairClient(options, name, bus);
    try {
      await client.#requests.start();
      await client.#frames.start();
    } catch (error) {
      await client.close();
      throw error;
    }
    return client;
  }

  private constructor(options: ClientOptions, name: string, bus: Bus) {
    this.#o = options;
    this.name = name;
    this.#bus = bus;
    this.#topics = topicsOf(options.cluster);
    const { cluster, window = 16, trust, requestTimeoutMs: silentMs = 10_000 } = options;
    const trusted = trust === undefined ? {} : { trust };
    this.#requests = new ClientRequests({
      bus,
      topics: this.#topics,
      client: name,
      cluster,
      silentMs,
      mayOnlyLook: trust !== undefined && ownIdentity(trust).role === 'viewer',
    });
    this.#frames = new ClientFrames({ ...trusted, bus, topics: this.#topics, client: name, cluster, window, where: () => this.#where() });
  }

  /**
   * Resolves when the deployment serves. Throws what the scheduler found (MODEL_..., PLAN_..., PREPARE_FAILED, ...), STOPPED when the gateway
   * was restarted meanwhile, REQUEST_TIMEOUT when it fell silent.
   */
  async deploy(options: DeployOptions, timeoutMs = DEPLOY_TIMEOUT_MS): Promise<PlanReport> {
    const deploy = { ...DEPLOY_DEFAULTS, ...options };
    const { name, dryRun } = deploy;
    const answer = this.#requests.request({ kind: 'deploy', deploy }, timeoutMs, `deploy ${name}`).then(({ plan }) => plan);
    const times = { everyMs: this.#timeoutMs / 5, silentMs: 3 * this.#timeoutMs };
    return answeredDeploy(answer, { name, dryRun, status: () => this.status(name), ...times });
  }

  /**
   * Makes sure that the gateway has the model file at `path` on this machine, with its external data: sends what it lacks. Gives what `deploy` takes as
   * `model`. Throws MODEL_NOT_FOUND, MODEL_UNREADABLE, MODEL_WEIGHTS_MISSING, UPLOAD_TOO_LARGE, UPLOAD_BUSY, GATEWAY_STORE_FULL, BLOB_CORRUPT.
   */
  async upload(path: string, options: Pick<UploadOptions, 'onProgress' | 'samePath'> = {}): Promise<string> {
    // Only those who deploy load what reads models.
    const { upload } = await import('./upload.js');
    return upload(path, { ...this.#uploading(), ...options });
  }

  /**
   * Sends frames to measure wire precision on (see `DeployRequest.maxError`); gives what `deploy` takes as `calibration`. Throws UPLOAD_TOO_LARGE,
   * UPLOAD_BUSY, GATEWAY_STORE_FULL.
   */
  async uploadFrames(frames: readonly Readonly<Record<string, Tensor>>[]): Promise<string[]> {
    const { uploadCalibration } = await import('./calibration-upload.js');
    return uploadCalibration(frames, this.#uploading());
  }

  #uploading(): UploadOptions {
    const offer = async (offer: ModelOffer): Promise<ModelAnswer> => {
      const { model } = await this.#requests.request({ kind: 'offer', offer }, OFFER_TIMEOUT_MS, 'offer of a model');
      if (model === null) throw new ChairError('INTERNAL', 'the scheduler answered an offer without a word on the model');
      return model;
    };
    return { bus: this.#bus, topics: this.#topics, client: this.name, offer, signal: this.#closing.signal };
  }

  /** What `deploy` would do: nothing is changed. */
  plan(options: DeployOptions, timeoutMs = DEPLOY_TIMEOUT_MS): Promise<PlanReport> {
    return this.deploy({ ...options, dryRun: true }, timeoutMs);
  }

  /**
   * Measures the blocks of a model on one agent of each class of device, but for what is known already. Throws MODEL_..., AGENT_UNKNOWN, NO_AGENTS, PROFILE_INVALID,
   * QUEUE_FULL, STOPPED, REQUEST_TIMEOUT when the gateway fell silent. An agent that cannot measure is a row with a code, not an error. With `giveUp` aborted the
   * gateway is told to end it, agents stop, and it throws PROFILE_CANCELLED, whose message says what is kept.
   */
  async profile(options: ProfileOptions, onProgress?: (report: ProfileReport) => void, giveUp?: AbortSignal): Promise<ProfileReport> {
    const request = { ...PROFILE_DEFAULTS, ...options, job: `${this.name}-${randomUUID()}`, cancel: false };
    const ask = async (asked: ProfileRequest): Promise<ProfileReport> => {
      const { profile } = await this.#requests.request({ kind: 'profile', profile: asked }, this.#timeoutMs, 'profile');
      if (profile === null) throw new ChairError('INTERNAL', 'the scheduler answered a request for profiles without any');
      return profile;
    };
    const times = { everyMs: PROFILE_ASK_MS, silentMs: 3 * this.#timeoutMs, signal: this.#closing.signal, giveUp };
    return answeredProfile(request, { ask, ...times, ...(onProgress === undefined ? {} : { onProgress }) });
  }

  /**
   * Changes what a deployment is planned for, or only looks for a better plan; with `dryRun` only says which it would be and what moving would take (`why`). Resolves
   * when the plan serves. Throws DEPLOYMENT_UNKNOWN, DEPLOYMENT_NOT_READY, PLAN_INVALID, PLAN_NOT_POSSIBLE, NO_AGENTS, PREPARE_FAILED.
   */
  async adjust(adjust: AdjustRequest, timeoutMs = DEPLOY_TIMEOUT_MS): Promise<PlanReport> {
    const { plan } = await this.#requests.request({ kind: 'adjust', adjust }, timeoutMs, `adjust ${adjust.name}`);
    if (plan === null) throw new ChairError('INTERNAL', 'the scheduler answered a request for another plan without one');
    return plan;
  }

  async undeploy(name: string): Promise<void> {
    await this.#requests.request({ kind: 'undeploy', undeploy: { name } }, this.#timeoutMs, `undeploy ${name}`);
    // The same name may come back with another model, perhaps from another gateway.
    this.#frames.forgetWhere();
  }

  /** Of one deployment, or of all. */
  async status(name = ''): Promise<StatusReport> {
    const { status } = await this.#requests.request({ kind: 'status', status: { name } }, this.#timeoutMs, 'status', ASK_AGAIN_MS);
    if (status === null) throw new ChairError('INTERNAL', 'the scheduler answered a status request without a status');
    return status;
  }

  /**
   * Sends a bundle to the gateway, unless it has it; gives what `update` needs of it. Throws UPLOAD_TOO_LARGE, UPLOAD_BUSY, GATEWAY_STORE_FULL, BLOB_CORRUPT.
   */
  async uploadBundle(
    bundle: { readonly path: string; readonly sha256: string; readonly sizeBytes: number },
    onProgress?: UploadOptions['onProgress'],
  ): Promise<void> {
    const { uploadFiles } = await import('./upload.js');
    const file = { location: 'bundle.tgz', ...bundle };
    await uploadFiles([file], '', { ...this.#uploading(), ...(onProgress === undefined ? {} : { onProgress }) });
  }

  /** Changes the program of one agent to a bundle that the gateway has; resolves when it runs it and is well. Throws UPDATE_..., BUNDLE_WRONG_ARCH, AGENT_UNKNOWN. */
  async update(update: UpdateRequest, timeoutMs = UPDATE_TIMEOUT_MS): Promise<void> {
    await this.#requests.request({ kind: 'update', update }, timeoutMs, `update ${update.agent}`);
  }

  /** Peer tables of one agent, or of all. Throws AGENT_UNKNOWN. */
  async peers(agent = ''): Promise<PeersReport> {
    const { peers } = await this.#requests.request({ kind: 'peers', peers: { agent } }, this.#timeoutMs, 'peers', ASK_AGAIN_MS);
    if (peers === null) throw new ChairError('INTERNAL', 'the scheduler answered a request for peers without tables');
    return peers;
  }

  /**
   * Asks the gateway's authority: tokens, members, the audit log; for operators. What is not given is empty. Throws TRUST_OFF (a gateway without certificates), IDENTITY_TAKEN,
   * IDENTITY_UNKNOWN, TOKEN_REFUSED, AGENT_NAME_INVALID, USAGE.
   */
  async trust(asked: Partial<TrustRequest> & Pick<TrustRequest, 'action'>): Promise<TrustReport> {
    const request = { name: '', role: '', ttlMs: 0, hold: false, replace: false, key: '', why: '', count: 0, unknown: false, ...asked };
    const { trust } = await this.#requests.request({ kind: 'trust', trust: request }, this.#timeoutMs, asked.action);
    if (trust === null) throw new ChairError('INTERNAL', 'the gateway answered a question to its authority without a report');
    return trust;
  }

  /**
   * Moves the agent's seats to others and gives it no new ones, while it goes on running; resolves when it holds none. `undo`: it may have seats again. Throws
   * AGENT_UNKNOWN, AGENT_BUSY, REQUEST_TIMEOUT when its seats have nowhere to go.
   */
  async drain(agent: string, options: { readonly undo?: boolean } = {}): Promise<void> {
    const drain = { agent, undo: options.undo ?? false };
    await this.#requests.request({ kind: 'drain', drain }, DRAIN_TIMEOUT_MS, `drain ${agent}`);
  }

  /**
   * First without, then with `collect`: what agents and dispatcher did for the frames in between, and what their clocks say against the gateway's. Throws
   * DEPLOYMENT_NOT_READY.
   */
  async trace(request: TraceRequest): Promise<TraceReport> {
    const { trace } = await this.#requests.request({ kind: 'trace', trace: request }, TRACE_TIMEOUT_MS, `trace of ${request.deployment}`);
    if (trace === null) throw new ChairError('INTERNAL', 'the scheduler answered a request for a trace without one');
    return trace;
  }

  /** What is known of links; with `measure`, after measuring, which can take a minute. Throws AGENT_UNKNOWN. */
  async links(request: LinksRequest): Promise<StatusReport> {
    const { status } = await this.#requests.request(
      { kind: 'links', links: request },
      request.measure ? MEASURE_LINKS_MS : this.#timeoutMs,
      'links',
    );
    if (status === null) throw new ChairError('INTERNAL', 'the scheduler answered a request for links without a status');
    return status;
  }

  /**
   * Runs one frame. The tensors must not change until it resolves. Throws DEPLOYMENT_UNKNOWN, FRAME_INVALID, FRAME_REFUSED, FRAME_DEADLINE,
   * FRAME_FAILED, DEPLOYMENT_REMOVED, REQUEST_TIMEOUT when nobody answered at all, STOPPED after `close`.
   */
  infer(deployment: string, inputs: Readonly<Record<string, Tensor>>, options: InferOptions = {}): Promise<InferResult> {
    const frame = this.#frames.infer(deployment, inputs, options.deadlineMs ?? DEADLINE_MS);
    if (options.ordered !== true) return frame;
    const inTurn = this.#previous.then(() => frame);
    this.#previous = frame.catch(() => undefined);
    return inTurn;
  }

  /** Runs frames as they come, keeps the window full, and yields the results in their order. */
  async *inferStream(
    deployment: string,
    frames: AsyncIterable<Readonly<Record<string, Tensor>>> | Iterable<Readonly<Record<string, Tensor>>>,
    options: Omit<InferOptions, 'ordered'> = {},
  ): AsyncGenerator<InferResult> {
    const running: Promise<InferResult>[] = [];
    for await (const inputs of frames) {
      const result = this.infer(deployment, inputs, options);
      // It is awaited below, in turn; until then a rejection is not unhandled.
      result.catch(() => undefined);
      running.push(result);
      const first = running.length >= this.#window ? running.shift() : undefined;
      if (first !== undefined) yield await first;
    }
    for (const result of running) yield await result;
  }

  /** How frames travel now: `direct`, `relay` or `down`. */
  lane(): string {
    return this.#frames.lane();
  }

  /** Unfinished frames fail with STOPPED. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const error = new ChairError('STOPPED', 'the client was closed');
    this.#closing.abort(error);
    this.#requests.stop(error);
    await this.#frames.stop(error);
    await this.#bus.stop();
  }

  get #window(): number {
    return this.#o.window ?? 16;
  }

  get #timeoutMs(): number {
    return this.#o.requestTimeoutMs ?? 10_000;
  }

  /** Where the dispatcher's lane is; undefined when frames are to go through the broker. */
  async #where(): Promise<PeerEntry | undefined> {
    const { status } = await this.#requests.request({ kind: 'where', where: { name: '-' } }, this.#timeoutMs, 'where', ASK_AGAIN_MS);
    if (status === null || this.#o.relayOnly === true) return undefined;
    return { agent: DISPATCHER, addresses: status.dispatcherAddresses, lanePort: status.dispatcherPort };
  }
}
