/** With which credentials a command speaks to the cluster. */
import { homedir } from 'node:os';
import path from 'node:path';
import { type Credentials, readCredentials } from '../broker/credentials/credentials.js';
import { readRecord } from '../broker/credentials/enrolment.js';
import { GatewayClock } from '../broker/credentials/gateway-clock.js';
import { CredentialKeeper } from '../broker/credentials/keeper.js';
import { ChairError, isChairError } from '../broker/errors.js';
import { isSecure, type Settings } from './config.js';
import { gatewayDirectory } from './state-folder.js';

/** A command does not wait longer than this for a renewal: there are ten days for it. */
const RENEW_MS = 5_000;

/** Where the credentials of the people on this machine are. */
export function ownDirectory(cluster: string): string {
  const base = process.env.XDG_CONFIG_HOME ?? path.join(homedir(), '.config');
  return path.join(base, 'musical-chair', cluster);
}

/** Folders that are looked into, in this order. */
export function credentialDirectories(settings: Settings): string[] {
  if (settings.credentials !== '') return [settings.credentials];
  return [ownDirectory(settings.cluster), path.join(gatewayDirectory(settings), 'credentials', 'operator')];
}

/**
 * Of a command that talks to the cluster; undefined when everything is plain. Throws CREDENTIALS_MISSING, CREDENTIALS_DAMAGED,
 * CREDENTIALS_WRONG (another cluster's).
 */
export async function commandCredentials(settings: Settings): Promise<CredentialKeeper | undefined> {
  if (!isSecure(settings)) return undefined;
  const { directory, credentials } = await firstOf(credentialDirectories(settings));
  const { cluster } = credentials.identity;
  if (cluster !== settings.cluster) {
    throw new ChairError('CREDENTIALS_WRONG', `the credentials in ${directory} are of another cluster`, {
      expected: `'${settings.cluster}'`,
      came: `'${cluster}'`,
      todo: 'Say which cluster is meant with --cluster, or which credentials with --credentials.',
    });
  }
  const record = await readRecord(directory);
  const gateways = () => (record === undefined ? [] : [record.gateway]);
  const keeper = new CredentialKeeper({ directory, credentials, clock: new GatewayClock(), gateways, limits: { deadlineMs: RENEW_MS } });
  // Those of the gateway on this machine are renewed by itself.
  if (record !== undefined && keeper.isDue()) await keeper.look();
  return keeper;
}

async function firstOf(directories: readonly string[]): Promise<{ readonly directory: string; readonly credentials: Credentials }> {
  for (const directory of directories) {
    try {
      return { directory, credentials: await readCredentials(directory) };
    } catch (error) {
      if (!isChairError(error, 'CREDENTIALS_MISSING')) throw error;
    }
  }
  throw new ChairError('CREDENTIALS_MISSING', 'this user has no certificate of the cluster', {
    expected: `ca.pem, cert.pem and key.pem in ${directories.join(' or ')}`,
    todo: 'On the machine that is to be the gateway, start it first: `musical-chair gateway`. On another one: `token create --name YOU --role operator` there, `enrol --gateway HOST --token TOKEN` here. For a gateway that runs with --insecure, say so here, too.',
  });
}
