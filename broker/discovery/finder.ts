/** Finds gateways on the local network: asks by multicast DNS, and listens for one that comes up meanwhile. */
import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError, toChairError } from '../errors.js';
import { Repetition } from '../repetition.js';
import type { DnsQuestion } from './dns-message.js';
import { type FoundGateway, HeardRecords } from './gateway-notice.js';
import { ipv4Interfaces, type NetworkInterface } from './interfaces.js';
import { type Heard, MDNS_PORT, MulticastSocket } from './multicast-socket.js';
import { type GatewayProof, Proofs } from './proofs.js';

export interface FindOptions {
  /** Longest time to look. */
  readonly waitMs: number;
  /** Once this holds, only `settleMs` more are waited: another gateway may answer, too. */
  readonly enough?: (found: readonly FoundGateway[]) => boolean;
  /** Default 300 ms: answers come after at most 120 ms, multicast in power-saving Wi-Fi up to 200 ms later. */
  readonly settleMs?: number;
  /** Ask again at these times after the first question; default 1 s, 3 s. */
  readonly askAgainMs?: readonly number[];
  readonly signal?: AbortSignal;
  /** Ends the search with what was found so far. */
  readonly done?: AbortSignal;
  readonly interfaces?: () => readonly NetworkInterface[];
  /** Default 5353. */
  readonly groupPort?: number;
}

export interface Findings {
  readonly gateways: readonly FoundGateway[];
  /** Names of the interfaces that were asked on. */
  readonly interfaces: readonly string[];
}

/** At first missing records are asked for after this. */
const FOLLOW_UP_MS = 150;
const SETTLE_MS = 300;
const ASK_AGAIN_MS = [1_000, 3_000];

/** Looks for gateways of any cluster. Throws DISCOVERY_UNAVAILABLE when no socket can be had; STOPPED when the signal says so. */
export async function findGateways(options: FindOptions): Promise<Findings> {
  const { waitMs, enough = () => false, settleMs = SETTLE_MS, signal, done, interfaces = ipv4Interfaces, groupPort = MDNS_PORT } = options;
  const heard = new HeardRecords();
  const ended = new AbortController();
  const end = () => ended.abort();
  let settling: NodeJS.Timeout | undefined;
  const id = randomInt(1, 0x10000);
  const onHeard = ({ message, address }: Heard): void => {
    heard.add(message, address);
    if (enough(heard.gateways())) settling ??= setTimeout(end, settleMs);
  };
  const asking = new MulticastSocket({
    interfaces,
    groupPort,
    bind: 'own',
    // What does not carry our number is no answer to us.
    onHeard: (answer) => answer.message.id === id && onHeard(answer),
  });
  const listening = new MulticastSocket({ interfaces, groupPort, bind: 'group', onHeard });
  const ask = async (questions: readonly DnsQuestion[]): Promise<void> => {
    asking.refresh();
    const query = { id, response: false, questions, answers: [], additionals: [] };
    for (const from of asking.interfaces) await asking.multicast(query, from);
  };
  const timers: NodeJS.Timeout[] = [setTimeout(end, waitMs)];
  for (const one of [signal, done]) one?.addEventListener('abort', end, { once: true });
  try {
    signal?.throwIfAborted();
    await asking.open();
    // Asking works without: a firewall, or a program that has the port for itself.
    await listening.open().catch(() => undefined);
    await ask(heard.questions());
    timers.push(setTimeout(() => heard.questions().length > 1 && void ask(heard.questions()), FOLLOW_UP_MS));
    for (const ms of options.askAgainMs ?? ASK_AGAIN_MS) timers.push(setTimeout(() => void ask(heard.questions()), ms));
    if (!ended.signal.aborted)
      await new Promise<void>((resolve) => ended.signal.addEventListener('abort', () => resolve(), { once: true }));
    if (signal?.aborted === true) throw new ChairError('STOPPED', 'the search for a gateway was given up');
    return { gateways: heard.gateways(), interfaces: asking.interfaces.map(({ name }) => name) };
  } finally {
    for (const timer of timers) clearTimeout(timer);
    clearTimeout(settling);
    for (const one of [signal, done]) one?.removeEventListener('abort', end);
    asking.close();
    listening.close();
  }
}

/** What to give where nobody is heard: to an agent that is to join, one that talks without certificates, and one that has them. */
const ADDRESS_FLAGS = { join: '--gateway HOST:8884', plain: '--broker mqtt://HOST:1883', secure: '--broker mqtts://HOST:8883' } as const;

