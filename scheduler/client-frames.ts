/**
 * A client's frames: to the dispatcher over a lane. Each has exactly one outcome here: a lost connection is repaired, unfinished frames are sent again under
 * their number, and a result that comes twice is taken once.
 */
import { randomInt } from 'node:crypto';
import { decodeResult, encodeSubmit, readTensor } from '../broker/activation.js';
import type { Bus } from '../broker/bus.js';
import { encode } from '../broker/codec.js';
import { ChairError, type ErrorCode, toChairError } from '../broker/errors.js';
import type { LaneMessage, Lanes } from '../broker/lanes/lane.js';
import { createLanes } from '../broker/lanes/lanes.js';
import type { PeerEntry } from '../broker/messages.js';
import { checkTensor, type Tensor } from '../broker/tensor.js';
import { DISPATCHER, ownerOf, type Topics } from '../broker/topics.js';
import type { Trust } from '../broker/trust.js';
import { codeOf } from './client-requests.js';

export interface InferResult {
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** From admission by the dispatcher to the last output. */
  readonly latencyMs: number;
  readonly attempts: number;
}

export interface ClientFramesOptions {
  readonly bus: Bus;
  readonly topics: Topics;
  readonly client: string;
  readonly cluster: string;
  readonly trust?: Trust;
  /** Frames outstanding at once; more wait in here. */
  readonly window: number;
  /** Asks where the dispatcher's lane is; undefined = frames go through the broker. */
  readonly where: () => Promise<PeerEntry | undefined>;
}

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

/** The dispatcher answers at the deadline; the client waits this much longer for that answer before it says so itself. */
const ANSWER_GRACE_MS = 2000;
/** A frame without an answer is sent again after this, then after twice this, ...: a lane is QoS 0, and the dispatcher knows what it has. */
const RESEND_MS = 5000;
/** What passes: the frame waits and is sent again. */
const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'LANE_DOWN',
  'QUEUE_FULL',
  'BROKER_LOST',
  'BROKER_UNREACHABLE',
  'REQUEST_TIMEOUT',
]);

export class ClientFrames {
  readonly #o: ClientFramesOptions;
  readonly #lanes: Lanes;
  readonly #outstanding = new Map<number, Outstanding>();
  readonly #waiting: Outstanding[] = [];
  readonly #undo: (() => unknown)[] = [];
  #located: Promise<void> | undefined;
  /** Not from 1: the dispatcher may still keep answers to an earlier process of this name. */
  #sequence = randomInt(2 ** 47);
  #stopped: Error | undefined;
  #scheduler = '';

  constructor(options: ClientFramesOptions) {
    this.#o = options;
    const { client, cluster, bus, trust } = options;
    this.#lanes = createLanes({
      id: client,
      speaker: ownerOf(client),
      cluster,
      bus,
      listen: false,
      ...(trust === undefined ? {} : { trust }),
    });
  }

  async start(): Promise<void> {
    const { bus, topics, client } = this.#o;
    this.#undo.push(this.#lanes.on(topics.result(client), (message) => this.#result(message)));
    await this.#lanes.start();
    this.#undo.push(
      this.#lanes.onPeer((peer, lane) => {
        if (peer === DISPATCHER) this.#laneChanged(lane);
      }),
      bus.onConnect(() => this.#laneChanged(this.lane())),
      await bus.subscribe(topics.reign, ({ scheduler }) => this.#reigned(scheduler)),
    );
    const timer = setInterval(() => this.#resubmit(), RESEND_MS / 5);
    this.#undo.push(() => clearInterval(timer));
  }

  /** Unfinished frames, and those to come, fail with `error`. */
  async stop(error: Error): Promise<void> {
    this.#stopped = error;
    for (const undo of this.#undo.splice(0)) undo();
    for (const frame of [...this.#outstanding.values(), ...this.#waiting]) this.#end(frame, () => frame.reject(error));
    await this.#lanes.stop();
  }

  /** How frames travel now: `direct`, `relay` or `down`. */
  lane(): string {
    return this.#lanes.health().find((peer) => peer.peer === DISPATCHER)?.lane ?? 'down';
  }

  /** What was learned of the dispatcher's address may be wrong now. */
  forgetWhere(): void {
    this.#located = undefined;
  }

  /** See `ChairClient.infer`. */
  infer(deployment: string, inputs: Readonly<Record<string, Tensor>>, deadlineMs: number): Promise<InferResult> {
    return new Promise((resolve, reject) => {
      if (this.#stopped !== undefined) throw this.#stopped;
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

  /** What travelled on a lane that broke, in either direction, may be lost; and the dispatcher may be another one now. */
  #laneChanged(lane: string): void {
    if (lane !== 'direct') {
      this.#located = undefined;
      for (const frame of this.#outstanding.values()) frame.sendAgainMs = 0;
    }
    if (lane !== 'down') this.#resubmit();
  }

  /** Another scheduler, or the same one started anew: its dispatcher is elsewhere and knows of no frame that is under way. */
  #reigned(scheduler: string): void {
    const known = this.#scheduler;
    this.#scheduler = scheduler;
    if (known === scheduler) return;
    this.#located = undefined;
    for (const frame of this.#outstanding.values()) frame.sendAgainMs = 0;
    this.#resubmit();
  }

  /** Learns once where the dispatcher's lane is. Until it is up, and when it cannot be reached, frames go through the broker. */
  #locate(): Promise<void> {
    this.#located ??= this.#o.where().then(
      (peer) => {
        if (peer !== undefined && this.#stopped === undefined) this.#lanes.setPeers([peer]);
      },
      (error: unknown) => {
        this.#located = undefined;
        throw error;
      },
    );
    return this.#located;
  }

  #pump(): void {
    while (this.#outstanding.size < this.#o.window) {
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
        const header = { client: this.#o.client, sequence, deployment, deadlineMs, input, inputCount: entries.length, dtype, dims };
        const wanted = (): boolean => this.#outstanding.get(sequence) === frame;
        if (!(await this.#lanes.send(DISPATCHER, this.#o.topics.submit, encodeSubmit(header, bytes), { wanted }))) return;
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
    const ack = encode('ResultAck', { client: this.#o.client, sequence });
    this.#lanes.send(DISPATCHER, this.#o.topics.resultAck.name, [ack]).catch(() => {
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
    this.#lanes.purge();
    settle();
    if (this.#stopped === undefined) this.#pump();
  }
}
