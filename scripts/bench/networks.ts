/** The networks that are measured: of the zoo (published sizes, random weights), and the text detector with images of bytes. */
import { existsSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import path from 'node:path';
import type { ImageInput } from '../../broker/messages.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { loadModel } from '../../models/onnx/load.js';
import { coverCut } from '../../models/slicing/cover.js';
import { partition } from '../../models/slicing/cut.js';
import { writeSlices } from '../../models/slicing/write.js';
import { buildZoo } from '../../models/zoo/index.js';
import { DETECTOR_SHAPE, DETECTOR_SIZE, detectorImage } from '../demo/ocr.js';
import { ocrFiles } from '../demo/on-cluster.js';

/** PP-OCRv4's detector for images of 640 x 640 bytes: normalisation is a part of the network. */
export const DETECTOR = 'pp-ocrv4-det';

/** What a deploy request says of a network. */
export interface Network {
  readonly model: string;
  readonly shapes: string[];
  readonly images: ImageInput[];
}

/** A network as a file in `directory`; made when it is not there. Throws MODEL_NOT_FOUND. */
export async function networkFile(name: string, directory: string): Promise<Network> {
  if (name === DETECTOR) {
    const images = [detectorImage({ width: DETECTOR_SIZE, height: DETECTOR_SIZE })];
    return { model: ocrFiles().detector, shapes: [`x=${DETECTOR_SHAPE.join(',')}`], images };
  }
  const model = path.join(directory, `${name}.onnx`);
  if (!existsSync(model)) {
    await mkdir(directory, { recursive: true });
    await buildZoo(name, `${model}.part`);
    await rename(`${model}.part`, model);
  }
  return { model, shapes: [], images: [] };
}

/**
 * The whole network as one slice, as an agent gets it: what the bare engine runs where the agent's weights and options are to be the same, or where
 * the file itself takes other inputs than the deployment.
 */
export async function wholeSlice({ model, images }: Network, directory: string): Promise<string> {
  const engine = await createOnnxRuntimeEngine();
  try {
    const shapes: Record<string, readonly number[]> = images.length === 0 ? {} : { x: [...DETECTOR_SHAPE] };
    const loaded = await loadModel(model, { shapes, images, workDirectory: directory, engine });
    const written = await writeSlices(partition(loaded, coverCut(loaded, 'whole', [1]).stages), path.join(directory, 'slices'));
    return path.join(written.directory, written.slices[0]?.[0]?.graph.sha256 ?? '');
  } finally {
    await engine.dispose();
  }
}

/** What the bare engine runs: the file as it is, or the whole slice where images go in. */
export async function bareFile(network: Network, directory: string): Promise<string> {
  return network.images.length === 0 ? network.model : wholeSlice(network, directory);
}
