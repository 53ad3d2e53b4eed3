import { writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeActivation, encodeActivation, readTensor } from '../broker/activation.js';
import { encode } from '../broker/codec.js';
import { createFakeBroker, type FakeBroker, type FakeBus } from '../broker/fake-bus.js';
import { createFakeNetwork, type FakeNetwork } from '../broker/lanes/fake-lanes.js';
import type { Lanes } from '../broker/lanes/lane.js';
import type { ActivationHeader, CommandBody, Gone, Health, Hello, Prepare, Progress, Reply, Trouble } from '../broker/messages.js';
import { type Port, SOURCE } from '../broker/plan.js';
import { OUR_SCHEMAS } from '../broker/schema/version.js';
import { NO_SEAL } from '../broker/seal.js';
import { boxDims } from '../broker/tensor.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import { Agent } from './agent.js';
import { type AgentConfigInput, parseAgentConfig } from './config.js';
import type { AgentOptions } from './options.js';
import { eventually, folder, ToyEngine, type ToyPlan, toyExpected, toyPlan } from './test-world.js';

const topics = topicsOf('c');

/** Scheduler, gateway and dispatcher, as far as agents see them. */
class World {
  readonly undo: (() => unknown)[] = [];
  readonly broker: FakeBroker = createFakeBroker();
  readonly network: FakeNetwork = createFakeNetwork();
  readonly bus: FakeBus = this.broker.bus('scheduler');
  readonly lanes: Lanes = this.network.lanes(DISPATCHER);
  readonly blobs = new Map<string, Buffer>();
  readonly hellos: Hello[] = [];
  readonly healths: Health[] = [];
  readonly gones: Gone[] = [];
  readonly replies: Reply[] = [];
  readonly troubles: Trouble[] = [];
  readonly progress: Progress[] = [];
  /** Bytes served, and whether the gateway answers. */
  served = 0;
  serving = true;
  /** Rows of the output, by frame and attempt. */
  readonly results = new Map<string, Map<number, Float32Array>>();
  readonly buses = new Map<string, FakeBus>();
  readonly engines = new Map<string, ToyEngine>();
  term = 1;
  scheduler = 's';
  lowWater = 0;
  private ids = 0;

  async start(): Promise<void> {
    const { bus } = this;
    await bus.subscribe(topics.hello, (m) => this.hellos.push(m));
    await bus.subscribe(topics.health, (m) => this.healths.push(m));
    await bus.subscribe(topics.gone, (m) => this.gones.push(m));
    await bus.subscribe(topics.reply, (m) => this.replies.push(m));
    await bus.subscribe(topics.trouble, (m) => this.troubles.push(m));
    await bus.subscribe(topics.progress, (m) => this.progress.push(m));
    await bus.subscribe(topics.blobRequest, ({ agent, id, sha256, offset, length }) => {
      const blob = this.blobs.get(sha256);
      if (!this.serving) return;
      const data = blob?.subarray(offset, offset + length) ?? Buffer.alloc(0);
      this.served += data.length;
      const chunk = { id, sha256, offset, totalBytes: blob?.length ?? 0, code: blob === undefined ? 'BLOB_NOT_FOUND' : '', data };
      void bus.publish(topics.blobChunk(agent), chunk);
    });
    this.lanes.on(topics.activation(DISPATCHER), (message) => {
      const { header, data } = decodeActivation(message.payload);
      const tensor = readTensor(header, data);
      const key = `${header.frame}/${header.attempt}`;
      const rows = this.results.get(key) ?? new Map();
      this.results.set(key, rows);
      if (rows.has(header.wire)) throw new Error(`result of ${key} on wire ${header.wire} twice`);
      rows.set(header.wire, new Float32Array(tensor.bytes.buffer));
    });
    await this.lanes.start();
  }

  /** Not started. */
  async make(name: string, config: Partial<AgentConfigInput> = {}, options: Partial<AgentOptions> = {}): Promise<Agent> {
    const directory = config.directory ?? (await folder(this.undo));
    const agent = new Agent({
      config: parseAgentConfig({ name, cluster: 'c', broker: 'memory', directory, healthMs: 50, drainMs: 500, ...config }),
      softwareVersion: '1.2.3',
      connect: async (will) => {
        const bus = this.broker.bus(name, { will });
        this.buses.set(name, bus);
        return bus;
      },
      createLanes: () => this.network.lanes(name),
      createEngine: async () => {
        const engine = new ToyEngine();
        this.engines.set(name, engine);
        return engine;
      },
      memory: () => ({ limitBytes: 1e9, usedBytes: 0 }),
      fetch: { chunkBytes: 64, requestTimeoutMs: 50, random: () => 0 },
      ...options,
    });
    this.undo.push(() => agent.stop());
    return agent;
  }

