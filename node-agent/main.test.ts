/** The real thing in one process: a broker, lanes on sockets, onnxruntime in workers. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { decodeActivation, encodeActivation, encodeBlobChunk, readTensor } from '../broker/activation.js';
import type { Bus } from '../broker/bus.js';
import { decode } from '../broker/codec.js';
import type { Lanes } from '../broker/lanes/lane.js';
import { createLanes } from '../broker/lanes/lanes.js';
import type { BlobRequest, CommandBody, Health, Hello, PeerEntry, Prepare, Reply, Trouble } from '../broker/messages.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { SINK, type SliceRef, SOURCE } from '../broker/plan.js';
import { NO_SEAL } from '../broker/seal.js';
import { joinSegments } from '../broker/segments.js';
import { type BrokerServer, startBroker } from '../broker/server.js';
import { type Box, wholeBox } from '../broker/tensor.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import { type RunningAgent, runAgent } from './main.js';
import { blob, eventually, folder, type ToyBlob } from './test-world.js';

// ---- ONNX by hand: protobuf fields as in onnx.proto ------------------------------------------------------------------------

type Field = readonly [number, number | string | Uint8Array | readonly Field[]];

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(Math.floor(value / 0x80))];
}

function proto(fields: readonly Field[]): Buffer {
  return Buffer.concat(
    fields.map(([tag, value]) => {
      if (typeof value === 'number') return Buffer.from([...varint(tag * 8), ...varint(value)]);
      const bytes = typeof value === 'string' ? Buffer.from(value) : value instanceof Uint8Array ? value : proto(value);
      return Buffer.concat([Buffer.from([...varint(tag * 8 + 2), ...varint(bytes.length)]), bytes]);
    }),
  );
}

const floatValue = (name: string, dims: readonly number[]): Field[] => [
  [1, name],
  [
    2,
    [
      [
        1,
        [
          [1, 1],
          [2, dims.map((d): Field => [1, [[1, d]]])],
        ],
      ],
    ],
  ],
];

function graphFile(
  nodes: readonly (readonly Field[])[],
  dims: readonly number[],
  initializers: readonly (readonly Field[])[] = [],
): ToyBlob {
  const graph: Field[] = [
    ...nodes.map((n): Field => [1, n]),
    [2, 'slice'],
    ...initializers.map((n): Field => [5, n]),
    [11, floatValue('x', dims)],
    [12, floatValue('y', dims)],
  ];
  return blob(
    proto([
      [1, 8],
      [7, graph],
      [8, [[2, 17]]],
    ]),
  );
}

const node = (op: string, inputs: readonly string[], output: string): Field[] => [
  ...inputs.map((i): Field => [1, i]),
  [2, output],
  [4, op],
];

interface Slice {
  readonly ref: SliceRef;
  readonly blobs: readonly ToyBlob[];
}

/** y = x * w, element by element, with w in a file beside the graph. */
function scaling(factors: Float32Array, dims: readonly number[]): Slice {
  const weights = blob(new Uint8Array(factors.buffer));
  const external: Field[] = [
    ...dims.map((d): Field => [1, d]),
    [2, 1],
    [8, 'w'],
    [
      13,
      [
        [1, 'location'],
        [2, weights.ref.sha256],
      ],
    ],
    [14, 1],
  ];
  const graph = graphFile([node('Mul', ['x', 'w'], 'y')], dims, [external]);
  return {
    ref: { graph: graph.ref, blobs: [weights.ref], macs: 1, weightBytes: weights.ref.sizeBytes, activationBytes: 1000 },
    blobs: [graph, weights],
  };
}

/** x times itself, many times over: keeps a core busy. */
function burning(side: number, times: number): Slice {
  const nodes = Array.from({ length: times }, (_, i) =>
    node('MatMul', [i === 0 ? 'x' : `m${i}`, 'x'], i + 1 === times ? 'y' : `m${i + 1}`),
  );
  const graph = graphFile(nodes, [side, side]);
  return {
    ref: { graph: graph.ref, blobs: [], macs: side ** 3 * times, weightBytes: 0, activationBytes: 3 * side * side * 4 },
    blobs: [graph],
  };
}

