/** Models as the scheduler needs them: loaded from files, cut by models/slicing, slices written into the store. */
import { join } from 'node:path';
import { carried } from '../broker/encoding.js';
import { ChairError } from '../broker/errors.js';
import type { DeployRequest } from '../broker/messages.js';
import { allocTensor, type Tensor, type TensorInfo } from '../broker/tensor.js';
import type { Engine } from '../models/engine/engine.js';
import type { Model } from '../models/model.js';
import { loadModel } from '../models/onnx/load.js';
import { randomImage, randomTensor, seedFor } from '../models/random.js';
import { agrees, type Comparison, compare, TOLERANCE, tensorValues } from '../models/slicing/compare.js';
import { partition } from '../models/slicing/cut.js';
import { parseCut } from '../models/slicing/parse-cut.js';
import type { StageSpec, WrittenPartition } from '../models/slicing/partition.js';
import { openPrecisionMeter, type PrecisionMeter } from '../models/slicing/precision.js';
import { eachPartLost, PartitionRunner } from '../models/slicing/run.js';
import { writeSlices } from '../models/slicing/write.js';
import type { Tensors } from './assembly.js';
import { RANDOM_INPUTS, readCalibration } from './calibration.js';
import { factsOf } from './model-facts.js';
import type { LoadedModel, ManualCut, ModelSource } from './model-source.js';
import type { WrittenCut } from './plan-builder.js';
import { PlannerThread } from './planner-thread.js';
import { wholeSpec } from './planners/draft.js';
import type { ModelFacts } from './planners/problem.js';
import { writePart } from './profiles/slices.js';

export { factsOf } from './model-facts.js';

export interface ModelLibraryOptions {
  /** Made for each load and disposed after it: a gateway that only decides keeps no engine. */
  readonly createEngine: () => Promise<Engine>;
  /** Weights of whole models, named by sha256. */
  readonly workDirectory: string;
  /** Slices and their blobs, named by sha256: what the blob server serves. */
  readonly storeDirectory: string;
}

export class ModelLibrary implements ModelSource {
  readonly #o: ModelLibraryOptions;
  readonly #planners = new PlannerThread();

  constructor(options: ModelLibraryOptions) {
    this.#o = options;
  }

  /** Idempotent: ends the planners' thread. */
  stop(): Promise<void> {
    return this.#planners.stop();
  }

  /** Planners are about to be asked. */
  warm(): void {
    this.#planners.warm();
  }

  async load(request: Pick<DeployRequest, 'model' | 'shapes' | 'images'>): Promise<LoadedModel> {
    const { images } = request;
    const { workDirectory } = this.#o;
    const shapes = parseShapes(request.shapes);
    const model = await this.#withEngine((engine) => loadModel(request.model, { shapes, images, workDirectory, engine }));
    return this.#loaded(model, images.length === 0);
  }

  frames(names: readonly string[], inputs: readonly TensorInfo[]): Promise<Tensors[]> {
    return readCalibration(names, inputs);
  }

  parseCut(text: string, shares: readonly number[]): ManualCut {
    const replicas = /^replicas:(\d{1,3})$/.exec(text.trim());
    if (replicas !== null) return { kind: 'replicas', parts: Math.max(1, Number(replicas[1])) };
    const { kind, parts } = parseCut(text, shares.length === 0 ? undefined : shares);
    return kind === 'whole' ? { kind: 'stages', parts: 1 } : { kind, parts };
  }

  #loaded(model: Model, runsAsItIs: boolean): LoadedModel {
    const facts: ModelFacts = {
      ...factsOf(model),
      elsewhere: (planner, question) => this.#planners.solve(model, planner, question),
    };
    const write = async (specs: readonly StageSpec[]): Promise<WrittenPartition> =>
      writeSlices(partition(model, specs), this.#o.storeDirectory);
    return {
      sha256: model.sha256,
      inputs: model.inputs,
      outputs: model.outputs,
      facts,
      describe: (start, end) => describeNodes(model, start, end),
      slice: (part) => writePart(model, part, this.#o.storeDirectory),
      write: async (draft) => written(await write(draft.stages.map((stage) => stage.spec))),
      verify: async ({ cut }) => {
        const slices = await write(cut.stages.map((stage) => stage.spec));
        // With images or normalisation in front, the file itself takes other inputs: then the model as one slice is the measure.
        const whole = runsAsItIs ? undefined : await write([wholeSpec(facts)]);
        return this.#withEngine((engine) => verify(model, slices, whole, engine));
      },
      meter: async (draft, inputs) => this.#meter(model, await write(draft.stages.map((stage) => stage.spec)), inputs),
    };
  }

  async #meter(model: Model, slices: WrittenPartition, given: readonly Tensors[]): Promise<PrecisionMeter> {
    const random = (seed: number): Tensors => Object.fromEntries(model.inputs.map((info) => [info.name, sampleOf(info, seed)]));
    const inputs = given.length > 0 ? given : Array.from({ length: RANDOM_INPUTS }, (_, i) => random(i + 1));
    const engine = await this.#o.createEngine();
    try {
      const meter = await openPrecisionMeter(slices, engine, inputs, carried);
      return { ...meter, dispose: () => meter.dispose().finally(() => engine.dispose()) };
    } catch (error) {
      await engine.dispose();
      throw error;
    }
  }

