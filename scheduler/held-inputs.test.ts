import { describe, expect, it, onTestFinished } from 'vitest';
import { decodeActivation, decodeResult, encodeActivation, encodeSubmit, readTensor } from '../broker/activation.js';
import { BufferPool, type Buffers } from '../broker/buffers.js';
import { encode } from '../broker/codec.js';
import { createFakeBroker } from '../broker/fake-bus.js';
import { laneNode } from '../broker/lanes/test-node.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
import { type Box, elementCount, type Tensor, wholeBox } from '../broker/tensor.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import { Dispatcher } from './dispatcher.js';
import { HeldInputs } from './held-inputs.js';

const tensor = (length: number): Tensor => ({ dtype: 'uint8', dims: [length], bytes: new Uint8Array(length) });

/** Resolved or rejected from outside. */
function pending(): { readonly sent: Promise<void>; readonly done: () => void; readonly fail: () => void } {
  let [done, fail] = [() => {}, () => {}];
  const sent = new Promise<void>((resolve, reject) => {
    done = resolve;
    fail = () => reject(new Error('the lane broke'));
  });
  return { sent, done, fail };
}

function heldInputs(): { readonly held: HeldInputs; readonly given: Uint8Array[] } {
  const given: Uint8Array[] = [];
  return { given, held: new HeldInputs({ give: (bytes) => void given.push(bytes) }) };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('memory of inputs', () => {
  it('goes back once, when the frame is answered and its last message, of any attempt, has left', async () => {
    for (const order of ['answered first', 'answered last'] as const) {
      const { held, given } = heldInputs();
      const inputs = { x: tensor(8), y: tensor(4) };
      const messages = [pending(), pending(), pending()];
      for (const { sent } of messages) held.sending(1, inputs, sent);
      if (order === 'answered first') held.answered(1);
      for (const { done } of messages) {
        expect(given).toEqual([]);
        done();
        await turn();
      }
      held.answered(1);
      held.answered(1);
      expect(given).toEqual([inputs.x.bytes, inputs.y.bytes]);
      expect(held.size).toBe(0);
    }
  });

  it('is left to the garbage collector when a message broke off, as nobody knows who still reads it', async () => {
    const { held, given } = heldInputs();
    const [broken, whole] = [pending(), pending()];
    for (const { sent } of [broken, whole]) held.sending(1, { x: tensor(8) }, sent);
    broken.fail();
    whole.done();
    held.answered(1);
    await turn();
    expect([given, held.size]).toEqual([[], 0]);
  });
});

const topics = topicsOf('test');
/** Read whole and in several pieces, small enough to be joined, and too large for one piece. */
const SIZES = [2_500_001, 602_112, 70_003, 5000, 12];
const FRAMES = 24;

/** Two rows of so many bytes in all. */
const dimsOf = (length: number): number[] => [2, Math.ceil(length / 2)];

/** Two parts: the left half of both rows and the right one, which have to be gathered. */
function planOf(name: string, length: number): Plan {
  const info = { dtype: 'uint8' as const, dims: dimsOf(length) };
  const [rows = 0, width = 0] = info.dims;
  const boxes = [
    { start: [0, 0], end: [rows, width >> 1] },
    { start: [0, width >> 1], end: [rows, width] },
  ];
  const port = (of: string, box: Box) => ({ name: of, tensor: of, dtype: 'uint8' as const, box });
  const parts = boxes.map((box) => ({ slice: '', inputs: [port('x', box)], outputs: [port('y', box)] }));
  const wire = { output: 0, input: 0, encoding: 'raw' as const };
  return {
    ...{ deployment: name, model: '', term: 1, epoch: 1, planner: '', why: '', slices: {}, predictedLatencyMs: 1, predictedFps: 1 },
    inputs: [{ name: 'x', ...info }],
    outputs: [{ name: 'y', ...info }],
    stages: [{ cut: 'columns', parts, agents: [['a', 'a']], redundancy: 0 }],
    wires: [
      ...boxes.map((box, part) => ({ ...wire, fromStage: SOURCE, fromPart: 0, toStage: 0, toPart: part, box })),
      ...boxes.map((box, part) => ({ ...wire, fromStage: 0, fromPart: part, toStage: SINK, toPart: 0, box })),
    ],
  };
}

describe('frames over lanes whose memory is used again', () => {
  it('arrive as they were sent, whatever their size, while memory that went back is written over', async () => {
    const pool = new BufferPool(32 * 2 ** 20);
    let givenBack = 0;
    // What was given too early is read as 0xee by whoever still sends it.
    const buffers: Buffers = {
      take: (bytes) => pool.take(bytes),
      give: (bytes) => {
        givenBack++;
        new Uint8Array(bytes.buffer).fill(0xee);
        pool.give(bytes);
      },
    };
    const gateway = await laneNode(DISPATCHER, { buffers });
    const dispatcher = new Dispatcher({ bus: createFakeBroker().bus('scheduler'), lanes: gateway.lanes, topics, buffers });
    onTestFinished(() => dispatcher.stop());
    await dispatcher.start();
    const peer = { agent: DISPATCHER, addresses: ['127.0.0.1'], lanePort: gateway.lanes.port };

    // Answers with what it got.
    const agent = await laneNode('a', { listen: false });
    agent.lanes.on(topics.activation('a'), ({ payload }) => {
      const { header, data } = decodeActivation(payload);
      const { bytes, dims } = readTensor(header, data);
      const echo = encodeActivation({ ...header, wire: header.wire + 2 }, bytes, wholeBox(dims), wholeBox(dims));
      void agent.lanes.send(DISPATCHER, topics.activation(DISPATCHER), echo);
    });
    agent.lanes.on(topics.cancel('a').name, () => undefined);
    const client = await laneNode('c', { listen: false });
    const answered = new Map<number, () => void>();
    const wrong: string[] = [];
    client.lanes.on(topics.result('c'), ({ payload }) => {
      const { header, data } = decodeResult(payload);
      const { sequence } = header;
      const { bytes } = readTensor(header, data);
      if (!Buffer.alloc(bytes.length, sequence).equals(bytes)) wrong.push(`frame ${sequence}`);
      void client.lanes.send(DISPATCHER, topics.resultAck.name, [encode('ResultAck', { client: 'c', sequence })]);
      answered.get(sequence)?.();
    });
    for (const { lanes } of [agent, client]) lanes.setPeers([peer]);
    for (const [i, length] of SIZES.entries()) {
      dispatcher.add(`m${i}`, planOf(`m${i}`, length).inputs);
      dispatcher.install(planOf(`m${i}`, length), 4);
    }

    const frame = (sequence: number): Promise<void> => {
      const size = sequence % SIZES.length;
      const length = SIZES[size] ?? 0;
      const of = { client: 'c', sequence, deployment: `m${size}`, deadlineMs: 60_000, input: 'x', inputCount: 1 };
      const message = encodeSubmit(
        { ...of, dtype: 'uint8', dims: dimsOf(length) },
        new Uint8Array(elementCount(dimsOf(length))).fill(sequence),
      );
      return new Promise((resolve, reject) => {
        answered.set(sequence, resolve);
        client.lanes.send(DISPATCHER, topics.submit, message).catch(reject);
      });
    };
    for (let first = 1; first <= FRAMES; first += 8) await Promise.all(Array.from({ length: 8 }, (_, i) => frame(first + i)));
    expect([wrong, gateway.refused]).toEqual([[], []]);
    // Every frame's, what its parts were gathered into, and what the others were read into.
    expect(givenBack).toBeGreaterThanOrEqual(3 * FRAMES);
  });
});