  async agent(name: string, config: Partial<AgentConfigInput> = {}, options: Partial<AgentOptions> = {}): Promise<Agent> {
    const agent = await this.make(name, config, options);
    await agent.start();
    await eventually(() => this.hellos.some((h) => h.nonce === agent.nonce), `hello of ${name}`);
    return agent;
  }

  engine(name: string): ToyEngine {
    const engine = this.engines.get(name);
    if (engine === undefined) throw new Error(`no engine of ${name}`);
    return engine;
  }

  /** Sends without waiting; the id of the command. */
  tell(agent: Agent, name: string, body: CommandBody, deadlineMs = 5000): string {
    const id = `c${this.ids++}`;
    void this.bus.publish(topics.command(name), {
      id,
      term: this.term,
      scheduler: this.scheduler,
      nonce: agent.nonce,
      deadlineMs,
      body,
      seal: NO_SEAL,
    });
    return id;
  }

  async ask(agent: Agent, name: string, body: CommandBody, deadlineMs = 5000): Promise<Reply> {
    const id = this.tell(agent, name, body, deadlineMs);
    await eventually(() => this.replies.some((r) => r.id === id), `reply to ${body.kind}`);
    return this.replies.find((r) => r.id === id) as Reply;
  }

  prepare(agent: Agent, name: string, plan: ToyPlan, deadlineMs = 5000): Promise<Reply> {
    for (const [sha256, bytes] of plan.blobs) this.blobs.set(sha256, bytes);
    return this.ask(agent, name, { kind: 'prepare', prepare: plan.prepare }, deadlineMs);
  }

  /** Prepares and commits on all agents. */
  async seat(plan: ToyPlan, agents: Record<string, Agent>): Promise<void> {
    const { deployment, epoch } = plan.prepare;
    for (const [name, agent] of Object.entries(agents)) expect(await this.prepare(agent, name, plan)).toMatchObject({ code: '' });
    for (const [name, agent] of Object.entries(agents)) {
      expect(await this.ask(agent, name, { kind: 'commit', commit: { deployment, epoch } })).toMatchObject({ code: '' });
    }
  }

  header(plan: ToyPlan, wire: number, frame: number, route: readonly number[], attempt = 1): ActivationHeader {
    const box = plan.prepare.wires[wire]?.box ?? { start: [], end: [] };
    const { deployment, epoch } = plan.prepare;
    const tensor = { dtype: 'float32' as const, dims: boxDims(box), encoding: 'raw' as const, scale: 1, zero: 0 };
    return { deployment, term: this.term, epoch, frame, attempt, route, wire, lowWater: this.lowWater, remainingMs: 10_000, ...tensor };
  }

  /** As the dispatcher does: sends the frame's boxes along the wires of its route. */
  async issue(plan: ToyPlan, frame: number, input: Float32Array, route: readonly number[], attempt = 1): Promise<void> {
    const bytes = new Uint8Array(input.buffer);
    for (const [index, wire] of plan.prepare.wires.entries()) {
      if (wire.fromStage !== SOURCE) continue;
      const agent = plan.prepare.stages[wire.toStage]?.agents[route[wire.toStage] ?? -1]?.[wire.toPart] ?? '?';
      const payload = encodeActivation(this.header(plan, index, frame, route, attempt), bytes, { start: [0, 0], end: [8, 4] }, wire.box);
      await this.lanes.send(agent, topics.activation(agent), payload);
    }
  }

  /** Waits for all boxes of a frame's output and puts them together. */
  async result(plan: ToyPlan, frame: number, attempt = 1): Promise<Float32Array> {
    const sinks = plan.prepare.wires.flatMap((w, i) => (w.toStage === -2 ? [i] : []));
    await eventually(() => this.results.get(`${frame}/${attempt}`)?.size === sinks.length, `result of frame ${frame}`);
    const out = new Float32Array(32);
    for (const [wire, rows] of this.results.get(`${frame}/${attempt}`) ?? [])
      out.set(rows, (plan.prepare.wires[wire]?.box.start[0] ?? 0) * 4);
    return out;
  }
}

const input = (seed: number) => Float32Array.from({ length: 32 }, (_, i) => seed * 100 + i);

/** Two bands with halo on a and b, then two bands without on b and a: every wire kind, local and remote. */
const banded = (deployment = 'd', epoch = 1) =>
  toyPlan(deployment, epoch, [
    {
      parts: [
        { reads: [0, 5], writes: [0, 4] },
        { reads: [3, 8], writes: [4, 8] },
      ],
      agents: [['a', 'b']],
    },
    {
      parts: [
        { reads: [0, 6], writes: [0, 5] },
        { reads: [2, 8], writes: [5, 8] },
      ],
      agents: [['b', 'a']],
    },
  ]);

