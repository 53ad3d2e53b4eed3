/** A gateway, or an agent, of the benchmark of fetching. Arguments: role, folder of blobs, folder of credentials ('' = plain). */
import { performance } from 'node:perf_hooks';
import type { Bus } from '../../broker/bus.js';
import { readCredentials } from '../../broker/credentials/credentials.js';
import { fixedSource } from '../../broker/credentials/source.js';
import type { Lanes } from '../../broker/lanes/lane.js';
import { createLanes } from '../../broker/lanes/lanes.js';
import { connectBus } from '../../broker/mqtt-bus.js';
import type { BlobRef } from '../../broker/plan.js';
import { startBroker } from '../../broker/server.js';
import { DISPATCHER, SCHEDULER, topicsOf } from '../../broker/topics.js';
import { trustOf } from '../../broker/trust.js';
import { BlobFetcher } from '../../node-agent/fetch.js';
import { BlobStore } from '../../node-agent/store.js';
import { BlobServer } from '../../scheduler/blob-server.js';
import { announceReady, followParent, onAsked, untilStopped } from '../lifetime.js';

export interface FetchQuestion {
  readonly url: string;
  readonly lanePort: number;
  readonly ref: BlobRef;
  /** Or through the broker. */
  readonly beside: boolean;
}

const AGENT = 'agent-1';
const CLUSTER = 'bench';
const HOST = '127.0.0.1';

followParent();
const stopped = untilStopped();
const [role = '', directory = '', folder = ''] = process.argv.slice(2);
const trusted = folder === '' ? {} : { trust: trustOf(fixedSource(await readCredentials(folder))) };
const topics = topicsOf(CLUSTER);
const ending: (() => Promise<void>)[] = [];

const lanesOf = (id: string, bus: Bus): Lanes =>
  createLanes({ ...trusted, id, cluster: CLUSTER, bus, host: HOST, admits: () => '', listen: id === DISPATCHER });

async function gateway(): Promise<void> {
  const broker = await startBroker({ ...trusted, host: HOST, port: 0 });
  const url = `${folder === '' ? 'mqtt' : 'mqtts'}://${HOST}:${broker.port}`;
  const bus = await connectBus({ ...trusted, url, id: SCHEDULER });
  const lanes = lanesOf(DISPATCHER, bus);
  const blobs = new BlobServer({ bus, lanes, topics, directory });
  await lanes.start();
  await blobs.start();
  ending.push(
    () => blobs.stop(),
    () => lanes.stop(),
    () => bus.stop(),
    () => broker.stop(),
  );
  announceReady({ url, lanePort: lanes.port });
}

/** Seconds that it took. */
async function fetched({ url, lanePort, ref, beside }: FetchQuestion): Promise<number> {
  const store = await BlobStore.open({ directory, limitBytes: 2 * ref.sizeBytes });
  const bus = await connectBus({ ...trusted, url, id: AGENT });
  const lanes = lanesOf(AGENT, bus);
  lanes.setPeers([{ agent: DISPATCHER, addresses: [HOST], lanePort }]);
  const fetcher = new BlobFetcher({ bus, topics: () => topics, agent: AGENT, store, ...(beside ? { lanes } : {}) });
  try {
    await lanes.start();
    await fetcher.start();
    const from = performance.now();
    await fetcher.fetch(ref, { signal: new AbortController().signal, onBytes: () => undefined });
    const seconds = (performance.now() - from) / 1000;
    await store.remove(ref.sha256);
    return seconds;
  } finally {
    await fetcher.stop();
    await lanes.stop();
    await bus.stop();
    await store.close();
  }
}

onAsked('cpu', () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
});
onAsked('peak', () => process.resourceUsage().maxRSS / 1024);
onAsked('fetch', (argument) => fetched(argument as FetchQuestion));
// Between questions an agent has nothing that would keep it here.
const alive = setInterval(() => undefined, 60_000);
if (role === 'gateway') await gateway();
else announceReady({});
await stopped;
clearInterval(alive);
for (const end of ending) await end();
process.exit(0);
