import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeActivation, decodeResult, encodeActivation, encodeSubmit, readTensor } from '../broker/activation.js';
import { encode } from '../broker/codec.js';
import { createFakeBroker, type FakeBroker } from '../broker/fake-bus.js';
import { createFakeNetwork, type FakeNetwork } from '../broker/lanes/fake-lanes.js';
import type { Lanes, SendOptions } from '../broker/lanes/lane.js';
import type { ActivationHeader, ResultHeader, Trouble } from '../broker/messages.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
import { Refusals } from '../broker/refusals.js';
import { holdFor, Memory } from '../broker/segments.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import { Dispatcher } from './dispatcher.js';

const topics = topicsOf('test');
const INFO = { dtype: 'float32' as const, dims: [4] };
/** One agent, two boxes each way: rows [0, 2) and [2, 4) of x become y. */
const box = (start: number) => ({ start: [start], end: [start + 2] });
const port = (name: string) => ({ name, tensor: name, dtype: 'float32' as const, box: { start: [0], end: [4] } });
const PLAN: Plan = {
  ...{ deployment: 'm', model: '', term: 3, epoch: 1, planner: '', why: '', slices: {}, predictedLatencyMs: 1, predictedFps: 1 },
  inputs: [{ name: 'x', ...INFO }],
  outputs: [{ name: 'y', ...INFO }],
  stages: [{ cut: 'whole', parts: [{ slice: '', inputs: [port('x')], outputs: [port('y')] }], agents: [['a']], redundancy: 0 }],
  wires: [0, 2].flatMap((start) => [
    { fromStage: SOURCE, fromPart: 0, output: 0, toStage: 0, toPart: 0, input: 0, box: box(start), encoding: 'raw' as const },
    { fromStage: 0, fromPart: 0, output: 0, toStage: SINK, toPart: 0, input: 0, box: box(start), encoding: 'raw' as const },
  ]),
};
const INPUT = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);

let network: FakeNetwork;
let broker: FakeBroker;
let refusals: Refusals;
/** Peers that somebody could not reach. */
let troubled: string[];
let dispatcher: Dispatcher;
let client: Lanes;
let agent: Lanes;
let issued: ActivationHeader[];
let results: { header: ResultHeader; values: number[] }[];

beforeEach(async () => {
  network = createFakeNetwork();
  const lanes = network.lanes(DISPATCHER);
  broker = createFakeBroker();
  refusals = new Refusals();
  troubled = [];
  const onTrouble = ({ peer }: Trouble) => void troubled.push(peer);
  dispatcher = new Dispatcher({ bus: broker.bus('scheduler'), lanes, topics, refusals, onTrouble });
  await dispatcher.start();
  await lanes.start();
  issued = [];
  // Its own for each test: the answers to what a test left unfinished come when the next one has begun.
  const mine: typeof results = [];
  results = mine;
  agent = network.lanes('a');
  agent.on(topics.activation('a'), ({ payload }) => void issued.push(decodeActivation(payload).header));
  agent.on(topics.cancel('a').name, () => undefined);
  await agent.start();
  client = network.lanes('c');
  client.on(topics.result('c'), ({ payload }) => {
    const { header, data } = decodeResult(payload);
    mine.push({ header, values: header.code === '' ? [...new Float32Array(readTensor(header, data).bytes.buffer)] : [] });
  });
  await client.start();
  dispatcher.add('m', PLAN.inputs);
});
afterEach(() => dispatcher.stop());

const settle = () => new Promise((resolve) => setTimeout(resolve, 20));

async function submit(sequence: number): Promise<void> {
  const header = { client: 'c', sequence, deployment: 'm', deadlineMs: 5000, input: 'x', inputCount: 1, ...INFO };
  await client.send(DISPATCHER, topics.submit, encodeSubmit(header, INPUT));
  await settle();
}

/** The agent answers one of its two boxes of the frame, with `value` in both places. */
async function answer(wire: 1 | 3, value: number, over: Partial<ActivationHeader> = {}): Promise<void> {
  const last = issued.at(-1);
  if (last === undefined) throw new Error('nothing was issued');
  const bytes = new Uint8Array(Float32Array.of(value, value).buffer);
  const part = box(wire - 1);
  await agent.send(DISPATCHER, topics.activation(DISPATCHER), encodeActivation({ ...last, wire, ...over }, bytes, part, part));
  await settle();
}

