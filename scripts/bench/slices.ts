/** The slices that agents get, as files for the bare engine: the same code cuts them here and at the gateway. */
import path from 'node:path';
import type { Engine } from '../../models/engine/engine.js';
import { loadModel } from '../../models/onnx/load.js';
import { coverCut, parseCut } from '../../models/slicing/cover.js';
import { partition } from '../../models/slicing/cut.js';
import { writeSlices } from '../../models/slicing/write.js';

/** Paths of the slices, `[stage][part]`; equal slices have equal paths. */
export async function sliceFiles(model: string, cut: string, directory: string, engine: Engine): Promise<string[][]> {
  const loaded = await loadModel(model, { workDirectory: directory, engine });
  const { kind, shares } = parseCut(cut);
  const written = await writeSlices(partition(loaded, coverCut(loaded, kind, shares).stages), path.join(directory, 'slices'));
  return written.slices.map((parts) => parts.map((slice) => path.join(written.directory, slice.graph.sha256)));
}
