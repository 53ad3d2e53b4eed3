/**
 * Seats of one agent in one epoch, resolved from a Prepare: pure, no effects. It answers the two questions of a message's life:
 * which of my seats does it feed, and where do my seats' outputs go. Everything is checked here, once, so that the data path can trust it.
 */
import { canEncode } from '../broker/encoding.js';
import { ChairError } from '../broker/errors.js';
import type { Prepare } from '../broker/messages.js';
import { type CodedInput, codedInputs } from '../broker/parity.js';
import { type Port, SINK, SOURCE, type Wire } from '../broker/plan.js';
import { type Box, boxDims, boxElements, type DType, intersectBoxes, type TensorInfo, tensorBytes } from '../broker/tensor.js';
import { DISPATCHER } from '../broker/topics.js';
import type { Session } from '../models/engine/engine.js';

/** One slice on this agent, with the wires (indices into the plan's wires) that fill its inputs and carry its outputs. */
export interface Seat {
  /** Position in `SeatTable.seats`. */
  readonly index: number;
  readonly stage: number;
  readonly replica: number;
  readonly part: number;
  /** sha256 of the slice's graph. */
  readonly slice: string;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly wiresIn: readonly number[];
  /** Outputs that wires carry away, each with those wires. */
  readonly carried: readonly { readonly output: number; readonly wires: readonly number[] }[];
  /** Their names: one array for all frames, so that the engine knows it again. */
  readonly wanted: readonly string[];
  /** Inputs that a coded stage fills: one of its parts may be missing. */
  readonly coded: readonly CodedInput[];
  /** Bytes of all inputs, and of the parities beside them, together: what one waiting frame holds. */
  readonly inputBytes: number;
}

/** The receiving end of a wire on a route: `seat` is set when it is on this agent. */
export interface Consumer {
  readonly agent: string;
  readonly seat: Seat | undefined;
}

/** What the data path needs to know of a wire without looking at the plan again. */
export interface WireEnds {
  readonly wire: Wire;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly bytes: number;
}

export class SeatTable {
  readonly seats: readonly Seat[];
  readonly wires: readonly WireEnds[];
  private readonly byPlace = new Map<string, Seat>();

  /** Throws PLAN_INVALID when the Prepare contradicts itself. `agent` is the name of this agent. */
  constructor(
    private readonly agent: string,
    private readonly prepare: Prepare,
  ) {
    this.wires = prepare.wires.map((wire, index) => checkWire(prepare, wire, index));
    const seats: Seat[] = [];
    prepare.stages.forEach((stage, s) => {
      stage.agents.forEach((replica, r) => {
        if (replica.length !== stage.parts.length) {
          throw planInvalid(`replica ${r} of stage ${s}`, `${stage.parts.length} agents`, `${replica.length}`);
        }
        replica.forEach((name, p) => {
          if (name === agent) seats.push(this.seat(seats.length, s, r, p));
        });
      });
    });
    this.seats = seats;
    for (const seat of seats) this.byPlace.set(place(seat.stage, seat.replica, seat.part), seat);
  }

  /** The seat on this agent that the message on `wire` feeds. Throws SEAT_UNKNOWN, or CODEC_INVALID for a route that fits no plan. */
  seatFor(wire: number, route: readonly number[]): Seat {
    const ends = this.wires[wire];
    if (ends === undefined || ends.wire.toStage === SINK) {
      throw new ChairError('SEAT_UNKNOWN', 'no such wire into a seat', {
        expected: `a wire below ${this.wires.length}`,
        came: `wire ${wire}`,
      });
    }
    this.checkRoute(route);
    const seat = this.byPlace.get(place(ends.wire.toStage, route[ends.wire.toStage] ?? -1, ends.wire.toPart));
    if (seat !== undefined) return seat;
    throw new ChairError('SEAT_UNKNOWN', `agent ${this.agent} does not hold this seat`, {
      came: `stage ${ends.wire.toStage} replica ${route[ends.wire.toStage]} part ${ends.wire.toPart}`,
      todo: 'The sender has another plan than this agent',
    });
  }

  /** Who receives `wire` on this route. The route was checked when the frame arrived. */
  consumer(wire: number, route: readonly number[]): Consumer {
    const { toStage, toPart } = this.ends(wire).wire;
    if (toStage === SINK) return { agent: DISPATCHER, seat: undefined };
    const replica = route[toStage] ?? -1;
    const agent = this.prepare.stages[toStage]?.agents[replica]?.[toPart];
    if (agent === undefined) throw planInvalid(`route at stage ${toStage}`, 'a replica of the plan', `${replica}`);
    return { agent, seat: this.byPlace.get(place(toStage, replica, toPart)) };
  }

