import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BufferPool } from '../broker/buffers.js';
import { createFakeBroker } from '../broker/fake-bus.js';
import type { SliceRef } from '../broker/plan.js';
import { topicsOf } from '../broker/topics.js';
import { Epochs } from './epochs.js';
import { BlobFetcher } from './fetch.js';
import { FrameBudget } from './join.js';
import { type Memory, SessionCache } from './sessions.js';
import { Standby } from './standby.js';
import { BlobStore } from './store.js';
import { eventually, folder, ToyEngine, type ToyPlan, toyPlan } from './test-world.js';

const topics = topicsOf('c');
const whole = { reads: [0, 8], writes: [0, 8] } as const;
/** A plan of one slice on agent a, which differs by its epoch. */
const planOf = (epoch: number): ToyPlan => toyPlan('net', epoch, [{ parts: [whole], agents: [['a']] }], `pad ${epoch}`);

async function world(undo: (() => unknown)[], limitBytes = 1e6) {
  const broker = createFakeBroker();
  const gateway = broker.bus('gateway');
  const bus = broker.bus('a');
  const blobs = new Map<string, Buffer>();
  const state = { nowMs: 0, answers: true, asked: 0 };
  await gateway.subscribe(topics.blobRequest, ({ agent, id, sha256, offset, length }) => {
    state.asked++;
    if (!state.answers) return;
    const bytes = blobs.get(sha256);
    const data = bytes?.subarray(offset, offset + length) ?? Buffer.alloc(0);
    const code = bytes === undefined ? 'BLOB_NOT_FOUND' : '';
    void gateway.publish(topics.blobChunk(agent), { id, sha256, offset, totalBytes: bytes?.length ?? 0, code, data });
  });
  const store = await BlobStore.open({ directory: await folder(undo), limitBytes: 1e6 });
  undo.push(() => store.close());
  const fetcher = new BlobFetcher({ bus, topics: () => topics, agent: 'a', store, requestTimeoutMs: 50, random: () => 0 });
  await fetcher.start();
  undo.push(() => fetcher.stop());
  const engine = new ToyEngine();
  const memory: Memory = { limitBytes, usedBytes: 0 };
  const sessions = new SessionCache(engine, store, {}, () => memory);
  const nowMs = () => state.nowMs;
  const epochs: Epochs = new Epochs({
    ...{ agent: 'a', store, fetcher, sessions, nowMs, buffers: new BufferPool(0), budget: new FrameBudget(1e6) },
    onProgress: () => undefined,
    onPrepared: () => undefined,
    onMemoryShort: (slices) => standby.giveWay(slices),
    onReleased: async () => undefined,
  });
  const whenIdle = <T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> => epochs.whenIdle(work);
  const standby = new Standby({ store, fetcher, sessions, memory: () => memory, whenIdle, activity: () => 0, nowMs, log: () => undefined });
  undo.push(() => standby.stop());
  const serve = (plan: ToyPlan): SliceRef[] => {
    for (const [sha, bytes] of plan.blobs) blobs.set(sha, bytes);
    return [...plan.slices];
  };
  const stand = (slices: readonly SliceRef[], deployment = 'net', urgent = false) =>
    standby.set({ deployment, slices, leaseMs: 1000, urgent });
  return { state, store, engine, sessions, epochs, standby, serve, stand };
}

