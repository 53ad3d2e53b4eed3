/** Which files a model consists of: what has to be sent where it is needed. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { type TensorProto, TensorProto_DataLocation } from 'onnx-buf';
import { externalFile, readModel } from './import.js';

export interface ModelFilePlace {
  /** As the graph names it, relative to its folder; of the graph itself the file's name. */
  readonly location: string;
  readonly path: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** The graph's file, then its external data in order of appearance. Throws MODEL_NOT_FOUND, MODEL_UNREADABLE, MODEL_WEIGHTS_MISSING. */
export async function modelFiles(path: string): Promise<readonly ModelFilePlace[]> {
  const { model, sha256 } = await readModel(path);
  const files = new Map<string, ModelFilePlace>();
  const constants = model.graph.node.flatMap((node) => node.attribute.flatMap((a) => (a.t === undefined ? [] : [a.t])));
  for (const tensor of [...model.graph.initializer, ...constants]) {
    const location = externalLocation(tensor);
    if (location === undefined || files.has(location)) continue;
    const file = await externalFile(tensor.name, path, location);
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(file)) hash.update(chunk);
    files.set(location, { location, path: file, sha256: hash.digest('hex'), sizeBytes: (await stat(file)).size });
  }
  return [{ location: basename(path), path, sha256, sizeBytes: (await stat(path)).size }, ...files.values()];
}

function externalLocation(tensor: TensorProto): string | undefined {
  if (tensor.dataLocation !== TensorProto_DataLocation.EXTERNAL) return undefined;
  return tensor.externalData.find((entry) => entry.key === 'location')?.value ?? '';
}
