/** The middle falls, with real processes: a gateway that is killed and started again, and a scheduler that stands still while another one takes its place. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type BrokerServer, startBroker } from '../../broker/server.js';
import type { Tensor } from '../../broker/tensor.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { randomTensor } from '../../models/random.js';
import { compare, TOLERANCE } from '../../models/slicing/verify.js';
import { buildZoo } from '../../models/zoo/index.js';
import { ChairClient, type InferResult } from '../../scheduler/client.js';
import { Child } from '../children.js';
import { untilAgentsReady } from '../commands/cluster.js';

const INPUTS = 4;
const WITHIN = { timeout: 120_000 };

let folder = '';
let model = '';
const inputs: Record<string, Tensor>[] = [];
const expected: Record<string, Tensor>[] = [];
const running: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-restart-'));
  model = path.join(folder, 'net.onnx');
  await buildZoo('resnet18', model, { scale: 0.125, size: 64, classes: 10, seed: 5 });
  const engine = await createOnnxRuntimeEngine({ threads: 1 });
  const session = await engine.load(model);
  const [info] = session.inputs;
  if (info === undefined) throw new Error('the model has no input');
  for (let i = 0; i < INPUTS; i++) {
    const frame = { [info.name]: randomTensor(info, 100 + i) };
    inputs.push(frame);
    expected.push({ ...(await session.run(frame)).outputs });
  }
  await engine.dispose();
  return () => rmSync(folder, { recursive: true, force: true });
}, 60_000);
afterEach(async () => {
  for (const stop of running.splice(0).reverse()) await stop();
}, 60_000);

function start(name: string, args: readonly string[], lines: string[] = []): Child {
  const child = new Child(name, [...args, '--directory', path.join(folder, name)], (line) => lines.push(line));
  running.push(async () => {
    // A stopped process takes no other signal.
    child.process.kill('SIGCONT');
    await child.stop();
  });
  return child;
}

async function agents(url: string, names: readonly string[], lines: string[] = []): Promise<Child[]> {
  const where = ['--broker', url, '--threads', '1', '--lane-host', '127.0.0.1', '--addresses', '127.0.0.1'];
  const children = names.map((name) => start(name, ['agent', '--name', name, ...where], lines));
  await Promise.all(children.map(({ ready }) => ready));
  return children;
}

async function connect(url: string, ready: number): Promise<ChairClient> {
  const client = await ChairClient.connect({ brokerUrl: url, cluster: 'default', window: 4 });
  running.push(() => client.close());
  await untilAgentsReady(client, ready);
  return client;
}

/** Frames one after another until it is told to stop, each checked; when each came. */
class Load {
  readonly atMs: number[] = [];
  readonly errors: string[] = [];
  worst = 0;
  #stopped = false;
  readonly #done: Promise<void>[];

  constructor(client: ChairClient, name: string) {
    this.#done = [0, 1].map(async (lane) => {
      for (let i = lane; !this.#stopped; i++) {
        const at = i % INPUTS;
        await client.infer(name, inputs[at] ?? {}, { deadlineMs: 60_000 }).then(
          (result) => this.#came(result, at),
          (error: Error) => this.errors.push(error.message),
        );
      }
    });
  }

  get frames(): number {
    return this.atMs.length;
  }

  /** Longest time without a result, ms. */
  get gapMs(): number {
    return Math.max(...this.atMs.slice(1).map((at, i) => at - (this.atMs[i] ?? at)));
  }

  async more(count: number): Promise<void> {
    for (const want = this.frames + count; this.frames < want; ) await delay(20);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#done);
  }

  #came({ outputs }: InferResult, at: number): void {
    this.atMs.push(performance.now());
    this.worst = Math.max(this.worst, compare(expected[at] ?? {}, outputs).maxRelDiff);
  }
}