describe('slices that stand by', () => {
  const undo: (() => unknown)[] = [];
  let it1: Awaited<ReturnType<typeof world>>;
  beforeEach(async () => {
    it1 = await world(undo);
  });
  afterEach(async () => {
    for (const one of undo.splice(0).reverse()) await one();
  });

  it('wait for those that are urgent, whatever was begun, and go on when they are asked for again', async () => {
    const { stand, serve, state, store } = it1;
    const [patient, urgent] = [planOf(1), planOf(2)];
    serve(patient);
    const [slice] = serve(urgent);
    state.answers = false;
    const first = stand(patient.slices);
    await eventually(() => state.asked > 0, 'the first to be asked for');
    const second = stand(urgent.slices, 'net/next', true);
    expect(await first).toMatchObject({ loaded: [], stored: [], why: expect.stringContaining('AGENT_BUSY') });
    state.answers = true;
    const sha = slice?.graph.sha256 ?? '';
    expect(await second).toEqual({ loaded: [sha], stored: [], why: '' });
    expect(slice && (await store.has(slice.graph))).toBe(true);
    expect((await stand(patient.slices)).why).toBe('');
  });

  it('are fetched and loaded once, and what is prepared later takes them as they are', async () => {
    const { epochs, stand, serve, engine, state } = it1;
    const plan = planOf(1);
    const [slice] = serve(plan);
    const sha = slice?.graph.sha256 ?? '';
    expect(await stand(plan.slices)).toEqual({ loaded: [sha], stored: [], why: '' });
    expect(await stand(plan.slices)).toEqual({ loaded: [sha], stored: [], why: '' });
    expect(engine.loads).toBe(1);
    const { asked } = state;
    expect((await epochs.prepare(1, plan.prepare, 5000)).fetchedBytes).toBe(0);
    expect([engine.loads, state.asked]).toEqual([1, asked]);
    // Held by the seat alone from here on.
    await stand([]);
    expect(engine.open).toHaveLength(1);
    await epochs.release({ term: 1, deployment: 'net', epoch: 1 });
    expect(engine.open).toHaveLength(0);
  });

  it('are given up when a new list leaves them out, or nobody asks again in time; their blobs stay', async () => {
    const { stand, serve, standby, engine, state, store } = it1;
    const [a = fail(), b = fail()] = [serve(planOf(1))[0], serve(planOf(2))[0]];
    await stand([a, b]);
    expect(engine.open).toHaveLength(2);
    await stand([b]);
    expect(engine.open).toEqual([store.path(b.graph.sha256)]);
    await stand([a], 'other');
    state.nowMs = 900;
    await stand([a], 'other');
    state.nowMs = 1100;
    standby.expire(state.nowMs);
    await eventually(() => engine.open.length === 1, 'the list of net to be over');
    expect(engine.open).toEqual([store.path(a.graph.sha256)]);
    expect(await store.has(b.graph)).toBe(true);
  });

  it('stay on disk where memory is not left over, and say so', async () => {
    const { stand, serve, sessions } = await world(undo, 4700);
    const [a = fail(), b = fail()] = [serve(planOf(1))[0], serve(planOf(2))[0]];
    // Of 4,700 bytes 85 % may be taken; each needs 2,000, and weights of the other count.
    expect(await stand([a, b])).toEqual({ loaded: [a.graph.sha256, b.graph.sha256], stored: [], why: '' });
    await stand([]);
    expect(sessions.loaded).toEqual([]);
    const tight = await world(undo, 3000);
    tight.serve(planOf(1));
    tight.serve(planOf(2));
    expect(await tight.stand([b, a])).toEqual({ loaded: [b.graph.sha256], stored: [a.graph.sha256], why: '' });
  });

  it('give their memory to seats that are prepared', async () => {
    const { stand, serve, epochs, engine, store } = await world(undo, 3000);
    const [a = fail()] = serve(planOf(1));
    await stand([a]);
    const plan = planOf(2);
    serve({ ...plan, slices: plan.slices });
    const big = { ...plan.prepare, slices: plan.slices.map((slice) => ({ ...slice, weightBytes: 5000 })) };
    await expect(epochs.prepare(1, big, 5000)).rejects.toMatchObject({ code: 'AGENT_OUT_OF_MEMORY' });
    expect(engine.open).toEqual([]);
    await stand([a]);
    expect(engine.open).toEqual([store.path(a.graph.sha256)]);
  });

  it('wait while seats are prepared, and go on after that with what they had', async () => {
    const { stand, serve, epochs, state, engine } = it1;
    const [a = fail()] = serve(planOf(1));
    state.answers = false;
    const standing = stand([a]);
    await eventually(() => state.asked > 0, 'a blob to be asked for');
    const urgent = planOf(2);
    serve(urgent);
    const prepared = epochs.prepare(1, urgent.prepare, 5000);
    state.answers = true;
    await prepared;
    expect(await standing).toMatchObject({ loaded: [a.graph.sha256], why: '' });
    expect(engine.loads).toBe(2);
  });

  it('that nobody has are said to be missing, and the others are there', async () => {
    const { stand, serve } = it1;
    const [b = fail()] = serve(planOf(2));
    const answer = await stand([...planOf(1).slices, b]);
    expect(answer.loaded).toEqual([b.graph.sha256]);
    expect(answer.why).toMatch(/BLOB_NOT_FOUND/);
  });

  it('are not begun any more by an agent that stops', async () => {
    const { stand, serve, standby, engine } = it1;
    const [a = fail()] = serve(planOf(1));
    await standby.stop();
    expect(await stand([a])).toEqual({ loaded: [], stored: [], why: '' });
    expect(engine.loads).toBe(0);
  });
});

function fail(): never {
  throw new Error('a toy plan has a slice');
}
