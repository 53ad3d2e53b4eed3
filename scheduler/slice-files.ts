/** The gateway's folders for what it makes of models: slices, which agents fetch, and weights of whole models. Files are named by their sha256. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { toChairError } from '../broker/errors.js';
import type { BlobRef } from '../broker/plan.js';
import type { ModelLibraryOptions } from './model-library.js';

type Folders = Pick<ModelLibraryOptions, 'workDirectory' | 'storeDirectory'>;

/** What only the owner of a state folder may look into, also where it was made by a gateway that let everybody: models, what was sent, plans. */
export async function keepToOwner(stateDirectory: string, log: (line: string) => void): Promise<void> {
  for (const name of ['gateway-cache', 'uploads', 'deployments']) {
    const folder = join(stateDirectory, name);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // Not every file system can: the gateway works all the same.
    await chmod(folder, 0o700).catch((error: unknown) => log(`others may look into ${folder}: ${toChairError(error).message}`));
  }
}

/** Makes them; what a former process left goes, but for the slices of deployments that come back. */
export async function prepareFolders({ workDirectory, storeDirectory }: Folders, kept: ReadonlySet<string>): Promise<void> {
  await rm(workDirectory, { recursive: true, force: true });
  for (const directory of [workDirectory, storeDirectory]) await mkdir(directory, { recursive: true });
  await removeFiles(storeDirectory, kept);
}

/** Everything in the folder but what is named in `kept`. */
export async function removeFiles(directory: string, kept: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(directory)) if (!kept.has(name)) await rm(join(directory, name), { recursive: true, force: true });
}

/** Removes those of these blobs that do not hash to their names any more. Resolves with how many are damaged or not there. */
export async function removeDamaged(directory: string, blobs: readonly BlobRef[]): Promise<number> {
  let count = 0;
  for (const sha256 of new Set(blobs.map((blob) => blob.sha256))) {
    const file = join(directory, sha256);
    if ((await hashOf(file)) === sha256) continue;
    count++;
    await rm(file, { force: true });
  }
  return count;
}

/** '' when it cannot be read. */
async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(file)) hash.update(chunk);
  } catch {
    return '';
  }
  return hash.digest('hex');
}
