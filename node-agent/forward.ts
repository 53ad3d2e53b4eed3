/**
 * Takes a seat's outputs to their consumers: into a join of this agent without a socket, or along a lane. Nothing here waits for a neighbour;
 * bytes being sent count in the frame budget, and a send that fails is reported for re-issue. What has not left when nobody waits for its frame any more does
 * not leave. The buffer of an output is used again after its last use.
 */
import { encodeBox } from '../broker/activation.js';
import type { Buffers } from '../broker/buffers.js';
import { ChairError } from '../broker/errors.js';
import type { Lanes } from '../broker/lanes/lane.js';
import type { LaneHealth } from '../broker/messages.js';
import { boxDims, boxEquals, copyBox, itemBytes, type Tensor, tensorBytes } from '../broker/tensor.js';
import type { Topics } from '../broker/topics.js';
import type { Epoch } from './epochs.js';
import type { FrameBudget, ReadyFrame, Refusal } from './join.js';
import { type Job, wanted } from './runner.js';
import type { Seat } from './seats.js';
import type { Tracer } from './tracing.js';

export interface ForwardOptions {
  readonly lanes: Lanes;
  readonly topics: Topics;
  readonly budget: FrameBudget;
  /** Where outputs go when nothing reads them any more. */
  readonly buffers: Buffers;
  readonly nowMs: () => number;
  readonly tracer?: Tracer;
  readonly onReady: (epoch: Epoch, frame: ReadyFrame) => void;
  readonly onRefused: (epoch: Epoch, frame: ReadyFrame, refusal: Refusal) => void;
  readonly onFailure: (epoch: Epoch, frame: ReadyFrame, peer: string, error: unknown) => void;
  /** The values of a box did not fit its wire's encoding: it travels raw. */
  readonly onRawFallback: (epoch: Epoch, wire: number, why: string) => void;
}

export class Forwarder {
  private readonly sending = new Set<Promise<void>>();
  /** Handed over inside this agent, without a socket. */
  localMessages = 0;
  private localBytes = 0;
  /** Sent in another encoding than raw; sent raw although the wire says otherwise. */
  encodedMessages = 0;
  rawFallbacks = 0;

  constructor(private readonly options: ForwardOptions) {}

  /** Starts all sends and returns. Never throws. */
  forward({ epoch, frame }: Job, outputs: Readonly<Record<string, Tensor>>): void {
    try {
      for (const { output, wires } of frame.seat.carried) {
        const tensor = outputs[frame.seat.outputs[output]?.name ?? ''];
        this.forwardOutput(epoch, frame, output, checked(frame.seat, output, tensor), wires);
      }
    } catch (error) {
      this.options.onFailure(epoch, frame, '', error);
    }
  }

  /** The lane to itself, once it was used. */
  health(self: string): LaneHealth[] {
    if (this.localMessages === 0) return [];
    const nothing = {
      ...{ sendMs: 0, receivedBytesPerSecond: 0, receivedSamples: 0, roundTripMs: 0 },
      ...{ waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0, messagesDropped: 0 },
    };
    return [{ peer: self, lane: 'local', why: '', bytesSent: this.localBytes, messagesSent: this.localMessages, ...nothing }];
  }

  /** Resolves when everything started so far was sent or failed. */
  async settled(): Promise<void> {
    await Promise.all(this.sending);
  }

  private forwardOutput(epoch: Epoch, frame: ReadyFrame, output: number, tensor: Tensor, wires: readonly number[]): void {
    const ends = wires.map((wire) => ({ wire, ...epoch.seats.consumer(wire, frame.route) }));
    const sends = ends.flatMap(({ wire, agent, seat }) =>
      seat === undefined ? [this.send(epoch, frame, output, tensor, wire, agent)] : [],
    );
    if (sends.length > 0) {
      this.options.budget.force(tensor.bytes.length);
      const all = Promise.all(sends).then((unread) => {
        this.options.budget.free(tensor.bytes.length);
        this.sending.delete(all);
        if (unread.every(Boolean)) this.options.buffers.give(tensor.bytes);
      });
      this.sending.add(all);
    }
    const local = ends.flatMap(({ wire, seat }) => (seat === undefined ? [] : [{ wire, seat }]));
    let given = false;
    local.forEach(({ wire, seat }, i) => {
      // The buffer itself goes to the last local consumer, unless a socket may still be reading it: a transferred buffer is gone.
      given = this.handOver(epoch, frame, output, tensor, wire, seat, sends.length === 0 && i === local.length - 1);
    });
    if (sends.length === 0 && !given) this.options.buffers.give(tensor.bytes);
  }

