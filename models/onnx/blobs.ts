/** Files named by the sha256 of their bytes. They appear complete or not at all, and are never written twice. */
import { createHash, type Hash, randomUUID } from 'node:crypto';
import { open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { BlobRef } from '../../broker/plan.js';

/** Does work that writes below `directory`; what the file system has against it becomes WORK_DIRECTORY_UNUSABLE. */
export async function writingTo<T>(directory: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ChairError || !(error instanceof Error) || !('syscall' in error)) throw error;
    throw new ChairError('WORK_DIRECTORY_UNUSABLE', `nothing can be written below ${directory}`, {
      came: error.message,
      todo: 'Make room, or name another directory.',
      cause: error,
    });
  }
}

export async function hasBlob(directory: string, blob: BlobRef): Promise<boolean> {
  const info = await stat(join(directory, blob.sha256)).catch(() => undefined);
  return info?.isFile() === true && info.size === blob.sizeBytes;
}

/** Writes bytes held in memory. */
export async function putBlob(directory: string, bytes: Uint8Array): Promise<BlobRef> {
  const blob = { sha256: createHash('sha256').update(bytes).digest('hex'), sizeBytes: bytes.length };
  if (await hasBlob(directory, blob)) return blob;
  return putBlobChunks(directory, [bytes]);
}

/** Writes chunks as they come; the name is known at the end. `also` is a further hash to feed (of a whole file, say). */
export async function putBlobChunks(
  directory: string,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  also?: Hash,
): Promise<BlobRef> {
  const temporary = join(directory, `.part-${randomUUID()}`);
  const hash = createHash('sha256');
  const file = await open(temporary, 'wx');
  let sizeBytes = 0;
  try {
    for await (const chunk of chunks) {
      hash.update(chunk);
      also?.update(chunk);
      sizeBytes += chunk.length;
      await file.writeFile(chunk);
    }
    await file.close();
    const sha256 = hash.digest('hex');
    await rename(temporary, join(directory, sha256));
    return { sha256, sizeBytes };
  } catch (error) {
    await file.close().catch(() => undefined);
    await rm(temporary, { force: true });
    throw error;
  }
}