  /** Who sends `wire` on this route. The route was checked. */
  producer(wire: number, route: readonly number[]): string {
    const { fromStage, fromPart } = this.ends(wire).wire;
    if (fromStage === SOURCE) return DISPATCHER;
    const agent = this.prepare.stages[fromStage]?.agents[route[fromStage] ?? -1]?.[fromPart];
    if (agent === undefined) throw planInvalid(`route at stage ${fromStage}`, 'a replica of the plan', `${route[fromStage]}`);
    return agent;
  }

  ends(wire: number): WireEnds {
    const ends = this.wires[wire];
    if (ends === undefined) throw planInvalid('wire index', `below ${this.wires.length}`, `${wire}`);
    return ends;
  }

  private checkRoute(route: readonly number[]): void {
    const stages = this.prepare.stages;
    if (route.length === stages.length && route.every((r, s) => Number.isInteger(r) && r >= 0 && r < (stages[s]?.agents.length ?? 0)))
      return;
    throw new ChairError('CODEC_INVALID', 'route does not fit the plan', {
      expected: `one replica index for each of ${stages.length} stages`,
      came: `[${route.slice(0, 64).join(',')}]`,
    });
  }

  private seat(index: number, stage: number, replica: number, part: number): Seat {
    const planPart = this.prepare.stages[stage]?.parts[part];
    if (planPart === undefined) throw planInvalid(`stage ${stage}`, `a part ${part}`, 'none');
    const wiresIn: number[] = [];
    const wiresOut: number[] = [];
    this.prepare.wires.forEach((wire, w) => {
      if (wire.toStage === stage && wire.toPart === part) wiresIn.push(w);
      if (wire.fromStage === stage && wire.fromPart === part) wiresOut.push(w);
    });
    const what = `stage ${stage} part ${part}`;
    if (wiresIn.length === 0) throw planInvalid(what, 'at least one wire into it', 'none, so it would never run');
    const coded = codedInputs(this.prepare.stages, this.prepare.wires, stage, part);
    const parities = new Set(coded.map(({ parity }) => parity));
    for (const { input } of coded) checkRecoverable(what, planPart.inputs[input]);
    planPart.inputs.forEach((port, i) => {
      const boxes = wiresIn.flatMap((w) => (this.ends(w).wire.input === i && !parities.has(w) ? [this.ends(w).wire.box] : []));
      checkCovered(`${what} input ${port.name}`, port.box, boxes);
    });
    const portBytes = planPart.inputs.reduce((sum, port) => sum + tensorBytes(port.dtype, boxDims(port.box)), 0);
    const inputBytes = coded.reduce((sum, { parity }) => sum + this.ends(parity).bytes, portBytes);
    const { slice, inputs, outputs } = planPart;
    const carried = outputs.flatMap((_, output) => {
      const wires = wiresOut.filter((w) => this.ends(w).wire.output === output);
      return wires.length === 0 ? [] : [{ output, wires }];
    });
    const wanted = carried.flatMap(({ output }) => outputs[output]?.name ?? []);
    return { index, stage, replica, part, slice, inputs, outputs, wiresIn, carried, wanted, coded, inputBytes };
  }
}

/**
 * The loaded slice must have the ports that the plan names, or each frame would fail when it is there. Throws PLAN_INVALID. A slice that
 * declares no shape for a port, or a dimension of -1, is believed: the run checks it.
 */
export function checkPorts(seat: Seat, session: Pick<Session, 'inputs' | 'outputs'> | undefined): void {
  const what = `slice ${seat.slice} at stage ${seat.stage} part ${seat.part}`;
  for (const [kind, ports, declared] of [
    ['input', seat.inputs, session?.inputs ?? []],
    ['output', seat.outputs, session?.outputs ?? []],
  ] as const) {
    const twice = ports.find((port, i) => ports.findIndex((other) => other.name === port.name) < i);
    // A run gives each tensor once, and each has one owner.
    if (twice !== undefined) throw planInvalid(`${what}, ${kind} '${twice.name}'`, 'one port of each name', 'two');
    for (const port of ports) {
      const info = declared.find((one) => one.name === port.name);
      if (info !== undefined && fits(info, port)) continue;
      throw planInvalid(
        `${what}, ${kind} '${port.name}'`,
        `${port.dtype}[${boxDims(port.box).join(',')}]`,
        info === undefined ? `no such ${kind}` : `${info.dtype}[${info.dims.join(',')}] in the slice`,
      );
    }
  }
  const unfed = session?.inputs.find((info) => !seat.inputs.some((port) => port.name === info.name));
  if (unfed !== undefined) throw planInvalid(`${what}, input '${unfed.name}'`, 'a port of the plan that feeds it', 'none');
}

