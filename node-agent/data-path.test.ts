import { generate } from 'mqtt-packet';
import { describe, expect, it } from 'vitest';
import { decodeActivation, encodeActivation, scatter } from '../broker/activation.js';
import { BufferPool } from '../broker/buffers.js';
import { Framer, publishHeader } from '../broker/lanes/framing.js';
import type { Lanes, Segments } from '../broker/lanes/lane.js';
import { allocTensor, type Tensor } from '../broker/tensor.js';
import { topicsOf } from '../broker/topics.js';
import type { RunOptions, Session } from '../models/engine/engine.js';
import type { Epoch } from './epochs.js';
import { Forwarder } from './forward.js';
import { FrameBudget, type FrameKey, JoinTable, type ReadyFrame } from './join.js';
import { Runner } from './runner.js';
import { SeatTable } from './seats.js';
import { rowsBox, toyPlan } from './test-world.js';

const MIB = 2 ** 20;
const ROUTE = [0, 0];
const key = (frame: number): FrameKey => ({ frame, attempt: 1, route: ROUTE, expiresAtMs: 1e9 });
const settle = () => new Promise((resolve) => setImmediate(resolve));

interface Held<T> {
  readonly what: T;
  readonly done: () => void;
  readonly fail: () => void;
}

/** Something that takes as long as the test says. */
function held<T>(list: Held<T>[], what: T): Promise<void> {
  return new Promise((resolve, reject) => {
    list.push({ what, done: resolve, fail: () => reject(new Error('the lane broke')) });
  });
}

/** Agent `a` holds stage 0; stage 1 is on `next`: another agent, or `a` itself. */
function seat(next: string) {
  const plan = toyPlan('d', 1, [
    { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] },
    { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [[next]] },
  ]);
  const seats = new SeatTable('a', plan.prepare);
  const budget = new FrameBudget(64 * MIB);
  const buffers = new BufferPool(64 * MIB);
  const [sends, runs]: [Held<{ peer: string; payload: Segments; wanted: () => boolean }>[], Held<Readonly<Record<string, Tensor>>>[]] = [
    [],
    [],
  ];
  const made: Tensor[] = [];
  const session: Session = {
    inputs: [],
    outputs: [],
    warmUp: async () => undefined,
    dispose: async () => undefined,
    run: async (inputs, options: RunOptions = {}) => {
      await held(runs, inputs);
      // Large enough for the pool to keep, as real activations are; the wire's box is the first rows of it.
      const y = { ...allocTensor('float32', [8, 4]), bytes: new Uint8Array(new ArrayBuffer(8192), 0, 128) };
      made.push(y);
      for (const { bytes } of Object.values(inputs)) options.buffers?.give(bytes);
      return { outputs: { y }, runMs: 1 };
    },
  };
  const send: Lanes['send'] = async (peer, _topic, payload, { wanted = () => true } = {}) => {
    await held(sends, { peer, payload, wanted });
    return wanted();
  };
  const lanes = { id: 'a', send } as unknown as Lanes;
  const failures: string[] = [];
  let order = 0;
  const joins = new JoinTable(seats, budget, () => order++, buffers);
  const epoch: Epoch = {
    ...{ term: 1, deployment: 'd', epoch: 1, seats, joins, committed: true, released: false },
    stats: seats.seats.map(() => ({ framesRun: 0, runMs: 0 })),
    sessions: new Map(seats.seats.map((s) => [s.slice, session])),
  };
  const onReady = (_: Epoch, frame: ReadyFrame) => runner.push({ epoch, frame });
  const forwarder = new Forwarder({
    ...{ lanes, topics: topicsOf('c'), budget, buffers, nowMs: () => 0, onReady, onRawFallback: () => undefined },
    onRefused: () => failures.push('refused'),
    onFailure: (_epoch, { frame }, peer) => failures.push(`frame ${frame} to ${peer}`),
  });
  const runner = new Runner({
    budget,
    buffers,
    nowMs: () => 0,
    onOutputs: (job, outputs) => forwarder.forward(job, outputs),
    onFailure: (job) => failures.push(`run of frame ${job.frame.frame}`),
  });
  /** The whole input of a frame comes in along wire 0. */
  const receive = (frame: number): void => {
    const slot = joins.open(seats.seatFor(0, ROUTE), 0, key(frame));
    if (typeof slot === 'string') throw new Error(slot);
    const ready = joins.fill(slot);
    if (ready !== undefined) onReady(epoch, ready);
  };
  return { receive, sends, runs, made, runner, buffers, budget, failures, forwarder, epoch };
}

