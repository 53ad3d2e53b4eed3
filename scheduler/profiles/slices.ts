/** Slices to be measured by themselves: one part of one stage, and the smallest graph there is. */
import { mkdir } from 'node:fs/promises';
import { ChairError } from '../../broker/errors.js';
import type { SliceRef } from '../../broker/plan.js';
import type { Model } from '../../models/model.js';
import { putBlob } from '../../models/onnx/blobs.js';
import { GraphBuilder } from '../../models/onnx/build.js';
import { cutStage, isRefusal } from '../../models/slicing/cut.js';
import { writeSlices } from '../../models/slicing/write.js';
import type { SlicePart } from '../model-source.js';

/** Throws CUT_NOT_POSSIBLE, MODEL_WEIGHTS_MISSING, WORK_DIRECTORY_UNUSABLE. */
export async function writePart(model: Model, { nodes, cut, parts, part }: SlicePart, directory: string): Promise<SliceRef> {
  if (nodes[0] === nodes[1]) return writeNothing(directory);
  const stage = cutStage(model, { nodes, cut, shares: new Array<number>(parts).fill(1) });
  if (isRefusal(stage)) throw new ChairError('CUT_NOT_POSSIBLE', stage.reason);
  const one = stage.parts[part];
  if (one === undefined) throw new ChairError('CUT_NOT_POSSIBLE', `there is no part ${part} of ${stage.parts.length}`);
  const alone = { model, stages: [{ ...stage, parts: [one] }], wires: [], inputs: [], outputs: [], bytesMoved: 0 };
  const slice = (await writeSlices(alone, directory)).slices[0]?.[0];
  if (slice === undefined) throw new ChairError('INTERNAL', 'a slice was not written');
  return slice;
}

/** One addition of one number: what is left is the cost of a run. */
async function writeNothing(directory: string): Promise<SliceRef> {
  const graph = new GraphBuilder();
  const x = graph.input('x', 'float32', [1]);
  graph.output(graph.node1('Add', [x, x], {}, { outputs: ['y'] }), 'float32', [1]);
  await mkdir(directory, { recursive: true });
  const file = await putBlob(directory, graph.encode());
  return { graph: file, blobs: [], macs: 0, weightBytes: 0, activationBytes: 8 };
}
