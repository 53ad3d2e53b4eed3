/** An agent's credentials: those in its folder, or those that a token brings at the first start. */
import { readFile, rm } from 'node:fs/promises';
import { type Credentials, identityText, readCredentials } from '../broker/credentials/credentials.js';
import { alreadyEnrolled, enrolPatiently, readRecord } from '../broker/credentials/enrolment.js';
import { ENROLMENT_PORT, type EnrolmentAddress } from '../broker/credentials/enrolment-client.js';
import { GatewayClock } from '../broker/credentials/gateway-clock.js';
import { CredentialKeeper } from '../broker/credentials/keeper.js';
import { parseToken } from '../broker/credentials/token-text.js';
import { seekEnrolment } from '../broker/discovery/finder.js';
import { ChairError, isChairError, toChairError } from '../broker/errors.js';

export interface CredentialOptions {
  readonly cluster: string;
  readonly name: string;
  /** Folder of the credentials. */
  readonly directory: string;
  /** Text of a token, or '' = none. */
  readonly token: string;
  /** File that holds one, or '' = none; removed when the agent has joined. It need not be there. */
  readonly tokenFile: string;
  /** Where to join and renew; undefined: where the broker is, and where it was joined before. */
  readonly gateway: EnrolmentAddress | undefined;
  /** URL of the broker; undefined: looked for on the local network. */
  readonly brokerUrl: string | undefined;
  readonly signal: AbortSignal;
  readonly log: (line: string) => void;
}

/**
 * Joins when a token was given that was not used for these credentials yet, however long the gateway is away; then keeps the credentials good. Throws
 * CREDENTIALS_MISSING (neither a token nor credentials), CREDENTIALS_WRONG (for another name), CREDENTIALS_DAMAGED, TOKEN_..., CA_WRONG, STOPPED.
 */
export async function openCredentials(options: CredentialOptions): Promise<CredentialKeeper> {
  const { directory, tokenFile, cluster, name, log } = options;
  const clock = new GatewayClock();
  const token = options.token !== '' ? options.token : await tokenIn(tokenFile);
  const credentials = token === '' ? await keptCredentials(directory, tokenFile) : await joined(options, token, clock);
  const { identity } = credentials;
  if (identity.role !== 'agent' || identity.cluster !== cluster || identity.name !== name) {
    throw new ChairError('CREDENTIALS_WRONG', `the credentials in ${directory} are not those of this agent`, {
      expected: `agent ${name} of cluster '${cluster}'`,
      came: `${identityText(identity)} of cluster '${identity.cluster}'`,
      todo: 'Start it under the name that its token was made for (--name, --cluster), or make a token for this one.',
    });
  }
  // Only now: until the credentials can be read, the token is what the next start needs.
  if (tokenFile !== '')
    await rm(tokenFile, { force: true }).catch((error: unknown) => log(`the token stays in ${tokenFile}: ${toChairError(error).message}`));
  const keeper = new CredentialKeeper({ directory, credentials, clock, log, gateways: () => gatewaysOf(options) });
  keeper.start();
  return keeper;
}

async function joined(options: CredentialOptions, token: string, clock: GatewayClock): Promise<Credentials> {
  const { directory, name, cluster, log, signal } = options;
  const asked = parseToken(token);
  // Before it is used up.
  if (asked.cluster !== cluster) {
    throw new ChairError('CREDENTIALS_WRONG', 'the token is of another cluster', {
      expected: `'${cluster}'`,
      came: `'${asked.cluster}'`,
      todo: 'Give the cluster of the token with --cluster.',
    });
  }
  const known = await alreadyEnrolled(directory, token);
  if (known !== undefined) return known;
  try {
    const isGuess = options.gateway === undefined && options.brokerUrl === undefined;
    const made = await enrolPatiently({ directory, token, name, role: 'agent', clock, signal, log, isGuess, find: () => find(options) });
    log(`joined cluster '${made.identity.cluster}' as ${identityText(made.identity)}`);
    return made;
  } catch (error) {
    // A token that is over must not keep out an agent that is in: it is tried with what it has.
    const former = await readCredentials(directory).catch(() => undefined);
    if (former === undefined || isChairError(error, 'STOPPED')) throw error;
    log(`${toChairError(error).code}: ${toChairError(error).message} Going on with the credentials of before`);
    return former;
  }
}

/** What it has joined with before. A token file is removed once it was used: without credentials, a file that is not there is what is missing. */
async function keptCredentials(directory: string, tokenFile: string): Promise<Credentials> {
  try {
    return await readCredentials(directory);
  } catch (error) {
    if (tokenFile === '' || !isChairError(error, 'CREDENTIALS_MISSING')) throw error;
    throw new ChairError('CREDENTIALS_MISSING', `there is no token in ${tokenFile}, and no certificate in ${directory}`, {
      expected: 'one of them',
      came: 'neither: a token that somebody has joined with is used up, and its file removed',
      todo: 'On the gateway: `token create --name NAME`; put what it prints into that file, or give it with --token.',
      cause: error,
    });
  }
}

async function tokenIn(file: string): Promise<string> {
  if (file === '') return '';
  try {
    return (await readFile(file, 'utf8')).trim();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
    throw new ChairError('CONFIG_INVALID', `the token in ${file} cannot be read: ${toChairError(error).message}`, { cause: error });
  }
}

/** Where to join: as told, beside the broker, or all that is heard of on the network. Throws GATEWAY_NOT_FOUND, which passes. */
async function find({ gateway, brokerUrl, cluster, signal }: CredentialOptions): Promise<EnrolmentAddress[]> {
  if (gateway !== undefined) return [gateway];
  return brokerUrl === undefined ? seekEnrolment({ cluster, signal }) : [besideBroker(brokerUrl)];
}

/** Where to renew: as told, where it has joined, beside the broker; and when none of these is there, where the gateway has moved to. */
async function* gatewaysOf({ gateway, brokerUrl, directory, cluster, signal }: CredentialOptions): AsyncGenerator<EnrolmentAddress> {
  if (gateway !== undefined) yield gateway;
  const record = await readRecord(directory);
  if (record !== undefined) yield record.gateway;
  if (brokerUrl !== undefined) yield besideBroker(brokerUrl);
  if (gateway === undefined && brokerUrl === undefined) yield* await seekEnrolment({ cluster, signal });
}

function besideBroker(url: string): EnrolmentAddress {
  return { host: new URL(url).hostname.replace(/^\[|\]$/g, ''), port: ENROLMENT_PORT };
}
