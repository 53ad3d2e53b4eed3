/** The oracle: runs the parts of a written partition one after another on one engine, and moves boxes along the wires. No network needed. */
import { join } from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { codedInputs, isParity, recover } from '../../broker/parity.js';
import { type Encoding, type Port, SINK, SOURCE, type Wire } from '../../broker/plan.js';
import {
  allocTensor,
  type Box,
  boxDims,
  checkTensor,
  copyBox,
  type DType,
  itemBytes,
  type Tensor,
  tensorBytes,
  wholeBox,
} from '../../broker/tensor.js';
import type { Engine, Session } from '../engine/engine.js';
import type { Partition, WrittenPartition } from './partition.js';
import { wireBytes } from './wiring.js';

export interface RunOptions {
  /** Index into `partition.wires`: what this wire brings is zeroed. A check that sees no change is no check. */
  readonly zeroWire?: number;
  /** What the wire brings instead of zeros, made from the dense bytes of its box (they may be changed in place). */
  readonly rewrite?: (bytes: Uint8Array, dtype: DType) => Uint8Array;
  /** How each wire's boxes travel; absent = all raw. Needs `carry`. */
  readonly encodings?: readonly Encoding[];
  readonly carry?: Carry;
  /** Parts of coded stages that do not run, as `stage/part`: their consumers recover what they would have sent. Parities are not used otherwise. */
  readonly lost?: ReadonlySet<string>;
}

/** What comes out at the far end of a wire: the dense bytes of `box`, sent in this encoding and decoded again. Of a tensor `[dtype]` that covers `holder`. */
export type Carry = (encoding: Encoding, dtype: DType, bytes: Uint8Array, holder: Box, box: Box) => Uint8Array;

export interface PartitionRun {
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Of each wire, in the order of `partition.wires`. */
  readonly wireBytes: readonly number[];
  /** Time inside the engine: `runMs[stage][part]`. */
  readonly runMs: readonly (readonly number[])[];
}

/** Loads the slices once and runs them many times (with other inputs, with one wire zeroed). `dispose` when done. */
export class PartitionRunner {
  readonly #written: WrittenPartition;
  readonly #engine: Engine;
  readonly #sessions = new Map<string, Promise<Session>>();

  constructor(written: WrittenPartition, engine: Engine) {
    this.#written = written;
    this.#engine = engine;
  }

