/**
 * Clusters on a broker that is not the gateway's own: frames through it, two clusters side by side, and its death. Here on
 * Mosquitto, where it is installed; `npm run test:brokers` takes others.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import type { Tensor } from '../../broker/tensor.js';
import { type BrokerKind, MOSQUITTO, type TestBroker } from '../../broker/test-brokers.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { randomTensor } from '../../models/random.js';
import { compare, TOLERANCE } from '../../models/slicing/verify.js';
import { buildZoo } from '../../models/zoo/index.js';
import { runAgent } from '../../node-agent/main.js';
import { ChairClient } from '../../scheduler/client.js';
import { Gateway } from '../../scheduler/gateway.js';
import { Child, LocalCluster } from '../children.js';
import { untilAgentsReady } from '../commands/cluster.js';
import { CLI_PATH } from '../package-root.js';
import { startRabbitMq } from './brokers/rabbitmq.js';
import { compiled, compiledCli } from './compiled.js';
import { until } from './fixture.js';

const EXCHANGED = process.env.MUSICAL_CHAIR_TEST_BROKER;
/** So many frames, all different. */
const INPUTS = 8;
const DOWN_MS = 3_000;

/** A broker that dies without a word, and comes back on its port with nothing retained. */
const PROCESS: BrokerKind = {
  name: EXCHANGED ?? 'musical-chair broker',
  missing: '',
  start: async (port = 0) => {
    const child = new Child('broker', ['broker', '--insecure', '--host', '127.0.0.1', '--port', String(port)], undefined, {
      command: compiled(CLI_PATH),
    });
    const { url } = await child.ready;
    const stop = async (): Promise<void> => {
      child.process.kill('SIGKILL');
      await child.ended;
    };
    return { url: String(url), port: Number(new URL(String(url)).port), stop };
  },
};

/** The node of the suite serves other tests meanwhile: this is one of its own. What it keeps on disk it has again. */
const RABBITMQ: BrokerKind = {
  name: 'a RabbitMQ node',
  missing: EXCHANGED === 'rabbitmq' ? '' : 'only in npm run test:brokers',
  start: async () => {
    const node = await startRabbitMq(1);
    running.push(() => node.stop());
    const [port = 0] = node.ports;
    again.set(port, node.start);
    return { url: `mqtt://127.0.0.1:${port}`, port, stop: node.kill };
  },
};
/** How a node comes back, by its port. */
const again = new Map<number, () => Promise<void>>();

const STOP_MS = 15_000;
const running: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of running.splice(0).reverse()) {
    // What these tests are about is over. An end that takes longer is told of, and does not keep the others from theirs.
    const late = delay(STOP_MS, 'late', { ref: false });
    if ((await Promise.race([stop(), late])) === 'late') console.warn(`not within ${STOP_MS} ms: ${stop}`);
  }
  again.clear();
}, 240_000);

async function started(kind: BrokerKind): Promise<TestBroker> {
  const broker = await kind.start();
  running.push(() => broker.stop());
  return broker;
}

async function restarted(kind: BrokerKind, port: number): Promise<void> {
  const start = again.get(port);
  if (start !== undefined) return start();
  const broker = await kind.start(port);
  running.push(() => broker.stop());
}