/** One whole stage, on each of the agents in turn. */
const single = (agents: readonly string[], deployment = 'd', epoch = 1, pad = '') =>
  toyPlan(deployment, epoch, [{ parts: [{ reads: [0, 8], writes: [0, 8] }], agents: agents.map((a) => [a]) }], pad);

let world: World;
beforeEach(async () => {
  world = new World();
  await world.start();
});
afterEach(async () => {
  for (const undo of world.undo.reverse()) await undo();
  await world.lanes.stop();
  await world.bus.stop();
});

describe('an agent in the cluster', () => {
  it('says hello on each connection and when a scheduler reigns', async () => {
    const agent = await world.agent('a');
    expect(world.hellos[0]).toMatchObject({
      agent: 'a',
      nonce: agent.nonce,
      term: 0,
      scheduler: '',
      softwareVersion: '1.2.3',
      engine: 'toy',
      ...OUR_SCHEMAS,
    });
    expect(world.hellos[0]?.addresses.length).toBeGreaterThan(0);
    await world.bus.publish(topics.reign, { term: 1, scheduler: 's', ...OUR_SCHEMAS });
    await eventually(() => world.hellos.length === 2, 'hello after reign');
    world.buses.get('a')?.lose();
    await eventually(() => world.gones.length === 1, 'the will');
    expect(world.gones[0]).toEqual({ agent: 'a', nonce: agent.nonce, why: 'will', connection: 0 });
    world.buses.get('a')?.restore();
    await eventually(() => world.hellos.length === 3, 'hello after reconnect');
  });

  it('tells its health while a slice of two seconds runs', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    await world.seat(plan, { a: agent });
    world.engine('a').runMs = 2000;
    await world.issue(plan, 1, input(1), [0]);
    await world.issue(plan, 2, input(2), [0]);
    await world.issue(plan, 3, input(3), [0]);
    const before = world.healths.length;
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(world.results.size).toBe(0);
    // Ten are due; the machine may be busy with other tests.
    expect(world.healths.length - before).toBeGreaterThanOrEqual(3);
    const health = world.healths.at(-1);
    expect(health).toMatchObject({
      agent: 'a',
      nonce: agent.nonce,
      queue: 1,
      seats: [{ deployment: 'd', stage: 0, queue: 1, framesRun: 0 }],
    });
    expect(health?.rssBytes).toBeGreaterThan(health?.anonymousBytes ?? 0);
    expect(health?.anonymousBytes).toBeGreaterThan(1e6);
  });

  it('stops with the code of a scheduler that refuses it', async () => {
    const agent = await world.agent('a');
    world.tell(agent, 'a', { kind: 'refuse', refuse: { code: 'AGENT_NAME_TAKEN', message: 'another a is alive' } });
    expect(await agent.closed).toMatchObject({ code: 'AGENT_NAME_TAKEN', message: expect.stringContaining('another a is alive') });
  });

  it('stops with SCHEMA_MISMATCH under a scheduler it cannot talk to', async () => {
    const agent = await world.agent('a');
    await world.bus.publish(topics.reign, { term: 1, scheduler: 's', schemaVersion: 99_000, schemaFingerprint: 'e'.repeat(64) });
    expect(await agent.closed).toMatchObject({ code: 'SCHEMA_MISMATCH' });
  });

  it("does not take noise on the scheduler's topic for a scheduler", async () => {
    const agent = await world.agent('a');
    for (const noise of [
      { term: 2 ** 50, scheduler: 's', schemaVersion: 55, schemaFingerprint: 'l\u0000Oi' },
      { term: -1, scheduler: 's', schemaVersion: -99_000, schemaFingerprint: '' },
      { term: 1, scheduler: 's', schemaVersion: 2_000_000, schemaFingerprint: 'e'.repeat(64) },
    ])
      await world.bus.publish(topics.reign, noise);
    await world.seat(single(['a']), { a: agent });
    expect(agent.state.epochs).toHaveLength(1);
  });

  it('leaves nothing behind: no engine, no bus, no timer, no lock', async () => {
    const directory = await folder(world.undo);
    const timers = () => process.getActiveResourcesInfo().filter((r) => r === 'Timeout').length;
    const before = timers();
    const agent = await world.agent('a', { directory });
    await world.seat(single(['a']), { a: agent });
    await agent.stop();
    await agent.stop();
    expect(await agent.closed).toBeUndefined();
    expect(world.engine('a')).toMatchObject({ disposed: true, open: [] });
    await eventually(() => timers() <= before, 'timers to be gone');
    await eventually(() => world.gones.some((g) => g.why === 'stopped'), 'farewell');
    await world.agent('a', { directory });
  });

  it('a second one on its store is refused, and the first one lives', async () => {
    const directory = await folder(world.undo);
    const first = await world.agent('a', { directory });
    await expect(world.agent('a', { directory })).rejects.toMatchObject({ code: 'AGENT_NAME_TAKEN' });
    expect(await world.ask(first, 'a', { kind: 'ping', ping: { padBytes: 0 } })).toMatchObject({ code: '' });
  });

  it('that is stopped while it starts leaves nothing running', async () => {
    const directory = await folder(world.undo);
    const agent: Agent = await world.make(
      'a',
      { directory },
      {
        probe: async () => {
          void agent.stop();
          return { macsPerSecond: 1, bytesPerSecond: 1, smallRunMs: 1, quotaGrainMs: 0 };
        },
      },
    );
    await expect(agent.start()).rejects.toMatchObject({ code: 'STOPPED' });
    expect(await agent.closed).toBeUndefined();
    expect(world.engine('a').disposed).toBe(true);
    expect(world.buses.get('a')?.connected).toBe(false);
    expect(world.hellos).toEqual([]);
    await world.agent('a', { directory });
  });

  it('that cannot start leaves nothing running', async () => {
    const broken = world.agent('a', {}, { createLanes: () => Promise.reject(Object.assign(new Error('in use'), { code: 'PORT_IN_USE' })) });
    await expect(broken).rejects.toMatchObject({ code: 'PORT_IN_USE' });
    expect(world.engine('a').disposed).toBe(true);
    expect(world.buses.get('a')?.connected).toBe(false);
  });
});

