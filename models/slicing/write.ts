/**
 * Writes slices: for every part a graph file and the weight blobs it names, all in one directory, all named by sha256.
 * Weights are streamed from file to file: slicing a model of any size holds about a megabyte of it.
 */
import { randomUUID } from 'node:crypto';
import { copyFile, link, mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { BlobRef, SliceRef } from '../../broker/plan.js';
import { tensorBytes } from '../../broker/tensor.js';
import type { Model, Weight, WeightBytes } from '../model.js';
import { hasBlob, putBlob, putBlobChunks, writingTo } from '../onnx/blobs.js';
import { encodeGraph, type GraphInitializer, type GraphSpec } from '../onnx/encode.js';
import { weightSum } from '../onnx/weight-sum.js';
import { readSelection, type Selection, selectionDims, weightChunks, wholeSelection } from '../onnx/weights.js';
import { demandOfPart } from './cut.js';
import { type PartWeight, partGraph } from './part-graph.js';
import type { PartCut, Partition, WrittenPartition } from './partition.js';

/** Smaller weights stand in the graph file itself. */
const INLINE_BYTES = 1024;

/**
 * Writes the slices of a partition into `directory` (made if need be). Files that are there already are not written again.
 * Throws MODEL_WEIGHTS_MISSING when the weights' files are gone, WORK_DIRECTORY_UNUSABLE.
 */
export async function writeSlices(partition: Partition, directory: string): Promise<WrittenPartition> {
  return writingTo(directory, async () => {
    await mkdir(directory, { recursive: true });
    const store = new SliceStore(partition.model, directory);
    const slices: SliceRef[][] = [];
    for (const stage of partition.stages) {
      const refs: SliceRef[] = [];
      for (const part of stage.parts) refs.push(await store.write(part));
      slices.push(refs);
    }
    return { partition, slices, directory };
  });
}

interface WrittenWeight {
  readonly blob: BlobRef;
  readonly offset: number;
}

class SliceStore {
  readonly #model: Model;
  readonly #directory: string;
  /** By weight and selection: bands of one stage share whole weights, and stages may share them too. */
  readonly #written = new Map<string, Promise<WrittenWeight>>();
  readonly #files = new Map<string, Promise<number>>();

  constructor(model: Model, directory: string) {
    this.#model = model;
    this.#directory = directory;
  }

  async write(part: PartCut): Promise<SliceRef> {
    const graph = partGraph(demandOfPart(part));
    const initializers: GraphInitializer[] = [];
    const blobs = new Map<string, BlobRef>();
    for (const weight of graph.weights) {
      const { initializer, blob } = await this.#initializer(weight);
      initializers.push(initializer);
      if (blob !== undefined) blobs.set(blob.sha256, blob);
    }
    const model = this.#model;
    const spec: GraphSpec = {
      ...graph,
      initializers,
      opsets: model.opsets,
      irVersion: model.irVersion,
      functions: model.functions as NonNullable<GraphSpec['functions']>,
    };
    const file = await putBlob(this.#directory, encodeGraph(spec));
    const { macs, weightBytes, activationBytes } = part;
    return {
      graph: file,
      blobs: [...blobs.values()],
      macs: Math.round(macs),
      weightBytes: Math.round(weightBytes),
      activationBytes: Math.round(activationBytes),
    };
  }

  async #initializer(weight: PartWeight): Promise<{ initializer: GraphInitializer; blob?: BlobRef }> {
    const { name, dtype, dims, from } = weight;
    const length = tensorBytes(dtype, dims);
    if ('bytes' in from) return { initializer: { name, dtype, dims, data: { kind: 'inline', bytes: from.bytes } } };
    if ('sum' in from) {
      const chunks = weightSum(from.weight, from.sum);
      if (length < INLINE_BYTES) return { initializer: { name, dtype, dims, data: { kind: 'inline', bytes: await joined(chunks) } } };
      const blob = await this.#once(`${from.weight.name}\n+${JSON.stringify(from.sum)}`, () => this.#writeChunks(chunks));
      return {
        initializer: { name, dtype, dims, data: { kind: 'external', location: blob.blob.sha256, offset: 0, length } },
        blob: blob.blob,
      };
    }
    if (length < INLINE_BYTES) {
      const bytes = await readSelection(from.weight, from.selection ?? wholeSelection(from.weight.dims));
      return { initializer: { name, dtype, dims, data: { kind: 'inline', bytes } } };
    }
    const { blob, offset } = await this.#external(from.weight, from.selection);
    return { initializer: { name, dtype, dims, data: { kind: 'external', location: blob.sha256, offset, length } }, blob };
  }

  #external(weight: Weight, selection: Selection | undefined): Promise<WrittenWeight> {
    const key = `${weight.name}\n${selection === undefined ? '' : JSON.stringify(selection)}`;
    return this.#once(key, () => this.#writeWeight(weight, selection));
  }

  #once(key: string, write: () => Promise<WrittenWeight>): Promise<WrittenWeight> {
    let written = this.#written.get(key);
    if (written === undefined) {
      written = write();
      this.#written.set(key, written);
    }
    return written;
  }

  async #writeChunks(chunks: AsyncIterable<Uint8Array>): Promise<WrittenWeight> {
    return { blob: await putBlobChunks(this.#directory, chunks), offset: 0 };
  }

  async #writeWeight(weight: Weight, selection: Selection | undefined): Promise<WrittenWeight> {
    const { bytes } = weight;
    if (selection === undefined && bytes.kind === 'file' && (await this.#size(bytes.path)) === bytes.length) {
      const blob = { sha256: bytes.sha256, sizeBytes: bytes.length };
      await this.#place(bytes, blob);
      return { blob, offset: bytes.offset };
    }
    const blob = await putBlobChunks(this.#directory, weightChunks(weight, selection ?? wholeSelection(weight.dims)));
    if (blob.sizeBytes !== tensorBytes(weight.dtype, selectionDims(selection ?? wholeSelection(weight.dims)))) {
      throw new ChairError('MODEL_WEIGHTS_MISSING', `weight ${weight.name} is shorter than its dims say`);
    }
    return { blob, offset: 0 };
  }

  #size(path: string): Promise<number> {
    let size = this.#files.get(path);
    if (size === undefined) {
      size = stat(path).then(
        (info) => info.size,
        () => -1,
      );
      this.#files.set(path, size);
    }
    return size;
  }

  /** A blob of the work store is linked into the directory (copied where links are not possible). */
  async #place(bytes: WeightBytes & { kind: 'file' }, blob: BlobRef): Promise<void> {
    if (await hasBlob(this.#directory, blob)) return;
    const target = join(this.#directory, blob.sha256);
    const temporary = `${target}.${randomUUID()}.part`;
    try {
      await link(bytes.path, temporary).catch(() => copyFile(bytes.path, temporary));
      await rename(temporary, target);
    } finally {
      await rm(temporary, { force: true });
    }
  }
}

async function joined(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return new Uint8Array(Buffer.concat(all));
}
