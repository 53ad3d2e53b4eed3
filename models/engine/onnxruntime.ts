/**
 * The default engine: onnxruntime in one worker thread. Tensors travel to the worker and back as transferred buffers, not copies.
 * An idle engine does not keep the process alive; a pending call does.
 */
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ChairError, type ErrorCode } from '../../broker/errors.js';
import { allocTensor, type Tensor, type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import { checkInputs, checkOutputs } from './checks.js';
import type { Engine, EngineOptions, LoadOptions, RunOptions, RunResult, Session } from './engine.js';
import {
  type CompareReply,
  type LoadReply,
  type RunPlan,
  type RunReply,
  type RunRequest,
  unique,
  type WorkerGreeting,
  type WorkerReply,
  type WorkerRequest,
  type WorkerStart,
} from './protocol.js';

type Ask = WorkerRequest extends infer R ? (R extends { readonly id: number } ? Omit<R, 'id'> : never) : never;

/** The two ways to the worker: anything that is asked once, and runs. */
interface Way {
  readonly ask: <T>(ask: Ask) => Promise<T>;
  readonly run: (session: number, run: RunOf) => Promise<RunReply>;
}

type RunOf = readonly [plan: number | RunPlan, buffers: readonly ArrayBuffer[], offsets: readonly number[], returnInputs: boolean];

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/** The worker's file beside this one: TypeScript in a checkout (tsx must be registered in each thread), JavaScript when compiled. */
function startWorker(workerData: WorkerStart): Worker {
  const source = import.meta.url.endsWith('.ts');
  // No inherited flags: an `--import` meant for the main thread (tsx, a test runner) would run in the worker too.
  return new Worker(new URL(source ? './source-worker.mjs' : './onnxruntime-worker.js', import.meta.url), { execArgv: [], workerData });
}

/** Starts the worker. Throws ENGINE_UNAVAILABLE when onnxruntime-node cannot be loaded on this machine. */
export async function createOnnxRuntimeEngine(options: EngineOptions = {}): Promise<OnnxRuntimeEngine> {
  const worker = startWorker({ cpuTimes: options.cpuTimes ?? false });
  // Must stay for the worker's whole life, or an error after the greeting would be uncaught.
  const greeting = await new Promise<WorkerGreeting>((done) => {
    worker.once('message', done);
    worker.on('error', (error) => done({ ready: false, message: error.message }));
    worker.once('exit', () => done({ ready: false, message: 'its worker thread ended at once' }));
  });
  if (!greeting.ready) {
    await worker.terminate();
    throw new ChairError('ENGINE_UNAVAILABLE', 'onnxruntime-node cannot be loaded', {
      expected: 'a 64-bit system (linux x64 or arm64, macOS arm64, Windows x64 or arm64) with the package installed',
      came: `${process.platform} ${process.arch}: ${greeting.message.split('\n')[0] ?? ''}`,
      todo: 'Install with `npm install`; on a Raspberry Pi use the 64-bit OS.',
    });
  }
  return new OnnxRuntimeEngine(worker, greeting.version, Math.max(1, options.threads ?? availableParallelism()));
}

export class OnnxRuntimeEngine implements Engine {
  readonly name = 'onnxruntime';
  readonly version: string;
  readonly threads: number;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  /** Path -> is prepacking faster? Measured once. */
  readonly #prepack = new Map<string, Promise<boolean>>();
  #next = 1;
  #closed: ChairError | undefined;
  #disposing: Promise<void> | undefined;

  /** Use `createOnnxRuntimeEngine`. */
  constructor(worker: Worker, version: string, threads: number) {
    this.version = version;
    this.threads = threads;
    this.#worker = worker;
    worker.on('message', (reply: WorkerReply | RunReply) => this.#settle(reply));
    worker.on('error', (error) => this.#close(`its worker thread failed: ${error.message}`));
    worker.on('exit', (code) => this.#close(`its worker thread ended with code ${code}`));
    worker.unref();
  }

  /** Errors: ENGINE_LOAD_FAILED (no such file, unknown operator, broken graph), ENGINE_CLOSED. */
  async load(path: string, options: LoadOptions = {}): Promise<Session> {
    const file = resolve(path);
    const prepack = options.prepack === 'auto' ? await this.#measured(file) : (options.prepack ?? false);
    const reply = await this.#ask<LoadReply>({
      kind: 'load',
      path: file,
      threads: this.threads,
      prepack,
      optimize: options.optimize ?? true,
    });
    return new OnnxRuntimeSession(reply, {
      ask: (ask) => this.#ask(ask),
      run: (session, [plan, buffers, offsets, returnInputs]) =>
        this.#send<RunReply>((id): RunRequest => [id, session, plan, buffers, offsets, returnInputs], unique(buffers)),
    });
  }

  dispose(): Promise<void> {
    this.#disposing ??= this.#dispose();
    return this.#disposing;
  }

  async #dispose(): Promise<void> {
    // A run under way cannot be interrupted; its caller is told now, and the worker goes when the run is over.
    const released = this.#closed === undefined ? this.#ask({ kind: 'close' }) : Promise.resolve();
    const close = this.#pending.get(this.#next - 1);
    this.#close('it was disposed', close);
    await released.catch(() => undefined);
    await this.#worker.terminate();
  }

  #measured(file: string): Promise<boolean> {
    const known = this.#prepack.get(file);
    if (known !== undefined) return known;
    const measured = this.#ask<CompareReply>({ kind: 'compare', path: file, threads: this.threads }).then((r) => r.prepack ?? false);
    this.#prepack.set(file, measured);
    measured.catch(() => this.#prepack.delete(file));
    return measured;
  }

  #ask<T>(ask: Ask): Promise<T> {
    return this.#send<T>((id) => ({ ...ask, id }), []);
  }

  #send<T>(request: (id: number) => WorkerRequest | RunRequest, transfer: readonly ArrayBuffer[]): Promise<T> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const id = this.#next++;
    return new Promise<T>((resolvePromise, reject) => {
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, { resolve: resolvePromise, reject });
      try {
        this.#worker.postMessage(request(id), transfer);
      } catch (error) {
        this.#finish(id);
        reject(new ChairError('INTERNAL', 'a request could not be sent to the engine worker', { cause: error }));
      }
    });
  }

  #finish(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    if (this.#pending.size === 0) this.#worker.unref();
    return pending;
  }

  #settle(reply: WorkerReply | RunReply): void {
    const isRun = isRunReply(reply);
    const pending = this.#finish(isRun ? reply[0] : reply.id);
    if (pending === undefined) return;
    if (isRun) pending.resolve(reply as never);
    else if (reply.ok) pending.resolve(reply.value as never);
    else pending.reject(engineError(reply.code, reply.message));
  }

  /** Fails everything that waits, except `keep`. */
  #close(why: string, keep?: Pending): void {
    this.#closed ??= new ChairError('ENGINE_CLOSED', `the engine is closed: ${why}`, { todo: 'Create a new engine.' });
    for (const [id, pending] of [...this.#pending]) {
      if (pending === keep) continue;
      this.#pending.delete(id);
      pending.reject(this.#closed);
    }
  }
}

