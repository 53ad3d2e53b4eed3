/**
 * Worker thread that owns the onnxruntime sessions: `session.run` blocks the thread that calls it, so it must not be the main one.
 * This is the only file that loads onnxruntime-node.
 */
import { createRequire } from 'node:module';
import { MessageChannel, parentPort, workerData } from 'node:worker_threads';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
// The synchronous session under the package's own: `InferenceSession.run` waits a turn of the event loop and checks and copies what was checked before; while other
// code was in the processor's caches that costs half as much again as the call itself, and this thread has nothing else to do in that turn.
import type { Binding } from 'onnxruntime-node/dist/binding.js';
import type { DType, TensorInfo } from '../../broker/tensor.js';
import { ARRAYS, type Port, type Prepared, point, prepare, WorkerError } from './onnxruntime-ports.js';
import {
  type CompareReply,
  type LoadReply,
  type RunPlan,
  type RunReply,
  type RunRequest,
  unique,
  type WireTensor,
  type WorkerGreeting,
  type WorkerReply,
  type WorkerRequest,
  type WorkerStart,
} from './protocol.js';

type Native = typeof import('onnxruntime-node/dist/binding.js');
type NativeSession = Binding.InferenceSession;
type LoadSettings = { readonly threads: number; readonly prepack: boolean; readonly optimize: boolean };

/** onnxruntime's element types by number (`TensorProto.DataType`): those that its Node binding takes. */
const DTYPE_OF: Readonly<Partial<Record<number, DType>>> = {
  1: 'float32',
  2: 'uint8',
  3: 'int8',
  4: 'uint16',
  5: 'int16',
  6: 'int32',
  7: 'int64',
  9: 'bool',
  10: 'float16',
  11: 'float64',
  12: 'uint32',
  13: 'uint64',
};

/** Text and four-bit numbers: a graph that has them loads, but a run cannot be given them. */
const NOT_OURS: readonly number[] = [8, 21, 22];

/** Disposes of the session and throws where the binding has no typed array for a tensor, as the package's own session does. */
function checkTypes(session: NativeSession): void {
  const odd = [...session.inputMetadata, ...session.outputMetadata].find(
    (m) => m.isTensor && DTYPE_OF[m.type] === undefined && !NOT_OURS.includes(m.type),
  );
  if (odd === undefined) return;
  session.dispose();
  throw new Error(`${odd.name} is of element type ${odd.type}, which onnxruntime-node does not take`);
}

function infosOf(metadata: readonly Binding.ValueMetadata[]): TensorInfo[] {
  return metadata.flatMap((m): TensorInfo[] => {
    const dtype = m.isTensor ? DTYPE_OF[m.type] : undefined;
    return dtype === undefined ? [] : [{ name: m.name, dtype, dims: [...m.shape] }];
  });
}

const QUIET = { logSeverityLevel: 4 } as const;

interface Loaded {
  readonly session: NativeSession;
  readonly plans: Map<number, Prepared>;
}

/** Of this process, ms. */
function cpuNowMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

class Sessions {
  readonly #native: Native;
  readonly #cpuTimes: boolean;
  readonly #sessions = new Map<number, Loaded>();
  #next = 1;

  constructor(native: Native, { cpuTimes }: WorkerStart) {
    this.#native = native;
    this.#cpuTimes = cpuTimes;
  }

