/**
 * What programs use: requests to the scheduler over the broker, frames to the dispatcher over a lane. Each frame has exactly one outcome here:
 * a lost connection is repaired, unfinished frames are sent again under their number, and a result that comes twice is taken once.
 */
import { randomBytes, randomInt, randomUUID } from 'node:crypto';
import { decodeResult, encodeSubmit, readTensor } from '../broker/activation.js';
import type { Bus } from '../broker/bus.js';
import { encode } from '../broker/codec.js';
import { ChairError, ERROR_CODES, type ErrorCode, toChairError } from '../broker/errors.js';
import type { LaneMessage, Lanes } from '../broker/lanes/lane.js';
import { createLanes } from '../broker/lanes/lanes.js';
import type {
  DeployRequest,
  LinksRequest,
  ModelAnswer,
  ModelOffer,
  PlanReport,
  ProfileReport,
  ProfileRequest,
  RequestBody,
  Response,
  StatusReport,
} from '../broker/messages.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { checkTensor, type Tensor } from '../broker/tensor.js';
import { DISPATCHER, type Topics, topicsOf } from '../broker/topics.js';
import { Waitress } from '../broker/waitress.js';
import { DEPLOY_DEFAULTS, PROFILE_DEFAULTS } from './deploy-defaults.js';
import { answeredDeploy } from './deploy-watch.js';
import { answeredProfile } from './profiles/ask.js';
import type { UploadOptions } from './upload.js';

export interface ClientOptions {
  /** `mqtt://host:1883` */
  readonly brokerUrl: string;
  readonly cluster: string;
  /** Name under which frames are numbered; default: random. A program that names itself must not run twice. */
  readonly name?: string;
  /** Frames outstanding at once; more wait in here. Default 16. */
  readonly window?: number;
  /** For status and undeploy; default 10,000 ms. A gateway that is silent for three times as long is given up while it deploys. */
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

export interface InferResult {
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** From admission by the dispatcher to the last output. */
  readonly latencyMs: number;
  readonly attempts: number;
}

/** The minimum of a deploy request; everything else has the scheduler's defaults. */
/** What to measure; the rest has defaults. */
export type ProfileOptions = Partial<Omit<ProfileRequest, 'job' | 'cancel'>> & Pick<ProfileRequest, 'model'>;
export type DeployOptions = Partial<DeployRequest> & Pick<DeployRequest, 'name' | 'model'>;

interface Outstanding {
  readonly sequence: number;
  readonly deployment: string;
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly deadlineAtMs: number;
  readonly outputs: Record<string, Tensor>;
  readonly resolve: (result: InferResult) => void;
  readonly reject: (error: Error) => void;
  sent: boolean;
  sending: boolean;
  /** Without an answer until then it is sent again; each time the wait doubles. */
  sendAgainMs: number;
  waitMs: number;
  timer: NodeJS.Timeout | undefined;
}

const DEADLINE_MS = 30_000;
/** The dispatcher answers at the deadline; the client waits this much longer for that answer before it says so itself. */
const ANSWER_GRACE_MS = 2000;
/** A frame without an answer is sent again after this, then after twice this, ...: a lane is QoS 0, and the dispatcher knows what it has. */
/** All links of a large cluster, one after another. */
const MEASURE_LINKS_MS = 3 * 60_000;
const RESEND_MS = 5000;
const DEPLOY_TIMEOUT_MS = 30 * 60_000;
/** The gateway may have to hash gigabytes on a slow card. */
const OFFER_TIMEOUT_MS = 5 * 60_000;

/** Between questions how far a profile job is. */
const PROFILE_ASK_MS = 500;

export class ChairClient {
  readonly name: string;
  readonly #o: ClientOptions;
  readonly #bus: Bus;
  readonly #topics: Topics;
  readonly #lanes: Lanes;
  readonly #responses = new Waitress<Response>();
  readonly #outstanding = new Map<number, Outstanding>();
  readonly #waiting: Outstanding[] = [];
  readonly #undo: (() => void)[] = [];
  readonly #closing = new AbortController();
  #located: Promise<void> | undefined;
  /** Not from 1: the dispatcher may still keep answers to an earlier process of this name. */
  #sequence = randomInt(2 ** 47);
  #previous: Promise<unknown> = Promise.resolve();
  #closed = false;

