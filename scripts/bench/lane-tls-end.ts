/** One end of a pair of processes with a lane between them, plain or encrypted; the benchmark asks both. Arguments: name, cipher (none, aes, chacha), folder of credentials. */
import { performance } from 'node:perf_hooks';
import { readCredentials } from '../../broker/credentials/credentials.js';
import { fixedSource } from '../../broker/credentials/source.js';
import { createLanes } from '../../broker/lanes/lanes.js';
import { dialTls, preferCipher, TlsSessions } from '../../broker/tls.js';
import { topicsOf } from '../../broker/topics.js';
import { trustOf } from '../../broker/trust.js';
import { announceReady, followParent, onAsked, untilStopped } from '../lifetime.js';

export interface EndQuestion {
  readonly port: number;
  readonly bytes: number;
  readonly count: number;
}

followParent();
const stopped = untilStopped();
const [name = '', cipher = 'none', folder = ''] = process.argv.slice(2);
const other = name === 'near' ? 'far' : 'near';
if (cipher === 'aes' || cipher === 'chacha') preferCipher(cipher);
const trust = cipher === 'none' ? undefined : trustOf(fixedSource(await readCredentials(folder)));
const topics = topicsOf('bench');
const lanes = createLanes({ id: name, cluster: 'bench', host: '127.0.0.1', ...(trust === undefined ? {} : { trust }) });
const [bulk, echo] = [topics.activation, topics.probe];

let answered: () => void = () => undefined;
let left = 0;
lanes.on(bulk(name), ({ payload, payloadBytes }) => {
  if (name === 'near') answered();
  // The first message of a series is its length.
  else if (left === 0 && payloadBytes === 1) left = payload[0]?.[0] ?? 0;
  else if (--left === 0) void lanes.send(other, bulk(other), [Uint8Array.of(1)]);
});
lanes.on(echo(name), ({ payload }) => {
  if (name === 'near') answered();
  else void lanes.send(other, echo(other), payload);
});
await lanes.start();

const answer = () =>
  new Promise<void>((resolve) => {
    answered = resolve;
  });

async function timed(work: () => Promise<void>): Promise<number> {
  const from = performance.now();
  await work();
  return performance.now() - from;
}

const asked = (argument: unknown): EndQuestion => argument as EndQuestion;
/** Made once: it costs more than sending it. */
const patterns = new Map<number, Uint8Array>();
function pattern(bytes: number): Uint8Array {
  const made = patterns.get(bytes) ?? Uint8Array.from({ length: bytes }, (_, i) => (i * 31) & 0xff);
  patterns.set(bytes, made);
  return made;
}
const sessions = new TlsSessions();

onAsked('meet', (argument) => lanes.setPeers([{ agent: other, addresses: ['127.0.0.1'], lanePort: asked(argument).port }]));
onAsked('direct', () => lanes.health().some(({ peer, lane }) => peer === other && lane === 'direct'));
onAsked('cpu', () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
});
onAsked('bulk', (argument) => {
  const { bytes, count } = asked(argument);
  const payload = pattern(bytes);
  return timed(async () => {
    const done = answer();
    await lanes.send(other, bulk(other), [Uint8Array.of(count)]);
    for (let i = 0; i < count; i++) await lanes.send(other, bulk(other), [payload]);
    await done;
  });
});
onAsked('echo', (argument) => {
  const { bytes, count } = asked(argument);
  const payload = pattern(bytes);
  return timed(async () => {
    for (let i = 0; i < count; i++) {
      const back = answer();
      await lanes.send(other, echo(other), [payload]);
      await back;
    }
  });
});
/** How long a connection takes, in full or with the session of the one before. */
async function handshake(port: number, known: TlsSessions | undefined): Promise<number> {
  if (trust === undefined) return Number.NaN;
  let ms = 0;
  const dialled = dialTls({ host: '127.0.0.1', port, trust, accepts: () => '', ...(known === undefined ? {} : { sessions: known }) });
  ms = await timed(async () => void (await dialled.peer));
  // The tickets come after the handshake.
  await new Promise<void>((resolve) => {
    dialled.socket.once('session', () => setImmediate(resolve));
    setTimeout(resolve, 50);
  });
  dialled.socket.destroy();
  return ms;
}
onAsked('full', (argument) => handshake(asked(argument).port, undefined));
onAsked('resumed', async (argument) => {
  const { port } = asked(argument);
  await handshake(port, sessions);
  return handshake(port, sessions);
});

announceReady({ lanePort: lanes.port });
await stopped;
await lanes.stop();
process.exit(0);