// ---- a scheduler by hand -----------------------------------------------------------------------------------------------------

const topics = topicsOf('real');
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const u of undo.splice(0).reverse()) await u();
});

class Hub {
  readonly hellos: Hello[] = [];
  readonly healths: Health[] = [];
  readonly replies: Reply[] = [];
  readonly troubles: Trouble[] = [];
  readonly results = new Map<number, Float32Array>();
  readonly agents = new Map<string, RunningAgent>();
  private readonly blobs = new Map<string, Buffer>();
  private ids = 0;

  private constructor(
    readonly server: BrokerServer,
    readonly bus: Bus,
    readonly lanes: Lanes,
  ) {}

  static async open(): Promise<Hub> {
    const server = await startBroker({ host: '127.0.0.1', port: 0 });
    undo.push(() => server.stop());
    const bus = await connectBus({ url: server.url, id: 'scheduler' });
    undo.push(() => bus.stop());
    const lanes = createLanes({ id: DISPATCHER, cluster: 'real', bus, host: '127.0.0.1' });
    undo.push(() => lanes.stop());
    const hub = new Hub(server, bus, lanes);
    await hub.listen();
    return hub;
  }

  private async listen(): Promise<void> {
    const { bus, lanes } = this;
    await bus.subscribe(topics.hello, (m) => this.hellos.push(m));
    await bus.subscribe(topics.health, (m) => this.healths.push(m));
    await bus.subscribe(topics.reply, (m) => this.replies.push(m));
    await bus.subscribe(topics.trouble, (m) => this.troubles.push(m));
    // Answered where it came from: on a connection beside the lane, or through the broker.
    lanes.on(topics.blobRequest.name, ({ from, payload, answer }) => {
      const { id, sha256, offset, length } = decode('BlobRequest', joinSegments(payload)) as BlobRequest;
      const bytes = this.blobs.get(sha256) ?? Buffer.alloc(0);
      const header = { id, sha256, offset, totalBytes: bytes.length, code: '' };
      const data = bytes.subarray(offset, offset + length);
      const topic = topics.blobChunk(from);
      void (answer === undefined ? bus.publish(topic, { ...header, data }) : answer(topic.name, encodeBlobChunk(header, data)));
    });
    lanes.on(topics.activation(DISPATCHER), ({ payload }) => {
      const { header, data } = decodeActivation(payload);
      this.results.set(header.frame, new Float32Array(readTensor(header, data).bytes.buffer));
    });
    await lanes.start();
  }

  async agent(name: string, extra: object = {}): Promise<RunningAgent> {
    const directory = path.join(await folder(undo), name);
    await mkdir(directory);
    const options = {
      name,
      cluster: 'real',
      broker: this.server.url,
      directory,
      laneHost: '127.0.0.1',
      threads: 1,
      healthMs: 100,
      ...extra,
    };
    const agent = await runAgent(options, { softwareVersion: '0' });
    undo.push(() => agent.stop());
    this.agents.set(name, agent);
    await eventually(() => this.hellos.some((h) => h.nonce === agent.agent.nonce), `hello of ${name}`);
    return agent;
  }

  async ask(name: string, body: CommandBody): Promise<void> {
    const id = `c${this.ids++}`;
    const nonce = this.agents.get(name)?.agent.nonce ?? '';
    await this.bus.publish(topics.command(name), { id, term: 1, scheduler: 's', nonce, deadlineMs: 20_000, body, seal: NO_SEAL });
    await eventually(() => this.replies.some((r) => r.id === id), `reply to ${body.kind}`, 20_000);
    expect(this.replies.find((r) => r.id === id)).toMatchObject({ code: '' });
  }

