/**
 * Joins of one epoch: where the boxes of a frame meet before their seat runs (joins `all` and `coded`). A pure data structure: no clock, no I/O; the caller
 * copies bytes into the slot it is given and says when they are in. It gives each (seat, frame, attempt) to the runner at most once.
 *
 * What bounds it: bytes by a budget that all epochs and the ready queue share; entries by `MAX_FRAMES`; time by the low-water mark in
 * headers, by cancels, and by `expire`.
 */

import { BufferPool, type Buffers } from '../broker/buffers.js';
import { isEnough, recover } from '../broker/parity.js';
import { type Box, boxDims, boxEquals, type Tensor, tensorBytes, wholeBox } from '../broker/tensor.js';
import type { Seat, SeatTable } from './seats.js';

/** Bytes of frames on their way through this agent: waiting in joins, ready to run, or being sent. */
export class FrameBudget {
  usedBytes = 0;
  constructor(readonly maxBytes: number) {}

  /** True and taken, or false when it would exceed the bound. One frame always fits an empty budget: else it could never run. */
  take(bytes: number): boolean {
    if (this.usedBytes > 0 && this.usedBytes + bytes > this.maxBytes) return false;
    this.usedBytes += bytes;
    return true;
  }
  /** Outputs exist already: they are counted even beyond the bound, so that new frames are refused until they have left. */
  force(bytes: number): void {
    this.usedBytes += bytes;
  }
  free(bytes: number): void {
    this.usedBytes -= bytes;
  }
}

/** What a header says of the frame, the same on all its messages. */
export interface FrameKey {
  readonly frame: number;
  readonly attempt: number;
  readonly route: readonly number[];
  /** On this agent's monotonic clock. */
  readonly expiresAtMs: number;
}

/** A frame whose inputs are complete. Its bytes stay counted in the budget until the runner frees them. */
export interface ReadyFrame extends FrameKey {
  readonly seat: Seat;
  /** By port name, each on a buffer of its own: transferable. */
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** When this agent first heard of the frame: the runner's order between deployments. */
  readonly order: number;
  readonly bytes: number;
}

/** `spare`: a coded input was complete without it. */
export type Refusal = 'duplicate' | 'spare' | 'superseded' | 'finished' | 'full' | 'route';

/** Place for one message: its box goes into `port`, which holds `box`. */
export interface Slot {
  readonly port: Tensor;
  readonly box: Box;
  readonly waiting: Waiting;
  readonly wire: number;
}

interface Waiting {
  readonly seat: Seat;
  readonly state: FrameState;
  readonly ports: (Tensor | undefined)[];
  /** By wire. */
  readonly parities: Map<number, Tensor>;
  readonly arrived: Set<number>;
  bytes: number;
}

interface FrameState {
  readonly key: FrameKey;
  readonly order: number;
  cancelled: boolean;
  readonly seats: Map<number, Waiting | 'done'>;
}

/** Frames remembered per epoch. Far above any sensible number in flight; a sender whose low-water mark never moves meets it. */
const MAX_FRAMES = 4096;

export class JoinTable {
  /** Lowest unfinished frame, as far as headers have told. */
  lowWater = 0;
  /** Joins that were completed without a part, from a parity. */
  recovered = 0;
  private readonly frames = new Map<number, FrameState>();

  constructor(
    private readonly table: SeatTable,
    private readonly budget: FrameBudget,
    /** Gives each frame its order of arrival, over all epochs. */
    private readonly nextOrder: () => number,
    /** Where input buffers come from, and go to when their frame is not wanted any more. Default: none is used twice. */
    private readonly buffers: Buffers = new BufferPool(0),
  ) {}

  /** Joins under way. */
  get waiting(): number {
    let count = 0;
    for (const state of this.frames.values()) for (const w of state.seats.values()) if (w !== 'done') count++;
    return count;
  }

  /** The slot for the message on `wire` (which feeds `seat`), or why it is not wanted. Nothing counts as arrived until `fill`. */
  open(seat: Seat, wire: number, key: FrameKey): Slot | Refusal {
    const waiting = this.waitingFor(seat, wire, key);
    if (typeof waiting === 'string') return waiting;
    const { input, box } = this.table.ends(wire).wire;
    if (isParityWire(seat, wire)) return { port: this.parityOf(waiting, wire), box, waiting, wire };
    const port = waiting.ports[input] ?? this.allocate(waiting, input);
    return { port, box: seat.inputs[input]?.box ?? wholeBox(port.dims), waiting, wire };
  }

