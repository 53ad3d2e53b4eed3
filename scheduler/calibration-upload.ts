/** The client's side of calibration: frames become files, and files travel as those of models do. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Tensors } from './assembly.js';
import { calibrationFiles } from './calibration.js';
import { type UploadOptions, uploadFiles } from './upload.js';

/** Names of the files on the gateway, of all frames. Throws what `uploadFiles` throws. */
export async function uploadCalibration(frames: readonly Tensors[], options: UploadOptions): Promise<string[]> {
  const directory = await mkdtemp(join(tmpdir(), 'mc-calibration-'));
  try {
    const names: string[] = [];
    for (const [sequence, frame] of frames.entries()) {
      for (const bytes of calibrationFiles(sequence, frame)) {
        const sha256 = createHash('sha256').update(bytes).digest('hex');
        const path = join(directory, sha256);
        await writeFile(path, bytes);
        names.push(await uploadFiles([{ location: 'model.onnx', path, sha256, sizeBytes: bytes.length }], '', options));
        await rm(path);
      }
    }
    return names;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
