import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeActivation, decodeResult, encodeActivation, encodeSubmit, readTensor } from '../broker/activation.js';
import { encode } from '../broker/codec.js';
import { createFakeBroker } from '../broker/fake-bus.js';
import { createFakeNetwork, type FakeNetwork } from '../broker/lanes/fake-lanes.js';
import type { Lanes } from '../broker/lanes/lane.js';
import type { ActivationHeader, ResultHeader } from '../broker/messages.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
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
let dispatcher: Dispatcher;
let client: Lanes;
let agent: Lanes;
let issued: ActivationHeader[];
let results: { header: ResultHeader; values: number[] }[];

beforeEach(async () => {
  network = createFakeNetwork();
  const lanes = network.lanes(DISPATCHER);
  dispatcher = new Dispatcher({ bus: createFakeBroker().bus('scheduler'), lanes, topics });
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