describe('a gateway that is killed under load', () => {
  it('comes back with its deployment: no frame is lost, agents fetch and load nothing, the model is not needed', WITHIN, async () => {
    const lines: string[] = [];
    const gatewayLines: string[] = [];
    const decide = (port: number): Child =>
      start('gateway', ['gateway', '--port', `${port}`, '--host', '127.0.0.1', '--hidden', '--hold-plans'], gatewayLines);
    const first = decide(0);
    const url = String((await first.ready).url);
    await agents(url, ['a', 'b'], lines);
    const client = await connect(url, 2);
    await client.deploy({ name: 'net', model, cut: 'rows:2' });
    const before = await client.status();
    const load = new Load(client, 'net');
    await load.more(10);
    first.process.kill('SIGKILL');
    await first.ended;
    const saidBefore = lines.length;
    const second = decide(Number(new URL(url).port));
    await second.ready;
    await load.more(10);
    await load.stop();
    console.log(
      `${load.frames} results, longest gap ${Math.round(load.gapMs)} ms, largest relative difference ${load.worst.toExponential(2)}`,
    );
    expect(load.errors).toEqual([]);
    expect(load.worst).toBeLessThanOrEqual(TOLERANCE);
    const after = await client.status();
    expect(after.term).toBe(before.term + 1);
    expect(after.deployments[0]?.plan?.seats).toEqual(before.deployments[0]?.plan?.seats);
    expect(after.deployments[0]).toMatchObject({ state: 'serving', failed: 0 });
    expect(gatewayLines.filter((line) => line.includes('planned'))).toHaveLength(1);
    // Seats of the new term are ready before those of the old one are given back: the sessions are the same ones.
    const said = lines.slice(saidBefore).filter((line) => /ready|given back/.test(line));
    expect(said.filter((line) => line.includes('ready'))).toHaveLength(2);
    expect((await client.status()).agents.every(({ health }) => (health?.uptimeMs ?? 0) > 3000)).toBe(true);
  });
});

describe('a scheduler that stands still while another one takes its place', () => {
  it('steps down when it wakes up: nothing that the other deployed is touched, and agents obey only the other', WITHIN, async () => {
    const broker: BrokerServer = await startBroker({ host: '127.0.0.1', port: 0 });
    running.push(() => broker.stop());
    const said: Record<string, string[]> = { old: [], new: [], agents: [] };
    const decide = (name: string): Child =>
      start(name, ['scheduler', '--broker', broker.url, '--host', '127.0.0.1', '--hidden', '--hold-plans'], said[name]);
    const old = decide('old');
    await old.ready;
    await agents(broker.url, ['c', 'd'], said.agents);
    const client = await connect(broker.url, 2);
    await client.deploy({ name: 'net', model, cut: 'rows:2' });
    const frames = Array.from({ length: 4 }, (_, i) => client.infer('net', inputs[i] ?? {}));
    await Promise.all(frames);
    const oldTerm = (await client.status()).term;

    old.process.kill('SIGSTOP');
    // It counts its terms in a folder of its own, and comes to the same one: only agents know better.
    const next = decide('new');
    await next.ready;
    await untilAgentsReady(client, 2);
    await client.deploy({ name: 'net', model, cut: 'stages:2' });
    const status = await client.status();
    expect(status.term).toBeGreaterThan(oldTerm);
    const load = new Load(client, 'net');
    await load.more(10);
    old.process.kill('SIGCONT');
    const { code } = await old.ended;
    expect(code).not.toBe(0);
    expect(said.old?.join('\n')).toContain('CLUSTER_TAKEN');
    await load.more(10);
    await load.stop();
    expect(load.errors).toEqual([]);
    expect(load.worst).toBeLessThanOrEqual(TOLERANCE);
    const after = await client.status();
    expect(after).toMatchObject({ term: status.term, deployments: [{ state: 'serving', epoch: status.deployments[0]?.epoch, failed: 0 }] });
    expect(said.new?.join('\n')).not.toContain('CLUSTER_TAKEN');
    expect(next.process.exitCode).toBeNull();
  });
});