function fits(info: TensorInfo, port: Port): boolean {
  const dims = boxDims(port.box);
  if (info.dtype !== port.dtype) return false;
  return info.dims.length === 0 || (info.dims.length === dims.length && info.dims.every((d, i) => d < 0 || d === dims[i]));
}

function place(stage: number, replica: number, part: number): string {
  return `${stage}/${replica}/${part}`;
}

/** The box and dtype at each end of a wire must agree, and the wire's box must lie inside both. */
function checkWire(prepare: Prepare, wire: Wire, index: number): WireEnds {
  const from =
    wire.fromStage === SOURCE
      ? modelEnd(prepare.inputs[wire.output])
      : prepare.stages[wire.fromStage]?.parts[wire.fromPart]?.outputs[wire.output];
  const to =
    wire.toStage === SINK ? modelEnd(prepare.outputs[wire.input]) : prepare.stages[wire.toStage]?.parts[wire.toPart]?.inputs[wire.input];
  if (from === undefined)
    throw planInvalid(
      `wire ${index}`,
      'an output of the plan to come from',
      `stage ${wire.fromStage} part ${wire.fromPart} output ${wire.output}`,
    );
  if (to === undefined)
    throw planInvalid(`wire ${index}`, 'an input of the plan to go to', `stage ${wire.toStage} part ${wire.toPart} input ${wire.input}`);
  if (from.dtype !== to.dtype) throw planInvalid(`wire ${index}`, `${to.dtype} at both ends`, `${from.dtype} at the producer`);
  if (!inside(wire.box, from.box) || !inside(wire.box, to.box)) {
    throw planInvalid(`wire ${index}`, 'its box inside the output and the input it joins', boxText(wire.box));
  }
  if (!canEncode(wire.encoding, from.dtype))
    throw planInvalid(`wire ${index}`, `an encoding that carries ${from.dtype}, such as raw`, wire.encoding);
  const dims = boxDims(wire.box);
  return { wire, dtype: to.dtype, dims, bytes: tensorBytes(to.dtype, dims) };
}

function modelEnd(info: { readonly dtype: DType; readonly dims: readonly number[] } | undefined): { dtype: DType; box: Box } | undefined {
  return info && { dtype: info.dtype, box: { start: info.dims.map(() => 0), end: info.dims } };
}

function inside(box: Box, holder: Box): boolean {
  return (
    box.start.length === holder.start.length &&
    box.end.length === holder.end.length &&
    box.start.every((s, i) => s >= (holder.start[i] ?? 0) && s <= (box.end[i] ?? -1) && (box.end[i] ?? 0) <= (holder.end[i] ?? -1))
  );
}

/** Each element of the port arrives exactly once: boxes are disjoint and their sizes add up. Input buffers are therefore never zeroed. */
function checkCovered(what: string, port: Box, boxes: readonly Box[]): void {
  const want = boxElements(port);
  const got = boxes.reduce((sum, box) => sum + boxElements(box), 0);
  if (got !== want) throw planInvalid(what, `${want} elements brought by wires`, `${got}`);
  boxes.forEach((a, i) => {
    const twice = boxes.slice(i + 1).find((b) => a.start.length > 0 && intersectBoxes(a, b) !== undefined);
    if (twice !== undefined) throw planInvalid(what, 'each element brought once', `${boxText(twice)} brought twice`);
  });
}

/** Subtraction needs numbers that do not lose too much. */
function checkRecoverable(what: string, port: Port | undefined): void {
  if (port?.dtype === 'float32' || port?.dtype === 'float64') return;
  throw planInvalid(`${what} input ${port?.name}`, 'float32 or float64, as a coded stage fills it', `${port?.dtype}`);
}

function boxText(box: Box): string {
  return `[${box.start.join(',')}]..[${box.end.join(',')}]`;
}

function planInvalid(what: string, expected: string, came: string): ChairError {
  return new ChairError('PLAN_INVALID', what, { expected, came, todo: 'This is a defect of the planner' });
}
