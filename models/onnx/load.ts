/** Loading a model: import the file, fix the shapes, put image normalisation in front, fold and learn. */
import type { Tensor } from '../../broker/tensor.js';
import type { Engine } from '../engine/engine.js';
import type { Model } from '../model.js';
import { writingTo } from './blobs.js';
import { type ImageInput, prependImages } from './image-input.js';
import { importGraph } from './import.js';
import { learnModel } from './learn.js';
import { fixShapes } from './shapes.js';

export interface LoadModelOptions {
  /** Fixes dynamic input dims: input name -> dims. */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** Inputs that take uint8 images; their shapes above are those of the model, not of the image. */
  readonly images?: readonly ImageInput[];
  /** Where large weights are written, named by sha256; made when missing. The model refers to these files as long as it lives. */
  readonly workDirectory: string;
  /** Runs the model once to learn its shapes. */
  readonly engine: Engine;
  /** Inputs for that one run, for models that do not run on arbitrary values (an input that is a shape, say). */
  readonly samples?: Readonly<Record<string, Tensor>>;
}

/**
 * Reads an ONNX file. The model in memory holds structure and small constants; its weights stay in files.
 * Errors: MODEL_NOT_FOUND, MODEL_UNREADABLE, MODEL_UNSUPPORTED, MODEL_SHAPE_UNKNOWN, MODEL_SHAPE_INVALID, MODEL_WEIGHTS_MISSING,
 * WORK_DIRECTORY_UNUSABLE.
 */
export async function loadModel(path: string, options: LoadModelOptions): Promise<Model> {
  return writingTo(options.workDirectory, async () => {
    const imported = await importGraph(path, options.workDirectory);
    const graph = { ...imported, inputs: fixShapes(imported.inputs, options.shapes ?? {}) };
    return learnModel(prependImages(graph, options.images ?? []), options);
  });
}