describe('prepare', () => {
  it('fetches what is missing, loads it, reports progress, and does it once', async () => {
    const agent = await world.agent('a');
    const plan = single(['a'], 'd', 1, 'x'.repeat(2000));
    const bytes = [...plan.blobs.values()].reduce((sum, b) => sum + b.length, 0);
    expect(await world.prepare(agent, 'a', plan)).toMatchObject({ code: '', fetchedBytes: bytes });
    expect(world.served).toBe(bytes);
    expect(await world.prepare(agent, 'a', plan)).toMatchObject({ code: '', fetchedBytes: 0 });
    expect(world.engine('a').loads).toBe(1);
    await eventually(() => world.progress.at(-1)?.step === 'ready', 'progress');
    expect(world.progress.map((p) => p.step)).toEqual(expect.arrayContaining(['fetch', 'load', 'warm-up', 'ready']));
    expect(world.progress.at(-1)).toMatchObject({ agent: 'a', deployment: 'd', epoch: 1, doneBytes: bytes, totalBytes: bytes });
  });

  it('two commands for one epoch share the work and are both answered', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    const [one, two] = await Promise.all([world.prepare(agent, 'a', plan), world.prepare(agent, 'a', plan)]);
    expect([one.code, two.code]).toEqual(['', '']);
    expect(world.engine('a').loads).toBe(1);
  });

  it('shares sessions between epochs, and disposes them with the last', async () => {
    const agent = await world.agent('a');
    for (const epoch of [1, 2]) expect(await world.prepare(agent, 'a', single(['a'], 'd', epoch))).toMatchObject({ code: '' });
    expect(world.engine('a').loads).toBe(1);
    await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 1 } });
    expect(world.engine('a').open).toHaveLength(1);
    await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 2 } });
    expect(world.engine('a').open).toHaveLength(0);
    expect(agent.state.epochs).toEqual([]);
    expect(await world.prepare(agent, 'a', single(['a'], 'd', 3))).toMatchObject({ code: '', fetchedBytes: 0 });
  });

  it.each([
    [
      'no memory',
      {},
      { memory: () => ({ limitBytes: 3000, usedBytes: 1500 }) },
      'AGENT_OUT_OF_MEMORY',
      /expected 2000 bytes .* got 1500 bytes free of 3000/,
    ],
    ['no room in its store', { storeLimitBytes: 2 ** 20 }, {}, 'AGENT_STORE_FULL', /expected \d{7} bytes/],
  ] as const)('an agent with %s says what it needs and has, and keeps nothing', async (_, config, options, code, message) => {
    const agent = await world.agent('a', config, options);
    const plan = single(['a'], 'd', 1, 'x'.repeat(2 ** 20));
    expect(await world.prepare(agent, 'a', plan)).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(world.served).toBe(0);
    expect(agent.state.epochs).toEqual([]);
  });

  it('fails clearly when the gateway lacks a blob or the engine refuses it, and nothing half-loaded remains', async () => {
    const agent = await world.agent('a');
    const whole = single(['a'], 'd', 1);
    expect(await world.ask(agent, 'a', { kind: 'prepare', prepare: whole.prepare })).toMatchObject({ code: 'BLOB_NOT_FOUND' });
    const two = toyPlan('d', 2, [
      { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] },
      { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] },
    ]);
    world.engine('a').load = new Proxy(world.engine('a').load, {
      apply: (load, self, args) =>
        self.loads === 1
          ? Promise.reject(Object.assign(new Error('bad graph'), { code: 'ENGINE_LOAD_FAILED' }))
          : Reflect.apply(load, self, args),
    });
    expect(await world.prepare(agent, 'a', two)).toMatchObject({ code: 'ENGINE_LOAD_FAILED' });
    expect(world.engine('a').loads).toBe(1);
    expect(world.engine('a').open).toEqual([]);
    expect(agent.state.epochs).toEqual([]);
  });

  it('fetches a blob again that was spoilt on the disk', async () => {
    const directory = await folder(world.undo);
    const plan = single(['a']);
    const agent = await world.agent('a', { directory });
    await world.seat(plan, { a: agent });
    const graph = plan.slices[0]?.graph.sha256 ?? '';
    await writeFile(`${directory}/blobs/${graph}`, 'spoilt');
    // In this process the file was right once: the engine finds out.
    await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 1 } });
    expect(await world.prepare(agent, 'a', single(['a'], 'd', 2))).toMatchObject({ code: '', fetchedBytes: plan.blobs.get(graph)?.length });
    await agent.stop();
    // After a restart the hash does.
    await writeFile(`${directory}/blobs/${graph}`, 'spoilt again');
    const again = await world.agent('a', { directory });
    expect(await world.prepare(again, 'a', single(['a'], 'd', 3))).toMatchObject({ code: '', fetchedBytes: plan.blobs.get(graph)?.length });
  });

  it('is given up at its deadline, and goes on from there when asked again', async () => {
    const agent = await world.agent('a');
    world.serving = false;
    expect(await world.prepare(agent, 'a', single(['a']), 40)).toMatchObject({
      code: 'REQUEST_TIMEOUT',
      message: expect.stringContaining('40 ms'),
    });
    world.serving = true;
    expect(await world.prepare(agent, 'a', single(['a']))).toMatchObject({ code: '' });
  });

  it('is abandoned when its epoch is released meanwhile', async () => {
    const agent = await world.agent('a');
    world.serving = false;
    const prepared = world.prepare(agent, 'a', single(['a']));
    await eventually(() => world.progress.length > 0, 'progress');
    expect(await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 1 } })).toMatchObject({ code: '' });
    expect(await prepared).toMatchObject({ code: 'EPOCH_STALE' });
    expect(await world.prepare(agent, 'a', single(['a']))).toMatchObject({ code: 'EPOCH_STALE' });
  });

  it('refuses a plan that contradicts itself', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    const prepare = { ...plan.prepare, wires: plan.prepare.wires.slice(1) };
    expect(await world.ask(agent, 'a', { kind: 'prepare', prepare })).toMatchObject({ code: 'PLAN_INVALID' });
    expect(await world.ask(agent, 'a', { kind: 'prepare', prepare: { ...plan.prepare, slices: [] } })).toMatchObject({
      code: 'PLAN_INVALID',
    });
  });
});