  async #withEngine<T>(use: (engine: Engine) => Promise<T>): Promise<T> {
    const engine = await this.#o.createEngine();
    try {
      return await use(engine);
    } finally {
      await engine.dispose();
    }
  }
}

function written({ partition: cut, slices }: WrittenPartition): WrittenCut {
  return { cut, slices };
}

/** `Conv conv1 to MaxPool pool1`: the first and the last node that have a name of their own, or an output. */
export function describeNodes(model: Model, start: number, end: number): string {
  const said = (at: number): string => {
    const node = model.nodes[at];
    return node === undefined ? '' : `${node.op} ${node.name || (node.outputs[0] ?? '')}`.trim();
  };
  return end - start < 2 ? said(start) : `${said(start)} to ${said(end - 1)}`;
}

/** Random inputs differ in how much they stir a model: a detector that sees nothing puts out noise around zero, which proves nothing. */
const SAMPLES = 6;

async function verify(model: Model, slices: WrittenPartition, whole: WrittenPartition | undefined, engine: Engine): Promise<number> {
  const samples: { inputs: Tensors; expected: Tensors; peak: number }[] = [];
  const original = await originalOf(model, whole, engine);
  try {
    for (let seed = 1; seed <= SAMPLES; seed++) {
      const inputs = Object.fromEntries(model.inputs.map((info) => [info.name, sampleOf(info, seed)]));
      const expected = await original.run(inputs);
      samples.push({ inputs, expected, peak: peakOf(expected) });
    }
  } finally {
    await original.dispose();
  }
  const liveliest = samples.reduce((a, b) => (b.peak > a.peak ? b : a));
  // With all parts, and then without each one in turn.
  const losses = [new Set<string>(), ...eachPartLost(slices.partition)];
  const runner = new PartitionRunner(slices, engine);
  let worst = 0;
  try {
    for (const [at, lost] of losses.entries()) {
      const result = compare(liveliest.expected, (await runner.run(liveliest.inputs, { lost })).outputs);
      if (!agrees(result)) throw verifyFailed(result, at === 0 ? '' : ` when part ${at} is missing`);
      worst = Math.max(worst, result.maxRelDiff);
    }
  } finally {
    await runner.dispose();
  }
  return worst;
}

function verifyFailed({ problem, maxRelDiff }: Comparison, when: string): ChairError {
  return new ChairError('VERIFY_FAILED', `the slices do not compute what the whole model computes${when}`, {
    expected: `a relative difference of at most ${TOLERANCE}`,
    came: problem ?? String(maxRelDiff),
    todo: 'Deploy it with another cut, and please report this one.',
  });
}

/** As randomTensor; but a uint8 [height, width, 3] is a picture, and bytes of plain noise are none: blocks of colour with noise on top. */
function sampleOf(info: TensorInfo, seed: number): Tensor {
  const [height = 0, width = 0, channels] = info.dims;
  if (info.dtype !== 'uint8' || info.dims.length !== 3 || channels !== 3) return randomTensor(info, seed);
  const planes = randomImage([3, height, width], seedFor(seed, info.name));
  const tensor = allocTensor(info.dtype, info.dims);
  const pixels = height * width;
  for (let i = 0; i < tensor.bytes.length; i++) {
    const value = planes[(i % 3) * pixels + Math.floor(i / 3)] ?? 0;
    tensor.bytes[i] = Math.max(0, Math.min(255, 128 + 64 * value));
  }
  return tensor;
}

/** The model's own file, or the model as one slice where the file takes other inputs. */
async function originalOf(model: Model, whole: WrittenPartition | undefined, engine: Engine) {
  if (whole !== undefined) {
    const runner = new PartitionRunner(whole, engine);
    return { run: async (inputs: Tensors): Promise<Tensors> => (await runner.run(inputs)).outputs, dispose: () => runner.dispose() };
  }
  const session = await engine.load(model.path);
  return { run: async (inputs: Tensors): Promise<Tensors> => (await session.run(inputs)).outputs, dispose: () => session.dispose() };
}

/** Largest magnitude of the quietest output. */
function peakOf(outputs: Tensors): number {
  return Math.min(
    ...Object.values(outputs).map((tensor) => {
      const values = tensorValues(tensor);
      let peak = 0;
      for (let i = 0; i < values.length; i++) peak = Math.max(peak, Math.abs(Number(values[i])));
      return peak;
    }),
  );
}

/** `x=1,3,640,640` by input. Throws MODEL_SHAPE_INVALID. */
function parseShapes(texts: readonly string[]): Record<string, number[]> {
  const shapes: Record<string, number[]> = {};
  for (const text of texts) {
    const [, input, dims] = /^(.+)=(\d+(?:,\d+)*)$/.exec(text) ?? [];
    if (input === undefined || dims === undefined) {
      throw new ChairError('MODEL_SHAPE_INVALID', 'a shape is written wrongly', { expected: 'input=1,3,640,640', came: `"${text}"` });
    }
    shapes[input] = dims.split(',').map(Number);
  }
  return shapes;
}

/** Where models and slices stand in the state folder: in a folder of our own, as both are emptied at every start. */
export function libraryDirectories(stateDirectory: string): Pick<ModelLibraryOptions, 'workDirectory' | 'storeDirectory'> {
  return {
    workDirectory: join(stateDirectory, 'gateway-cache', 'models'),
    storeDirectory: join(stateDirectory, 'gateway-cache', 'slices'),
  };
}