/** The one broker of a cluster. Throws GATEWAY_NOT_FOUND, GATEWAY_AMBIGUOUS. */
export function chooseBroker({ gateways, interfaces }: Findings, cluster: string, want: keyof typeof ADDRESS_FLAGS = 'plain'): string {
  const ours = gateways.filter((gateway) => gateway.cluster === cluster);
  const urls = [...new Set(ours.map(({ url }) => url))];
  const [url] = urls;
  if (url === undefined) {
    const others = gateways.map((gateway) => `'${gateway.cluster}' at ${gateway.url}`).join(', ');
    const where = interfaces.length === 0 ? 'there is no network' : `looked on ${[...new Set(interfaces)].join(', ')}`;
    throw new ChairError('GATEWAY_NOT_FOUND', `no gateway of cluster '${cluster}' was found on the local network (${where})`, {
      ...(others === '' ? {} : { came: `gateways of ${others}` }),
      todo: `Start one with gateway, or give its address with ${ADDRESS_FLAGS[want]}: multicast does not cross routers, some Wi-Fi drops it, and a hidden gateway does not answer.`,
    });
  }
  if (urls.length > 1) {
    throw new ChairError('GATEWAY_AMBIGUOUS', `several gateways say that they serve cluster '${cluster}'`, {
      expected: 'one',
      came: ours.map((gateway) => `${gateway.url} (${gateway.name})`).join(', '),
      todo: 'Choose with --broker, or give each gateway another --cluster.',
    });
  }
  return url;
}

export interface SeekOptions extends Pick<FindOptions, 'interfaces' | 'groupPort' | 'signal'> {
  readonly cluster: string;
  /** Default 3,000 ms. */
  readonly waitMs?: number;
}

export interface SeekBrokerOptions extends SeekOptions {
  /** Anybody can say that he is the gateway: with this only one counts that proves it. Default: all do, and several are ambiguous. */
  readonly proof?: GatewayProof;
  /** URLs where it may be, heard or not; only with `proof`. */
  readonly known?: readonly string[];
  /** Somebody said that he is the gateway, and is not. */
  readonly onFalse?: (url: string, error: Error) => void;
}

const SEEK_MS = 3_000;

/**
 * Looks for the gateway of a cluster, once. Throws GATEWAY_NOT_FOUND, GATEWAY_AMBIGUOUS (several that nothing tells apart; with `proof`: several that have proven it),
 * DISCOVERY_UNAVAILABLE, STOPPED.
 */
export async function seekBroker({ proof, known = [], onFalse = () => undefined, ...options }: SeekBrokerOptions): Promise<string> {
  if (proof !== undefined) return seekProven({ proof, known, onFalse }, options);
  const { cluster, waitMs = SEEK_MS, ...find } = options;
  const enough = (found: readonly FoundGateway[]): boolean => found.some((gateway) => gateway.cluster === cluster);
  return chooseBroker(await findGateways({ ...find, waitMs, enough }), cluster);
}

/** Whoever announces himself is tried while the search goes on: however many lie, and however loud, the one that has proven itself ends it. */
async function seekProven(
  { proof, known, onFalse }: Required<Pick<SeekBrokerOptions, 'proof' | 'known' | 'onFalse'>>,
  { cluster, waitMs = SEEK_MS, ...options }: SeekOptions,
): Promise<string> {
  const found = new AbortController();
  let settling: NodeJS.Timeout | undefined;
  const proofs = new Proofs(proof, () => {
    // There may be another one, of the same CA: a folder that was restored on a second machine.
    settling ??= setTimeout(() => found.abort(), SETTLE_MS);
  });
  const enough = (heard: readonly FoundGateway[]): boolean => {
    for (const gateway of heard)
      if (gateway.cluster === cluster) proofs.consider([gateway.url, ...(gateway.also ?? []).map(({ url }) => url)]);
    return false;
  };
  try {
    proofs.consider(known);
    let deaf: unknown;
    const findings = await findGateways({ ...options, waitMs, enough, done: found.signal }).catch((error: unknown): Findings => {
      if (known.length === 0 || options.signal?.aborted === true) throw error;
      deaf = error;
      return { gateways: [], interfaces: [] };
    });
    // Heard at last, and not tried to the end yet.
    if (proofs.proven.size === 0) await proofs.settled();
    const refuted = new Map([...proofs.refuted].filter(([url]) => !known.includes(url)));
    for (const [url, error] of refuted) onFalse(url, error);
    if (proofs.proven.size === 0) throw deaf ?? notProven(findings, cluster, refuted);
    const gateways = [...proofs.proven].map(([serial, url]) => ({ name: `certificate ${serial}`, cluster, url, softwareVersion: '' }));
    return chooseBroker({ ...findings, gateways }, cluster);
  } finally {
    clearTimeout(settling);
    proofs.stop();
  }
}

