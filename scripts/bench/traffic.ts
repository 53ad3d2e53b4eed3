/**
 * Bytes: what frames put through the gateway's broker when direct lanes are up, and what travels on lanes against the least that the plan must send. Both
 * are counted by the kernel, socket by socket: payload of TCP, without what was sent again.
 */
import { execFileSync } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { Testbed } from '../testbed/testbed.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, onCluster, planWords } from './cluster.js';
import { atMost, below, type Figure, figure } from './figures.js';
import { DETECTOR } from './networks.js';

const BROKER_PORT = 1883;
const BROKER_LIMIT_BYTES = 1000;
const WIRE_SHARE = 1.01;
const IDLE_MS = 6000;

/** Bytes that one side of a connection has sent and had acknowledged, and received. */
export interface SocketBytes {
  /** `local>peer`. */
  readonly key: string;
  readonly localPort: number;
  readonly peerPort: number;
  readonly sent: number;
  readonly received: number;
}

/** What `ss -tinH` prints: two lines a connection. Pure. */
export function parseSockets(text: string): SocketBytes[] {
  const found: SocketBytes[] = [];
  const lines = text.split('\n');
  for (const [i, line] of lines.entries()) {
    const [, local = '', peer = ''] = /^ESTAB\s+\d+\s+\d+\s+(\S+)\s+(\S+)/.exec(line) ?? [];
    if (local === '') continue;
    const details = lines[i + 1] ?? '';
    const field = (name: string): number => Number(new RegExp(`\\b${name}:(\\d+)`).exec(details)?.[1] ?? 0);
    const portOf = (address: string): number => Number(address.slice(address.lastIndexOf(':') + 1));
    // The kernel counts the SYN as a byte.
    const sent = Math.max(0, field('bytes_acked') - 1);
    found.push({ key: `${local}>${peer}`, localPort: portOf(local), peerPort: portOf(peer), sent, received: field('bytes_received') });
  }
  return found;
}

function socketsIn(namespace: string): SocketBytes[] {
  return parseSockets(execFileSync('nsenter', [`--net=/run/netns/${namespace}`, 'ss', '-tinH'], { encoding: 'utf8' }));
}

interface Counted {
  /** Through the broker, both directions. */
  readonly broker: Map<string, number>;
  /** Sent on lanes. */
  readonly lanes: Map<string, number>;
}

function count({ gateway, agents }: Testbed): Counted {
  const [broker, lanes] = [new Map<string, number>(), new Map<string, number>()];
  for (const { namespace, name } of [gateway.device, ...agents.map((a) => a.device)]) {
    for (const s of socketsIn(namespace)) {
      const isBroker = s.localPort === BROKER_PORT || s.peerPort === BROKER_PORT;
      if (isBroker && s.localPort === BROKER_PORT) broker.set(`${name} ${s.key}`, s.sent + s.received);
      // Within the gateway's machine: the client's lane to the dispatcher is no wire of the plan.
      const [local = '', peer = ''] = s.key.split('>').map((address) => address.slice(0, address.lastIndexOf(':')));
      if (!isBroker && local !== peer) lanes.set(`${name} ${s.key}`, s.sent);
    }
  }
  return { broker, lanes };
}

/** What grew between two counts. A connection that ended in between cannot be counted: then this throws. */
export function grown(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const [key, bytes] of after) sum += bytes - (before.get(key) ?? 0);
  for (const key of before.keys()) {
    if (!after.has(key)) throw new ChairError('LANE_DOWN', `a connection ended while its bytes were counted: ${key}`);
  }
  return sum;
}

async function at(
  name: string,
  model: string,
  cut: string,
  frames: number,
  cluster: Cluster,
  plans: Record<string, string>,
): Promise<Figure[]> {
  const { testbed, client, deploy, load, network } = cluster;
  const plan = await deploy({ name: 'net', ...(await network(model)), cut, objective: cut === '' ? 'throughput' : 'latency' });
  plans[name] = planWords(plan);
  try {
    // Lanes open with the first frames.
    await load({ deployment: 'net', frames: 8, inFlight: 4 });
    const lanes = (await client.status('net')).agents.flatMap((agent) => agent.health?.lanes ?? []);
    const relayed = lanes.filter((lane) => lane.lane === 'relay').map((lane) => lane.peer);
    const idleFrom = count(testbed);
    await delay(IDLE_MS);
    const [from, fromMs] = [count(testbed), performance.now()];
    await load({ deployment: 'net', frames, inFlight: 4 });
    const [to, ms] = [count(testbed), performance.now() - fromMs];
    const idlePerMs = grown(idleFrom.broker, from.broker) / IDLE_MS;
    const brokerBytes = grown(from.broker, to.broker);
    const least = plan.links.reduce((sum, link) => sum + link.bytesPerFrame, 0);
    return [
      figure(
        `${name}: bytes of one frame through the broker, above those at rest`,
        'bytes',
        [Math.max(0, brokerBytes - idlePerMs * ms) / frames],
        below(BROKER_LIMIT_BYTES),
      ),
      figure(`${name}: all bytes through the broker per frame, at ${((1000 * frames) / ms).toFixed(1)} fps`, 'bytes', [
        brokerBytes / frames,
      ]),
      figure(`${name}: through the broker at rest`, 'bytes/s', [idlePerMs * 1000]),
      figure(`${name}: lanes that go through the broker`, 'lanes', [relayed.length], atMost(0)),
      figure(
        `${name}: bytes of one frame on lanes over the plan's least`,
        'x',
        [grown(from.lanes, to.lanes) / frames / least],
        atMost(WIRE_SHARE),
      ),
      figure(`${name}: the plan's least`, 'bytes', [least]),
    ];
  } finally {
    await client.undeploy('net');
  }
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  return onCluster(context, { agents: 4 }, async (cluster) => {
    if (cluster.testbed.conditions.isolation !== 'namespaces') {
      context.trouble('bytes on wires need network namespaces (root on Linux)');
      return cluster.testbed.conditions;
    }
    const frames = context.quick ? 8 : 30;
    const one = (model: string, cut: string): Case => {
      const name = `${model}, ${cut === '' ? 'planned for throughput' : cut}`;
      return { name, run: () => at(name, model, cut, frames, cluster, plans) };
    };
    await context.cases([
      one('alexnet', ''),
      ...(context.quick ? [] : [one('vgg16-features', 'rows:4'), one('alexnet', 'stages:4'), one(DETECTOR, 'rows:4')]),
    ]);
    return { 'bytes counted': 'payload of TCP, by the kernel', ...cluster.testbed.conditions, plans };
  });
}

export const traffic: Bench = {
  name: 'traffic',
  summary: "bytes through the broker and on lanes, against the plan's least",
  seconds: 80,
  run,
};
