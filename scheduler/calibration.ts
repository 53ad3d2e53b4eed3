/**
 * Inputs that wire precision is measured on, and the measuring itself for one planning: slices are written and loaded only when an error is asked for that
 * is not known yet, and errors are remembered, since plans are made again when agents come and go.
 *
 * A calibration file is one Submit message, as a client would send it over a lane: one input tensor of one frame. Files of one frame have one sequence.
 */
import { readFile } from 'node:fs/promises';
import { decodeSubmit, encodeSubmit, readTensor } from '../broker/activation.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { Encoding } from '../broker/plan.js';
import type { TensorInfo } from '../broker/tensor.js';
import type { PrecisionMeter } from '../models/slicing/precision.js';
import type { Tensors } from './assembly.js';
import type { LoadedModel } from './model-source.js';
import type { PlanDraft } from './planners/problem.js';
import type { Measuring } from './precision.js';

/** Inputs that are made up when none are given. */
export const RANDOM_INPUTS = 4;
/** Frames of calibration that are taken: each is run many times. */
export const MOST_CALIBRATION_FRAMES = 64;

/** The files of one frame: bytes by input. A name may be '' when the model has one input. */
export function calibrationFiles(sequence: number, inputs: Tensors): Uint8Array[] {
  const entries = Object.entries(inputs);
  return entries.map(([input, { dtype, dims, bytes }]) => {
    const header = { client: 'calibration', sequence, deployment: '', deadlineMs: 0, input, inputCount: entries.length, dtype, dims };
    return Buffer.concat(encodeSubmit(header, bytes));
  });
}

/** Frames from calibration files. Throws FRAME_INVALID when one is not what the model takes. */
export async function readCalibration(paths: readonly string[], wanted: readonly TensorInfo[]): Promise<Tensors[]> {
  const frames = new Map<number, Record<string, Tensors[string]>>();
  for (const path of paths) {
    const { header, data } = await submitIn(path);
    const name = header.input === '' && wanted.length === 1 ? (wanted[0]?.name ?? '') : header.input;
    const info = wanted.find((input) => input.name === name);
    const frame = frames.get(header.sequence) ?? {};
    if (info === undefined || info.dtype !== header.dtype || info.dims.join() !== header.dims.join()) {
      throw unfitting(wanted, `${name}: ${header.dtype}[${header.dims.join(',')}]`);
    }
    frame[name] = readTensor(header, data);
    frames.set(header.sequence, frame);
  }
  const all = [...frames.values()];
  const partial = all.find((frame) => wanted.some((info) => frame[info.name] === undefined));
  if (partial !== undefined) throw unfitting(wanted, `only ${Object.keys(partial).join(', ')}`);
  if (all.length > MOST_CALIBRATION_FRAMES) throw unfitting(wanted, `${all.length} frames`, `at most ${MOST_CALIBRATION_FRAMES} frames`);
  return all;
}

async function submitIn(path: string): Promise<ReturnType<typeof decodeSubmit>> {
  try {
    return decodeSubmit([await readFile(path)]);
  } catch (cause) {
    throw new ChairError('FRAME_INVALID', `a calibration file cannot be read: ${toChairError(cause).message}`, { cause });
  }
}

function unfitting(wanted: readonly TensorInfo[], came: string, expected?: string): ChairError {
  const takes = wanted.map((info) => `${info.name}: ${info.dtype}[${info.dims.join(',')}]`).join(', ');
  return new ChairError('FRAME_INVALID', 'a calibration input is not what the model takes', { expected: expected ?? takes, came });
}

/** By model and inputs, stages and encodings. An error beyond what was asked for may be any larger number. */
const REMEMBERED = new Map<string, number>();
const MOST_REMEMBERED = 10_000;

export interface CalibratedOptions {
  /** Of the model as it is deployed and of its calibration inputs: errors are remembered under it, so `plan` and then `deploy` measure once. */
  readonly identity: string;
  /** Reads the inputs that were given; undefined = made-up ones. */
  readonly frames: (() => Promise<readonly Tensors[]>) | undefined;
  /** How many were given, as far as is known before they are read. */
  readonly count: number;
  /** Why nothing may be measured now; '' = it may. */
  readonly hindered: string;
  /** Measuring begins, which takes a while: on which inputs. */
  readonly onStart: (inputs: string) => void;
}

/** One planning's measurements. `close` it. */
export class Calibrated implements Measuring {
  readonly random: boolean;
  inputs: number;
  hindered = '';
  /** Something was asked that could not be measured now. */
  missed = false;
  readonly #model: LoadedModel;
  readonly #frames: () => Promise<readonly Tensors[]>;
  readonly #onStart: (inputs: string) => void;
  readonly #identity: string;
  #given: readonly Tensors[] | undefined;
  #open: { readonly stages: string; readonly meter: PrecisionMeter } | undefined;

  constructor(model: LoadedModel, { identity, frames, count, hindered, onStart }: CalibratedOptions) {
    this.#model = model;
    this.#frames = frames ?? (async () => []);
    this.#onStart = onStart;
    this.random = frames === undefined;
    this.inputs = frames === undefined ? RANDOM_INPUTS : count;
    this.hindered = hindered;
    this.#identity = identity;
  }

  async error(draft: PlanDraft, encodings: readonly Encoding[], limit: number): Promise<number> {
    const stages = JSON.stringify(draft.stages.map(({ spec }) => spec));
    const key = `${this.#identity} ${limit} ${stages} ${encodings.join()}`;
    const known = REMEMBERED.get(key);
    if (known !== undefined) return known;
    if (this.hindered !== '') {
      this.missed = true;
      return Number.POSITIVE_INFINITY;
    }
    const meter = await this.#meter(draft, stages);
    if (!meter.varies) {
      this.hindered = `the model gives the same output for all ${meter.inputs} inputs, so no error could be seen: give others with --calibrate`;
      return Number.POSITIVE_INFINITY;
    }
    const error = await meter.error(encodings, limit);
    if (REMEMBERED.size >= MOST_REMEMBERED) REMEMBERED.delete(REMEMBERED.keys().next().value ?? '');
    REMEMBERED.set(key, error);
    return error;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    await open?.meter.dispose();
  }

  async #meter(draft: PlanDraft, stages: string): Promise<PrecisionMeter> {
    if (this.#open?.stages === stages) return this.#open.meter;
    await this.close();
    this.#given ??= await this.#frames();
    this.#onStart(this.random ? `${RANDOM_INPUTS} made-up inputs` : `${this.#given.length} given inputs`);
    const meter = await this.#model.meter(draft, this.#given);
    this.inputs = meter.inputs;
    this.#open = { stages, meter };
    return meter;
  }
}