function engineError(code: ErrorCode, message: string): ChairError {
  switch (code) {
    case 'ENGINE_LOAD_FAILED':
      return new ChairError(code, 'the engine refused the graph', { came: message, todo: 'Check the file and its operators.' });
    case 'ENGINE_RUN_FAILED':
      return new ChairError(code, 'the engine failed while running', { came: message });
    default:
      return new ChairError(code, message);
  }
}

function isRunReply(reply: WorkerReply | RunReply): reply is RunReply {
  return Array.isArray(reply);
}

/** What runs with the same wanted outputs have in common; `said` is how a request names it. */
interface Known {
  readonly plan: RunPlan;
  readonly said: number | RunPlan;
}

class OnnxRuntimeSession implements Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Outputs whose size is known before the run. An output that is an input under the same name is not made by the run. */
  readonly #fixed: readonly TensorInfo[];
  /** Every input has one shape. */
  readonly #isFixed: boolean;
  readonly #id: number;
  readonly #way: Way;
  /** By the names that are wanted; an agent asks with the same array for each frame of a seat. */
  readonly #byArray = new WeakMap<readonly string[], Known>();
  readonly #byNames = new Map<string, Known>();
  #disposed = false;

  constructor(reply: LoadReply, way: Way) {
    this.inputs = reply.inputs;
    this.outputs = reply.outputs;
    // Rank 0 also stands for a graph that declares no shape.
    const hasShape = ({ dims }: TensorInfo): boolean => dims.length > 0 && dims.every((d) => d > 0);
    this.#fixed = reply.outputs.filter((o) => hasShape(o) && !reply.inputs.some((i) => i.name === o.name));
    this.#isFixed = reply.inputs.every(hasShape);
    this.#id = reply.session;
    this.#way = way;
  }

  async warmUp(): Promise<void> {
    const zeros = this.inputs.map(
      (i) =>
        [
          i.name,
          allocTensor(
            i.dtype,
            i.dims.map((d) => (d < 0 ? 1 : d)),
          ),
        ] as const,
    );
    await this.run(Object.fromEntries(zeros), { transfer: true });
  }

  async run(inputs: Readonly<Record<string, Tensor>>, options: RunOptions = {}): Promise<RunResult> {
    if (this.#disposed) throw new ChairError('ENGINE_CLOSED', 'the session was disposed');
    checkInputs(this.inputs, inputs);
    const { buffers, outputs: wanted, transfer = false } = options;
    const returnInputs = buffers !== undefined && transfer;
    const { plan, said } = this.#isFixed
      ? this.#known(wanted, buffers !== undefined)
      : this.#unknown(inputs, wanted, buffers !== undefined);
    const memory: ArrayBuffer[] = [];
    const offsets: number[] = [];
    const add = (bytes: Uint8Array): void => {
      memory.push(bytes.buffer as ArrayBuffer);
      offsets.push(bytes.byteOffset);
    };
    for (const { name } of plan.inputs) {
      const { bytes } = inputs[name] as Tensor;
      // `new Uint8Array` copies; `slice` would not when the bytes are a Node Buffer.
      add(transfer && isOwn(bytes, returnInputs) ? bytes : new Uint8Array(bytes));
    }
    if (buffers !== undefined) for (const { dtype, dims } of plan.into) add(buffers.take(tensorBytes(dtype, dims)));
    const [, runMs, made, back, cpuMs] = await this.#way.run(this.#id, [said, memory, offsets, returnInputs]);
    const outputs: Record<string, Tensor> = {};
    plan.into.forEach(({ name, dtype, dims }, i) => {
      const bytes = new Uint8Array(back[i] as ArrayBuffer, offsets[plan.inputs.length + i], tensorBytes(dtype, dims));
      outputs[name] = { dtype, dims, bytes };
    });
    for (const { name, dtype, dims, bytes } of made) outputs[name] = { dtype, dims, bytes };
    if (returnInputs) for (const buffer of unique(back.slice(plan.into.length))) buffers.give(new Uint8Array(buffer));
    return cpuMs === undefined ? { outputs, runMs } : { outputs, runMs, cpuMs };
  }

  #known(wanted: readonly string[] | undefined, isPlaced: boolean): Known {
    const found = wanted === undefined || !isPlaced ? undefined : this.#byArray.get(wanted);
    if (found !== undefined) return found;
    const names = JSON.stringify([isPlaced, wanted]);
    const known = this.#byNames.get(names) ?? this.#make(names, wanted, isPlaced);
    if (wanted !== undefined && isPlaced) this.#byArray.set(wanted, known);
    return known;
  }

  /** Said once: messages keep their order, so that the worker has it before the run; should it be closed, the run says so. */
  #make(names: string, wanted: readonly string[] | undefined, isPlaced: boolean): Known {
    const plan = this.#plan(this.inputs, wanted, isPlaced);
    const known = { plan, said: this.#byNames.size };
    this.#byNames.set(names, known);
    this.#way.ask({ kind: 'plan', session: this.#id, number: known.said, plan }).catch(() => undefined);
    return known;
  }

  /** The shapes of this run's inputs are not known before. */
  #unknown(inputs: Readonly<Record<string, Tensor>>, wanted: readonly string[] | undefined, isPlaced: boolean): Known {
    const given = this.inputs.map(({ name, dtype }) => ({ name, dtype, dims: [...(inputs[name]?.dims ?? [])] }));
    const plan = this.#plan(given, wanted, isPlaced);
    return { plan, said: plan };
  }

  #plan(inputs: readonly TensorInfo[], wanted: readonly string[] | undefined, isPlaced: boolean): RunPlan {
    if (wanted !== undefined) checkOutputs(this.outputs, wanted);
    const outputs = wanted === undefined ? this.outputs.map((o) => o.name) : [...wanted];
    return { inputs, outputs, into: isPlaced ? this.#fixed.filter((o) => outputs.includes(o.name)) : [] };
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#way.ask({ kind: 'release', session: this.#id }).catch(() => undefined);
  }
}

/** Only a view of a whole, ordinary ArrayBuffer can be handed over without taking anything else along; of a pool's buffers, what else is in them is nobody's. */
function isOwn({ buffer, byteOffset, byteLength }: Uint8Array, pooled: boolean): boolean {
  return buffer instanceof ArrayBuffer && (pooled || (byteOffset === 0 && byteLength === buffer.byteLength));
}