function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'mc-brokers-'));
  running.push(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** Processes of their own. */
async function clusterOn(brokerUrl: string, agents: number): Promise<void> {
  const made = await LocalCluster.start({ agents, threads: 1, cli: compiledCli(), brokerUrl, directory: path.join(folder(), 'state') });
  running.push(() => made.stop());
}

/** The same in this process: two clusters would be six more. */
async function clusterHere(brokerUrl: string, cluster: string, agents: readonly string[]): Promise<void> {
  const state = folder();
  const createEngine = () => createOnnxRuntimeEngine({ threads: 1 });
  const gateway = new Gateway({
    cluster,
    stateDirectory: path.join(state, 'gateway'),
    broker: { url: brokerUrl },
    laneHost: '127.0.0.1',
    addresses: ['127.0.0.1'],
    createEngine,
  });
  running.push(() => gateway.stop());
  await gateway.start();
  for (const name of agents) {
    const directory = path.join(state, name);
    const options = { name, cluster, broker: brokerUrl, directory, laneHost: '127.0.0.1', addresses: ['127.0.0.1'], threads: 1 };
    const agent = await runAgent(options, { softwareVersion: 'test' });
    running.push(() => agent.stop());
  }
}

async function clientOf(brokerUrl: string, cluster = 'default', relayOnly = false): Promise<ChairClient> {
  const client = await ChairClient.connect({ brokerUrl, cluster, relayOnly, window: 8 });
  running.push(() => client.close());
  return client;
}

interface Net {
  readonly file: string;
  readonly inputs: readonly Record<string, Tensor>[];
  readonly expected: readonly Record<string, Tensor>[];
}

/** A network, inputs that differ, and what one machine makes of them. */
async function net(seed: number): Promise<Net> {
  const file = path.join(folder(), 'net.onnx');
  await buildZoo('resnet18', file, { scale: 0.125, size: 32, classes: 5, seed });
  const engine = await createOnnxRuntimeEngine({ threads: 1 });
  try {
    const session = await engine.load(file);
    const inputs = Array.from({ length: INPUTS }, (_, i) =>
      Object.fromEntries(session.inputs.map((info) => [info.name, randomTensor(info, 100 + i)])),
    );
    const expected: Record<string, Tensor>[] = [];
    for (const input of inputs) expected.push({ ...(await session.run(input)).outputs });
    return { file, inputs, expected };
  } finally {
    await engine.dispose();
  }
}

/** Largest relative difference of the results from those of one machine. */
async function worst(
  client: ChairClient,
  name: string,
  { inputs, expected }: Net,
  frames: number,
  at?: { frame: number; act: () => void },
) {
  let [results, difference] = [0, 0];
  const stream = Array.from({ length: frames }, (_, i) => inputs[i % INPUTS] ?? {});
  for await (const { outputs } of client.inferStream(name, stream, { deadlineMs: 60_000 })) {
    difference = Math.max(difference, compare(expected[results % INPUTS] ?? {}, outputs).maxRelDiff);
    if (++results === at?.frame) at.act();
  }
  expect(results).toBe(frames);
  return difference;
}

const KINDS = EXCHANGED !== undefined ? [PROCESS, RABBITMQ] : [MOSQUITTO.missing === '' ? MOSQUITTO : PROCESS];

for (const kind of KINDS) {
  describe.skipIf(kind.missing !== '')(
    `clusters on ${kind.name}${kind.missing === '' ? '' : ` (${kind.missing})`}`,
    { timeout: 240_000 },
    () => {
      it('serve two models of one name to two clusters of equal agents, directly and through the broker', async () => {
        const { url } = await started(kind);
        const nets = [await net(1), await net(2)] as const;
        // The same names in both; dots are what RabbitMQ takes for slashes.
        const clusters = ['lab.one', 'lab.two'] as const;
        for (const [i, cluster] of clusters.entries()) {
          await clusterHere(url, cluster, ['pi.local', 'pi-2.local']);
          const client = await clientOf(url, cluster, i === 1);
          await untilAgentsReady(client, 2);
          await client.deploy({ name: 'net', model: nets[i]?.file ?? '', cut: 'rows:2' });
        }
        // The inputs are equal, the weights are not: the other cluster's results would be wrong.
        expect(compare(nets[0].expected[0] ?? {}, nets[1].expected[0] ?? {}).maxRelDiff).toBeGreaterThan(100 * TOLERANCE);
        const [first, second] = [await clientOf(url, clusters[0]), await clientOf(url, clusters[1], true)];
        const both = await Promise.all([worst(first, 'net', nets[0], 40), worst(second, 'net', nets[1], 40)]);
        expect(Math.max(...both)).toBeLessThanOrEqual(TOLERANCE);
        expect([first.lane(), second.lane()]).toEqual(['direct', 'relay']);
        await first.undeploy('net');
        expect((await second.status()).deployments).toMatchObject([{ name: 'net', state: 'serving', failed: 0 }]);
        expect(await worst(second, 'net', nets[1], 4)).toBeLessThanOrEqual(TOLERANCE);
      });

      it('go on when it is killed under load, and recover by themselves when it is back with nothing retained', async () => {
        const broker = await started(kind);
        await clusterOn(broker.url, 3);
        const client = await clientOf(broker.url);
        await untilAgentsReady(client, 3);
        const model = await net(3);
        const { epoch } = await client.deploy({ name: 'net', model: model.file, cut: 'rows:3' });
        const { term } = await client.status();

        let back = Promise.resolve();
        const kill = async (): Promise<void> => {
          await broker.stop();
          await delay(DOWN_MS);
          await restarted(kind, broker.port);
        };
        const act = (): void => {
          back = kill();
        };
        // Direct lanes carry frames on meanwhile: each has exactly one result, and it is right.
        expect(await worst(client, 'net', model, 200, { frame: 40, act })).toBeLessThanOrEqual(TOLERANCE);
        await back;
        await until('requests are answered', async () => (await client.status()).agents.every(({ state }) => state === 'ready'));
        const { deployments, term: later } = await client.status();
        expect(deployments).toMatchObject([{ name: 'net', state: 'serving', failed: 0, plan: { epoch } }]);
        expect(later).toBe(term);
        expect(await worst(client, 'net', model, 40)).toBeLessThanOrEqual(TOLERANCE);
        // The control plane is whole again, too: commands, blobs, replies.
        await client.deploy({ name: 'more', model: (await net(4)).file, cut: 'stages:2' });
        await client.undeploy('net');
      });
    },
  );
}
