/** Whose state a folder holds: a gateway of another cluster would bring back what was deployed in this one. */
import { readdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { ChairError, isChairError } from '../broker/errors.js';
import { putAside, readSealed, writeSealed } from '../broker/sealed-file.js';

const NAME = 'cluster';
/** Beside the state folder, with its name before it: what a restore is writing, and what stood there before. */
export const RESTORING = '.restoring-';
export const BEFORE = '.before-';

/** The cluster that the folder is of; undefined when it does not say. Throws what the file system says. */
export async function readCluster(stateDirectory: string): Promise<string | undefined> {
  try {
    return (await readSealed(join(stateDirectory, NAME)))?.trim();
  } catch (error) {
    if (isChairError(error, 'STATE_DAMAGED')) return undefined;
    throw error;
  }
}

/**
 * Claims the folder for the cluster. Throws CLUSTER_WRONG when it is of another, STATE_DAMAGED when it is new and a restore beside it was cut off (starting would make
 * other keys), GATEWAY_STORE_FULL.
 */
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
  await refuseCutOff(stateDirectory);
  // Damaged: the name that was given has to do.
  await putAside(join(stateDirectory, NAME));
  await writeSealed(join(stateDirectory, NAME), cluster, 'GATEWAY_STORE_FULL');
}

/** A restore that is killed between its last two steps leaves no state folder: a gateway must not begin anew in its place. */
async function refuseCutOff(stateDirectory: string): Promise<void> {
  const folder = resolve(stateDirectory);
  const isNew = (await readdir(folder)).every((name) => name.startsWith('lock'));
  if (!isNew) return;
  const others = await readdir(dirname(folder)).catch(() => []);
  const cutOff = others.find((name) => name.startsWith(`${basename(folder)}${RESTORING}`));
  if (cutOff === undefined) return;
  throw new ChairError('STATE_DAMAGED', `a restore of ${folder} was cut off`, {
    expected: 'the state that was restored',
    came: `an empty folder, and ${cutOff} beside it`,
    todo: 'Restore the backup again (gateway restore): else this gateway would begin anew, with other keys.',
  });
}
