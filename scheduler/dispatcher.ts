/**
 * Where frames enter and results leave. This is the shell: lanes and timers in, effects out. What becomes of a frame is decided in
 * frames.ts. From the scheduler it needs to know only which plan is in force and which agents are gone.
 * Long, because everything that enters acts on the same table of deployments; intake, assembly of results, traces and checks of what comes are files of their own.
 */
import { decodeActivation, decodeSubmit, encodeBox, encodeResult } from '../broker/activation.js';
import { BufferPool, type Buffers } from '../broker/buffers.js';
import type { Bus } from '../broker/bus.js';
import { decode, encode } from '../broker/codec.js';
import { type ChairError, toChairError } from '../broker/errors.js';
import type { LaneMessage, Lanes } from '../broker/lanes/lane.js';
import type { ActivationHeader, Cancel, DeploymentStatus, ResultAck, ResultHeader, SubmitHeader, Trouble } from '../broker/messages.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
import type { Refusals } from '../broker/refusals.js';
import { discard, joinSegments } from '../broker/segments.js';
import { boxDims, type TensorInfo, tensorBytes, wholeBox } from '../broker/tensor.js';
import { DISPATCHER, ownerOf, type Topics } from '../broker/topics.js';
import { Assembly, type Tensors } from './assembly.js';
import { FrameTrace } from './frame-trace.js';
import { type Answer, FRAME_LIMITS, type FrameEffect, type FrameLimits, type Issue } from './frame-types.js';
import { FrameTable } from './frames.js';
import { HeldInputs } from './held-inputs.js';
import { Intake } from './intake.js';
import { agentsOf } from './plan-builder.js';
import type { Network } from './router.js';

const TICK_MS = 50;
/** Ticks that come so late mean that this process, or its machine, stood still. */
const STOOD_STILL_MS = 3000;

export interface DispatcherOptions {
  readonly bus: Bus;
  readonly lanes: Lanes;
  readonly topics: Topics;
  /** What `lanes` are read into: inputs of frames stay there, and go back. Default: none is used again. */
  readonly buffers?: Buffers;
  /** Monotonic, ms. */
  readonly now?: () => number;
  /** An epoch that is not in force any more has no frame under way: its seats may be released. */
  readonly onDrained?: (deployment: string, epoch: number) => void;
  /** An agent could not reach a peer. */
  readonly onTrouble?: (trouble: Trouble) => void;
  /** This process stood still for so long: others may have gone on without it. Called before anything else is done. */
  readonly onStoodStill?: (ms: number) => void;
  /** A lane message could not be read, or did not fit its deployment. */
  readonly onRefused?: (error: ChairError) => void;
  /** Counts what is not acted on. */
  readonly refusals?: Refusals;
}

export type DispatcherStats = { readonly submitted: number } & Pick<
  DeploymentStatus,
  'inFlight' | 'queued' | 'completed' | 'failed' | 'reissued' | 'rawFallbacks' | 'recovered' | 'p50Ms' | 'p95Ms' | 'framesPerSecond'
>;

interface Served {
  readonly intake: Intake;
  readonly inputs: HeldInputs;
  readonly frames: FrameTable<Tensors, Tensors>;
  readonly assembly: Assembly;
  /** By epoch: the one in force, and those that still drain. */
  readonly plans: Map<number, Plan>;
  epochInForce: number;
  /** Agents that frames of one epoch are leaving, and who waits for it. */
  retiring: { readonly agent: string; readonly epoch: number; readonly left: () => void }[];
  /** Boxes sent raw although their wire says otherwise. */
  rawFallbacks: number;
}