describe('a slice that is not what the plan says', () => {
  it('is refused while preparing, not with the first frame', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    const changed = (change: (port: Port) => Port, side: 'inputs' | 'outputs'): Prepare => ({
      ...plan.prepare,
      stages: plan.prepare.stages.map((stage) => ({
        ...stage,
        parts: stage.parts.map((part) => ({ ...part, [side]: part[side].map(change) })),
      })),
    });
    for (const [sha256, bytes] of plan.blobs) world.blobs.set(sha256, bytes);
    for (const side of ['inputs', 'outputs'] as const) {
      const prepare = changed((p) => ({ ...p, name: 'other' }), side);
      const reply = await world.ask(agent, 'a', { kind: 'prepare', prepare });
      expect(reply).toMatchObject({ code: 'PLAN_INVALID', message: expect.stringContaining(`no such ${side.slice(0, -1)}`) });
    }
    expect(world.engine('a').open).toEqual([]);
    expect(agent.state.epochs).toEqual([]);
    expect(await world.prepare(agent, 'a', plan)).toMatchObject({ code: '' });
  });
});

describe('terms', () => {
  it('a command of a former term is refused, also after a restart', async () => {
    const directory = await folder(world.undo);
    world.term = 5;
    const first = await world.agent('a', { directory });
    expect(await world.ask(first, 'a', { kind: 'ping', ping: { padBytes: 0 } })).toMatchObject({ code: '' });
    await first.stop();
    const agent = await world.agent('a', { directory });
    expect(world.hellos.at(-1)?.term).toBe(5);
    for (const [term, scheduler] of [
      [4, 's'],
      [5, 'another'],
      [2 ** 50, 's'],
    ] as const) {
      Object.assign(world, { term, scheduler });
      const code = term > 5 ? 'CODEC_LIMIT' : 'TERM_STALE';
      expect(await world.ask(agent, 'a', { kind: 'ping', ping: { padBytes: 0 } })).toMatchObject({ code });
    }
    await eventually(() => world.healths.some(({ refused }) => refused === 2), 'its health says so');
  });

  it('a command for another process of this name is left alone', async () => {
    const agent = await world.agent('a');
    const other = { nonce: 'another' } as Agent;
    const id = world.tell(other, 'a', { kind: 'refuse', refuse: { code: 'AGENT_NAME_TAKEN', message: '' } });
    expect(await world.ask(agent, 'a', { kind: 'ping', ping: { padBytes: 0 } })).toMatchObject({ code: '' });
    expect(world.replies.find((r) => r.id === id)).toBeUndefined();
  });

  it('a scheduler clears away what its predecessor left, and may use the same numbers itself', async () => {
    const agent = await world.agent('a');
    await world.seat(single(['a'], 'd', 7), { a: agent });
    world.term = 2;
    for (let i = 0; i < 2; i++) {
      expect(await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 7 } })).toMatchObject({ code: '' });
      expect(agent.state.epochs).toEqual([]);
    }
    for (const epoch of [1, 7]) await world.seat(single(['a'], 'd', epoch), { a: agent });
    await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 7 } });
    expect(agent.state.epochs).toMatchObject([{ term: 2, epoch: 1 }]);
  });

  it('seats of a former term serve until the new scheduler has had time to take them over, then go', async () => {
    const agent = await world.agent('a', { orphanMs: 100 });
    await world.seat(single(['a'], 'old', 7), { a: agent });
    world.term = 2;
    await world.seat(single(['a'], 'new', 1), { a: agent });
    expect(agent.state.epochs).toHaveLength(2);
    expect(world.engine('a').loads).toBe(1);
    await eventually(() => agent.state.epochs.length === 1, 'the orphan to go');
    expect(agent.state.epochs).toMatchObject([{ term: 2, deployment: 'new', committed: true }]);
  });
});

