/**
 * The measuring process: one engine, one slice, one answer over the channel to its parent, then it ends. It ends with its parent, too.
 * Peaks are the kernel's own (VmHWM), set back before each step; file-backed pages count: weights that are not resident are read from the disk again.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { toChairError } from '../broker/errors.js';
import { allocTensor, type Tensor, type TensorInfo } from '../broker/tensor.js';
import type { Session } from '../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../models/engine/onnxruntime.js';
import type { Measurement } from './profiling.js';
import type { MeasureAnswer, MeasureRequest } from './profiling-child.js';
import { isLimited, samplesOf } from './run-samples.js';

async function measure(request: MeasureRequest): Promise<Measurement> {
  const engine = await createOnnxRuntimeEngine({ threads: request.threads, cpuTimes: isLimited(request) });
  const emptyBytes = residentBytes('VmRSS');
  forgetPeak();
  const loadStart = performance.now();
  const session = await engine.load(request.file, { prepack: request.prepack });
  const loadMs = performance.now() - loadStart;
  const loadPeakBytes = peakAbove(emptyBytes);
  forgetPeak();
  const samplesMs = await sample(session, request);
  const runPeakBytes = peakAbove(emptyBytes);
  await engine.dispose();
  return { loadMs, samplesMs, emptyBytes, loadPeakBytes, runPeakBytes };
}

function sample(session: Session, request: MeasureRequest): Promise<number[]> {
  const inputs = Object.fromEntries(session.inputs.map((info) => [info.name, madeUp(info)]));
  const run = () => session.run(structuredClone(inputs), { transfer: true });
  return samplesOf(run, request, () => performance.now());
}

/** Noise in [-1, 1) or the bytes of a picture; of whole numbers zeros, which are an index or a length that always exists. */
function madeUp(info: TensorInfo): Tensor {
  const tensor = allocTensor(
    info.dtype,
    info.dims.map((d) => (d < 0 ? 1 : d)),
  );
  const { bytes } = tensor;
  let state = 12345;
  const next = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state / 2 ** 32;
  };
  if (info.dtype === 'float32') {
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    for (let i = 0; i < values.length; i++) values[i] = 2 * next() - 1;
  } else if (info.dtype === 'uint8') for (let i = 0; i < bytes.length; i++) bytes[i] = 256 * next();
  return tensor;
}

/** Of the kernel's account of this process, bytes; 0 where there is none. */
function residentBytes(field: 'VmRSS' | 'VmHWM'): number {
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Where the kernel does not permit it, later peaks include the earlier ones: too high, never too low. */
function forgetPeak(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    // Not Linux, or not permitted.
  }
}

function peakAbove(emptyBytes: number): number {
  return Math.max(0, residentBytes('VmHWM') - emptyBytes);
}

/** When memory runs out, the kernel should end this process and not the agent. */
function volunteer(): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', '1000');
  } catch {
    // Not Linux.
  }
}

async function main(): Promise<void> {
  volunteer();
  process.once('disconnect', () => process.exit(0));
  const request = await new Promise<MeasureRequest>((resolve) => process.once('message', (message) => resolve(message as MeasureRequest)));
  let answer: MeasureAnswer;
  try {
    answer = { ok: true, measurement: await measure(request) };
  } catch (error) {
    const { code, message } = toChairError(error, 'PROFILE_FAILED');
    answer = { ok: false, code, message: message.slice(0, 1000) };
  }
  process.send?.(answer, () => process.exit(0));
}

await main();
