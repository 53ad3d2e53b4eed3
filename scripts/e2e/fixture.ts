/** What tests of whole clusters have in common: a network with inputs and what one machine makes of them, processes, and frames that are checked. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Tensor } from '../../broker/tensor.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { randomTensor } from '../../models/random.js';
import { compare, TOLERANCE } from '../../models/slicing/verify.js';
import { buildZoo } from '../../models/zoo/index.js';
import { ChairClient, type InferResult } from '../../scheduler/client.js';
import { Child, LocalCluster } from '../children.js';
import { untilAgentsReady } from '../commands/cluster.js';
import { CLI_PATH } from '../package-root.js';
import { compiled, compiledCli } from './compiled.js';

type Tensors = Readonly<Record<string, Tensor>>;

/** A network in a folder of its own. */
export class Net {
  private constructor(
    readonly folder: string,
    readonly model: string,
    private readonly samples: readonly { readonly input: Tensors; readonly output: Tensors }[],
  ) {}

  /** `count` different inputs: enough to tell one frame's result from another's. Throws when they do not give different results. */
  static async build(zoo: string, options: Parameters<typeof buildZoo>[2], count = 4): Promise<Net> {
    const folder = mkdtempSync(path.join(tmpdir(), 'mc-e2e-'));
    const model = path.join(folder, 'net.onnx');
    await buildZoo(zoo, model, options);
    const engine = await createOnnxRuntimeEngine({ threads: 1 });
    const session = await engine.load(model);
    const [info] = session.inputs;
    if (info === undefined) throw new Error('the model has no input');
    const samples: { readonly input: Tensors; readonly output: Tensors }[] = [];
    for (let i = 0; i < count; i++) {
      const input = { [info.name]: randomTensor(info, 100 + i) };
      samples.push({ input, output: (await session.run(input)).outputs });
    }
    await engine.dispose();
    // Otherwise a check could not fail.
    const spread = compare(samples[0]?.output ?? {}, samples[1]?.output ?? {}).maxRelDiff;
    if (!(spread > 100 * TOLERANCE)) throw new Error(`inputs make a difference of ${spread} only`);
    return new Net(folder, model, samples);
  }

  /** The input of the `at`-th frame: they come again and again. */
  input(at: number): Tensors {
    return this.samples[at % this.samples.length]?.input ?? {};
  }

  /** How far a result of it is from that of one machine, relative to the largest output. */
  difference(at: number, outputs: Tensors): number {
    return compare(this.samples[at % this.samples.length]?.output ?? {}, outputs).maxRelDiff;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A gateway and agents as processes of their own, with a client; `stop` when done. */
export async function startCluster(net: Net, agents: number, window = 8): Promise<{ cluster: LocalCluster; client: ChairClient }> {
  const cluster = await LocalCluster.start({ agents, threads: 1, cli: compiledCli(), directory: path.join(net.folder, 'state') });
  const client = await ChairClient.connect({ brokerUrl: cluster.url, cluster: 'default', window });
  await untilAgentsReady(client, agents);
  return { cluster, client };
}

/** Processes and clients of one test; `end` ends them all, also those that stand still. */
export class Processes {
  readonly #running: (() => Promise<unknown>)[] = [];

  constructor(private readonly folder: () => string) {}

  /** `name`: of its folder, too. */
  start(name: string, args: readonly string[], lines: string[] = []): Child {
    const launch = { command: compiled(CLI_PATH) };
    const child = new Child(name, [...args, '--directory', path.join(this.folder(), name)], (line) => lines.push(line), launch);
    this.also(async () => {
      // A stopped process takes no other signal.
      child.process.kill('SIGCONT');
      await child.stop();
    });
    return child;
  }

  agent(url: string, name: string, lines: string[] = [], folder = name): Child {
    const where = ['--insecure', '--broker', url, '--threads', '1', '--lane-host', '127.0.0.1', '--addresses', '127.0.0.1'];
    return this.start(folder, ['agent', '--name', name, ...where], lines);
  }

  async agents(url: string, names: readonly string[], lines: string[] = []): Promise<Child[]> {
    const children = names.map((name) => this.agent(url, name, lines));
    await Promise.all(children.map(({ ready }) => ready));
    return children;
  }

  async connect(url: string, ready: number): Promise<ChairClient> {
    const client = await ChairClient.connect({ brokerUrl: url, cluster: 'default', window: 4 });
    this.also(() => client.close());
    await untilAgentsReady(client, ready);
    return client;
  }

  also(stop: () => Promise<unknown>): void {
    this.#running.push(stop);
  }

  async end(): Promise<void> {
    for (const stop of this.#running.splice(0).reverse()) await stop();
  }
}

/** Frames on several strands, each strand one after another, until it is told to stop; each result is checked. */
export class Load {
  readonly atMs: number[] = [];
  readonly errors: string[] = [];
  /** Of all results, relative to the largest output. */
  worst = 0;
  /** From sending a frame to its result, the longest, ms. */
  slowestMs = 0;
  #stopped = false;
  readonly #net: Net;
  readonly #done: Promise<void>[];

  constructor(client: ChairClient, deployment: string, net: Net, strands = 2) {
    this.#net = net;
    this.#done = Array.from({ length: strands }, async (_, strand) => {
      for (let at = strand; !this.#stopped; at++) {
        const sentMs = performance.now();
        await client.infer(deployment, net.input(at), { deadlineMs: 60_000 }).then(
          (result) => this.#came(result, at, sentMs),
          (error: Error) => this.errors.push(error.message),
        );
      }
    });
  }

  get frames(): number {
    return this.atMs.length;
  }

  /** Longest time without a result after the `from`-th, ms. */
  gapMs(from = 0): number {
    return Math.max(0, ...this.atMs.slice(from + 1).map((at, i) => at - (this.atMs[from + i] ?? at)));
  }

  /** Waits for so many more results; ends early when a frame failed. */
  async more(count: number, withinMs = 60_000): Promise<void> {
    const want = this.frames + count;
    await until(`${count} more results`, () => this.frames >= want || this.errors.length > 0, withinMs);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#done);
  }

  #came({ outputs }: InferResult, at: number, sentMs: number): void {
    this.atMs.push(performance.now());
    this.slowestMs = Math.max(this.slowestMs, performance.now() - sentMs);
    this.worst = Math.max(this.worst, this.#net.difference(at, outputs));
  }
}

export async function until(what: string, holds: () => boolean | Promise<boolean>, withinMs = 60_000): Promise<void> {
  for (const endMs = performance.now() + withinMs; !(await holds()); ) {
    if (performance.now() > endMs) throw new Error(`waited ${withinMs} ms for ${what}`);
    await delay(20);
  }
}
