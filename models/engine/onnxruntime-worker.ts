/**
 * Worker thread that owns the onnxruntime sessions: `session.run` blocks the thread that calls it, so it must not be the main one.
 * This is the only file that loads onnxruntime-node.
 */
import { createRequire } from 'node:module';
import { MessageChannel, parentPort } from 'node:worker_threads';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import type { DType, TensorInfo } from '../../broker/tensor.js';
import type { CompareReply, LoadReply, RunReply, WireTensor, WorkerGreeting, WorkerReply, WorkerRequest } from './protocol.js';

type RunRequest = Extract<WorkerRequest, { readonly kind: 'run' }>;

type Ort = typeof import('onnxruntime-node');
type LoadSettings = { readonly threads: number; readonly prepack: boolean; readonly optimize: boolean };

/** An error whose code is known here; others become `fallback`. */
class WorkerError extends Error {
  readonly code: 'ENGINE_LOAD_FAILED' | 'ENGINE_RUN_FAILED' | 'ENGINE_CLOSED' | 'INTERNAL';
  constructor(code: WorkerError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

type ArrayMaker = (buffer: ArrayBuffer, offset: number, bytes: number) => ArrayBufferView;
const u16: ArrayMaker = (b, o, n) => new Uint16Array(b, o, n / 2);
/** Typed arrays that onnxruntime takes for each dtype (float16 as bit patterns); bfloat16 it does not take at all. */
const ARRAYS: Readonly<Partial<Record<DType, ArrayMaker>>> = {
  float32: (b, o, n) => new Float32Array(b, o, n / 4),
  float64: (b, o, n) => new Float64Array(b, o, n / 8),
  float16: u16,
  int8: (b, o, n) => new Int8Array(b, o, n),
  uint8: (b, o, n) => new Uint8Array(b, o, n),
  int16: (b, o, n) => new Int16Array(b, o, n / 2),
  uint16: u16,
  int32: (b, o, n) => new Int32Array(b, o, n / 4),
  uint32: (b, o, n) => new Uint32Array(b, o, n / 4),
  int64: (b, o, n) => new BigInt64Array(b, o, n / 8),
  uint64: (b, o, n) => new BigUint64Array(b, o, n / 8),
  bool: (b, o, n) => new Uint8Array(b, o, n),
};

function infosOf(metadata: readonly InferenceSession.ValueMetadata[]): TensorInfo[] {
  return metadata.flatMap((m): TensorInfo[] =>
    m.isTensor && m.type in ARRAYS
      ? [{ name: m.name, dtype: m.type as DType, dims: m.shape.map((d) => (typeof d === 'number' ? d : -1)) }]
      : [],
  );
}

const QUIET = { logSeverityLevel: 4 } as const;

class Sessions {
  readonly #ort: Ort;
  readonly #sessions = new Map<number, InferenceSession>();
  #next = 1;

  constructor(ort: Ort) {
    this.#ort = ort;
  }

  async #create(path: string, settings: LoadSettings): Promise<InferenceSession> {
    try {
      return await this.#ort.InferenceSession.create(path, {
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
      });
    } catch (error) {
      throw new WorkerError('ENGINE_LOAD_FAILED', error instanceof Error ? error.message : String(error));
    }
  }

  async load(path: string, settings: LoadSettings): Promise<LoadReply> {
    const session = await this.#create(path, settings);
    const id = this.#next++;
    this.#sessions.set(id, session);
    return { session: id, inputs: infosOf(session.inputMetadata), outputs: infosOf(session.outputMetadata) };
  }

  async run({ session: id, inputs, outputs, into, returnInputs }: RunRequest): Promise<RunReply> {
    const session = this.#sessions.get(id);
    if (session === undefined) throw new WorkerError('ENGINE_CLOSED', 'the session was disposed');
    const feeds: Record<string, OrtTensor> = {};
    for (const input of inputs) feeds[input.name] = this.#tensor(input);
    const fetches: Record<string, OrtTensor | null> = {};
    for (const name of outputs ?? session.outputNames) fetches[name] = null;
    for (const place of into) fetches[place.name] = this.#tensor(place);
    const start = performance.now();
    const results = await this.#guard(() => session.run(feeds, fetches, QUIET));
    const runMs = performance.now() - start;
    const places = new Map(into.map((place) => [place.name, place]));
    return {
      outputs: Object.entries(results).map(([name, value]) => wireTensor(name, value, places.get(name))),
      inputs: returnInputs ? inputs.map((input) => input.bytes) : [],
      runMs,
    };
  }

  /** Three interleaved pairs of runs on zeros, with and without prepacked weights; prepacking must win by 5 %. */
  async compare(path: string, threads: number): Promise<CompareReply> {
    const plain = await this.#create(path, { threads, prepack: false, optimize: true });
    try {
      const inputs = infosOf(plain.inputMetadata);
      if (inputs.length !== plain.inputMetadata.length || inputs.some((i) => i.dims.some((d) => d < 0))) return { prepack: undefined };
      const packed = await this.#create(path, { threads, prepack: true, optimize: true });
      try {
        const feeds: Record<string, OrtTensor> = {};
        for (const info of inputs) feeds[info.name] = this.#zeros(info);
        const best = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
        // The first pair warms up and is not counted.
        for (let pair = 0; pair < 4; pair++) {
          for (const [which, session] of [plain, packed].entries()) {
            const start = performance.now();
            await this.#guard(() => session.run(feeds));
            if (pair > 0) best[which] = Math.min(best[which] ?? 0, performance.now() - start);
          }
        }
        const [plainMs = 0, packedMs = 0] = best;
        return { prepack: packedMs < plainMs * 0.95 };
      } finally {
        await packed.release();
      }
    } finally {
      await plain.release();
    }
  }

  async release(id: number): Promise<void> {
    const session = this.#sessions.get(id);
    this.#sessions.delete(id);
    await session?.release();
  }

  async releaseAll(): Promise<void> {
    for (const id of [...this.#sessions.keys()]) await this.release(id);
  }

  async #guard<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw new WorkerError('ENGINE_RUN_FAILED', error instanceof Error ? error.message : String(error));
    }
  }

  #zeros(info: TensorInfo): OrtTensor {
    const count = info.dims.reduce((a, b) => a * b, 1);
    // 8 bytes an element are enough for every dtype; the typed array takes what it needs.
    const make = ARRAYS[info.dtype];
    const item = make?.(new ArrayBuffer(8), 0, 8) as Uint8Array | undefined;
    const bytes = count * (item?.BYTES_PER_ELEMENT ?? 1);
    return this.#tensor({ ...info, bytes: new Uint8Array(bytes) });
  }

  #tensor(wire: WireTensor): OrtTensor {
    const make = ARRAYS[wire.dtype];
    if (make === undefined) throw new WorkerError('ENGINE_RUN_FAILED', `onnxruntime-node takes no ${wire.dtype} tensors`);
    const data = make(wire.bytes.buffer as ArrayBuffer, wire.bytes.byteOffset, wire.bytes.byteLength);
    // The constructor's overloads are one per dtype; the table above keeps dtype and array in step.
    return new this.#ort.Tensor(wire.dtype as 'float32', data as Float32Array, wire.dims);
  }
}