describe('transfers and computing', () => {
  it('overlap: the next frame runs and is sent while the last one is still being sent', async () => {
    const { receive, sends, runs, budget } = seat('b');
    receive(1);
    await settle();
    runs[0]?.done();
    await settle();
    expect(sends.map(({ what }) => what.peer)).toEqual(['b']);
    receive(2);
    await settle();
    // Frame 1 is not sent yet, and frame 2 is in the engine.
    expect(runs).toHaveLength(2);
    runs[1]?.done();
    await settle();
    expect(sends).toHaveLength(2);
    expect(budget.usedBytes).toBe(2 * 128);
    for (const { done } of sends) done();
    await settle();
    expect(budget.usedBytes).toBe(0);
  });

  it('overlap: the next frame is received, and waits in the engine, while the last one runs', async () => {
    const { receive, runs, runner } = seat('b');
    receive(1);
    await settle();
    for (const frame of [2, 3]) receive(frame);
    await settle();
    // Two in the engine, so that it goes on without asking; the third is complete here.
    expect([runs.length, runner.waiting()]).toEqual([2, 1]);
    runs[0]?.done();
    await settle();
    expect([runs.length, runner.waiting()]).toEqual([3, 0]);
  });
});

describe('frames that are ready', () => {
  it('run in the order of their numbers, also when an old one comes after newer ones', async () => {
    const { receive, runs, failures } = seat('b');
    receive(1);
    receive(2);
    // It was longer under way, through another agent.
    for (const frame of [5, 4, 3]) receive(frame);
    await settle();
    for (let run = 0; run < 5; run++) {
      runs[run]?.fail();
      await settle();
    }
    expect(failures).toEqual([1, 2, 3, 4, 5].map((frame) => `run of frame ${frame}`));
  });
});

describe('the buffer of an output', () => {
  it('is used again when it was sent, and not before', async () => {
    const { receive, sends, runs, made, buffers } = seat('b');
    receive(1);
    await settle();
    runs[0]?.done();
    await settle();
    const under = made[0]?.bytes.buffer;
    const taken = Array.from({ length: 20 }, () => buffers.take(8192).buffer);
    expect(taken).not.toContain(under);
    sends[0]?.done();
    await settle();
    expect(buffers.take(8192).buffer).toBe(under);
  });

  it('is used again when its frame is not wanted any more and the rest of it does not leave: nothing is said to have failed', async () => {
    const { receive, sends, runs, made, buffers, budget, failures, epoch } = seat('b');
    for (const frame of [1, 2]) receive(frame);
    await settle();
    for (const { done } of runs) done();
    await settle();
    expect(sends.map(({ what }) => what.wanted())).toEqual([true, true]);
    epoch.joins.cancel(1, 1);
    expect(sends.map(({ what }) => what.wanted())).toEqual([false, true]);
    sends[0]?.done();
    await settle();
    expect([budget.usedBytes, failures]).toEqual([128, []]);
    expect(buffers.take(8192).buffer).toBe(made[0]?.bytes.buffer);
    // Nor is anything of an epoch that is given back.
    epoch.released = true;
    expect(sends[1]?.what.wanted()).toBe(false);
  });

  it('is never used again when its send failed: a socket may still be reading it', async () => {
    const { receive, sends, runs, made, buffers, failures } = seat('b');
    receive(1);
    await settle();
    runs[0]?.done();
    await settle();
    sends[0]?.fail();
    await settle();
    expect(failures).toEqual(['frame 1 to b']);
    expect(buffers.take(8192).buffer).not.toBe(made[0]?.bytes.buffer);
  });

  it('is handed over to the next seat of the same agent, without a socket and without a copy', async () => {
    const { receive, sends, runs, made, forwarder } = seat('a');
    receive(1);
    await settle();
    runs[0]?.done();
    await settle();
    expect(sends).toHaveLength(0);
    expect(runs[1]?.what.x?.bytes).toBe(made[0]?.bytes);
    expect(forwarder.health('a')).toMatchObject([{ lane: 'local', messagesSent: 1, bytesSent: 128 }]);
    runs[1]?.done();
    await settle();
    expect(sends.map(({ what }) => what.peer)).toHaveLength(1);
  });

  it('and those of inputs make no new ones from frame to frame', async () => {
    const pool = new BufferPool(MIB);
    const budget = new FrameBudget(MIB);
    const plan = toyPlan('d', 1, [{ parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] }]);
    const seats = new SeatTable('a', plan.prepare);
    const joins = new JoinTable(seats, budget, () => 0, {
      take: () => pool.take(8192).subarray(0, 128),
      give: (bytes) => pool.give(bytes),
    });
    for (let frame = 0; frame < 10; frame++) {
      const slot = joins.open(seats.seatFor(0, [0]), 0, { ...key(frame), route: [0] });
      expect(typeof slot).toBe('object');
      // Given up before it was complete.
      joins.cancel(frame, 1);
    }
    expect(pool.made).toBe(1);
    expect(budget.usedBytes).toBe(0);
  });
});