describe('frames', () => {
  it('go through bands on two agents and give what one machine gives', async () => {
    const agents = { a: await world.agent('a'), b: await world.agent('b') };
    const plan = banded();
    await world.seat(plan, agents);
    for (let frame = 0; frame < 20; frame++) {
      world.lowWater = Math.max(0, frame - 3);
      await world.issue(plan, frame, input(frame), [0, 0]);
    }
    for (let frame = 0; frame < 20; frame++) expect(await world.result(plan, frame)).toEqual(toyExpected(input(frame), 2));
    expect(world.troubles).toEqual([]);
    expect(agents.a.state.localMessages).toBeGreaterThan(0);
    expect(agents.a.state).toMatchObject({ queue: 0, counts: { refused: 0, stale: 0, late: 0 } });
    expect(world.network.log.some((m) => m.from === 'a' && m.to === 'a')).toBe(false);
  });

  it('stay on their route when stages have replicas', async () => {
    const agents = { a: await world.agent('a'), b: await world.agent('b') };
    const whole = { parts: [{ reads: [0, 8] as const, writes: [0, 8] as const }], agents: [['a'], ['b']] };
    const plan = toyPlan('d', 1, [whole, whole, whole]);
    await world.seat(plan, agents);
    const routes = Array.from({ length: 8 }, (_, i) => [i & 1, (i >> 1) & 1, i >> 2]);
    for (const [frame, route] of routes.entries()) await world.issue(plan, frame, input(frame), route);
    for (const frame of routes.keys()) expect(await world.result(plan, frame)).toEqual(toyExpected(input(frame), 3));
    const used = world.network.log.filter((m) => m.from === 'a' && m.to === 'b').length;
    expect(used).toBe(routes.flatMap((r) => [r.slice(0, 2), r.slice(1)]).filter(([x, y]) => x === 0 && y === 1).length);
  });

  it('run the oldest first, also where an agent holds several seats of theirs', async () => {
    const agent = await world.agent('a');
    const whole = { parts: [{ reads: [0, 8] as const, writes: [0, 8] as const }], agents: [['a']] };
    const plan = toyPlan('d', 1, [whole, whole]);
    await world.seat(plan, { a: agent });
    const engine = world.engine('a');
    engine.runMs = 80;
    for (const frame of [1, 2, 3, 4]) await world.issue(plan, frame, input(frame), [0, 0]);
    await world.result(plan, 4);
    // Two runs are in the engine's hands at a time; then the second stage of an old frame goes before the first stage of a young one.
    expect(engine.trace).toEqual(['1:100', '1:200', '2:201', '2:401', '1:300', '1:400', '2:601', '2:801']);
  });

  it('that come before this agent has prepared wait a little for it', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    await world.issue(plan, 1, input(1), [0]);
    await eventually(() => agent.state.counts.received === 1, 'the message');
    await world.seat(plan, { a: agent });
    expect(await world.result(plan, 1)).toEqual(toyExpected(input(1), 1));
  });

  it('of an epoch that is never prepared are reported', async () => {
    const agent = await world.agent('a', { earlyMs: 50 });
    const plan = single(['a']);
    await world.issue(plan, 1, input(1), [0]);
    await eventually(() => world.troubles.length === 1, 'trouble');
    expect(world.troubles[0]).toMatchObject({
      agent: 'a',
      deployment: 'd',
      epoch: 1,
      frame: 1,
      attempt: 1,
      code: 'SEAT_UNKNOWN',
      peer: '',
    });
    expect(agent.state.counts.refused).toBe(1);
  });

  it('of a released epoch are refused, and those of the next one run', async () => {
    const agent = await world.agent('a');
    const [old, next] = [single(['a'], 'd', 1), single(['a'], 'd', 2)];
    await world.seat(old, { a: agent });
    await world.seat(next, { a: agent });
    await world.issue(old, 1, input(1), [0]);
    expect(await world.result(old, 1)).toEqual(toyExpected(input(1), 1));
    await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 1 } });
    await world.issue(old, 2, input(2), [0]);
    await world.issue(next, 3, input(3), [0]);
    await world.result(next, 3);
    expect(world.results.has('2/1')).toBe(false);
    expect(agent.state.counts).toMatchObject({ stale: 1, refused: 0 });
    expect(world.troubles).toEqual([]);
  });

  it('of the wrong shape or dtype are refused, counted and reported, and do no harm', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    await world.seat(plan, { a: agent });
    const send = (header: Partial<ActivationHeader>, bytes: number) => {
      const all = { ...world.header(plan, 0, 1, [0]), ...header };
      const box = { start: all.dims.map(() => 0), end: all.dims };
      return world.lanes.send('a', topics.activation('a'), encodeActivation(all, new Uint8Array(bytes), box, box));
    };
    await send({ dims: [4, 8] }, 128);
    await send({ dims: [8, 4], dtype: 'int32', frame: 2 }, 128);
    await send({ route: [1], frame: 3 }, 128);
    await send({ wire: 50, frame: 4 }, 128);
    // Believed, it would make every frame look finished.
    await send({ frame: 5, lowWater: 2 ** 50 }, 128);
    await world.lanes.send('a', topics.activation('a'), [Uint8Array.from([1, 2, 3])]);
    await eventually(() => world.troubles.length === 5, 'troubles');
    const codes = ['TENSOR_INVALID', 'TENSOR_INVALID', 'CODEC_INVALID', 'SEAT_UNKNOWN', 'CODEC_INVALID'];
    expect(world.troubles.map((t) => t.code)).toEqual(codes);
    await eventually(() => world.healths.at(-1)?.refused === 6, 'count in health');
    await world.issue(plan, 1, input(1), [0]);
    expect(await world.result(plan, 1)).toEqual(toyExpected(input(1), 1));
  });

  it('that come twice run once', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    await world.seat(plan, { a: agent });
    for (let i = 0; i < 3; i++) await world.issue(plan, 1, input(1), [0]);
    await world.result(plan, 1);
    await eventually(() => agent.state.counts.late === 2, 'the duplicates');
    expect(world.engine('a').runs).toBe(1);
  });

  it('that were cancelled or issued again are not run', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    await world.seat(plan, { a: agent });
    const engine = world.engine('a');
    engine.runMs = 100;
    for (const frame of [1, 2, 3, 4, 5]) await world.issue(plan, frame, input(frame), [0]);
    await eventually(() => agent.state.queue === 3, 'three frames to queue');
    const cancel = { deployment: 'd', term: 1, epoch: 1, frame: 3, attempt: 1 };
    await world.lanes.send('a', topics.cancel('a').name, [encode('Cancel', cancel)]);
    await eventually(() => agent.state.queue === 2, 'the cancelled frame to go');
    await world.issue(plan, 4, input(4), [0], 2);
    expect(await world.result(plan, 5)).toEqual(toyExpected(input(5), 1));
    expect(await world.result(plan, 4, 2)).toEqual(toyExpected(input(4), 1));
    expect([...world.results.keys()].sort()).toEqual(['1/1', '2/1', '4/2', '5/1']);
    expect(engine.runs).toBe(4);
  });

  it('that cannot be sent on, or fail in the engine, are reported with their cause', async () => {
    const agents = { a: await world.agent('a'), b: await world.agent('b') };
    const whole = { reads: [0, 8] as const, writes: [0, 8] as const };
    const plan = toyPlan('d', 1, [
      { parts: [whole], agents: [['a']] },
      { parts: [whole], agents: [['b']] },
    ]);
    await world.seat(plan, agents);
    world.network.join('a', 'b', 'down');
    await world.issue(plan, 1, input(1), [0, 0]);
    await eventually(() => world.troubles.length === 1, 'trouble');
    expect(world.troubles[0]).toMatchObject({ agent: 'a', frame: 1, peer: 'b', code: 'LANE_DOWN' });
    world.engine('a').failRuns = true;
    await world.issue(plan, 2, input(2), [0, 0]);
    await eventually(() => world.troubles.length === 2, 'trouble');
    expect(world.troubles[1]).toMatchObject({ agent: 'a', frame: 2, peer: '', code: 'ENGINE_RUN_FAILED' });
    world.engine('a').failRuns = false;
    world.network.join('a', 'b', 'direct');
    await world.issue(plan, 3, input(3), [0, 0]);
    expect(await world.result(plan, 3)).toEqual(toyExpected(input(3), 2));
  });

  it('beyond the memory for waiting ones are refused and reported, and the earlier ones finish', async () => {
    const agent = await world.agent('a', { joinLimitBytes: 128 * 4 });
    const plan = single(['a']);
    await world.seat(plan, { a: agent });
    world.engine('a').runMs = 100;
    for (let frame = 1; frame <= 6; frame++) await world.issue(plan, frame, input(frame), [0]);
    await eventually(() => world.troubles.length === 2, 'troubles');
    expect(world.troubles).toMatchObject([
      { frame: 5, code: 'QUEUE_FULL' },
      { frame: 6, code: 'QUEUE_FULL' },
    ]);
    for (let frame = 1; frame <= 4; frame++) expect(await world.result(plan, frame)).toEqual(toyExpected(input(frame), 1));
  });

  it('under way are lost with a dead engine, which ends the agent', async () => {
    const agent = await world.agent('a');
    const plan = single(['a']);
    await world.seat(plan, { a: agent });
    await world.engine('a').dispose();
    await world.issue(plan, 1, input(1), [0]);
    expect(await agent.closed).toMatchObject({ code: 'ENGINE_CLOSED' });
    expect(world.troubles).toMatchObject([{ frame: 1, code: 'ENGINE_CLOSED' }]);
  });
});

