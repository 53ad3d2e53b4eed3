/**
 * Lane messages that come in. Each is checked against the plan, copied once, from the socket's segments into its box of the seat's input (what is a whole input may be that
 * input as it was read), and the frame goes to the runner when it is complete. Handlers never block: receivers always read.
 */
import { decodeActivation, type LaneRecord, type SegmentReader, scatter } from '../broker/activation.js';
import type { Buffers } from '../broker/buffers.js';
import { decode } from '../broker/codec.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { LaneMessage } from '../broker/lanes/lane.js';
import type { ActivationHeader, Cancel } from '../broker/messages.js';
import type { Refusals } from '../broker/refusals.js';
import type { Repetition } from '../broker/repetition.js';
import { discard, joinSegments } from '../broker/segments.js';
import { itemBytes } from '../broker/tensor.js';
import type { EarlyBuffer } from './early.js';
import type { Epoch, EpochKey, Epochs } from './epochs.js';
import type { FrameKey, ReadyFrame, Refusal } from './join.js';
import type { Seat, WireEnds } from './seats.js';
import type { Tracer } from './tracing.js';

export interface InboxOptions {
  readonly epochs: Epochs;
  readonly early: EarlyBuffer<Arrived>;
  /** Where memory goes back to that was taken over from a lane for nothing. */
  readonly buffers: Buffers;
  readonly nowMs: () => number;
  readonly tracer?: Tracer;
  readonly onReady: (epoch: Epoch, frame: ReadyFrame) => void;
  /** Frames may have become unwanted: the runner should look through its queue. */
  readonly onUnwanted: () => void;
  readonly onTrouble: (key: EpochKey, frame: { readonly frame: number; readonly attempt: number }, error: unknown) => void;
  readonly repetition: Repetition;
  readonly refusals: Refusals;
}

/** A message's data, and who sent it. */
export interface Arrived {
  readonly data: SegmentReader;
  readonly from: string;
}

export interface InboxCounts {
  received: number;
  /** Undecodable, or contradicting the plan. */
  refused: number;
  /** Of released epochs. */
  stale: number;
  /** Not wanted any more: twice, of an older attempt, or of a finished frame. */
  late: number;
}

export class Inbox {
  readonly counts: InboxCounts = { received: 0, refused: 0, stale: 0, late: 0 };

  constructor(private readonly options: InboxOptions) {}

  /** One activation, as a lane delivered it. Never throws. */
  activation(message: LaneMessage): void {
    this.counts.received++;
    let record: LaneRecord<ActivationHeader>;
    try {
      record = decodeActivation(message.payload);
    } catch (error) {
      this.undecodable(message, error);
      return;
    }
    const { header, data } = record;
    const epoch = this.options.epochs.find(header);
    const arrived = { data, from: message.from };
    if (epoch !== undefined) this.deliver(epoch, header, arrived);
    else if (this.options.epochs.isStale(header)) {
      this.counts.stale++;
      this.options.refusals.count('EPOCH_STALE', `${text(header)} came after the epoch was released`);
      data.discard();
    } else if (!this.options.early.add(header, arrived, message.payloadBytes, this.options.nowMs())) this.unknown(header, arrived);
  }

  cancel(message: LaneMessage): void {
    try {
      const cancel = decode('Cancel', joinSegments(message.payload)) as Cancel;
      discard(message.payload);
      this.options.epochs.find(cancel)?.joins.cancel(cancel.frame, cancel.attempt);
      this.options.onUnwanted();
    } catch (error) {
      this.undecodable(message, error);
    }
  }

  /** The epoch is prepared: what came before that is delivered now. */
  prepared(epoch: Epoch): void {
    for (const { header, data } of this.options.early.take(epoch.deployment, epoch.term, epoch.epoch)) this.deliver(epoch, header, data);
  }

  /** What waited too long for its epoch to be prepared is reported. */
  expireEarly(): void {
    for (const { header, data } of this.options.early.expire(this.options.nowMs())) this.unknown(header, data);
  }

  /** A message did not get into its join: counted, and reported unless it is merely late. Also for hand-overs inside the agent. */
  notTaken(key: EpochKey, frame: { readonly frame: number; readonly attempt: number }, refusal: Refusal): void {
    if (refusal === 'full') {
      this.refuse(
        key,
        frame,
        new ChairError('QUEUE_FULL', 'no memory left for waiting frames', {
          todo: 'Fewer frames in flight, or a higher memory limit of the agent (--memory-mb)',
        }),
      );
    } else if (refusal === 'route') {
      this.refuse(key, frame, new ChairError('CODEC_INVALID', 'messages of one attempt name different routes'));
    } else if (refusal !== 'spare') {
      this.counts.late++;
      this.options.refusals.count('FRAME_LATE', `${text({ ...key, ...frame })} is not waited for any more`);
    }
  }

