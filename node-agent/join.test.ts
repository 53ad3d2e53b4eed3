import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { copyBox, type Tensor } from '../broker/tensor.js';
import { FrameBudget, type FrameKey, JoinTable, type ReadyFrame } from './join.js';
import { type Seat, SeatTable } from './seats.js';
import { toyPlan } from './test-world.js';

/** One agent with two bands and a whole stage: five wires into its three seats. */
const plan = toyPlan('d', 1, [
  {
    parts: [
      { reads: [0, 5], writes: [0, 4] },
      { reads: [3, 8], writes: [4, 8] },
    ],
    agents: [['a', 'a']],
  },
  {
    parts: [
      { reads: [0, 6], writes: [0, 4] },
      { reads: [2, 8], writes: [4, 8] },
    ],
    agents: [['a', 'a']],
  },
]).prepare;
const table = new SeatTable('a', plan);
const ROUTE = [0, 0];
const INTO = table.wires.flatMap((w, index) => (w.wire.toStage >= 0 ? [index] : []));

const key = (frame: number, attempt = 1): FrameKey => ({ frame, attempt, route: ROUTE, expiresAtMs: 1000 });

/** The value every element of a frame's attempt has, per row. */
const value = (frame: number, attempt: number, row: number) => frame * 1000 + attempt * 100 + row;

function send(joins: JoinTable, wire: number, frame: number, attempt: number): ReadyFrame | string | undefined {
  const slot = joins.open(table.seatFor(wire, ROUTE), wire, key(frame, attempt));
  if (typeof slot === 'string') return slot;
  const box = table.ends(wire).wire.box;
  const rows = Array.from({ length: (box.end[0] ?? 0) - (box.start[0] ?? 0) }, (_, r) => value(frame, attempt, (box.start[0] ?? 0) + r));
  const source = Float32Array.from(rows.flatMap((v) => [v, v, v, v]));
  copyBox(new Uint8Array(source.buffer), box, slot.port.bytes, slot.box, box, 4);
  return joins.fill(slot);
}

function floats(tensor: Tensor | undefined): number[] {
  return tensor === undefined ? [] : [...new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.length / 4)];
}

function rightInputs({ seat, frame, attempt, inputs }: ReadyFrame): void {
  const port = seat.inputs[0];
  const [from = 0, to = 0] = [port?.box.start[0], port?.box.end[0]];
  const want: number[] = [];
  for (let row = from; row < to; row++) for (let c = 0; c < 4; c++) want.push(value(frame, attempt, row));
  expect(floats(inputs.x)).toEqual(want);
}

function fresh(maxBytes = 1e9) {
  let order = 0;
  const budget = new FrameBudget(maxBytes);
  return { budget, joins: new JoinTable(table, budget, () => order++) };
}

type Step =
  | { readonly kind: 'message'; readonly wire: number; readonly frame: number; readonly attempt: number }
  | { readonly kind: 'cancel'; readonly frame: number; readonly attempt: number }
  | { readonly kind: 'lowWater'; readonly frame: number };

const frameNumber = fc.integer({ min: 0, max: 4 });
const attemptNumber = fc.integer({ min: 1, max: 3 });
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('message' as const),
      wire: fc.constantFrom(...INTO),
      frame: frameNumber,
      attempt: attemptNumber,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), frame: frameNumber, attempt: attemptNumber }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('lowWater' as const), frame: frameNumber }) },
);

