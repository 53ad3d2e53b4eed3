/** Whose state a folder holds: a gateway of another cluster would bring back what was deployed in this one. */
import { join } from 'node:path';
import { ChairError, isChairError } from '../broker/errors.js';
import { putAside, readSealed, writeSealed } from '../broker/sealed-file.js';

const NAME = 'cluster';

/** The cluster that the folder is of; undefined when it does not say. Throws what the file system says. */
export async function readCluster(stateDirectory: string): Promise<string | undefined> {
  try {
    return (await readSealed(join(stateDirectory, NAME)))?.trim();
  } catch (error) {
    if (isChairError(error, 'STATE_DAMAGED')) return undefined;
    throw error;
  }
}

/** Claims the folder for the cluster. Throws CLUSTER_WRONG when it is of another, GATEWAY_STORE_FULL. */
export async function claimFolder(stateDirectory: string, cluster: string): Promise<void> {
  const theirs = await readCluster(stateDirectory);
  if (theirs === cluster) return;
  if (theirs !== undefined) {
    throw new ChairError('CLUSTER_WRONG', `${stateDirectory} holds the state of another cluster`, {
      expected: `'${cluster}'`,
      came: `'${theirs}'`,
      todo: 'Each cluster has a folder of its own: --cluster or --directory is wrong.',
    });
  }
  // Damaged: the name that was given has to do.
  await putAside(join(stateDirectory, NAME));
  await writeSealed(join(stateDirectory, NAME), cluster, 'GATEWAY_STORE_FULL');
}