function notProven(findings: Findings, cluster: string, refuted: ReadonlyMap<string, Error>): ChairError {
  if (refuted.size === 0) {
    try {
      chooseBroker({ ...findings, gateways: findings.gateways.filter((gateway) => gateway.cluster !== cluster) }, cluster, 'secure');
    } catch (error) {
      return toChairError(error);
    }
  }
  const came = [...refuted].map(([url, error]) => `${url} (${error.message})`);
  return new ChairError(
    'GATEWAY_NOT_FOUND',
    `nobody who says on the local network that he is the gateway of cluster '${cluster}' has its certificate`,
    {
      expected: 'one with a certificate of the CA that our own is of',
      came: came.length > MOST_SHOWN ? `${came.slice(0, MOST_SHOWN).join(', ')} and ${came.length - MOST_SHOWN} more` : came.join(', '),
      todo: 'Does the gateway run? Give its address with --broker if somebody on this network pretends to be it.',
    },
  );
}

const MOST_SHOWN = 5;

/**
 * Where machines of a cluster may join: all gateways that say so, as anybody can say it, and the token tells which it is. Throws GATEWAY_NOT_FOUND, DISCOVERY_UNAVAILABLE,
 * STOPPED.
 */
export async function seekEnrolment({ cluster, waitMs = SEEK_MS, ...options }: SeekOptions): Promise<{ host: string; port: number }[]> {
  const { gateways, interfaces } = await findGateways({ ...options, waitMs });
  const ours = gateways.filter((gateway) => gateway.cluster === cluster);
  const places = ours.flatMap((gateway) => [gateway, ...(gateway.also ?? [])]);
  const found = places.flatMap(({ enrolment }) => (enrolment === undefined ? [] : [enrolment]));
  if (found.length > 0) return found;
  // Says which there are instead.
  const url = chooseBroker({ gateways, interfaces }, cluster, 'join');
  throw new ChairError('GATEWAY_NOT_FOUND', `the gateway of cluster '${cluster}' at ${url} lets nobody join`, {
    expected: 'one with certificates',
    todo: 'Does it run with --insecure?',
  });
}

export interface TrackOptions extends SeekBrokerOptions {
  /** Lines for people. */
  readonly log?: (line: string) => void;
  /** Longest wait before the address of a gateway that came up is given: many agents hear it in the same millisecond. Default 0. */
  readonly spreadMs?: number;
  readonly random?: () => number;
}

/** First and later: a gateway that comes up is heard at once, so few questions are asked meanwhile. */
const TRACK_MS = { first: 5_000, later: 15_000 };

/**
 * For a process that stays: where the broker is, asked before each attempt to connect. Where it was last is tried first; when that fails, the network is asked
 * again, so a gateway that came back with another address is found. Rejects as `seekBroker` does; then ask again.
 */
export function trackBroker(options: TrackOptions): (signal: AbortSignal) => Promise<string> {
  const { log = () => undefined, spreadMs = 0, random = Math.random, ...seek } = options;
  const liars = new Repetition(log);
  const onFalse = (url: string, error: Error): void =>
    liars.say('', `passed over ${url}, which says that it is the gateway of cluster '${seek.cluster}': ${error.message}`);
  let last: string | undefined;
  let tryLast = false;
  let failures = 0;
  let said = '';
  return async (signal) => {
    if (last !== undefined && tryLast) {
      tryLast = false;
      return last;
    }
    tryLast = true;
    try {
      const waitMs = failures === 0 ? TRACK_MS.first : TRACK_MS.later;
      const url = await seekBroker({ onFalse, waitMs, ...seek, signal });
      await delay(random() * spreadMs, undefined, { signal });
      if (url !== last) log(`found the gateway of cluster '${seek.cluster}' at ${url}`);
      last = url;
      tryLast = false;
      failures = 0;
      said = '';
      return url;
    } catch (error) {
      failures++;
      const line = error instanceof ChairError ? `${error.code}: ${error.message}` : String(error);
      if (line !== said && !signal.aborted) log(`${line} Looking on`);
      said = line;
      throw error;
    }
  };
}