/** A message to a closed port takes its transferred buffers along and is dropped. */
const nowhere = (() => {
  const { port1 } = new MessageChannel();
  port1.close();
  return port1;
})();

/**
 * `place`: where the engine was told to put it. It answers with a second ArrayBuffer over the same memory, which V8 counts as memory held until it is collected:
 * it is dropped at once. A graph that hands an input through as its output does not write to the place; then it is copied.
 */
function wireTensor(name: string, value: OrtTensor, place?: WireTensor): WireTensor {
  const made = ownTensor(name, value);
  if (place === undefined) return made;
  if (made.bytes.length !== place.bytes.length) throw new WorkerError('ENGINE_RUN_FAILED', `output ${name} is not of its declared shape`);
  if (!sameMemory(made.bytes, place.bytes)) place.bytes.set(made.bytes);
  drop(made.bytes.buffer as ArrayBuffer);
  return { ...place, dims: made.dims };
}

/** Where a runtime does not let an addon's buffer be transferred, it stays until it is collected. */
function drop(buffer: ArrayBuffer): void {
  try {
    nowhere.postMessage(null, [buffer]);
  } catch {
    // Memory held a little longer; nothing else depends on it.
  }
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

function ownTensor(name: string, value: OrtTensor): WireTensor {
  const data = value.data;
  if (!ArrayBuffer.isView(data) || !(value.type in ARRAYS)) {
    throw new WorkerError('ENGINE_RUN_FAILED', `output ${name} is of type ${value.type}, which is not a fixed-size tensor`);
  }
  const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  const own = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return { name, dtype: value.type as DType, dims: [...value.dims], bytes: own ? bytes : bytes.slice() };
}

async function answer(sessions: Sessions, request: WorkerRequest): Promise<unknown> {
  switch (request.kind) {
    case 'load':
      return sessions.load(request.path, request);
    case 'compare':
      return sessions.compare(request.path, request.threads);
    case 'run':
      return sessions.run(request);
    case 'release':
      return sessions.release(request.session);
    case 'close':
      return sessions.releaseAll();
  }
}

function transfersOf(value: unknown): ArrayBuffer[] {
  if (typeof value !== 'object' || value === null || !('outputs' in value) || !('runMs' in value)) return [];
  const { outputs, inputs } = value as RunReply;
  return [...new Set([...outputs.map((o) => o.bytes), ...inputs].map((bytes) => bytes.buffer as ArrayBuffer))];
}

async function main(): Promise<void> {
  const port = parentPort;
  if (port === null) throw new Error('this file runs in a worker thread');
  const greet = (greeting: WorkerGreeting) => port.postMessage(greeting);
  let ort: Ort;
  try {
    ort = await import('onnxruntime-node');
    ort.env.logLevel = 'fatal';
    const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };
    greet({ ready: true, version });
  } catch (error) {
    greet({ ready: false, message: error instanceof Error ? error.message : String(error) });
    port.close();
    return;
  }
  const sessions = new Sessions(ort);
  let queue = Promise.resolve();
  const handle = async (request: WorkerRequest): Promise<void> => {
    let reply: WorkerReply;
    try {
      reply = { id: request.id, ok: true, value: await answer(sessions, request) };
    } catch (error) {
      const code = error instanceof WorkerError ? error.code : 'INTERNAL';
      reply = { id: request.id, ok: false, code, message: error instanceof Error ? error.message : String(error) };
    }
    port.postMessage(reply, reply.ok ? transfersOf(reply.value) : []);
    if (request.kind === 'close') port.close();
  };
  // One after another, in the order of the calls.
  port.on('message', (request: WorkerRequest) => {
    queue = queue.then(() => handle(request));
  });
}

await main();
