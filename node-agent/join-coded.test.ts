/** Join `coded`: a seat behind a coded stage runs with the first N of the N + 1 boxes, whichever they are. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BufferPool } from '../broker/buffers.js';
import { copyBox, type Tensor } from '../broker/tensor.js';
import { FrameBudget, type FrameKey, JoinTable, type ReadyFrame } from './join.js';
import { SeatTable } from './seats.js';
import { toyPlan } from './test-world.js';

/** Rows 0 to 2, 3 to 5 and 6 to 7 of eight, and a parity of three rows, into a seat on agent `a`. */
const LENGTHS = [3, 3, 2];
const coded = {
  parts: [
    { reads: [0, 8], writes: [0, 3] },
    { reads: [0, 8], writes: [3, 6] },
    { reads: [0, 8], writes: [6, 8] },
    { reads: [0, 8], writes: [0, 3] },
  ],
  agents: [['b', 'c', 'd', 'e']],
} as const;
const bare = toyPlan('d', 1, [coded, { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] }]).prepare;
const plan = { ...bare, stages: bare.stages.map((stage, s) => ({ ...stage, redundancy: s === 0 ? 1 : 0 })) };
const table = new SeatTable('a', plan);
const [seat] = table.seats;
if (seat === undefined) throw new Error('agent a holds a seat');
const ROUTE = [0, 0];
const INTO = seat.wiresIn;
const PARITY = seat.coded[0]?.parity ?? -1;

const key = (frame: number): FrameKey => ({ frame, attempt: 1, route: ROUTE, expiresAtMs: 1000 });
const value = (frame: number, row: number): number => 100 * frame + row * row;

/** The rows that a wire carries, four equal values each; of the parity the sums of the parts' rows. */
function rowsOf(wire: number, frame: number): number[] {
  const { start, end } = table.ends(wire).wire.box;
  const [from = 0, to = 0] = [start[0], end[0]];
  const rows = Array.from({ length: to - from }, (_, i) => from + i);
  if (wire !== PARITY) return rows.map((row) => value(frame, row));
  return rows.map((row) => LENGTHS.reduce((sum, length, part) => sum + (row < length ? value(frame, 3 * part + row) : 0), 0));
}

function send(joins: JoinTable, wire: number, frame: number): ReadyFrame | string | undefined {
  if (seat === undefined) return undefined;
  const slot = joins.open(seat, wire, key(frame));
  if (typeof slot === 'string') return slot;
  const { box } = table.ends(wire).wire;
  const source = Float32Array.from(rowsOf(wire, frame).flatMap((v) => [v, v, v, v]));
  copyBox(new Uint8Array(source.buffer), box, slot.port.bytes, slot.box, box, 4);
  return joins.fill(slot);
}

function fresh(maxBytes = 1e9) {
  let order = 0;
  const budget = new FrameBudget(maxBytes);
  const buffers = new BufferPool(1e6);
  return { budget, buffers, joins: new JoinTable(table, budget, () => order++, buffers) };
}

function floats({ bytes }: Tensor): number[] {
  return [...new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)];
}

describe('a coded join', () => {
  it('runs once, with the first three of four, and has the right input whichever they are', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([...INTO], { minLength: 4 }), fc.nat({ max: 5 }), (wires, frame) => {
        const { joins, budget } = fresh();
        const answers = wires.map((wire) => send(joins, wire, frame));
        expect(answers.slice(0, 2)).toEqual([undefined, undefined]);
        const ready = answers[2];
        if (typeof ready !== 'object') throw new Error(`not ready after three: ${ready}`);
        const want = Array.from({ length: 8 }, (_, row) => value(frame, row)).flatMap((v) => [v, v, v, v]);
        expect(floats(ready.inputs.x as Tensor)).toEqual(want);
        expect(answers[3]).toBe('spare');
        expect(joins.recovered).toBe(wires.at(-1) === PARITY ? 0 : 1);
        budget.free(ready.bytes);
        expect(budget.usedBytes).toBe(0);
      }),
    );
  });

  it('waits with two of four, however often they come', () => {
    const { joins } = fresh();
    const [first = 0, second = 0] = INTO;
    for (const wire of [first, PARITY]) expect(send(joins, wire, 1)).toBeUndefined();
    for (const wire of [first, PARITY]) expect(send(joins, wire, 1)).toBe('duplicate');
    expect(joins.waiting).toBe(1);
    expect(send(joins, second, 1)).toMatchObject({ frame: 1 });
    expect(joins.waiting).toBe(0);
  });

  it('counts the parity in the memory of a waiting frame, and gives both back when it is not wanted any more', () => {
    expect(seat.inputBytes).toBe(4 * 4 * (8 + 3));
    const { joins, budget } = fresh();
    for (const wire of [INTO[0] ?? 0, PARITY]) send(joins, wire, 1);
    expect(budget.usedBytes).toBe(seat.inputBytes);
    joins.raise(2);
    expect(budget.usedBytes).toBe(0);
  });

  it("does not use the buffer of a recovered frame for what comes late: it is the engine's", () => {
    const { joins } = fresh();
    const [straggler = 0, ...others] = INTO;
    const ready = others.map((wire) => send(joins, wire, 1)).find((answer) => typeof answer === 'object');
    const before = floats((ready as ReadyFrame).inputs.x as Tensor);
    expect(send(joins, straggler, 1)).toBe('spare');
    expect(floats((ready as ReadyFrame).inputs.x as Tensor)).toEqual(before);
  });
});

describe('a coded plan that contradicts itself is refused', () => {
  const wires = (change: (wire: (typeof plan.wires)[number]) => (typeof plan.wires)[number] | undefined) => {
    return { ...plan, wires: plan.wires.flatMap((wire) => change(wire) ?? []) };
  };
  const boxed = (end: number) => ({ start: [0, 0], end: [end, 4] });

  it.each<[string, typeof plan, RegExp]>([
    [
      'a part of which nothing is sent',
      wires((wire) => (wire.fromStage === 0 && wire.fromPart === 1 ? undefined : wire)),
      /parity of stage 0/,
    ],
    [
      'a parity that is too short',
      wires((wire) => (wire.fromPart === 3 && wire.fromStage === 0 ? { ...wire, box: boxed(2) } : wire)),
      /parity of stage 0/,
    ],
  ])('%s', (_, prepare, message) => {
    expect(() => new SeatTable('a', prepare)).toThrow(message);
  });

  it('but without its parity an input is an ordinary one, which needs every part', () => {
    const without = wires((wire) => (wire.fromPart === 3 && wire.fromStage === 0 ? undefined : wire));
    expect(new SeatTable('a', without).seats[0]?.coded).toEqual([]);
  });

  it('a type that cannot be subtracted', () => {
    const typed = <T extends { dtype: string }>(ports: readonly T[]): T[] => ports.map((port) => ({ ...port, dtype: 'int32' }));
    const stages = plan.stages.map((stage) => ({
      ...stage,
      parts: stage.parts.map((part) => ({ ...part, inputs: typed(part.inputs), outputs: typed(part.outputs) })),
    }));
    const prepare = { ...plan, stages, inputs: typed(plan.inputs), outputs: typed(plan.outputs) };
    expect(() => new SeatTable('a', prepare)).toThrow(/float32 or float64/);
  });
});