describe('draining', () => {
  it('asks to be relieved, serves on, takes no new seats, and stops when its seats are released', async () => {
    const agent = await world.agent('a', { drainMs: 20_000 });
    const plan = single(['a']);
    await world.seat(plan, { a: agent });
    const done = agent.drain();
    await eventually(() => world.gones.some((g) => g.why === 'draining'), 'draining');
    await world.issue(plan, 1, input(1), [0]);
    expect(await world.result(plan, 1)).toEqual(toyExpected(input(1), 1));
    expect(await world.prepare(agent, 'a', single(['a'], 'd', 2))).toMatchObject({ code: 'AGENT_BUSY' });
    await world.ask(agent, 'a', { kind: 'release', release: { deployment: 'd', epoch: 1 } });
    await done;
    expect(await agent.closed).toBeUndefined();
    await eventually(() => world.gones.at(-1)?.why === 'stopped', 'stopped');
  });

  it('stops when the broker goes away meanwhile: nobody can take its seats', async () => {
    const lines: string[] = [];
    const agent = await world.agent('a', { drainMs: 20_000 }, { log: (line) => lines.push(line) });
    await world.seat(single(['a']), { a: agent });
    expect(lines).toContain("accepted by the scheduler of cluster 'c', term 1");
    expect(lines).toContain('1 seat of d, epoch 1: ready');
    const done = agent.drain();
    await eventually(() => world.gones.some((g) => g.why === 'draining'), 'draining');
    world.buses.get('a')?.lose();
    const started = performance.now();
    await done;
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  it('ends at its time limit, or at once when it is told twice or holds nothing', async () => {
    const plan = single(['a']);
    const slow = await world.agent('a', { drainMs: 100 });
    await world.seat(plan, { a: slow });
    const started = performance.now();
    await slow.drain();
    expect(performance.now() - started).toBeGreaterThanOrEqual(95);
    const twice = await world.agent('a', { drainMs: 20_000 });
    await world.seat(plan, { a: twice });
    await Promise.all([twice.drain(), twice.drain()]);
    const idle = await world.agent('a', { drainMs: 20_000 });
    await idle.drain();
  });
});
