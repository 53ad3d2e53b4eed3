/**
 * The default engine: onnxruntime in one worker thread. Tensors travel to the worker and back as transferred buffers, not copies.
 * An idle engine does not keep the process alive; a pending call does.
 */
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Buffers } from '../../broker/buffers.js';
import { ChairError, type ErrorCode } from '../../broker/errors.js';
import { allocTensor, type Tensor, type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import { checkInputs, checkOutputs } from './checks.js';
import type { Engine, EngineOptions, LoadOptions, RunOptions, RunResult, Session } from './engine.js';
import type { CompareReply, LoadReply, RunReply, WireTensor, WorkerGreeting, WorkerReply, WorkerRequest } from './protocol.js';

type Ask = WorkerRequest extends infer R ? (R extends { readonly id: number } ? Omit<R, 'id'> : never) : never;

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/** The worker's file beside this one: TypeScript in a checkout (tsx must be registered in each thread), JavaScript when compiled. */
function startWorker(): Worker {
  const source = import.meta.url.endsWith('.ts');
  // No inherited flags: an `--import` meant for the main thread (tsx, a test runner) would run in the worker too.
  return new Worker(new URL(source ? './source-worker.mjs' : './onnxruntime-worker.js', import.meta.url), { execArgv: [] });
}

/** Starts the worker. Throws ENGINE_UNAVAILABLE when onnxruntime-node cannot be loaded on this machine. */
export async function createOnnxRuntimeEngine(options: EngineOptions = {}): Promise<OnnxRuntimeEngine> {
  const worker = startWorker();
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
    worker.on('message', (reply: WorkerReply) => this.#settle(reply));
    worker.on('error', (error) => this.#close(`its worker thread failed: ${error.message}`));
    worker.on('exit', (code) => this.#close(`its worker thread ended with code ${code}`));
    worker.unref();
  }

  /** Errors: ENGINE_LOAD_FAILED (no such file, unknown operator, broken graph), ENGINE_CLOSED. */
  async load(path: string, options: LoadOptions = {}): Promise<Session> {
    const file = resolve(path);
    const prepack = options.prepack === 'auto' ? await this.#measured(file) : (options.prepack ?? false);
    const reply = await this.#ask<LoadReply>(
      { kind: 'load', path: file, threads: this.threads, prepack, optimize: options.optimize ?? true },
      [],
    );
    return new OnnxRuntimeSession(reply, (ask, transfer) => this.#ask(ask, transfer));
  }

  dispose(): Promise<void> {
    this.#disposing ??= this.#dispose();
    return this.#disposing;
  }

  async #dispose(): Promise<void> {
    // A run under way cannot be interrupted; its caller is told now, and the worker goes when the run is over.
    const released = this.#closed === undefined ? this.#ask({ kind: 'close' }, []) : Promise.resolve();
    const close = this.#pending.get(this.#next - 1);
    this.#close('it was disposed', close);
    await released.catch(() => undefined);
    await this.#worker.terminate();
  }

  #measured(file: string): Promise<boolean> {
    const known = this.#prepack.get(file);
    if (known !== undefined) return known;
    const measured = this.#ask<CompareReply>({ kind: 'compare', path: file, threads: this.threads }, []).then((r) => r.prepack ?? false);
    this.#prepack.set(file, measured);
    measured.catch(() => this.#prepack.delete(file));
    return measured;
  }

  #ask<T>(ask: Ask, transfer: readonly ArrayBuffer[]): Promise<T> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const id = this.#next++;
    return new Promise<T>((resolvePromise, reject) => {
      this.#pending.set(id, { resolve: resolvePromise, reject });
      this.#worker.ref();
      try {
        this.#worker.postMessage({ ...ask, id }, transfer);
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

  #settle(reply: WorkerReply): void {
    const pending = this.#finish(reply.id);
    if (pending === undefined) return;
    if (reply.ok) pending.resolve(reply.value as never);
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

class OnnxRuntimeSession implements Session {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Outputs whose size is known before the run. An output that is an input under the same name is not made by the run. */
  readonly #fixed: readonly TensorInfo[];
  readonly #id: number;
  readonly #ask: <T>(ask: Ask, transfer: readonly ArrayBuffer[]) => Promise<T>;
  #disposed = false;

  constructor(reply: LoadReply, ask: <T>(ask: Ask, transfer: readonly ArrayBuffer[]) => Promise<T>) {
    this.inputs = reply.inputs;
    this.outputs = reply.outputs;
    // Rank 0 also stands for a graph that declares no shape.
    this.#fixed = reply.outputs.filter(
      (o) => o.dims.length > 0 && o.dims.every((d) => d > 0) && !reply.inputs.some((i) => i.name === o.name),
    );
    this.#id = reply.session;
    this.#ask = ask;
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
    const { buffers, outputs: wanted } = options;
    if (wanted !== undefined) checkOutputs(this.outputs, wanted);
    const returnInputs = buffers !== undefined && options.transfer === true;
    // `new Uint8Array` copies; `slice` would not when the bytes are a Node Buffer.
    const wire = Object.entries(inputs).map(
      ([name, t]): WireTensor => ({
        name,
        dtype: t.dtype,
        dims: [...t.dims],
        bytes: options.transfer === true && isOwn(t.bytes, returnInputs) ? t.bytes : new Uint8Array(t.bytes),
      }),
    );
    const into = buffers === undefined ? [] : this.#places(buffers, wanted);
    const transfer = [...new Set([...wire, ...into].map((w) => w.bytes.buffer as ArrayBuffer))];
    const reply = await this.#ask<RunReply>(
      { kind: 'run', session: this.#id, inputs: wire, outputs: wanted ?? null, into, returnInputs },
      transfer,
    );
    for (const bytes of new Set(reply.inputs)) buffers?.give(bytes);
    return { outputs: Object.fromEntries(reply.outputs.map(({ name, ...tensor }) => [name, tensor])), runMs: reply.runMs };
  }

  #places(buffers: Buffers, wanted: readonly string[] | undefined): WireTensor[] {
    return this.#fixed
      .filter((o) => wanted === undefined || wanted.includes(o.name))
      .map(({ name, dtype, dims }) => ({ name, dtype, dims, bytes: buffers.take(tensorBytes(dtype, dims)) }));
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.#ask({ kind: 'release', session: this.#id }, []).catch(() => undefined);
  }
}

/** Only a view of a whole, ordinary ArrayBuffer can be handed over without taking anything else along; of a pool's buffers, what else is in them is nobody's. */
function isOwn({ buffer, byteOffset, byteLength }: Uint8Array, pooled: boolean): boolean {
  return buffer instanceof ArrayBuffer && (pooled || (byteOffset === 0 && byteLength === buffer.byteLength));
}