  #create(path: string, settings: LoadSettings): NativeSession {
    const options: InferenceSession.SessionOptions = {
      intraOpNumThreads: settings.threads,
      interOpNumThreads: 1,
      executionMode: 'sequential',
      graphOptimizationLevel: settings.optimize ? 'all' : 'disabled',
      // Fatal only: errors are thrown as well, and the engine must not write to stderr beside that.
      logSeverityLevel: 4,
      extra: {
        session: {
          intra_op: { allow_spinning: '0' },
          // Without prepacking the weights stay in the mapped file: half the memory, ten times faster to load.
          disable_prepacking: settings.prepack ? '0' : '1',
        },
      },
    };
    try {
      const session = new this.#native.binding.InferenceSession();
      session.loadModel(path, options);
      checkTypes(session);
      return session;
    } catch (error) {
      throw new WorkerError('ENGINE_LOAD_FAILED', error instanceof Error ? error.message : String(error));
    }
  }

  load(path: string, settings: LoadSettings): LoadReply {
    const session = this.#create(path, settings);
    const id = this.#next++;
    this.#sessions.set(id, { session, plans: new Map() });
    return { session: id, inputs: infosOf(session.inputMetadata), outputs: infosOf(session.outputMetadata) };
  }

  plan(session: number, number: number, plan: RunPlan): void {
    this.#loaded(session).plans.set(number, prepare(plan));
  }

  run([id, number, plan, buffers, offsets, returnInputs]: RunRequest): RunReply {
    const { session, plans } = this.#loaded(number);
    const prepared = typeof plan === 'number' ? plans.get(plan) : prepare(plan);
    if (prepared === undefined) throw new WorkerError('INTERNAL', `a run of session ${number} by plan ${plan}, which was not sent`);
    const { inputs, into, feeds, fetches } = prepared;
    let next = 0;
    for (const ports of [inputs, into]) {
      for (const port of ports) {
        point(port, buffers[next] as ArrayBuffer, offsets[next] ?? 0);
        next++;
      }
    }
    let [runMs, cpuMs]: [number, number | undefined] = [0, undefined];
    const made: WireTensor[] = [];
    try {
      const cpuStart = this.#cpuTimes ? cpuNowMs() : 0;
      const start = performance.now();
      const results = runOn(session, feeds, fetches);
      runMs = performance.now() - start;
      if (this.#cpuTimes) cpuMs = cpuNowMs() - cpuStart;
      for (const port of into) settle(port, results[port.name] as OrtTensor);
      for (const name of Object.keys(results)) if (fetches[name] === null) made.push(ownTensor(name, results[name] as OrtTensor));
    } finally {
      // Or a plan would hold what its last run was given until the next one, which may never be.
      for (const { feed } of inputs) feed.data = undefined;
      for (const { feed } of into) feed.data = undefined;
    }
    const places = buffers.slice(inputs.length);
    const back = returnInputs ? [...places, ...buffers.slice(0, inputs.length)] : places;
    return cpuMs === undefined ? [id, runMs, made, back] : [id, runMs, made, back, cpuMs];
  }

  /** Three interleaved pairs of runs on zeros, with and without prepacked weights; prepacking must win by 5 %. */
  compare(path: string, threads: number): CompareReply {
    const plain = this.#create(path, { threads, prepack: false, optimize: true });
    try {
      const inputs = infosOf(plain.inputMetadata);
      if (inputs.length !== plain.inputMetadata.length || inputs.some((i) => i.dims.some((d) => d < 0))) return { prepack: undefined };
      const packed = this.#create(path, { threads, prepack: true, optimize: true });
      try {
        const prepared = prepare({ inputs, outputs: plain.outputMetadata.map((o) => o.name), into: [] });
        for (const port of prepared.inputs) point(port, new ArrayBuffer(port.sizeBytes), 0);
        const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
        // The first pair warms up and is not counted.
        for (let pair = 0; pair < 4; pair++) {
          for (const [which, session] of [plain, packed].entries()) {
            const start = performance.now();
            runOn(session, prepared.feeds, prepared.fetches);
            if (pair > 0) best[which] = Math.min(best[which] ?? 0, performance.now() - start);
          }
        }
        const [plainMs = 0, packedMs = 0] = best;
        return { prepack: packedMs < plainMs * 0.95 };
      } finally {
        packed.dispose();
      }
    } finally {
      plain.dispose();
    }
  }

  release(id: number): void {
    const loaded = this.#sessions.get(id);
    this.#sessions.delete(id);
    loaded?.session.dispose();
  }

  releaseAll(): void {
    for (const id of [...this.#sessions.keys()]) this.release(id);
  }

  #loaded(id: number): Loaded {
    const loaded = this.#sessions.get(id);
    if (loaded === undefined) throw new WorkerError('ENGINE_CLOSED', 'the session was disposed');
    return loaded;
  }
}

function runOn(
  session: NativeSession,
  feeds: Record<string, OrtTensor>,
  fetches: Record<string, OrtTensor | null>,
): Record<string, unknown> {
  try {
    return session.run(feeds, fetches, QUIET);
  } catch (error) {
    throw new WorkerError('ENGINE_RUN_FAILED', error instanceof Error ? error.message : String(error));
  }
}

/** A message to a closed port takes its transferred buffers along and is dropped. */
const nowhere = (() => {
  const { port1 } = new MessageChannel();
  port1.close();
  return port1;
})();

/** Second ArrayBuffers over memory that went back already. */
let aliases: ArrayBuffer[] = [];
let aliasBytes = 0;
/** Freeing one costs a turn of this thread's event loop, freeing many no more; and V8 collects garbage for every 64 MB that it believes to be held. */
const MAX_ALIASES = 64;
const MAX_ALIAS_BYTES = 8 * 2 ** 20;

/**
 * The engine answers with a second ArrayBuffer over the memory where it was told to put an output, and V8 counts that as memory held until it is collected: it is let go
 * before. A graph that hands an input through as its output does not write to the place; then it is copied.
 */
function settle({ name, sizeBytes, feed }: Port, value: OrtTensor): void {
  const made = value.data as ArrayBufferView;
  const place = feed.data as ArrayBufferView;
  if (made.byteLength !== sizeBytes) throw new WorkerError('ENGINE_RUN_FAILED', `output ${name} is not of its declared shape`);
  const [from, to] = [bytesOf(made), bytesOf(place)];
  if (!sameMemory(from, to)) to.set(from);
  aliases.push(made.buffer as ArrayBuffer);
  aliasBytes += sizeBytes;
}

/** Where a runtime does not let an addon's buffer be transferred, it stays until it is collected. */
function dropAliases(): void {
  if (aliases.length < MAX_ALIASES && aliasBytes < MAX_ALIAS_BYTES) return;
  try {
    nowhere.postMessage(null, aliases);
  } catch {
    // Memory held a little longer; nothing else depends on it.
  }
  aliases = [];
  aliasBytes = 0;
}

/** Told by writing: JavaScript knows no addresses. */
function sameMemory(a: Uint8Array, b: Uint8Array): boolean {
  const [first = 0, before] = [a[0], b[0]];
  if (first !== before) return false;
  a[0] = first ^ 0xff;
  const same = b[0] !== before;
  a[0] = first;
  return same;
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

function ownTensor(name: string, value: OrtTensor): WireTensor {
  const data = value.data;
  if (!ArrayBuffer.isView(data) || !(value.type in ARRAYS)) {
    throw new WorkerError('ENGINE_RUN_FAILED', `output ${name} is of type ${value.type}, which is not a fixed-size tensor`);
  }
  const bytes = bytesOf(data);
  const own = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return { name, dtype: value.type as DType, dims: [...value.dims], bytes: own ? bytes : bytes.slice() };
}

function answer(sessions: Sessions, request: WorkerRequest): unknown {
  switch (request.kind) {
    case 'load':
      return sessions.load(request.path, request);
    case 'compare':
      return sessions.compare(request.path, request.threads);
    case 'plan':
      return sessions.plan(request.session, request.number, request.plan);
    case 'release':
      return sessions.release(request.session);
    case 'close':
      return sessions.releaseAll();
  }
}

function failure(id: number, error: unknown): WorkerReply {
  const code = error instanceof WorkerError ? error.code : 'INTERNAL';
  return { id, ok: false, code, message: error instanceof Error ? error.message : String(error) };
}

async function main(): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error('this file runs in a worker thread');
  const greet = (greeting: WorkerGreeting) => port.postMessage(greeting);
  let native: Native;
  try {
    const { env } = await import('onnxruntime-node');
    env.logLevel = 'fatal';
    native = await import('onnxruntime-node/dist/binding.js');
    native.initOrt();
    const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };
    greet({ ready: true, version });
  } catch (error) {
    greet({ ready: false, message: error instanceof Error ? error.message : String(error) });
    port.close();
    return;
  }
  const sessions = new Sessions(native, workerData as WorkerStart);
  const run = (request: RunRequest): void => {
    let reply: RunReply;
    try {
      reply = sessions.run(request);
    } catch (error) {
      port.postMessage(failure(request[0], error));
      return;
    }
    const [, , made, buffers] = reply;
    port.postMessage(reply, unique(made.length === 0 ? buffers : [...made.map((m) => m.bytes.buffer as ArrayBuffer), ...buffers]));
    dropAliases();
  };
  // One after another, in the order of the calls: nothing here waits.
  port.on('message', (request: WorkerRequest | RunRequest) => {
    if (isRun(request)) {
      run(request);
      return;
    }
    let reply: WorkerReply;
    try {
      reply = { id: request.id, ok: true, value: answer(sessions, request) };
    } catch (error) {
      reply = failure(request.id, error);
    }
    port.postMessage(reply);
    if (request.kind === 'close') port.close();
  });
}

function isRun(request: WorkerRequest | RunRequest): request is RunRequest {
  return Array.isArray(request);
}

await main();