  /** Throws ENGINE_INPUT_INVALID for missing or misfit inputs, ENGINE_* when a slice fails (the message names stage and part). */
  async run(inputs: Readonly<Record<string, Tensor>>, options: RunOptions = {}): Promise<PartitionRun> {
    const { partition, slices } = this.#written;
    const produced = new Map<string, { port: Port; tensor: Tensor }>();
    const key = (stage: number, part: number, output: number) => `${stage}:${part}:${output}`;
    partition.inputs.forEach((info, output) => {
      const tensor = inputs[info.name];
      if (tensor === undefined) throw new ChairError('ENGINE_INPUT_INVALID', `input ${info.name} is missing`);
      checkTensor(tensor, `input ${info.name}`);
      if (tensor.bytes.length !== tensorBytes(info.dtype, info.dims) || tensor.dtype !== info.dtype) {
        throw new ChairError('ENGINE_INPUT_INVALID', `input ${info.name} does not fit`, {
          expected: `${info.dtype}[${info.dims}]`,
          came: `${tensor.dtype}[${tensor.dims}]`,
        });
      }
      produced.set(key(SOURCE, 0, output), { port: { ...info, tensor: info.name, box: wholeBox(info.dims) }, tensor });
    });
    const incoming = new Map<string, { wire: Wire; index: number }[]>();
    partition.wires.forEach((w, index) => {
      const at = key(w.toStage, w.toPart, w.input);
      incoming.set(at, [...(incoming.get(at) ?? []), { wire: w, index }]);
    });
    const stages = partition.stages.map(({ spec, parts }) => ({ parts, redundancy: spec.redundancy ?? 0 }));
    const isLost = (stage: number, part: number): boolean => options.lost?.has(`${stage}/${part}`) === true;
    const fill = (port: Port, stage: number, part: number, input: number): Tensor => {
      const target = allocTensor(port.dtype, boxDims(port.box));
      for (const { wire: w, index } of incoming.get(key(stage, part, input)) ?? []) {
        if (isParity(stages[w.fromStage], w.fromPart) || isLost(w.fromStage, w.fromPart)) continue;
        const from = produced.get(key(w.fromStage, w.fromPart, w.output));
        if (from === undefined) throw new ChairError('INTERNAL', `wire ${index} begins nowhere`);
        if (index === options.zeroWire) {
          if (options.rewrite === undefined) continue;
          const bytes = options.rewrite(boxBytes(from.tensor, from.port.box, w.box), port.dtype);
          copyBox(bytes, w.box, target.bytes, port.box, w.box, itemBytes(port.dtype));
          continue;
        }
        const encoding = options.encodings?.[index] ?? 'raw';
        if (encoding !== 'raw' && options.carry !== undefined) {
          const bytes = options.carry(encoding, port.dtype, from.tensor.bytes, from.port.box, w.box);
          copyBox(bytes, w.box, target.bytes, port.box, w.box, itemBytes(port.dtype));
        } else copyBox(from.tensor.bytes, from.port.box, target.bytes, port.box, w.box, itemBytes(port.dtype));
      }
      for (const coded of codedInputs(stages, partition.wires, stage, part)) {
        if (coded.input !== input) continue;
        const missing = coded.parts.find((w) => isLost(coded.fromStage, partition.wires[w]?.fromPart ?? 0));
        const boxOf = (w: number): Box => partition.wires[w]?.box ?? port.box;
        const sum = partition.wires[coded.parity];
        const from = sum && produced.get(key(sum.fromStage, sum.fromPart, sum.output));
        if (missing === undefined || sum === undefined) continue;
        if (from === undefined) throw new ChairError('INTERNAL', `stage ${coded.fromStage} lacks more than its parity stands in for`);
        const others = coded.parts.filter((w) => w !== missing).map(boxOf);
        const whole = boxBytes(from.tensor, from.port.box, sum.box);
        const parity = coded.parity === options.zeroWire ? (options.rewrite?.(whole, port.dtype) ?? whole.fill(0)) : whole;
        recover({ ...coded, dtype: port.dtype, target: target.bytes, holder: port.box, missing: boxOf(missing), others, parity });
      }
      return target;
    };
    const runMs: number[][] = [];
    for (const [s, stage] of partition.stages.entries()) {
      const times: number[] = [];
      const made: { at: string; port: Port; tensor: Tensor }[] = [];
      for (const [p, part] of stage.parts.entries()) {
        if (isLost(s, p)) {
          times.push(0);
          continue;
        }
        const session = await this.#session(slices[s]?.[p]?.graph.sha256 ?? '', s, p);
        const feeds = Object.fromEntries(part.inputs.map((port, i) => [port.name, fill(port, s, p, i)]));
        const result = await session.run(feeds, { transfer: true });
        times.push(result.runMs);
        part.outputs.forEach((port, output) => {
          const tensor = result.outputs[port.name];
          if (tensor === undefined || tensor.bytes.length !== tensorBytes(port.dtype, boxDims(port.box))) {
            throw new ChairError('INTERNAL', `stage ${s} part ${p}: output ${port.name} is not what the cut says`, {
              expected: `${port.dtype}[${boxDims(port.box)}]`,
              came: tensor === undefined ? 'nothing' : `${tensor.dtype}[${tensor.dims}]`,
            });
          }
          made.push({ at: key(s, p, output), port, tensor });
        });
      }
      for (const { at, port, tensor } of made) produced.set(at, { port, tensor });
      runMs.push(times);
    }
    const outputs = Object.fromEntries(
      partition.outputs.map((info, i) => [info.name, fill({ ...info, tensor: info.name, box: wholeBox(info.dims) }, SINK, 0, i)]),
    );
    const wired = partition.stages.map((stage) => ({ cut: stage.spec.cut, parts: stage.parts }));
    return { outputs, wireBytes: partition.wires.map((w) => wireBytes(wired, partition, w)), runMs };
  }

  /** Idempotent. */
  async dispose(): Promise<void> {
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    await Promise.all(sessions.map((loading) => loading.then((session) => session.dispose()).catch(() => undefined)));
  }

  #session(sha256: string, stage: number, part: number): Promise<Session> {
    let loading = this.#sessions.get(sha256);
    if (loading === undefined) {
      loading = this.#engine.load(join(this.#written.directory, sha256)).catch((error: unknown) => {
        throw new ChairError(
          'ENGINE_LOAD_FAILED',
          `slice of stage ${stage} part ${part}: ${error instanceof Error ? error.message : String(error)}`,
          {
            cause: error,
          },
        );
      });
      this.#sessions.set(sha256, loading);
    }
    return loading;
  }
}

/** For `lost`: without each one part of all coded stages that have it in turn, as when the agent falls that holds it; nothing where no stage is coded. */
export function eachPartLost({ stages }: Partition): ReadonlySet<string>[] {
  const coded = stages.flatMap(({ spec, parts }, stage) => (spec.redundancy === 1 ? [{ stage, parts: parts.length }] : []));
  const most = Math.max(0, ...coded.map(({ parts }) => parts));
  return Array.from(
    { length: most },
    (_, part) => new Set(coded.flatMap(({ stage, parts }) => (part < parts ? [`${stage}/${part}`] : []))),
  );
}

/** The dense bytes of a box of a tensor that covers `holder`. */
function boxBytes(tensor: Tensor, holder: Box, box: Box): Uint8Array {
  const part = allocTensor(tensor.dtype, boxDims(box));
  copyBox(tensor.bytes, holder, part.bytes, box, box, itemBytes(tensor.dtype));
  return part.bytes;
}

/** One run of a written partition; loads each distinct slice once and disposes all. */
export async function runPartition(
  written: WrittenPartition,
  engine: Engine,
  inputs: Readonly<Record<string, Tensor>>,
  options: RunOptions = {},
): Promise<PartitionRun> {
  const runner = new PartitionRunner(written, engine);
  try {
    return await runner.run(inputs, options);
  } finally {
    await runner.dispose();
  }
}