  /**
   * Hands over a whole input without a copy: `tensor` must be on a buffer of its own and cover the port. Returns like `fill`; after a refusal the
   * buffer still belongs to the caller.
   */
  place(seat: Seat, wire: number, key: FrameKey, tensor: Tensor): ReadyFrame | 'waiting' | Refusal {
    const waiting = this.waitingFor(seat, wire, key);
    if (typeof waiting === 'string') return waiting;
    waiting.ports[this.table.ends(wire).wire.input] = tensor;
    return this.arrive(waiting, wire) ?? 'waiting';
  }

  /** True when the box of `wire` is the whole port, so that `place` may be used. */
  fitsWhole(seat: Seat, wire: number): boolean {
    const { box, input } = this.table.ends(wire).wire;
    const port = seat.inputs[input];
    return port !== undefined && !isParityWire(seat, wire) && boxEquals(port.box, box);
  }

  /** The bytes of the slot are in. The frame, when it was the last one missing. */
  fill(slot: Slot): ReadyFrame | undefined {
    return this.arrive(slot.waiting, slot.wire);
  }

  /** Frames below `lowWater` are finished: drops what waits for them. True when the mark moved. */
  raise(lowWater: number): boolean {
    if (lowWater <= this.lowWater) return false;
    this.lowWater = lowWater;
    for (const [frame, state] of this.frames) {
      if (frame < lowWater) this.forget(frame, state);
    }
    return true;
  }

  /** Attempts up to `attempt` of `frame` are not wanted any more, whether or not anything of them came yet. */
  cancel(frame: number, attempt: number): void {
    const state = this.frames.get(frame);
    if (frame < this.lowWater || (state !== undefined && state.key.attempt > attempt)) return;
    if (state === undefined && !this.roomForFrame()) return;
    if (state !== undefined) this.drop(state);
    const key = { frame, attempt, route: [], expiresAtMs: state?.key.expiresAtMs ?? Number.POSITIVE_INFINITY };
    this.frames.set(frame, { key, order: state?.order ?? this.nextOrder(), cancelled: true, seats: new Map() });
  }

  /** Drops frames whose deadline is over: the dispatcher has given them up, even if no header or cancel says so. */
  expire(nowMs: number): number {
    let count = 0;
    for (const [frame, state] of this.frames) {
      if (state.key.expiresAtMs > nowMs) continue;
      for (const w of state.seats.values()) if (w !== 'done') count++;
      this.forget(frame, state);
    }
    return count;
  }

  /** False once the frame is finished, cancelled or issued again: then running or forwarding it is waste. */
  wants(frame: number, attempt: number): boolean {
    if (frame < this.lowWater) return false;
    const state = this.frames.get(frame);
    return state === undefined || (!state.cancelled && state.key.attempt === attempt);
  }

  /** The epoch is released. */
  clear(): void {
    for (const [frame, state] of this.frames) this.forget(frame, state);
  }

  private waitingFor(seat: Seat, wire: number, key: FrameKey): Waiting | Refusal {
    const state = this.stateFor(key);
    // The last of the boxes of a coded input may come when everything is over: that is how it should be.
    if (state === 'finished' && isSpare(seat, wire)) return 'spare';
    if (typeof state === 'string') return state;
    const held = state.seats.get(seat.index);
    if (held === 'done') return isSpare(seat, wire) ? 'spare' : 'duplicate';
    if (held?.arrived.has(wire)) return 'duplicate';
    if (held !== undefined) return held;
    // The seat's whole input is counted at its first box, so that a frame that got in can be completed.
    if (!this.budget.take(seat.inputBytes)) return 'full';
    const ports = seat.inputs.map(() => undefined);
    const waiting: Waiting = { seat, state, ports, parities: new Map(), arrived: new Set(), bytes: seat.inputBytes };
    state.seats.set(seat.index, waiting);
    return waiting;
  }

