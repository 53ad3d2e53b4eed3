import { describe, expect, it } from 'vitest';
import type { Prepare } from '../broker/messages.js';
import { SINK } from '../broker/plan.js';
import { checkPorts, SeatTable } from './seats.js';
import { rowsBox, toyPlan } from './test-world.js';

/** Two bands with a halo, then one whole stage in two replicas. */
function prepare(): Prepare {
  return toyPlan('d', 1, [
    {
      parts: [
        { reads: [0, 5], writes: [0, 4] },
        { reads: [3, 8], writes: [4, 8] },
      ],
      agents: [
        ['a', 'b'],
        ['b', 'a'],
      ],
    },
    { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['c'], ['a']] },
  ]).prepare;
}

const wireTo = (plan: Prepare, stage: number, part: number) => plan.wires.findIndex((w) => w.toStage === stage && w.toPart === part);

describe('the seats of an agent', () => {
  it('are those that the plan gives it, in every replica', () => {
    const table = new SeatTable('a', prepare());
    expect(table.seats.map((s) => [s.stage, s.replica, s.part])).toEqual([
      [0, 0, 0],
      [0, 1, 1],
      [1, 1, 0],
    ]);
    expect(new SeatTable('nobody', prepare()).seats).toEqual([]);
  });

  it('are found by wire and route, so that a frame meets itself at one replica', () => {
    const plan = prepare();
    const a = new SeatTable('a', plan);
    expect(a.seatFor(wireTo(plan, 0, 0), [0, 0])).toMatchObject({ stage: 0, replica: 0, part: 0 });
    expect(a.seatFor(wireTo(plan, 0, 1), [1, 0])).toMatchObject({ stage: 0, replica: 1, part: 1 });
    expect(() => a.seatFor(wireTo(plan, 0, 0), [1, 0])).toThrow(expect.objectContaining({ code: 'SEAT_UNKNOWN' }));
    expect(() => a.seatFor(wireTo(plan, SINK, 0), [0, 0])).toThrow(expect.objectContaining({ code: 'SEAT_UNKNOWN' }));
    expect(() => a.seatFor(999, [0, 0])).toThrow(expect.objectContaining({ code: 'SEAT_UNKNOWN' }));
  });

  it.each([[[0]], [[0, 2]], [[0, -1]], [[0, 0, 0]], [[0.5, 0]]])('refuse the route %j', (route) => {
    const plan = prepare();
    expect(() => new SeatTable('a', plan).seatFor(wireTo(plan, 0, 0), route)).toThrow(expect.objectContaining({ code: 'CODEC_INVALID' }));
  });

  it('send to the agent that the route names, to themselves without a socket, and to the dispatcher at the end', () => {
    const plan = prepare();
    const a = new SeatTable('a', plan);
    const wire = wireTo(plan, 1, 0);
    expect(a.consumer(wire, [0, 0])).toEqual({ agent: 'c', seat: undefined });
    expect(a.consumer(wire, [0, 1])).toMatchObject({ agent: 'a', seat: { stage: 1, replica: 1 } });
    expect(a.consumer(wireTo(plan, SINK, 0), [0, 1])).toEqual({ agent: 'dispatcher', seat: undefined });
  });
});

describe('a prepare that contradicts itself is refused', () => {
  const broken: [string, (plan: Prepare) => Prepare, RegExp][] = [
    ['a wire is missing', (p) => ({ ...p, wires: p.wires.slice(1) }), /at least one wire|elements brought/],
    [
      'a box comes twice',
      (p) => ({ ...p, wires: [...p.wires.slice(0, 1), ...p.wires.slice(0, 1), ...p.wires.slice(1)] }),
      /elements brought/,
    ],
    [
      'boxes overlap and leave a hole',
      (p) => ({
        ...p,
        wires: p.wires.map((w) => (w.toStage === 1 && w.fromPart === 1 ? { ...w, fromPart: 0, box: rowsBox(0, 4) } : w)),
      }),
      /each element brought once/,
    ],
    ['a box reaches outside its port', (p) => ({ ...p, wires: p.wires.map((w) => ({ ...w, box: rowsBox(0, 9) })) }), /box inside/],
    ['a wire comes from nowhere', (p) => ({ ...p, wires: p.wires.map((w) => ({ ...w, output: 7 })) }), /to come from/],
    ['a wire goes nowhere', (p) => ({ ...p, wires: p.wires.map((w) => ({ ...w, input: 7 })) }), /to go to/],
    ['dtypes differ', (p) => ({ ...p, inputs: p.inputs.map((i) => ({ ...i, dtype: 'uint8' as const })) }), /float32 at both ends/],
    ['a replica lacks an agent', (p) => ({ ...p, stages: p.stages.map((s) => ({ ...s, agents: [['a']] })) }), /2 agents/],
  ];
  it.each(broken)('when %s', (_, breakIt, message) => {
    expect(() => new SeatTable('a', breakIt(prepare()))).toThrow(
      expect.objectContaining({ code: 'PLAN_INVALID', message: expect.stringMatching(message) }),
    );
  });
});

describe('the ports of a slice', () => {
  it('have names of their own: a tensor of a run has one owner', () => {
    const [seat] = new SeatTable('a', prepare()).seats;
    if (seat === undefined) throw new Error('no seat');
    const session = {
      inputs: [{ name: 'x', dtype: 'float32', dims: [5, 4] }],
      outputs: [{ name: 'y', dtype: 'float32', dims: [4, 4] }],
    } as const;
    expect(() => checkPorts(seat, session)).not.toThrow();
    expect(() => checkPorts({ ...seat, outputs: [...seat.outputs, ...seat.outputs] }, session)).toThrow(
      expect.objectContaining({ code: 'PLAN_INVALID', message: expect.stringContaining('one port of each name') }),
    );
  });
});