  /** True when the consumer owns the buffer now. */
  private handOver(epoch: Epoch, frame: ReadyFrame, output: number, tensor: Tensor, wire: number, seat: Seat, lastUse: boolean): boolean {
    const { joins, seats } = epoch;
    const { box } = seats.ends(wire).wire;
    const from = frame.seat.outputs[output];
    if (from === undefined) return false;
    this.localMessages++;
    this.localBytes += seats.ends(wire).bytes;
    this.options.tracer?.arrived(epoch.deployment, frame, seat, seats.ends(wire).bytes);
    if (lastUse && boxEquals(box, from.box) && joins.fitsWhole(seat, wire)) {
      const placed = joins.place(seat, wire, frame, tensor);
      if (typeof placed === 'object') this.options.onReady(epoch, placed);
      else if (placed !== 'waiting') {
        this.options.onRefused(epoch, frame, placed);
        return false;
      }
      return true;
    }
    const slot = joins.open(seat, wire, frame);
    if (typeof slot === 'string') {
      this.options.onRefused(epoch, frame, slot);
      return false;
    }
    copyBox(tensor.bytes, from.box, slot.port.bytes, slot.box, box, itemBytes(tensor.dtype));
    const ready = joins.fill(slot);
    if (ready !== undefined) this.options.onReady(epoch, ready);
    return false;
  }

  /** True when nothing reads the tensor's bytes any more; after a failure a socket still may. Never rejects. */
  private async send(epoch: Epoch, frame: ReadyFrame, output: number, tensor: Tensor, wire: number, peer: string): Promise<boolean> {
    const { buffers, lanes, topics, nowMs, tracer } = this.options;
    try {
      const { dtype, dims, wire: along } = epoch.seats.ends(wire);
      const holder = frame.seat.outputs[output]?.box ?? along.box;
      const header = {
        deployment: epoch.deployment,
        term: epoch.term,
        epoch: epoch.epoch,
        frame: frame.frame,
        attempt: frame.attempt,
        route: frame.route,
        wire,
        lowWater: epoch.joins.lowWater,
        remainingMs: Math.max(0, Math.round(frame.expiresAtMs - nowMs())),
        dtype,
        dims,
      };
      // A box that is not contiguous is gathered into one of these.
      const copies: Uint8Array[] = [];
      const take = (sizeBytes: number): Uint8Array => {
        const bytes = buffers.take(sizeBytes);
        copies.push(bytes);
        return bytes;
      };
      const startMs = nowMs();
      const { message, encoding, fallback } = encodeBox(header, along.encoding, tensor.bytes, holder, along.box, take);
      if (encoding !== 'raw') this.encodedMessages++;
      if (fallback !== '') {
        this.rawFallbacks++;
        this.options.onRawFallback(epoch, wire, fallback);
      }
      const { deployment } = epoch;
      const sizeBytes = epoch.seats.ends(wire).bytes;
      const target = { peer, wire: along };
      tracer?.left('serialise', deployment, frame, frame.seat, startMs, target, sizeBytes);
      const sendMs = nowMs();
      const isWanted = (): boolean => wanted({ epoch, frame }) && nowMs() < frame.expiresAtMs;
      const sent = await lanes.send(peer, topics.activation(peer), message, { wanted: isWanted });
      if (sent) tracer?.left('send', deployment, frame, frame.seat, sendMs, target, sizeBytes);
      // What is sent to this process itself, its receiver may keep.
      if (peer === lanes.id) return false;
      for (const bytes of copies) buffers.give(bytes);
      return true;
    } catch (error) {
      this.options.onFailure(epoch, frame, peer, error);
      return false;
    }
  }
}

/** The engine's output must be what the plan says, or its bytes would be read as something else downstream. */
function checked(seat: Seat, output: number, tensor: Tensor | undefined): Tensor {
  const port = seat.outputs[output];
  const dims = port === undefined ? [] : boxDims(port.box);
  if (port !== undefined && tensor !== undefined && tensor.dtype === port.dtype && tensor.bytes.length === tensorBytes(port.dtype, dims)) {
    return { dtype: tensor.dtype, dims, bytes: tensor.bytes };
  }
  throw new ChairError('ENGINE_RUN_FAILED', `output ${port?.name} of slice ${seat.slice}`, {
    expected: `${port?.dtype}[${dims.join(',')}]`,
    came: tensor === undefined ? 'nothing' : `${tensor.dtype}[${tensor.dims.join(',')}] of ${tensor.bytes.length} bytes`,
    todo: "The model's shapes depend on its data, which cannot be served; if they do not, this is a defect of the slicer",
  });
}