  /** Counted, and reported to the dispatcher. */
  private refuse(key: EpochKey, frame: { readonly frame: number; readonly attempt: number }, error: ChairError): void {
    this.counts.refused++;
    this.options.refusals.count(error.code, error.message);
    this.options.onTrouble(key, frame, error);
  }

  private deliver(epoch: Epoch, header: ActivationHeader, { data, from }: Arrived): void {
    try {
      const seat = epoch.seats.seatFor(header.wire, header.route);
      const ends = epoch.seats.ends(header.wire);
      if (!this.isSender(epoch, header, from)) return;
      checkLowWater(header);
      if (epoch.joins.raise(header.lowWater)) this.options.onUnwanted();
      checkShape(ends, header);
      if (this.takeOver(epoch, seat, header, data)) return;
      const slot = epoch.joins.open(seat, header.wire, this.keyOf(header));
      if (typeof slot === 'string') {
        this.notTaken(epoch, header, slot);
        return;
      }
      this.options.tracer?.arrived(epoch.deployment, header, seat, ends.bytes);
      scatter(data, header, itemBytes(header.dtype), slot.port.bytes, slot.box, ends.wire.box);
      const ready = epoch.joins.fill(slot);
      if (ready !== undefined) this.options.onReady(epoch, ready);
    } catch (error) {
      this.refuse(epoch, header, toChairError(error));
    } finally {
      // Also of what was not wanted: of a coded stage that is one message of each frame.
      data.discard();
    }
  }

  /** What is the whole of an input becomes that input where it was read, without a copy. False = it has to be copied. */
  private takeOver(epoch: Epoch, seat: Seat, header: ActivationHeader, data: SegmentReader): boolean {
    const { buffers, tracer, onReady } = this.options;
    const { dtype, dims, encoding, wire } = header;
    if (encoding !== 'raw' || !epoch.joins.fitsWhole(seat, wire)) return false;
    const bytes = data.adopt();
    if (bytes === undefined) return false;
    const placed = epoch.joins.place(seat, wire, this.keyOf(header), { dtype, dims, bytes });
    if (typeof placed === 'string' && placed !== 'waiting') {
      buffers.give(bytes);
      this.notTaken(epoch, header, placed);
      return true;
    }
    tracer?.arrived(epoch.deployment, header, seat, bytes.length);
    if (typeof placed === 'object') onReady(epoch, placed);
    return true;
  }

  /** Is it who the plan seats at the wire's beginning? The dispatcher is not told: the frame is under way from the right one. */
  private isSender(epoch: Epoch, header: ActivationHeader, from: string): boolean {
    const expected = epoch.seats.producer(header.wire, header.route);
    if (from === expected) return true;
    this.counts.refused++;
    this.options.refusals.count('SENDER_WRONG', `${text(header)} on wire ${header.wire} came from ${from} and not from ${expected}`);
    return false;
  }

  private keyOf({ frame, attempt, route, remainingMs }: ActivationHeader): FrameKey {
    return { frame, attempt, route, expiresAtMs: this.options.nowMs() + Math.max(0, remainingMs) };
  }

  private unknown(header: ActivationHeader, { data }: Arrived): void {
    data.discard();
    const error = new ChairError('SEAT_UNKNOWN', `epoch ${header.epoch} of ${header.deployment} is not prepared here`, {
      todo: 'Prepare it, or plan again without this agent',
    });
    this.refuse(header, header, error);
  }

  private undecodable(message: LaneMessage, error: unknown): void {
    this.counts.refused++;
    discard(message.payload);
    const { code, message: why } = toChairError(error);
    const what = `${message.payloadBytes} bytes on ${message.topic} from ${message.from}${message.relayed ? ', relayed' : ''}`;
    this.options.refusals.count(code, `${what}: ${why}`);
    this.options.repetition.say(message.topic, `refused ${what}: ${code} ${why}`);
  }
}

function text({ deployment, epoch, frame, attempt }: EpochKey & { readonly frame: number; readonly attempt: number }): string {
  return `frame ${frame} attempt ${attempt} of ${deployment} epoch ${epoch}`;
}

/** A frame under way is itself unfinished: a mark above it would drop frames that are wanted. */
function checkLowWater({ frame, lowWater }: ActivationHeader): void {
  if (lowWater <= frame) return;
  throw new ChairError('CODEC_INVALID', 'low-water mark of a message', { expected: `at most its frame, ${frame}`, came: `${lowWater}` });
}

function checkShape(ends: WireEnds, header: ActivationHeader): void {
  const { dtype, dims } = ends;
  if (header.dtype === dtype && header.dims.length === dims.length && dims.every((d, i) => d === header.dims[i])) return;
  throw new ChairError('TENSOR_INVALID', `message on wire ${header.wire}`, {
    expected: `${dtype}[${dims.join(',')}]`,
    came: `${header.dtype}[${header.dims.slice(0, 16).join(',')}]`,
    todo: 'The sender has another plan than this agent',
  });
}
