/**
 * What TLS costs on a lane: pairs of processes on loopback, plain and encrypted, asked in turn. OPENSSL_ia32cap takes the AES and carry-less multiplication instructions
 * from this processor, so that it encrypts as a board without them has to.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { makeAuthority, makeKey, publicKeyOf, sign } from '../../broker/credentials/certificates.js';
import { readCredentials, writeCredentials } from '../../broker/credentials/credentials.js';
import { Child, nodeFlags } from '../children.js';
import type { Case } from './bench.js';
import { type Figure, figure, inTurn } from './figures.js';

const END = fileURLToPath(new URL('./lane-tls-end.ts', import.meta.url));
/** Bits 57 (AES) and 33 (PCLMULQDQ) of OpenSSL's capability vector, taken away. */
const NO_AES = ['env', 'OPENSSL_ia32cap=~0x200000200000000'];

interface Variant {
  readonly name: string;
  readonly cipher: 'none' | 'aes' | 'chacha';
  readonly prefix: readonly string[];
}

const VARIANTS: readonly Variant[] = [
  { name: 'plain', cipher: 'none', prefix: [] },
  { name: 'TLS, AES-128-GCM', cipher: 'aes', prefix: [] },
  { name: 'TLS, AES-128-GCM without AES instructions', cipher: 'aes', prefix: NO_AES },
  { name: 'TLS, ChaCha20', cipher: 'chacha', prefix: NO_AES },
];

interface Pair {
  readonly near: Child;
  readonly far: Child;
  /** Port of the far end. */
  readonly port: number;
}

const ASK_MS = 60_000;

async function numberOf(child: Child, question: string, argument: object = {}): Promise<number> {
  return Number(await child.ask(question, { argument, withinMs: ASK_MS }));
}

async function credentials(folder: string): Promise<void> {
  const caKey = await makeKey();
  const ca = await makeAuthority('bench', caKey);
  for (const [i, name] of ['near', 'far'].entries()) {
    const key = await makeKey();
    const identity = { cluster: 'bench', role: 'agent', name } as const;
    const times = { notBeforeMs: Date.now() - 3_600_000, notAfterMs: Date.now() + 24 * 3_600_000 };
    const certificate = await sign({ ca, caKey, identity, publicKey: publicKeyOf(key), serial: `0${i + 1}`, ...times });
    await writeCredentials(path.join(folder, name), { identity, ca, certificate, key, serial: '', notAfterMs: times.notAfterMs });
    await readCredentials(path.join(folder, name));
  }
}

async function pairOf({ cipher, prefix }: Variant, folder: string): Promise<Pair> {
  const end = (name: string) => {
    const command = [...prefix, process.execPath, ...nodeFlags(), END, name, cipher, path.join(folder, name)];
    return new Child(name, [], undefined, { command });
  };
  const [near, far] = [end('near'), end('far')];
  try {
    const ports = await Promise.all([near.ready, far.ready]);
    const [nearPort, port] = ports.map(({ lanePort }) => Number(lanePort));
    await far.ask('meet', { argument: { port: nearPort } });
    await near.ask('meet', { argument: { port } });
    while ((await near.ask('direct')) !== true) await delay(20);
    return { near, far, port: port ?? 0 };
  } catch (error) {
    await Promise.all([near.stop(), far.stop()]);
    throw error;
  }
}

/** MB/s, and ms of CPU of both processes for each MB. */
async function rate({ near, far }: Pair, bytes: number, count: number): Promise<{ readonly rate: number; readonly cpuMs: number }> {
  const cpu = async (): Promise<number> => (await numberOf(near, 'cpu')) + (await numberOf(far, 'cpu'));
  const before = await cpu();
  const ms = await numberOf(near, 'bulk', { bytes, count });
  const megabytes = (bytes * count) / 1e6;
  return { rate: (megabytes * 1000) / ms, cpuMs: ((await cpu()) - before) / megabytes };
}

async function measure(quick: boolean): Promise<Figure[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'lane-tls-'));
  const pairs: { readonly variant: Variant; readonly pair: Pair }[] = [];
  try {
    await credentials(folder);
    for (const variant of VARIANTS) pairs.push({ variant, pair: await pairOf(variant, folder) });
    const rounds = quick ? 3 : 21;
    const things = <T>(measured: (pair: Pair) => Promise<T>) =>
      pairs.map(
        ({ pair }) =>
          () =>
            measured(pair),
      );
    await inTurn(
      1,
      things((pair) => rate(pair, 1_000_000, 16)),
    );
    const rates = await inTurn(
      rounds,
      things((pair) => rate(pair, 1_000_000, 32)),
    );
    const echoes = await inTurn(
      rounds,
      things(async ({ near }) => (await numberOf(near, 'echo', { bytes: 16_384, count: 50 })) / 50),
    );
    const plain = rates[0] ?? [];
    const figures = pairs.flatMap(({ variant: { name } }, v) => {
      const own = rates[v] ?? [];
      const megabytes = own.map((sample) => sample.rate);
      const ratios = own.map((sample, i) => sample.rate / (plain[i]?.rate ?? Number.NaN));
      return [
        figure(`encryption, 1 MB, ${name}`, 'MB/s', megabytes),
        ...(v === 0 ? [] : [figure(`encryption, 1 MB, ${name}: throughput over plain`, 'x', ratios)]),
        figure(
          `encryption, 1 MB, ${name}: CPU of both ends`,
          'ms/MB',
          own.map((sample) => sample.cpuMs),
        ),
        figure(`encryption, round trip of 16 KB, ${name}`, 'ms', echoes[v] ?? []),
      ];
    });
    const encrypted = pairs[1];
    if (encrypted === undefined) return figures;
    const { near, port } = encrypted.pair;
    const [full = [], resumed = []] = await inTurn(rounds, [
      () => numberOf(near, 'full', { port }),
      () => numberOf(near, 'resumed', { port }),
    ]);
    return [...figures, figure('encryption, connection: in full', 'ms', full), figure('encryption, connection: resumed', 'ms', resumed)];
  } finally {
    await Promise.all(pairs.flatMap(({ pair }) => [pair.near.stop(), pair.far.stop()]));
    await rm(folder, { recursive: true, force: true });
  }
}

export const tlsCase = (quick: boolean): Case => ({ name: 'encryption', run: () => measure(quick) });