describe('copies from the socket to the engine', () => {
  it('are one: segments and decoded data are views of what the socket gave, and the run gets the buffer that was filled', async () => {
    const plan = toyPlan('d', 1, [{ parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] }]);
    const seats = new SeatTable('a', plan.prepare);
    const tensor = allocTensor('float32', [8, 4]);
    new Float32Array(tensor.bytes.buffer).forEach((_, i, all) => {
      all[i] = i;
    });
    const ids = { deployment: 'd', term: 1, epoch: 1, frame: 1, attempt: 1, route: [0], wire: 0, lowWater: 0, remainingMs: 100 };
    const header = { ...ids, dtype: 'float32' as const, dims: [8, 4], encoding: 'raw' as const, scale: 1, zero: 0 };
    const message = encodeActivation(header, tensor.bytes, rowsBox(0, 8), rowsBox(0, 8));
    // Encoding does not copy either.
    expect(message.at(-1)?.buffer).toBe(tensor.bytes.buffer);
    const payload = Buffer.concat(message);
    const chunk = Uint8Array.from(Buffer.concat([publishHeader('t', payload.length, MIB), payload]));
    const frames: Segments[] = [];
    const options = { maxPacketBytes: MIB, first: 'connect' as const, onPacket: () => undefined };
    const framer = new Framer({ ...options, onPublish: (frame) => void frames.push(frame.payload) });
    framer.push(generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId: 'peer', keepalive: 60 }));
    framer.push(chunk);
    const [got = []] = frames;
    expect(got.map((segment) => segment.buffer)).toEqual([chunk.buffer]);
    const { data } = decodeActivation(got);
    expect(data.segments.every((segment) => segment.buffer === chunk.buffer)).toBe(true);
    const joins = new JoinTable(seats, new FrameBudget(MIB), () => 0);
    const slot = joins.open(seats.seatFor(0, [0]), 0, { ...key(1), route: [0] });
    if (typeof slot === 'string') throw new Error(slot);
    scatter(data, header, 4, slot.port.bytes, slot.box, rowsBox(0, 8));
    const ready = joins.fill(slot);
    // The copy: equal bytes elsewhere. The frame holds the very memory that was filled, and the engine takes that over (its own test).
    expect(ready?.inputs.x?.bytes).toBe(slot.port.bytes);
    expect(ready?.inputs.x?.bytes).toEqual(tensor.bytes);
    expect(ready?.inputs.x?.bytes.buffer).not.toBe(chunk.buffer);
  });
});
