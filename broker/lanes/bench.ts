/** How fast a lane is beside a bare TCP socket, on this machine, in interleaved pairs: `npx tsx broker/lanes/bench.ts`. */
import { connect, createServer, type Socket } from 'node:net';
import { pathToFileURL } from 'node:url';
import { listen } from '../listen.js';
import { createLanes } from './lanes.js';

export interface LaneFigure {
  readonly figure: string;
  /** Medians over the pairs, in ms. */
  readonly laneMs: number;
  readonly tcpMs: number;
  /** Throughput of the lane over bare TCP (one way), or time of the lane over bare TCP (round trip): median of the pairs' ratios, and their quartiles. */
  readonly ratio: number;
  readonly spread: readonly [number, number];
  readonly target: string;
  readonly met: boolean;
}

/** Sends `bytes` one way `count` times, waiting for each to arrive; or there and back. */
interface Path {
  oneWay(payload: Uint8Array): Promise<void>;
  roundTrip(payload: Uint8Array): Promise<void>;
  stop(): Promise<void>;
}

async function lanePath(): Promise<Path> {
  const options = { host: '127.0.0.1' };
  const [a, b] = [createLanes({ ...options, id: 'a' }), createLanes({ ...options, id: 'b' })];
  let arrived: () => void = () => undefined;
  b.on('one-way', () => arrived());
  b.on('echo', (message) => void b.send('a', 'back', message.payload));
  a.on('back', () => arrived());
  await Promise.all([a.start(), b.start()]);
  a.setPeers([{ agent: 'b', addresses: ['127.0.0.1'], lanePort: b.port }]);
  b.setPeers([{ agent: 'a', addresses: ['127.0.0.1'], lanePort: a.port }]);
  const go = (topic: string) => (payload: Uint8Array) =>
    new Promise<void>((resolve, reject) => {
      arrived = resolve;
      a.send('b', topic, [payload]).catch(reject);
    });
  return { oneWay: go('one-way'), roundTrip: go('echo'), stop: async () => void (await Promise.all([a.stop(), b.stop()])) };
}

/** Length-prefixed messages on a bare socket, read as they come and not joined: the least a receiver can do. */
async function tcpPath(): Promise<Path> {
  const receive = (socket: Socket, done: (segments: Uint8Array[]) => void) => {
    let left = 0;
    let segments: Uint8Array[] = [];
    socket.on('data', (chunk) => {
      let at = 0;
      while (at < chunk.length) {
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
        done(whole);
      }
    });
  };
  const write = (socket: Socket, segments: readonly Uint8Array[]) => {
    const header = Buffer.alloc(4);
    header.writeUInt32LE(segments.reduce((sum, segment) => sum + segment.length, 0));
    socket.cork();
    socket.write(header);
    for (const segment of segments) socket.write(segment);
    socket.uncork();
  };
  let arrived: () => void = () => undefined;
  let echo = false;
  const server = createServer({ noDelay: true }, (socket) => {
    receive(socket, (segments) => {
      if (echo) write(socket, segments);
      else arrived();
    });
  });
  const port = await listen(server, '127.0.0.1', 0);
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  receive(socket, () => arrived());
  const go = (back: boolean) => (payload: Uint8Array) =>
    new Promise<void>((resolve) => {
      arrived = resolve;
      echo = back;
      write(socket, [payload]);
    });
  return {
    oneWay: go(false),
    roundTrip: go(true),
    stop: async () => {
      socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

async function timed(run: (payload: Uint8Array) => Promise<void>, payload: Uint8Array, count: number): Promise<number> {
  const startedAt = performance.now();
  for (let i = 0; i < count; i++) await run(payload);
  return (performance.now() - startedAt) / count;
}

/** Runs all figures; `pairs` interleaved pairs each. */
export async function benchLanes(pairs = 30): Promise<LaneFigure[]> {
  const [lane, tcp] = [await lanePath(), await tcpPath()];
  const figures: LaneFigure[] = [];
  try {
    for (const { name, bytes, count, way } of [
      { name: 'one hop, 1 MB', bytes: 1_000_000, count: 8, way: 'oneWay' },
      { name: 'one hop, 4 MB', bytes: 4_000_000, count: 4, way: 'oneWay' },
      { name: 'round trip, 16 KB', bytes: 16_384, count: 100, way: 'roundTrip' },
    ] as const) {
      const payload = Uint8Array.from({ length: bytes }, (_, i) => (i * 31) & 0xff);
      const samples: { laneMs: number; tcpMs: number }[] = [];
      await timed(lane[way], payload, count);
      await timed(tcp[way], payload, count);
      for (let pair = 0; pair < pairs; pair++) {
        const laneFirst = pair % 2 === 0;
        const first = await timed((laneFirst ? lane : tcp)[way], payload, count);
        const second = await timed((laneFirst ? tcp : lane)[way], payload, count);
        samples.push(laneFirst ? { laneMs: first, tcpMs: second } : { laneMs: second, tcpMs: first });
      }
      const ratios = samples.map(({ laneMs, tcpMs }) => (way === 'oneWay' ? tcpMs / laneMs : laneMs / tcpMs));
      const ratio = quantile(ratios, 0.5);
      figures.push({
        figure: name,
        laneMs: quantile(
          samples.map((sample) => sample.laneMs),
          0.5,
        ),
        tcpMs: quantile(
          samples.map((sample) => sample.tcpMs),
          0.5,
        ),
        ratio,
        spread: [quantile(ratios, 0.25), quantile(ratios, 0.75)],
        target: way === 'oneWay' ? '>= 0.75' : '<= 2.5',
        met: way === 'oneWay' ? ratio >= 0.75 : ratio <= 2.5,
      });
    }
  } finally {
    await Promise.all([lane.stop(), tcp.stop()]);
  }
  return figures;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const { figure, laneMs, tcpMs, ratio, spread, target, met } of await benchLanes()) {
    const [low, high] = spread.map((value) => value.toFixed(2));
    console.log(
      `${figure.padEnd(20)} lane ${laneMs.toFixed(3)} ms, tcp ${tcpMs.toFixed(3)} ms, ratio ${ratio.toFixed(2)} (${low} to ${high}), target ${target}: ${met ? 'met' : 'missed'}`,
    );
  }
}
