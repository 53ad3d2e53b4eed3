/**
 * What it costs to fetch weights: a gateway and an agent on loopback, without the engine; on a connection beside the lane and through the broker, plain and encrypted,
 * in turn. The bytes are random, written to the agent's disk and hashed, as always.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeAuthority, makeKey, publicKeyOf, sign } from '../../broker/credentials/certificates.js';
import { writeCredentials } from '../../broker/credentials/credentials.js';
import type { BlobRef } from '../../broker/plan.js';
import { Child, nodeFlags } from '../children.js';
import type { Case } from './bench.js';
import { atMost, type Figure, figure, inTurn, type Target } from './figures.js';

const END = fileURLToPath(new URL('./fetching-end.ts', import.meta.url));
const MEGABYTES = 64;
const ASK_MS = 120_000;
/** CPU of the agent; more would keep a board from its frames longer than its link does. */
const MOST_MS_PER_MB = 3;

interface Sample {
  readonly agentMs: number;
  readonly gatewayMs: number;
  readonly megabytesPerSecond: number;
}

interface Pair {
  readonly gateway: Child;
  readonly agent: Child;
}

async function numberOf(child: Child, question: string, argument: object = {}): Promise<number> {
  return Number(await child.ask(question, { argument, withinMs: ASK_MS }));
}

async function makeBlob(directory: string): Promise<BlobRef> {
  const bytes = randomBytes(MEGABYTES * 1e6);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  await writeFile(path.join(directory, sha256), bytes);
  return { sha256, sizeBytes: bytes.length };
}

async function makeCredentials(folder: string): Promise<void> {
  const caKey = await makeKey();
  const ca = await makeAuthority('bench', caKey);
  const times = { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 24 * 3_600_000 };
  for (const [i, role] of (['gateway', 'agent'] as const).entries()) {
    const key = await makeKey();
    const identity = { cluster: 'bench', role, name: role === 'agent' ? 'agent-1' : role };
    const certificate = await sign({ ca, caKey, identity, publicKey: publicKeyOf(key), serial: `0${i + 1}`, ...times });
    await writeCredentials(path.join(folder, role), { identity, ca, certificate, key, serial: '', notAfterMs: times.notAfterMs });
  }
}

function pairOf(folder: string, encrypted: boolean): Pair {
  const end = (role: string) => {
    const credentials = encrypted ? path.join(folder, role) : '';
    return new Child(role, [], undefined, {
      command: [process.execPath, ...nodeFlags(), END, role, path.join(folder, 'blobs', role), credentials],
    });
  };
  return { gateway: end('gateway'), agent: end('agent') };
}

async function sampleOf({ gateway, agent }: Pair, ref: BlobRef, beside: boolean): Promise<Sample> {
  const { url, lanePort } = await gateway.ready;
  const cpu = () => Promise.all([agent, gateway].map((child) => numberOf(child, 'cpu')));
  const [agentBefore = 0, gatewayBefore = 0] = await cpu();
  const seconds = await numberOf(agent, 'fetch', { url, lanePort, ref, beside });
  const [agentAfter = 0, gatewayAfter = 0] = await cpu();
  return {
    agentMs: (agentAfter - agentBefore) / MEGABYTES,
    gatewayMs: (gatewayAfter - gatewayBefore) / MEGABYTES,
    megabytesPerSecond: MEGABYTES / seconds,
  };
}

async function measure(quick: boolean): Promise<Figure[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'fetching-'));
  const pairs: Pair[] = [];
  try {
    for (const role of ['gateway', 'agent']) await mkdir(path.join(folder, 'blobs', role), { recursive: true });
    const ref = await makeBlob(path.join(folder, 'blobs', 'gateway'));
    await makeCredentials(folder);
    const ways: { readonly name: string; readonly pair: Pair; readonly beside: boolean }[] = [];
    for (const encrypted of [false, true]) {
      const pair = pairOf(folder, encrypted);
      pairs.push(pair);
      await Promise.all([pair.gateway.ready, pair.agent.ready]);
      const name = encrypted ? 'TLS' : 'plain';
      ways.push({ name, pair, beside: true }, { name: `${name}, through the broker`, pair, beside: false });
    }
    const takes = ways.map(
      ({ pair, beside }) =>
        () =>
          sampleOf(pair, ref, beside),
    );
    // The first of each compiles.
    await inTurn(1, takes);
    const samples = await inTurn(quick ? 1 : 5, takes);
    const figures = ways.flatMap(({ name, beside }, w) => {
      const own = samples[w] ?? [];
      const of = (what: string, unit: string, pick: (sample: Sample) => number, bound?: Target) =>
        figure(`fetching, ${name}: ${what}`, unit, own.map(pick), bound);
      return [
        of('CPU of the agent', 'ms/MB', ({ agentMs }) => agentMs, beside ? atMost(MOST_MS_PER_MB) : undefined),
        of('CPU of the gateway', 'ms/MB', ({ gatewayMs }) => gatewayMs),
        of('rate', 'MB/s', ({ megabytesPerSecond }) => megabytesPerSecond),
      ];
    });
    const peaks = await Promise.all(pairs.map(({ agent }) => numberOf(agent, 'peak')));
    return [...figures, figure('fetching: peak memory of an agent without an engine', 'MiB', peaks)];
  } finally {
    await Promise.all(pairs.flatMap(({ gateway, agent }) => [gateway.stop(), agent.stop()]));
    await rm(folder, { recursive: true, force: true });
  }
}

export const fetchingCase = (quick: boolean): Case => ({ name: 'fetching', run: () => measure(quick) });