export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #now: () => number;
  readonly #buffers: Buffers;
  readonly #served = new Map<string, Served>();
  /** Frame numbers go on when a deployment is removed and made again: agents remember how far they were. */
  readonly #nextNumbers = new Map<string, number>();
  /** Agents that have fallen silent, kept by whoever watches them: frames go other ways where there are any. */
  readonly suspects = new Set<string>();
  readonly #undo: (() => void | Promise<void>)[] = [];
  /** Notes what becomes of frames, while somebody asked for it. */
  readonly trace: FrameTrace;
  #term = 0;
  #tickedMs: number;
  /** Another scheduler may be at work: results are right whoever computed them, but what fails here may succeed there. Those failures are not said. */
  unsure = false;
  /** Messages that could not be read or did not fit; results that did not reach their client (they stay for its resubmission). */
  refused = 0;
  undelivered = 0;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#buffers = options.buffers ?? new BufferPool(0);
    this.trace = new FrameTrace(this.#now);
    this.#tickedMs = this.#now();
  }

  async start(): Promise<void> {
    const { bus, lanes, topics } = this.#options;
    this.#undo.push(
      lanes.on(topics.submit, (message) => this.#readable(message, () => this.#submit(message))),
      lanes.on(topics.activation(DISPATCHER), (message) => this.#readable(message, () => this.#activation(message))),
      lanes.on(topics.resultAck.name, (message) => this.#readable(message, () => this.#acknowledge(message))),
      await bus.subscribe(topics.trouble, (trouble) => this.#trouble(trouble)),
    );
    this.#tickedMs = this.#now();
    const timer = setInterval(() => this.#tick(), TICK_MS);
    this.#undo.push(() => clearInterval(timer));
  }

  /** Frames under way are not answered: their clients send them again to whoever dispatches next, and know themselves how long to wait. */
  async stop(): Promise<void> {
    this.#served.clear();
    for (const undo of this.#undo.splice(0)) await undo();
  }

  /** From now on frames of this deployment are taken; they wait until a plan is installed. */
  add(name: string, inputs: readonly TensorInfo[], limits: Partial<FrameLimits> = {}): void {
    const frames = new FrameTable<Tensors, Tensors>({ ...FRAME_LIMITS, ...limits }, this.#nextNumbers.get(name) ?? 1, this.suspects);
    const state = { plans: new Map<number, Plan>(), epochInForce: -1, retiring: [], rawFallbacks: 0 };
    const memory = { intake: new Intake(inputs, this.#buffers), inputs: new HeldInputs(this.#buffers) };
    this.#served.set(name, { ...memory, frames, assembly: new Assembly(), ...state });
  }

  /** New frames go out by this plan; frames under way finish in theirs. `turns`: see Network; `absent`: see InForce. */
  install(plan: Plan, budget: number, turns: Pick<Network, 'weights' | 'inTurn'> = {}, absent: readonly string[] = []): void {
    const served = this.#served.get(plan.deployment);
    if (served === undefined) return;
    this.#term = plan.term;
    served.plans.set(plan.epoch, plan);
    served.epochInForce = plan.epoch;
    const { epoch, stages, predictedLatencyMs: expectedMs } = plan;
    this.#do(plan.deployment, served, served.frames.install({ epoch, stages, budget, expectedMs, ...turns, absent }, this.#now()));
  }

  /** No plan is in force: frames wait. */
  withdraw(name: string, why: string): void {
    this.#served.get(name)?.frames.withdraw(why);
  }

  agentLost(agent: string): void {
    for (const [name, served] of this.#served) this.#do(name, served, served.frames.agentLost(agent, this.#now()));
  }

  /** The same process is at another address: what was sent to where it was is issued again. */
  agentMoved(agent: string): void {
    for (const [name, served] of this.#served) this.#do(name, served, served.frames.agentMoved(agent, this.#now()));
  }

  /**
   * No new frames of the plan in force go through this agent. Resolves when those under way have left it, or after `patienceMs`: then they are issued again elsewhere,
   * or wait.
   */
  async retire(name: string, agent: string, patienceMs: number): Promise<void> {
    const served = this.#served.get(name);
    if (served === undefined) return;
    const epoch = served.epochInForce;
    served.frames.retire(agent);
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((left) => {
      served.retiring.push({ agent, epoch, left });
      timer = setTimeout(() => this.#do(name, served, served.frames.agentLost(agent, this.#now())), patienceMs);
      this.#do(name, served, []);
    });
    clearTimeout(timer);
  }

  /** An agent of the plan in force was only silent, or its seats are ready now. */
  agentBack(name: string, agent: string): void {
    const served = this.#served.get(name);
    if (served !== undefined) this.#do(name, served, served.frames.agentBack(agent, this.#now()));
  }

  /** Every unfinished frame of the deployment is answered with DEPLOYMENT_REMOVED. */
  remove(name: string): void {
    const served = this.#served.get(name);
    if (served === undefined) return;
    this.#nextNumbers.set(name, served.frames.nextNumber);
    this.#served.delete(name);
    this.#do(name, served, served.frames.remove(this.#now()));
    for (const { left } of served.retiring.splice(0)) left();
  }

  stats(name: string): DispatcherStats {
    const frames = this.#served.get(name)?.frames;
    const { inFlight = 0, queued = 0, submitted = 0, completed = 0, failed = 0, reissued = 0 } = frames ?? {};
    const { p50Ms, p95Ms, framesPerSecond } = frames?.stats(this.#now()) ?? { p50Ms: 0, p95Ms: 0, framesPerSecond: 0 };
    return {
      inFlight,
      queued,
      submitted,
      completed,
      failed,
      reissued,
      rawFallbacks: this.#served.get(name)?.rawFallbacks ?? 0,
      recovered: this.#served.get(name)?.assembly.recovered ?? 0,
      p50Ms,
      p95Ms,
      framesPerSecond,
    };
  }

  #submit(message: LaneMessage): void {
    const { header, data } = decodeSubmit(message.payload);
    if (!this.#isFrom(message, header.client)) return;
    const served = this.#served.get(header.deployment);
    if (served === undefined) {
      const known = [...this.#served.keys()].join(', ') || 'none';
      this.#fail(header, 'DEPLOYMENT_UNKNOWN', `there is no deployment '${header.deployment}'; there are: ${known}`);
      return;
    }
    try {
      const frame = served.intake.add(header, data, this.#now());
      if (frame === undefined) return;
      const { client, sequence, deadlineMs } = header;
      const submission = { client, sequence, deadlineMs, input: frame.inputs, bytes: frame.bytes };
      this.#do(header.deployment, served, served.frames.submit(submission, this.#now()));
    } catch (error) {
      const { code, message: text } = toChairError(error, 'FRAME_INVALID');
      this.#fail(header, code, text);
    }
  }

  #activation(message: LaneMessage): void {
    const { header, data } = decodeActivation(message.payload);
    const served = this.#served.get(header.deployment);
    const plan = served?.plans.get(header.epoch);
    const { refusals } = this.#options;
    // Late: of a deployment, term or epoch that is over, or of a frame that is answered.
    if (served === undefined || plan === undefined || header.term !== this.#term) {
      refusals?.count('EPOCH_STALE', `${resultText(header)} came when its epoch was over`);
      return;
    }
    if (!served.frames.awaits(header.frame, header.attempt)) {
      refusals?.count('FRAME_LATE', `${resultText(header)} is not waited for any more`);
      return;
    }
    const sender = senderOf(plan, header);
    if (sender !== undefined && message.from !== sender) {
      refusals?.count('SENDER_WRONG', `${resultText(header)} came from ${message.from} and not from ${sender}`);
      return;
    }
    const outputs = served.assembly.add(plan, header, data);
    if (outputs === undefined) return;
    this.#complete(header.deployment, served, header.frame, header.attempt, outputs);
  }

  #acknowledge(message: LaneMessage): void {
    const { client, sequence } = decode('ResultAck', joinSegments(message.payload)) as ResultAck;
    if (!this.#isFrom(message, client)) return;
    for (const served of this.#served.values()) served.frames.acknowledge(client, sequence);
  }

  /** Nobody sends frames, or takes results, in another's name. */
  #isFrom({ from }: LaneMessage, client: string): boolean {
    if (ownerOf(client) === ownerOf(from)) return true;
    this.#options.refusals?.count('SENDER_WRONG', `a frame of client ${client.slice(0, 100)} came from ${from}`);
    return false;
  }

  #trouble(trouble: Trouble): void {
    const served = this.#served.get(trouble.deployment);
    const plan = served?.plans.get(trouble.epoch);
    const { refusals, onTrouble } = this.#options;
    if (served === undefined || plan === undefined || trouble.term !== this.#term) {
      refusals?.count(
        'EPOCH_STALE',
        `trouble of agent ${trouble.agent} with frame ${trouble.frame} of ${trouble.deployment} epoch ${trouble.epoch}`,
      );
      return;
    }
    if (!agentsOf(plan).has(trouble.agent)) {
      refusals?.count(
        'SENDER_WRONG',
        `agent ${trouble.agent} has no seat in ${trouble.deployment} epoch ${trouble.epoch}, and reports trouble there`,
      );
      return;
    }
    if (!served.frames.concerns(trouble.frame, trouble.attempt, trouble.agent)) {
      refusals?.count(
        'SENDER_WRONG',
        `agent ${trouble.agent} reports trouble with frame ${trouble.frame} attempt ${trouble.attempt} of ${trouble.deployment}, which is not under way through it`,
      );
      return;
    }
    if (trouble.peer !== '' && trouble.code === 'LANE_DOWN') onTrouble?.(trouble);
    this.#do(trouble.deployment, served, served.frames.trouble(trouble, this.#now()));
  }

  /** When a stopped process goes on, messages may come before its timers do. */
  #awake(): void {
    const now = this.#now();
    const stoodMs = now - this.#tickedMs;
    this.#tickedMs = now;
    if (stoodMs > STOOD_STILL_MS) this.#options.onStoodStill?.(stoodMs);
  }

  #tick(): void {
    this.#awake();
    for (const [name, served] of this.#served) this.#do(name, served, served.frames.tick(this.#now()));
  }

  #do(name: string, served: Served, effects: readonly FrameEffect<Tensors, Tensors>[]): void {
    for (const effect of effects) {
      if (effect.kind === 'issue') this.#issue(name, served, effect);
      else if (effect.kind === 'answer') this.#answer(name, served, effect);
      else {
        served.assembly.drop(effect.frame, effect.attempt);
        const { epoch, frame, attempt } = effect;
        this.#cancel(effect.agents, { deployment: name, term: this.#term, epoch, frame, attempt });
      }
    }
    if (effects.some(({ kind }) => kind !== 'issue')) this.#options.lanes.purge();
    for (const waiting of [...served.retiring]) {
      if (served.frames.usesAgent(waiting.epoch, waiting.agent)) continue;
      served.retiring = served.retiring.filter((other) => other !== waiting);
      waiting.left();
    }
    for (const epoch of served.plans.keys()) {
      if (epoch === served.epochInForce || served.frames.usesEpoch(epoch)) continue;
      served.plans.delete(epoch);
      this.#options.onDrained?.(name, epoch);
    }
  }

  /** Sends the boxes of the inputs along the SOURCE wires. */
  #issue(name: string, served: Served, issue: Issue<Tensors>): void {
    const plan = served.plans.get(issue.epoch);
    if (plan === undefined) return;
    const { frame, attempt, epoch, route, remainingMs, input, without } = issue;
    const outputs = served.assembly.begin(plan, frame, attempt, input);
    if (outputs !== undefined) {
      // Nothing to compute. Not within the caller's loop over effects, of which this would be a part.
      queueMicrotask(() => this.#complete(name, served, frame, attempt, outputs));
      return;
    }
    const ids = { deployment: name, term: plan.term, epoch, frame, attempt, route, lowWater: served.frames.lowWater, remainingMs };
    const noted = this.trace.issued(name, frame, attempt);
    for (const [index, wire] of plan.wires.entries()) {
      const agent = plan.stages[wire.toStage]?.agents[route[wire.toStage] ?? 0]?.[wire.toPart];
      const tensor = input[plan.inputs[wire.output]?.name ?? ''];
      if (wire.fromStage !== SOURCE || wire.toStage === SINK || agent === undefined || tensor === undefined) continue;
      if (without.has(agent)) continue;
      const header = { ...ids, wire: index, dtype: tensor.dtype, dims: boxDims(wire.box) };
      const startMs = this.#now();
      // A part of the input is gathered into one of these.
      const copies: Uint8Array[] = [];
      const take = (sizeBytes: number): Uint8Array => {
        const copy = this.#buffers.take(sizeBytes);
        copies.push(copy);
        return copy;
      };
      const { message, fallback } = encodeBox(header, wire.encoding, tensor.bytes, wholeBox(tensor.dims), wire.box, take);
      if (fallback !== '') served.rawFallbacks++;
      const bytes = tensorBytes(tensor.dtype, header.dims);
      if (noted) this.trace.left('serialise', frame, attempt, startMs, { agent, wire }, bytes);
      const sendMs = this.#now();
      const wanted = (): boolean => served.frames.isLive(frame, attempt);
      const sent = this.#options.lanes.send(agent, this.#options.topics.activation(agent), message, { wanted });
      served.inputs.sending(frame, input, sent);
      if (noted) void sent.then(() => this.trace.left('send', frame, attempt, sendMs, { agent, wire }, bytes)).catch(() => undefined);
      const left = (): void => {
        for (const copy of copies) this.#buffers.give(copy);
      };
      // After a failure a socket may still read them: they are left to the garbage collector.
      sent.then(left, (error: unknown) => {
        const { code, message } = toChairError(error, 'LANE_DOWN');
        const trouble = { frame, attempt, agent: DISPATCHER, peer: agent, code, message };
        this.#do(name, served, served.frames.trouble(trouble, this.#now()));
      });
    }
  }

  #complete(name: string, served: Served, frame: number, attempt: number, outputs: Tensors): void {
    const bytes = Object.values(outputs).reduce((sum, tensor) => sum + tensorBytes(tensor.dtype, tensor.dims), 0);
    this.#do(name, served, served.frames.complete(frame, attempt, outputs, bytes, this.#now()));
  }

  #answer(name: string, served: Served, answer: Answer<Tensors>): void {
    if (answer.frame > 0) {
      served.assembly.drop(answer.frame);
      served.inputs.answered(answer.frame);
    }
    const { client, sequence, attempts, latencyMs } = answer;
    if (answer.error === undefined) this.trace.answered(name, answer.frame, attempts, latencyMs);
    if (answer.error !== undefined) {
      this.#fail({ client, sequence }, answer.error.code, answer.error.message, attempts, latencyMs);
      return;
    }
    const outputs = Object.entries(answer.output ?? {});
    for (const [output, { dtype, dims, bytes }] of outputs) {
      const ids = { client, sequence, code: '', message: '', output, outputCount: outputs.length, attempts, latencyMs };
      this.#send({ ...ids, dtype, dims }, bytes);
    }
  }

  #fail(to: Pick<SubmitHeader, 'client' | 'sequence'>, code: string, message: string, attempts = 0, latencyMs = 0): void {
    // A frame that is not answered comes again.
    if (this.unsure) return;
    const { client, sequence } = to;
    const none = { output: '', outputCount: 0, dtype: 'float32' as const, dims: [] };
    this.#send({ client, sequence, code, message, attempts, latencyMs, ...none }, new Uint8Array(0));
  }

  #send(header: ResultHeader, bytes: Uint8Array): void {
    const topic = this.#options.topics.result(header.client);
    this.#options.lanes.send(header.client, topic, encodeResult(header, bytes)).catch(() => {
      // The client is away. The answer is kept: it resubmits the frame when it is back, and gets it then.
      this.undelivered++;
    });
  }

  #cancel(agents: readonly string[], cancel: Cancel): void {
    const payload = [encode('Cancel', cancel)];
    for (const agent of agents) {
      // Not behind what it is about.
      this.#options.lanes.send(agent, this.#options.topics.cancel(agent).name, payload, { urgent: true }).catch(() => {
        // Only a hint: an agent that cannot be reached drops the attempt when the low-water mark passes it.
      });
    }
  }

  /** A message that cannot be read or does not fit is counted and reported; it must not stop the lane. Its memory goes back, whatever became of it: of a coded stage one message of each frame comes too late. */
  #readable({ payload }: LaneMessage, read: () => void): void {
    if (this.#now() - this.#tickedMs > STOOD_STILL_MS) this.#awake();
    try {
      read();
    } catch (error) {
      this.refused++;
      this.#options.onRefused?.(toChairError(error));
    } finally {
      discard(payload);
    }
  }
}

/** Who is seated at the beginning of the wire on this route; undefined for a wire or route that fits no plan. */
function senderOf({ wires, stages }: Plan, { wire, route }: ActivationHeader): string | undefined {
  const along = wires[wire];
  if (along === undefined || along.fromStage === SOURCE) return undefined;
  return stages[along.fromStage]?.agents[route[along.fromStage] ?? -1]?.[along.fromPart];
}

function resultText({ deployment, epoch, frame, attempt, wire }: ActivationHeader): string {
  return `a box of wire ${wire} of frame ${frame} attempt ${attempt} of ${deployment} epoch ${epoch}`;
}