  /** A pipeline of whole slices, one agent each. */
  async seat(stages: readonly { agent: string; slice: Slice }[], dims: readonly number[]): Promise<Prepare> {
    for (const { slice } of stages) for (const b of slice.blobs) this.blobs.set(b.ref.sha256, b.bytes);
    const peers: PeerEntry[] = [
      { agent: DISPATCHER, addresses: ['127.0.0.1'], lanePort: this.lanes.port },
      ...[...this.agents].map(([agent, running]) => ({ agent, addresses: ['127.0.0.1'], lanePort: running.agent.lanePort })),
    ];
    this.lanes.setPeers(peers.slice(1));
    const box = wholeBox(dims);
    const port = (name: string, tensor: string) => ({ name, tensor, dtype: 'float32' as const, box });
    const prepare: Prepare = {
      deployment: 'd',
      epoch: 1,
      inputs: [{ name: 'x', dtype: 'float32', dims }],
      outputs: [{ name: 'y', dtype: 'float32', dims }],
      stages: stages.map(({ agent, slice }, s) => ({
        cut: 'whole',
        agents: [[agent]],
        redundancy: 0,
        parts: [{ slice: slice.ref.graph.sha256, inputs: [port('x', `t${s}`)], outputs: [port('y', `t${s + 1}`)] }],
      })),
      wires: Array.from({ length: stages.length + 1 }, (_, i) => ({
        fromStage: i === 0 ? SOURCE : i - 1,
        fromPart: 0,
        output: 0,
        toStage: i === stages.length ? SINK : i,
        toPart: 0,
        input: 0,
        box,
        encoding: 'raw' as const,
      })),
      slices: stages.map(({ slice }) => slice.ref),
      peers,
    };
    const names = [...new Set(stages.map((s) => s.agent))];
    for (const name of names) await this.ask(name, { kind: 'prepare', prepare });
    for (const name of names) await this.ask(name, { kind: 'commit', commit: { deployment: 'd', epoch: 1 } });
    return prepare;
  }

  async issue(prepare: Prepare, frame: number, values: Float32Array): Promise<void> {
    const dims = prepare.inputs[0]?.dims ?? [];
    const box: Box = wholeBox(dims);
    const agent = prepare.stages[0]?.agents[0]?.[0] ?? '';
    const plan = {
      deployment: 'd',
      term: 1,
      epoch: 1,
      frame,
      attempt: 1,
      route: prepare.stages.map(() => 0),
      wire: 0,
      lowWater: 0,
      remainingMs: 30_000,
    };
    const header = { ...plan, dtype: 'float32' as const, dims, encoding: 'raw' as const, scale: 1, zero: 0 };
    await this.lanes.send(agent, topics.activation(agent), encodeActivation(header, new Uint8Array(values.buffer), box, box));
  }

  async result(frame: number): Promise<Float32Array> {
    await eventually(() => this.results.has(frame), `result ${frame}, troubles ${JSON.stringify(this.troubles)}`, 20_000);
    return this.results.get(frame) as Float32Array;
  }
}