  private stateFor(key: FrameKey): FrameState | Refusal {
    if (key.frame < this.lowWater) return 'finished';
    const state = this.frames.get(key.frame);
    if (state !== undefined && state.key.attempt === key.attempt) {
      if (state.cancelled) return 'superseded';
      return sameRoute(state.key.route, key.route) ? state : 'route';
    }
    if (state !== undefined && state.key.attempt > key.attempt) return 'superseded';
    if (state === undefined && !this.roomForFrame()) return 'full';
    if (state !== undefined) this.drop(state);
    const fresh: FrameState = { key, order: state?.order ?? this.nextOrder(), cancelled: false, seats: new Map() };
    this.frames.set(key.frame, fresh);
    return fresh;
  }

  /** Makes room among the remembered frames by forgetting the oldest of which nothing waits. */
  private roomForFrame(): boolean {
    if (this.frames.size < MAX_FRAMES) return true;
    for (const [frame, state] of this.frames) {
      if ([...state.seats.values()].every((w) => w === 'done')) {
        this.frames.delete(frame);
        return true;
      }
    }
    return false;
  }

  private allocate(waiting: Waiting, input: number): Tensor {
    const port = waiting.seat.inputs[input];
    if (port === undefined) throw new RangeError(`no input ${input}`);
    const dims = boxDims(port.box);
    // Not zeroed: a frame is ready only when every element was written (`checkCovered`).
    const tensor = { dtype: port.dtype, dims, bytes: this.buffers.take(tensorBytes(port.dtype, dims)) };
    waiting.ports[input] = tensor;
    return tensor;
  }

  private parityOf(waiting: Waiting, wire: number): Tensor {
    const { dtype, dims, bytes } = this.table.ends(wire);
    const parity = waiting.parities.get(wire) ?? { dtype, dims, bytes: this.buffers.take(bytes) };
    waiting.parities.set(wire, parity);
    return parity;
  }

  /** Fills in the one part that a coded input may lack, and lets go of the parities. */
  private recover(waiting: Waiting): void {
    const { seat, arrived, parities } = waiting;
    let recovered = false;
    for (const { input, axis, parts, parity } of seat.coded) {
      const missing = parts.find((wire) => !arrived.has(wire));
      const sum = parities.get(parity);
      if (missing === undefined || sum === undefined) continue;
      const port = waiting.ports[input] ?? this.allocate(waiting, input);
      const boxOf = (wire: number): Box => this.table.ends(wire).wire.box;
      const others = parts.filter((wire) => wire !== missing).map(boxOf);
      const holder = seat.inputs[input]?.box ?? wholeBox(port.dims);
      recover({ dtype: port.dtype, axis, target: port.bytes, holder, missing: boxOf(missing), others, parity: sum.bytes });
      recovered = true;
    }
    if (recovered) this.recovered++;
    for (const { bytes } of parities.values()) this.buffers.give(bytes);
    parities.clear();
  }

  private arrive(waiting: Waiting, wire: number): ReadyFrame | undefined {
    const { seat, state } = waiting;
    // Dropped between `open` and `fill`, or filled twice.
    if (state.seats.get(seat.index) !== waiting || waiting.arrived.has(wire)) return undefined;
    waiting.arrived.add(wire);
    if (!isEnough(seat.wiresIn.length, seat.coded, waiting.arrived)) return undefined;
    this.recover(waiting);
    state.seats.set(seat.index, 'done');
    const inputs: Record<string, Tensor> = {};
    // A port of no element has no wire; every other one was filled.
    seat.inputs.forEach((port, i) => {
      inputs[port.name] = waiting.ports[i] ?? this.allocate(waiting, i);
    });
    return { ...state.key, seat, inputs, order: state.order, bytes: waiting.bytes };
  }

  private drop(state: FrameState): void {
    for (const w of state.seats.values()) {
      if (w === 'done') continue;
      this.budget.free(w.bytes);
      for (const port of w.ports) if (port !== undefined) this.buffers.give(port.bytes);
      for (const { bytes } of w.parities.values()) this.buffers.give(bytes);
    }
    state.seats.clear();
  }

  private forget(frame: number, state: FrameState): void {
    this.drop(state);
    this.frames.delete(frame);
  }
}

function isParityWire({ coded }: Seat, wire: number): boolean {
  return coded.some(({ parity }) => parity === wire);
}

function isSpare({ coded }: Seat, wire: number): boolean {
  return coded.some(({ parts, parity }) => parity === wire || parts.includes(wire));
}

function sameRoute(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((r, i) => r === b[i]);
}