describe('dispatcher', () => {
  it('sends each input box along its wire, and joins the output boxes whatever their order', async () => {
    dispatcher.install(PLAN, 2);
    await submit(1);
    expect(issued.map(({ wire, dims, term, attempt, frame, lowWater }) => [wire, dims, term, attempt, frame, lowWater])).toEqual([
      [0, [2], 3, 1, 1, 1],
      [2, [2], 3, 1, 1, 1],
    ]);
    await answer(3, 20);
    expect(results).toEqual([]);
    await answer(1, 10);
    expect(results).toMatchObject([{ header: { sequence: 1, output: 'y', outputCount: 1, attempts: 1 }, values: [10, 10, 20, 20] }]);
  });

  it('gives back the memory of what it cannot use or read', async () => {
    const other = createFakeNetwork();
    const lanes = other.lanes(DISPATCHER);
    const given: Uint8Array[] = [];
    const pool = { give: (bytes: Uint8Array) => void given.push(bytes) };
    // As a lane that reads into memory says what a message lies in.
    lanes.on(topics.activation(DISPATCHER), ({ payload }) => {
      const memory = new Memory(new Uint8Array(1), pool);
      memory.look();
      memory.close();
      holdFor(payload, [memory]);
    });
    const second = new Dispatcher({ bus: createFakeBroker().bus('second'), lanes, topics, refusals });
    await second.start();
    await lanes.start();
    const sender = other.lanes('a');
    await sender.start();
    const header = { deployment: 'over', term: 1, epoch: 1, frame: 1, attempt: 1, route: [0], wire: 1, lowWater: 0, remainingMs: 1 };
    const shape = { dtype: 'float32', dims: [2], encoding: 'raw', scale: 1, zero: 0 } as const;
    const late = encodeActivation({ ...header, ...shape }, new Uint8Array(8), box(0), box(0));
    for (const payload of [late, late.slice(0, 1)]) await sender.send(DISPATCHER, topics.activation(DISPATCHER), payload);
    await settle();
    await second.stop();
    expect([given.length, second.refused]).toEqual([2, 1]);
  });

  it('takes results only from who computes them, and counts the others: wrong sender, former term, epoch that is over, answer that comes late', async () => {
    dispatcher.install(PLAN, 2);
    await submit(1);
    const stranger = network.lanes('stranger');
    const [last] = issued;
    const part = box(0);
    const forged = encodeActivation({ ...last, wire: 1 } as ActivationHeader, new Uint8Array(8), part, part);
    await stranger.send(DISPATCHER, topics.activation(DISPATCHER), forged);
    await answer(1, 7, { term: 2 });
    await answer(1, 7, { epoch: 9 });
    await answer(3, 20);
    expect(results).toEqual([]);
    await answer(1, 10);
    expect(results).toMatchObject([{ values: [10, 10, 20, 20] }]);
    // As when it was taken for lost, and goes on.
    await answer(1, 10);
    expect(results).toHaveLength(1);
    expect(Object.fromEntries(refusals.rows().map(({ code, count }) => [code, count]))).toEqual({
      EPOCH_STALE: 2,
      SENDER_WRONG: 1,
      FRAME_LATE: 1,
    });
  });

  it('sends nothing for an attempt that is over, and lets its cancels by', async () => {
    await dispatcher.stop();
    const lanes = network.lanes(DISPATCHER);
    const sent: { readonly topic: string; readonly options: SendOptions | undefined }[] = [];
    const send = lanes.send.bind(lanes);
    let purged = 0;
    lanes.purge = () => void purged++;
    lanes.send = (peer, topic, payload, options) => {
      sent.push({ topic, options });
      return send(peer, topic, payload, options);
    };
    dispatcher = new Dispatcher({ bus: createFakeBroker().bus('scheduler'), lanes, topics });
    await dispatcher.start();
    await lanes.start();
    dispatcher.add('m', PLAN.inputs);
    dispatcher.install(PLAN, 2);
    await submit(1);
    const wanted = () => sent.filter(({ topic }) => topic === topics.activation('a')).map(({ options }) => options?.wanted?.());
    expect(wanted()).toEqual([true, true]);
    expect(purged).toBe(0);
    dispatcher.agentMoved('a');
    await settle();
    expect(wanted()).toEqual([false, false, true, true]);
    expect(purged).toBe(1);
    expect(sent.filter(({ topic }) => topic === topics.cancel('a').name)).toMatchObject([{ options: { urgent: true } }]);
    await answer(1, 1);
    await answer(3, 2);
    expect(wanted()).toEqual([false, false, false, false]);
  });

  it('hears of trouble only from agents of the plan, in its term', async () => {
    dispatcher.install(PLAN, 2);
    await submit(1);
    const [bus, stranger] = [broker.bus('a'), broker.bus('stranger')];
    const trouble: Trouble = {
      ...{ agent: 'a', deployment: 'm', term: 3, epoch: 1, frame: 1, attempt: 1, peer: 'b', code: 'LANE_DOWN', message: '' },
    };
    await stranger.publish(topics.trouble, { ...trouble, agent: 'stranger' });
    // In another's name: refused before it comes to the dispatcher.
    await stranger.publish(topics.trouble, trouble);
    await bus.publish(topics.trouble, { ...trouble, term: 2 });
    await bus.publish(topics.trouble, { ...trouble, epoch: 8 });
    await settle();
    expect([troubled, dispatcher.stats('m').reissued]).toEqual([[], 0]);
    expect([refusals.of('SENDER_WRONG'), refusals.of('EPOCH_STALE')]).toEqual([1, 2]);
    await bus.publish(topics.trouble, trouble);
    await settle();
    expect(troubled).toEqual(['b']);
  });

  it('takes no result of an attempt that was never made', async () => {
    dispatcher.install(PLAN, 2);
    await submit(1);
    for (const attempt of [0, 2, 3, 2 ** 31 - 1]) for (const wire of [1, 3] as const) await answer(wire, 7, { attempt });
    expect(results).toEqual([]);
    expect(refusals.of('FRAME_LATE')).toBe(8);
    await answer(1, 10);
    await answer(3, 20);
    expect(results).toMatchObject([{ values: [10, 10, 20, 20] }]);
  });

  it('does not give up frames for an agent that they are not under way through', async () => {
    const [stage] = PLAN.stages;
    const other = network.lanes('z');
    other.on(topics.activation('z'), ({ payload }) => void issued.push(decodeActivation(payload).header));
    await other.start();
    dispatcher.install({ ...PLAN, stages: stage === undefined ? [] : [{ ...stage, agents: [['a'], ['z']] }] }, 2);
    await submit(1);
    const reporter = issued[0]?.route[0] === 1 ? 'a' : 'z';
    const trouble: Trouble = {
      ...{
        agent: reporter,
        deployment: 'm',
        term: 3,
        epoch: 1,
        frame: 1,
        attempt: 1,
        peer: reporter === 'a' ? 'z' : 'a',
        code: 'LANE_DOWN',
        message: '',
      },
    };
    await broker.bus(reporter).publish(topics.trouble, trouble);
    await settle();
    expect([troubled, dispatcher.stats('m').reissued, refusals.of('SENDER_WRONG')]).toEqual([[], 0, 1]);
  });

  it('issues again what is under way through an agent that moved, by the same plan', async () => {
    dispatcher.install(PLAN, 2);
    await submit(1);
    dispatcher.agentMoved('elsewhere');
    await settle();
    expect(issued).toHaveLength(2);
    dispatcher.agentMoved('a');
    await settle();
    expect(issued.slice(2).map(({ epoch, frame, attempt }) => [epoch, frame, attempt])).toEqual([
      [1, 1, 2],
      [1, 1, 2],
    ]);
    await answer(1, 1);
    await answer(3, 2);
    expect(results).toMatchObject([{ header: { attempts: 2 }, values: [1, 1, 2, 2] }]);
  });

  it('keeps a result that was lost on the way, gives it again, and runs nothing twice', async () => {
    dispatcher.install(PLAN, 2);
    network.filter = ({ to }) => to !== 'c';
    await submit(1);
    await answer(1, 1);
    await answer(3, 2);
    expect(results).toEqual([]);
    network.filter = () => true;
    await submit(1);
    expect(results).toMatchObject([{ values: [1, 1, 2, 2] }]);
    expect(issued).toHaveLength(2);
    await client.send(DISPATCHER, topics.resultAck.name, [encode('ResultAck', { client: 'c', sequence: 1 })]);
    await settle();
    await submit(1);
    expect(issued).toHaveLength(4);
  });

  it('ignores boxes of another term, of no epoch and of finished frames, and counts what does not fit', async () => {
    dispatcher.install(PLAN, 2);
    await submit(1);
    await answer(1, 9, { term: 2 });
    await answer(1, 9, { epoch: 7 });
    await answer(1, 9, { frame: 99 });
    await answer(1, 1);
    expect(dispatcher.refused).toBe(0);
    await answer(1, 9, { wire: 0 }).catch(() => undefined);
    expect(dispatcher.refused).toBe(1);
    await answer(3, 2);
    await answer(3, 9);
    expect(results).toMatchObject([{ values: [1, 1, 2, 2] }]);
  });

  it('issues frames by the plan in force and lets the old epoch drain', async () => {
    const drained: number[] = [];
    await dispatcher.stop();
    const lanes = network.lanes(DISPATCHER);
    const options = {
      bus: createFakeBroker().bus('scheduler'),
      lanes,
      topics,
      onDrained: (_: string, epoch: number) => void drained.push(epoch),
    };
    dispatcher = new Dispatcher(options);
    await dispatcher.start();
    await lanes.start();
    dispatcher.add('m', PLAN.inputs);
    dispatcher.install(PLAN, 2);
    await submit(1);
    dispatcher.install({ ...PLAN, epoch: 2 }, 2);
    expect(drained).toEqual([]);
    await answer(1, 1);
    await answer(3, 1);
    expect(drained).toEqual([1]);
    await submit(2);
    expect(issued.at(-1)?.epoch).toBe(2);
  });

  it('says why when the only agent cannot be reached until the deadline', async () => {
    dispatcher.install(PLAN, 2);
    network.join(DISPATCHER, 'a', 'down', 'cable');
    const header = { client: 'c', sequence: 1, deployment: 'm', deadlineMs: 150, input: 'x', inputCount: 1, ...INFO };
    await client.send(DISPATCHER, topics.submit, encodeSubmit(header, INPUT));
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(results).toMatchObject([{ header: { code: 'FRAME_DEADLINE' } }]);
    expect(results[0]?.header.message).toContain('LANE_DOWN');
  });
});