  /** Throws BROKER_UNREACHABLE. */
  static async connect(options: ClientOptions): Promise<ChairClient> {
    const name = options.name ?? `client-${randomBytes(4).toString('hex')}`;
    const bus = await connectBus({ url: options.brokerUrl, id: name });
    const client = new ChairClient(options, name, bus);
    try {
      await client.#start();
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
    this.#lanes = createLanes({ id: name, cluster: options.cluster, bus, listen: false });
  }

  async #start(): Promise<void> {
    this.#undo.push(this.#lanes.on(this.#topics.result(this.name), (message) => this.#result(message)));
    await this.#lanes.start();
    await this.#bus.subscribe(this.#topics.response(this.name), (response) => void this.#responses.settle(response.id, response));
    this.#undo.push(
      this.#lanes.onPeer((peer, lane) => {
        if (peer === DISPATCHER) this.#laneChanged(lane);
      }),
      this.#bus.onConnect(() => this.#laneChanged(this.lane())),
    );
    const timer = setInterval(() => this.#resubmit(), RESEND_MS / 5);
    this.#undo.push(() => clearInterval(timer));
  }

  /** What travelled on a lane that broke, in either direction, may be lost; and the dispatcher may be another one now. */
  #laneChanged(lane: string): void {
    if (lane !== 'direct') {
      this.#located = undefined;
      for (const frame of this.#outstanding.values()) frame.sendAgainMs = 0;
    }
    if (lane !== 'down') this.#resubmit();
  }

  /**
   * Resolves when the deployment serves. Throws what the scheduler found (MODEL_..., PLAN_..., PREPARE_FAILED, ...), STOPPED when the gateway
   * was restarted meanwhile, REQUEST_TIMEOUT when it fell silent.
   */
  async deploy(options: DeployOptions, timeoutMs = DEPLOY_TIMEOUT_MS): Promise<PlanReport> {
    const deploy = { ...DEPLOY_DEFAULTS, ...options };
    const { name, dryRun } = deploy;
    const answer = this.#request({ kind: 'deploy', deploy }, timeoutMs, `deploy ${name}`).then(({ plan }) => plan);
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
      const { model } = await this.#request({ kind: 'offer', offer }, OFFER_TIMEOUT_MS, 'offer of a model');
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
   * QUEUE_FULL, STOPPED, REQUEST_TIMEOUT when the gateway fell silent. An agent that cannot measure is a row with a code, not an error.
   */
  async profile(options: ProfileOptions, onProgress?: (report: ProfileReport) => void): Promise<ProfileReport> {
    const request = { ...PROFILE_DEFAULTS, ...options, job: `${this.name}-${randomUUID()}`, cancel: false };
    const ask = async (asked: ProfileRequest): Promise<ProfileReport> => {
      const { profile } = await this.#request({ kind: 'profile', profile: asked }, this.#timeoutMs, 'profile');
      if (profile === null) throw new ChairError('INTERNAL', 'the scheduler answered a request for profiles without any');
      return profile;
    };
    const times = { everyMs: PROFILE_ASK_MS, silentMs: 3 * this.#timeoutMs, signal: this.#closing.signal };
    return answeredProfile(request, { ask, ...times, ...(onProgress === undefined ? {} : { onProgress }) });
  }

  async undeploy(name: string): Promise<void> {
    await this.#request({ kind: 'undeploy', undeploy: { name } }, this.#timeoutMs, `undeploy ${name}`);
    // The same name may come back with another model, perhaps from another gateway.
    this.#located = undefined;
  }

  /** Of one deployment, or of all. */
  async status(name = ''): Promise<StatusReport> {
    const { status } = await this.#request({ kind: 'status', status: { name } }, this.#timeoutMs, 'status');
    if (status === null) throw new ChairError('INTERNAL', 'the scheduler answered a status request without a status');
    return status;
  }

  /** What is known of links; with `measure`, after measuring, which can take a minute. Throws AGENT_UNKNOWN. */
  async links(request: LinksRequest): Promise<StatusReport> {
    const { status } = await this.#request(
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
    const frame = this.#enqueue(deployment, inputs, options.deadlineMs ?? DEADLINE_MS);
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
    return this.#lanes.health().find((peer) => peer.peer === DISPATCHER)?.lane ?? 'down';
  }

  /** Unfinished frames fail with STOPPED. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const undo of this.#undo.splice(0)) undo();
    const error = new ChairError('STOPPED', 'the client was closed');
    this.#closing.abort(error);
    this.#responses.cancelAll(error);
    for (const frame of [...this.#outstanding.values(), ...this.#waiting]) this.#end(frame, () => frame.reject(error));
    await this.#lanes.stop();
    await this.#bus.stop();
  }

  get #window(): number {
    return this.#o.window ?? 16;
  }

  get #timeoutMs(): number {
    return this.#o.requestTimeoutMs ?? 10_000;
  }

  async #request(body: RequestBody, deadlineMs: number, what: string): Promise<Response> {
    if (this.#closed) throw new ChairError('STOPPED', 'the client was closed');
    const id = randomUUID();
    const wait = this.#responses.wait(
      id,
      deadlineMs,
      `'${what}' from the scheduler of cluster '${this.#o.cluster}' (does its gateway run?)`,
    );
    try {
      await this.#bus.publish(this.#topics.request, { id, client: this.name, deadlineMs, body });
    } catch (error) {
      wait.cancel(toChairError(error));
    }
    const response = await wait.reply;
    if (response.code !== '') throw new ChairError(codeOf(response.code), response.message);
    return response;
  }

  /** Learns once where the dispatcher's lane is. Until it is up, and when it cannot be reached, frames go through the broker. */
  #locate(): Promise<void> {
    this.#located ??= this.#request({ kind: 'where', where: { name: '-' } }, this.#timeoutMs, 'where').then(
      ({ status }) => {
        if (status === null || this.#o.relayOnly === true || this.#closed) return;
        const { dispatcherAddresses: addresses, dispatcherPort: lanePort } = status;
        this.#lanes.setPeers([{ agent: DISPATCHER, addresses, lanePort }]);
      },
      (error: unknown) => {
        this.#located = undefined;
        throw error;
      },
    );
    return this.#located;
  }

  #enqueue(deployment: string, inputs: Readonly<Record<string, Tensor>>, deadlineMs: number): Promise<InferResult> {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new ChairError('STOPPED', 'the client was closed');
      for (const [name, tensor] of Object.entries(inputs)) checkTensor(tensor, `input '${name}'`);
      const deadlineAtMs = performance.now() + deadlineMs;
      const frame: Outstanding = {
        sequence: ++this.#sequence,
        deployment,
        inputs,
        deadlineAtMs,
        outputs: {},
        resolve,
        reject,
        sent: false,
        sending: false,
        sendAgainMs: 0,
        waitMs: RESEND_MS,
        timer: undefined,
      };
      frame.timer = setTimeout(() => this.#late(frame, deadlineMs), deadlineMs + ANSWER_GRACE_MS);
      this.#waiting.push(frame);
      this.#pump();
    });
  }

  #pump(): void {
    while (this.#outstanding.size < this.#window) {
      const frame = this.#waiting.shift();
      if (frame === undefined) return;
      this.#outstanding.set(frame.sequence, frame);
      void this.#submit(frame);
    }
  }

  /** One message per input. What fails here is sent again when a lane comes (back) up. */
  async #submit(frame: Outstanding): Promise<void> {
    const { deployment, sequence, inputs } = frame;
    frame.sending = true;
    try {
      await this.#locate();
      const entries = Object.entries(inputs);
      for (const [input, { dtype, dims, bytes }] of entries) {
        const deadlineMs = Math.max(1, frame.deadlineAtMs - performance.now());
        const header = { client: this.name, sequence, deployment, deadlineMs, input, inputCount: entries.length, dtype, dims };
        await this.#lanes.send(DISPATCHER, this.#topics.submit, encodeSubmit(header, bytes));
      }
      frame.sent = true;
      frame.sendAgainMs = performance.now() + frame.waitMs;
      frame.waitMs *= 2;
    } catch (thrown) {
      const error = toChairError(thrown);
      // A lane that is down comes back, the frame waits for it. Anything else will not get better by itself.
      if (!PASSING.has(error.code)) this.#end(frame, () => frame.reject(error));
    } finally {
      frame.sending = false;
    }
  }

  #resubmit(): void {
    const now = performance.now();
    for (const frame of this.#outstanding.values()) {
      if (!frame.sending && now >= frame.sendAgainMs) void this.#submit(frame);
    }
  }

  #result(message: LaneMessage): void {
    const { header, data } = decodeResult(message.payload);
    const { sequence, code, output, outputCount, latencyMs, attempts } = header;
    const frame = this.#outstanding.get(sequence);
    // A second time: acknowledged again, as the first acknowledgement may have been lost.
    if (frame === undefined) {
      this.#acknowledge(sequence);
      return;
    }
    if (code !== '') {
      this.#acknowledge(sequence);
      this.#end(frame, () => frame.reject(new ChairError(codeOf(code), header.message)));
      return;
    }
    frame.outputs[output] = readTensor(header, data);
    data.discard();
    if (Object.keys(frame.outputs).length < outputCount) return;
    this.#acknowledge(sequence);
    this.#end(frame, () => frame.resolve({ outputs: frame.outputs, latencyMs, attempts }));
  }

  #acknowledge(sequence: number): void {
    const ack = encode('ResultAck', { client: this.name, sequence });
    this.#lanes.send(DISPATCHER, this.#topics.resultAck.name, [ack]).catch(() => {
      // Only frees memory earlier: the dispatcher forgets results by age, too.
    });
  }

  #late(frame: Outstanding, deadlineMs: number): void {
    const what = frame.sent ? 'the frame was sent, no answer came' : 'the frame could not be sent';
    const error = new ChairError('REQUEST_TIMEOUT', `no result of '${frame.deployment}' within ${deadlineMs} ms; ${what}`, {
      todo: 'Look at `musical-chair status`: does the gateway run, and is the deployment serving?',
    });
    this.#end(frame, () => frame.reject(error));
  }

  #end(frame: Outstanding, settle: () => void): void {
    clearTimeout(frame.timer);
    this.#outstanding.delete(frame.sequence);
    const at = this.#waiting.indexOf(frame);
    if (at >= 0) this.#waiting.splice(at, 1);
    settle();
    if (!this.#closed) this.#pump();
  }
}

const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'LANE_DOWN',
  'QUEUE_FULL',
  'BROKER_LOST',
  'BROKER_UNREACHABLE',
  'REQUEST_TIMEOUT',
]);

function codeOf(code: string): ErrorCode {
  return code in ERROR_CODES ? (code as ErrorCode) : 'INTERNAL';
}