describe('an agent process', () => {
  it('fetches slices with weights beside them, and runs a pipeline over sockets', async () => {
    const dims = [3, 1000];
    const factors = [2, 3, 4].map((f) => Float32Array.from({ length: 3000 }, (_, i) => f + (i % 7)));
    const hub = await Hub.open();
    await hub.agent('a');
    await hub.agent('b');
    expect(hub.hellos[0]).toMatchObject({ engine: 'onnxruntime', addresses: ['127.0.0.1'] });
    expect(hub.hellos[0]?.probeMacsPerSecond).toBeGreaterThan(1e7);
    expect(hub.hellos[0]?.probeBytesPerSecond).toBeGreaterThan(1e7);
    expect(hub.hellos[0]?.lanePort).toBeGreaterThan(0);
    const slices = factors.map((f) => scaling(f, dims));
    // a -> b -> b: a lane and a hand-over.
    const plan = await hub.seat(
      slices.map((slice, i) => ({ agent: i === 0 ? 'a' : 'b', slice })),
      dims,
    );
    const input = (frame: number) => Float32Array.from({ length: 3000 }, (_, i) => frame + i / 1000);
    for (let frame = 0; frame < 10; frame++) await hub.issue(plan, frame, input(frame));
    for (let frame = 0; frame < 10; frame++) {
      const want = input(frame).map((x, i) => factors.reduce((y, f) => Math.fround(y * (f[i] ?? 0)), x));
      expect(await hub.result(frame)).toEqual(want);
    }
    await eventually(() => hub.healths.some((h) => h.lanes.some((l) => l.lane === 'local')), 'local lane in health');
    expect(hub.healths.at(-1)?.lanes.find((l) => l.peer === DISPATCHER)?.lane ?? 'direct').toBe('direct');
    for (const agent of hub.agents.values()) await agent.stop();
  });

  it('tells its health every tenth of a second while the engine burns a core', async () => {
    const hub = await Hub.open();
    const agent = await hub.agent('a');
    const plan = await hub.seat([{ agent: 'a', slice: burning(640, 150) }], [640, 640]);
    const before = hub.healths.length;
    const started = performance.now();
    await hub.issue(plan, 1, new Float32Array(640 * 640).fill(1 / 640));
    const first = (await hub.result(1))[0];
    const seconds = (performance.now() - started) / 1000;
    expect(first).toBeCloseTo(1 / 640, 5);
    // A third of what is due: the machine may be busy with other tests.
    expect(hub.healths.length - before).toBeGreaterThanOrEqual(Math.floor(seconds * 3));
    expect(seconds).toBeGreaterThan(0.3);
    const drained = agent.drain();
    await hub.ask('a', { kind: 'release', release: { deployment: 'd', epoch: 1 } });
    await drained;
    expect(await agent.closed).toBeUndefined();
  });

  it('keeps the result of its probe for the next start', async () => {
    const hub = await Hub.open();
    const directory = await folder(undo);
    const probe = async () => {
      const agent = await hub.agent('a', { directory });
      await agent.stop();
      const { probeMacsPerSecond = 0, probeBytesPerSecond = 0 } = hub.hellos.at(-1) ?? {};
      return { probeMacsPerSecond, probeBytesPerSecond };
    };
    expect(await probe()).toEqual(await probe());
    await writeFile(path.join(directory, 'probe.json'), '{"torn');
    expect((await probe()).probeMacsPerSecond).toBeGreaterThan(1e7);
  });

  it('waits for a broker that is not there yet, and is stopped while it waits', async () => {
    const directory = await folder(undo);
    const lines: string[] = [];
    const agent = await runAgent(
      { name: 'a', broker: 'mqtt://127.0.0.1:9', directory, laneHost: '127.0.0.1' },
      { softwareVersion: '0', log: (l) => lines.push(l) },
    );
    undo.push(() => agent.stop());
    await eventually(() => lines.some((l) => l.startsWith('BROKER_UNREACHABLE')), 'a word about the broker');
    await agent.drain();
    expect(await agent.closed).toBeUndefined();
  });

  it.each([
    [{ name: 'no spaces' }, 'AGENT_NAME_INVALID', /"name" is wrong; expected letters.*got "no spaces"/],
    [{ name: DISPATCHER }, 'AGENT_NAME_INVALID', /dispatcher/],
    [{ healthMs: 1 }, 'CONFIG_INVALID', /"healthMs" is wrong/],
    [{ helthMs: 1000 }, 'CONFIG_INVALID', /expected a known option; got helthMs/],
  ])('refuses the options %j', async (options, code, message) => {
    const all = { name: 'a', broker: 'mqtt://x', directory: '/nowhere', ...options };
    await expect(runAgent(all, { softwareVersion: '0' })).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('says so when its lane port is in use, and leaves nothing running', async () => {
    const hub = await Hub.open();
    await expect(hub.agent('a', { lanePort: hub.lanes.port })).rejects.toMatchObject({ code: 'PORT_IN_USE' });
  });
});
