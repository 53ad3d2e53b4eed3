/** A lane beside a bare TCP socket, between two processes on loopback, in turn; what encryption costs, and fetching weights. */
import { connect, createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { createLanes } from '../../broker/lanes/lanes.js';
import { listen } from '../../broker/listen.js';
import { Child, nodeFlags } from '../children.js';
import type { Bench, BenchContext } from './bench.js';
import { fetchingCase } from './fetching.js';
import { atLeast, atMost, type Figure, figure, interleaved } from './figures.js';
import { tlsCase } from './lane-tls.js';

/** Topics of the benchmark. */
export const [BULK, DONE, ECHO, BACK] = ['bulk', 'done', 'echo', 'back'];
const PEER = fileURLToPath(new URL('./lane-peer.ts', import.meta.url));

type Write = (segments: readonly Uint8Array[]) => Promise<void>;

/** Length-prefixed messages on a bare socket, handed on as they came and not joined: the least a receiver can do. */
function framed(socket: Socket, onMessage: (segments: Uint8Array[]) => void): Write {
  let left = 0;
  let segments: Uint8Array[] = [];
  socket.on('data', (chunk) => {
    for (let at = 0; at < chunk.length; ) {
      if (left === 0) {
        left = chunk.readUInt32LE(at);
        at += 4;
      }
      const take = Math.min(left, chunk.length - at);
      segments.push(chunk.subarray(at, at + take));
      left -= take;
      at += take;
      if (left > 0) continue;
      const whole = segments;
      segments = [];
      onMessage(whole);
    }
  });
  return (parts) => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(parts.reduce((sum, part) => sum + part.length, 0));
    socket.cork();
    socket.write(header);
    for (const part of parts.slice(0, -1)) socket.write(part);
    const taken = new Promise<void>((resolve) => socket.write(parts.at(-1) ?? Buffer.alloc(0), () => resolve()));
    socket.uncork();
    return taken;
  };
}

/** A server of such messages, on a free port of loopback. */
export async function listenFramed(onMessage: (segments: Uint8Array[], write: Write) => void): Promise<{ readonly port: number }> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    const write = framed(socket, (segments) => onMessage(segments, write));
  });
  server.unref();
  return { port: await listen(server, '127.0.0.1', 0) };
}

/** Both ways to the far process. */
interface Way {
  /** Resolves when all `count` messages have arrived. */
  bulk(payload: Uint8Array, count: number): Promise<void>;
  echo(payload: Uint8Array): Promise<void>;
  stop(): Promise<void>;
}

async function laneWay(port: number): Promise<Way> {
  const lanes = createLanes({ id: 'near', host: '127.0.0.1' });
  let answered: () => void = () => undefined;
  lanes.on(DONE ?? '', () => answered());
  lanes.on(BACK ?? '', () => answered());
  await lanes.start();
  lanes.setPeers([{ agent: 'far', addresses: ['127.0.0.1'], lanePort: port }]);
  return {
    bulk: async (payload, count) => {
      const done = new Promise<void>((resolve) => {
        answered = resolve;
      });
      await lanes.send('far', BULK ?? '', [Uint8Array.of(count)]);
      for (let i = 0; i < count; i++) await lanes.send('far', BULK ?? '', [payload]);
      await done;
    },
    echo: (payload) =>
      new Promise((resolve, reject) => {
        answered = resolve;
        lanes.send('far', ECHO ?? '', [payload]).catch(reject);
      }),
    stop: () => lanes.stop(),
  };
}

function tcpWay(port: number): Way {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  let answered: () => void = () => undefined;
  const write = framed(socket, () => answered());
  return {
    bulk: async (payload, count) => {
      const done = new Promise<void>((resolve) => {
        answered = resolve;
      });
      await write([Uint8Array.of(count)]);
      for (let i = 0; i < count; i++) await write([payload]);
      await done;
    },
    echo: (payload) =>
      new Promise((resolve) => {
        answered = resolve;
        void write([payload]);
      }),
    stop: async () => void socket.destroy(),
  };
}

async function msOf(work: () => Promise<void>): Promise<number> {
  const from = performance.now();
  await work();
  return performance.now() - from;
}

const SIZES = [
  { name: '1 MB', bytes: 1_000_000, count: 32 },
  { name: '4 MB', bytes: 4_000_000, count: 8 },
] as const;
const ROUND_TRIPS = 100;

const PATTERN = (bytes: number): Uint8Array => Uint8Array.from({ length: bytes }, (_, i) => (i * 31) & 0xff);

async function bulk(lane: Way, tcp: Way, { name, bytes, count }: (typeof SIZES)[number], quick: boolean): Promise<Figure[]> {
  const payload = PATTERN(bytes);
  const rate = (way: Way) => async (): Promise<number> => (bytes * count) / 1000 / (await msOf(() => way.bulk(payload, count)));
  await rate(lane)();
  await rate(tcp)();
  const samples = await interleaved(quick ? 5 : 31, rate(lane), rate(tcp));
  const ratios = samples.map(({ a, b }) => a / b);
  const [lanes_, sockets] = [samples.map(({ a }) => a), samples.map(({ b }) => b)];
  return [
    figure(`one hop, ${name}: throughput over bare TCP`, 'x', ratios, atLeast(0.75)),
    figure(`one hop, ${name}: lane`, 'MB/s', lanes_),
    figure(`one hop, ${name}: bare TCP`, 'MB/s', sockets),
  ];
}

async function roundTrip(lane: Way, tcp: Way, quick: boolean): Promise<Figure[]> {
  const small = PATTERN(16_384);
  const roundTripMs = (way: Way) => async (): Promise<number> =>
    (await msOf(async () => {
      for (let i = 0; i < ROUND_TRIPS; i++) await way.echo(small);
    })) / ROUND_TRIPS;
  await roundTripMs(lane)();
  await roundTripMs(tcp)();
  const trips = await interleaved(quick ? 5 : 31, roundTripMs(lane), roundTripMs(tcp));
  const ratios = trips.map(({ a, b }) => a / b);
  const [lanes_, sockets] = [trips.map(({ a }) => a), trips.map(({ b }) => b)];
  return [
    figure('round trip, 16 KB: time over bare TCP', 'x', ratios, atMost(2.5)),
    figure('round trip, 16 KB: lane', 'ms', lanes_),
    figure('round trip, 16 KB: bare TCP', 'ms', sockets),
  ];
}

async function run({ quick, cases }: BenchContext): Promise<object> {
  const far = new Child('far end', [], undefined, { command: [process.execPath, ...nodeFlags(), PEER] });
  try {
    const { lanePort, tcpPort } = await far.ready;
    const [lane, tcp] = [await laneWay(Number(lanePort)), tcpWay(Number(tcpPort))];
    try {
      await cases([
        ...SIZES.map((size) => ({ name: `one hop, ${size.name}`, run: () => bulk(lane, tcp, size, quick) })),
        { name: 'round trip, 16 KB', run: () => roundTrip(lane, tcp, quick) },
        tlsCase(quick),
        fetchingCase(quick),
      ]);
      return { processes: 2, network: 'loopback', encryption: 'none, but where it says so', 'CPU limit': 'none' };
    } finally {
      await Promise.all([lane.stop(), tcp.stop()]);
    }
  } finally {
    await far.stop();
  }
}

export const lanes: Bench = {
  name: 'lanes',
  summary: 'one hop and a round trip on a lane against bare TCP; what encryption costs, and fetching weights',
  seconds: 80,
  run,
};