describe('a join', () => {
  it('gives each frame to its seat exactly once and complete, in whatever order its boxes come', () => {
    const all = INTO.flatMap((wire) => [0, 1, 2].map((frame) => ({ wire, frame })));
    fc.assert(
      fc.property(fc.shuffledSubarray([...all, ...all], { minLength: 2 * all.length }), (messages) => {
        const { joins, budget } = fresh();
        const ready: ReadyFrame[] = [];
        for (const { wire, frame } of messages) {
          const result = send(joins, wire, frame, 1);
          if (typeof result === 'object') ready.push(result);
        }
        ready.forEach(rightInputs);
        expect(new Set(ready.map((r) => `${r.seat.index}/${r.frame}`)).size).toBe(3 * table.seats.length);
        expect(ready.length).toBe(3 * table.seats.length);
        for (const r of ready) budget.free(r.bytes);
        expect(budget.usedBytes).toBe(0);
      }),
    );
  });

  it('is right under any mix of duplicates, attempts, cancels and low-water marks, and keeps its bytes in bounds', () => {
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 200 }), fc.integer({ min: 0, max: 600 }), (steps, maxBytes) => {
        const { joins, budget } = fresh(maxBytes);
        const largest = Math.max(...table.seats.map((s) => s.inputBytes));
        const seen = new Set<string>();
        const newest = new Map<number, number>();
        const cancelled = new Map<number, number>();
        let lowWater = 0;
        for (const step of steps) {
          if (step.kind === 'cancel') {
            joins.cancel(step.frame, step.attempt);
            cancelled.set(step.frame, Math.max(cancelled.get(step.frame) ?? 0, step.attempt));
          } else if (step.kind === 'lowWater') {
            joins.raise(step.frame);
            lowWater = Math.max(lowWater, step.frame);
          } else {
            const { frame, attempt } = step;
            const result = send(joins, step.wire, frame, attempt);
            const dead = frame < lowWater || attempt <= (cancelled.get(frame) ?? 0) || attempt < (newest.get(frame) ?? 0);
            if (dead) expect(['superseded', 'finished']).toContain(result);
            else newest.set(frame, attempt);
            if (typeof result === 'object') {
              const id = `${result.seat.index}/${frame}/${attempt}`;
              expect(seen.has(id)).toBe(false);
              seen.add(id);
              rightInputs(result);
              budget.free(result.bytes);
            }
          }
          expect(budget.usedBytes).toBeLessThanOrEqual(Math.max(maxBytes, largest));
        }
        joins.clear();
        expect(budget.usedBytes).toBe(0);
        expect(joins.waiting).toBe(0);
      }),
      { numRuns: 300 },
    );
  });

  it('refuses a new frame when memory is full, and takes the rest of one that waits', () => {
    const first = table.seats.find((s) => s.wiresIn.length > 1) as Seat;
    const [w0, w1] = first.wiresIn as [number, number];
    const { joins, budget } = fresh(first.inputBytes);
    expect(send(joins, w0, 1, 1)).toBeUndefined();
    expect(send(joins, w0, 2, 1)).toBe('full');
    const ready = send(joins, w1, 1, 1);
    expect(ready).toMatchObject({ frame: 1 });
    // Not before the runner has let go of it.
    expect(send(joins, w0, 2, 1)).toBe('full');
    budget.free((ready as ReadyFrame).bytes);
    expect(send(joins, w0, 2, 1)).toBeUndefined();
  });

  it('takes one frame even when it is larger than the bound, since it could never run otherwise', () => {
    const { joins } = fresh(1);
    expect(send(joins, INTO[0] as number, 1, 1)).toMatchObject({ frame: 1 });
  });

  it('does not mix two routes of one attempt', () => {
    const { joins } = fresh();
    const wire = INTO[0] as number;
    const seat = table.seatFor(wire, ROUTE);
    expect(typeof joins.open(seat, wire, key(1))).toBe('object');
    expect(joins.open(seat, wire, { ...key(1), route: [0, 1] })).toBe('route');
  });

  it('names a box that came twice a duplicate, before and after its frame ran', () => {
    const seat = table.seats.find((s) => s.wiresIn.length > 1) as Seat;
    const [w0, w1] = seat.wiresIn as [number, number];
    const { joins } = fresh();
    send(joins, w0, 1, 1);
    expect(send(joins, w0, 1, 1)).toBe('duplicate');
    expect(send(joins, w1, 1, 1)).toMatchObject({ frame: 1 });
    expect(send(joins, w1, 1, 1)).toBe('duplicate');
  });

  it('gives back the memory of finished and cancelled frames at once', () => {
    const seat = table.seats.find((s) => s.wiresIn.length > 1) as Seat;
    const { joins, budget } = fresh();
    for (const frame of [1, 2, 3, 4]) send(joins, seat.wiresIn[0] as number, frame, 1);
    joins.raise(3);
    expect([joins.waiting, budget.usedBytes]).toEqual([2, 2 * seat.inputBytes]);
    joins.cancel(3, 1);
    expect([joins.waiting, budget.usedBytes]).toEqual([1, seat.inputBytes]);
    expect(joins.wants(4, 1)).toBe(true);
    expect([joins.wants(2, 1), joins.wants(3, 1), joins.wants(4, 2)]).toEqual([false, false, false]);
  });

  it('drops what waits after its deadline, and nothing else', () => {
    const seat = table.seats.find((s) => s.wiresIn.length > 1) as Seat;
    const { joins, budget } = fresh();
    joins.open(seat, seat.wiresIn[0] as number, { ...key(1), expiresAtMs: 10 });
    joins.open(seat, seat.wiresIn[0] as number, { ...key(2), expiresAtMs: 20 });
    expect(joins.expire(9)).toBe(0);
    expect(joins.expire(10)).toBe(1);
    expect(budget.usedBytes).toBe(seat.inputBytes);
  });

  it('remembers a bounded number of frames when no low-water mark ever comes', () => {
    const { joins, budget } = fresh();
    const whole = INTO.find((w) => table.seatFor(w, ROUTE).wiresIn.length === 1) as number;
    for (let frame = 0; frame < 10_000; frame++) {
      const ready = send(joins, whole, frame, 1);
      if (typeof ready === 'object') budget.free(ready.bytes);
    }
    expect(budget.usedBytes).toBe(0);
    const remembered = (joins as unknown as { frames: Map<number, unknown> }).frames.size;
    expect(remembered).toBeLessThanOrEqual(4096);
  });

  it('takes a whole tensor by reference, and only where it fits whole', () => {
    const { joins } = fresh();
    const wire = INTO.find((w) => table.seatFor(w, ROUTE).wiresIn.length === 1) as number;
    const seat = table.seatFor(wire, ROUTE);
    expect(joins.fitsWhole(seat, wire)).toBe(true);
    const partial = INTO.find((w) => table.seatFor(w, ROUTE).wiresIn.length > 1) as number;
    expect(joins.fitsWhole(table.seatFor(partial, ROUTE), partial)).toBe(false);
    const tensor: Tensor = { dtype: 'float32', dims: [5, 4], bytes: new Uint8Array(80) };
    const ready = joins.place(seat, wire, key(1), tensor) as ReadyFrame;
    expect(ready.inputs.x).toBe(tensor);
    expect(joins.place(seat, wire, key(1), tensor)).toBe('duplicate');
  });

  it('gives inputs on buffers that can be transferred to a worker', () => {
    const { joins } = fresh();
    const ready = send(joins, INTO[0] as number, 1, 1) as ReadyFrame;
    const bytes = (ready.inputs.x as Tensor).bytes;
    expect(bytes.byteOffset).toBe(0);
    structuredClone(bytes, { transfer: [bytes.buffer as ArrayBuffer] });
    expect(bytes.length).toBe(0);
  });
});
