/** An engine for tests: what a session computes, how long it takes and how it fails is scripted; nothing is read from disk. */
import { ChairError } from '../../broker/errors.js';
import { allocTensor, type Tensor, type TensorInfo } from '../../broker/tensor.js';
import { checkInputs } from './checks.js';
import type { Engine, LoadOptions, RunOptions, RunResult, Session } from './engine.js';

export interface FakeGraph {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Default: zeros of the declared shapes. May throw or reject to script a failing run. */
  readonly run?: (
    inputs: Readonly<Record<string, Tensor>>,
    call: number,
  ) => Readonly<Record<string, Tensor>> | Promise<Readonly<Record<string, Tensor>>>;
  /** How long a run takes. Default 0. */
  readonly delayMs?: number;
}

export interface FakeEngineOptions {
  /** What a file contains; may throw ENGINE_LOAD_FAILED. Default: no inputs, no outputs. */
  readonly graph?: (path: string, options: LoadOptions | undefined) => FakeGraph | Promise<FakeGraph>;
  /** How long loading takes. Default 0. */
  readonly loadMs?: number;
}

export interface FakeEngine extends Engine {
  /** Paths in the order of the loads. */
  readonly loaded: readonly string[];
  /** Sessions that are not disposed. */
  readonly openSessions: number;
  /** Ends as a crashed worker does: everything pending and everything later fails with ENGINE_CLOSED. */
  crash(): void;
}

export function createFakeEngine(options: FakeEngineOptions = {}): FakeEngine {
  return new ScriptedEngine(options);
}

class ScriptedEngine implements FakeEngine {
  readonly name = 'fake';
  readonly version = '1';
  readonly loaded: string[] = [];
  readonly #options: FakeEngineOptions;
  readonly #open = new Set<Session>();
  readonly #waiting = new Set<() => void>();
  #queue: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: FakeEngineOptions) {
    this.#options = options;
  }

  get openSessions(): number {
    return this.#open.size;
  }

  async load(path: string, options?: LoadOptions): Promise<Session> {
    this.#check();
    this.loaded.push(path);
    await this.#wait(this.#options.loadMs ?? 0);
    const graph = (await this.#options.graph?.(path, options)) ?? { inputs: [], outputs: [] };
    this.#check();
    const session = new ScriptedSession(
      graph,
      (work) => this.#inTurn(work, graph.delayMs ?? 0),
      () => this.#open.delete(session),
    );
    this.#open.add(session);
    return session;
  }

  crash(): void {
    this.#closed = true;
    for (const wake of [...this.#waiting]) wake();
    this.#open.clear();
  }

  async dispose(): Promise<void> {
    this.crash();
    await this.#queue;
  }

  #check(): void {
    if (this.#closed) throw new ChairError('ENGINE_CLOSED', 'the fake engine is closed');
  }

  /** Runs of all sessions follow one another, as on the real engine. */
  #inTurn<T>(work: () => Promise<T>, delayMs: number): Promise<T> {
    const turn = this.#queue.then(async () => {
      this.#check();
      await this.#wait(delayMs);
      this.#check();
      return work();
    });
    this.#queue = turn.catch(() => undefined);
    return turn;
  }

  #wait(ms: number): Promise<void> {
    if (ms <= 0) return Promise.resolve();
    return new Promise((done) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        done();
      };
      const timer = setTimeout(wake, ms);
      this.#waiting.add(wake);
    });
  }
}

class ScriptedSession implements Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly #graph: FakeGraph;
  readonly #inTurn: <T>(work: () => Promise<T>) => Promise<T>;
  readonly #onDispose: () => void;
  #disposed = false;
  #calls = 0;

  constructor(graph: FakeGraph, inTurn: <T>(work: () => Promise<T>) => Promise<T>, onDispose: () => void) {
    this.inputs = graph.inputs;
    this.outputs = graph.outputs;
    this.#graph = graph;
    this.#inTurn = inTurn;
    this.#onDispose = onDispose;
  }

  async warmUp(): Promise<void> {
    await this.run(Object.fromEntries(this.inputs.map((i) => [i.name, allocTensor(i.dtype, i.dims)])));
  }

  async run(inputs: Readonly<Record<string, Tensor>>, options: RunOptions = {}): Promise<RunResult> {
    if (this.#disposed) throw new ChairError('ENGINE_CLOSED', 'the session was disposed');
    checkInputs(this.inputs, inputs);
    return this.#inTurn(async () => {
      const made = await (this.#graph.run ?? this.#zeros)(inputs, this.#calls++);
      const wanted = options.outputs ?? this.outputs.map((o) => o.name);
      const outputs = wanted.map((name) => {
        const tensor = made[name];
        if (tensor === undefined) throw new ChairError('ENGINE_RUN_FAILED', `the fake graph made no ${name}`);
        return [name, onBuffer(tensor, options)] as const;
      });
      if (options.transfer === true) for (const { bytes } of Object.values(inputs)) options.buffers?.give(bytes);
      return { outputs: Object.fromEntries(outputs), runMs: this.#graph.delayMs ?? 0 };
    });
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    this.#onDispose();
  }

  readonly #zeros = () => Object.fromEntries(this.outputs.map((o) => [o.name, allocTensor(o.dtype, o.dims)]));
}

/** What a graph made may be its input, or the same for each run. */
function onBuffer(tensor: Tensor, { buffers }: RunOptions): Tensor {
  if (buffers === undefined) return tensor;
  const bytes = buffers.take(tensor.bytes.length);
  bytes.set(tensor.bytes);
  return { ...tensor, bytes };
}
