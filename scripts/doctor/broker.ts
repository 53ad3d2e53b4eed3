/** Seen from a device: whether the gateway's broker can be reached, is the gateway's, and lets this agent in. */
import { connect, type Socket } from 'node:net';
import { readCredentials } from '../../broker/credentials/credentials.js';
import { fixedSource } from '../../broker/credentials/source.js';
import { isChairError, toChairError } from '../../broker/errors.js';
import { dialTls } from '../../broker/tls.js';
import { trustOf } from '../../broker/trust.js';
import { bad, type Finding, ok } from './findings.js';
import { thrownAt } from './machine.js';

const REACH_MS = 5000;
/** Whoever is turned away hears it at once; who is let in hears nothing before it has spoken. */
const VERDICT_MS = 700;

export interface BrokerCheck {
  readonly area: string;
  /** `mqtts://gateway:8883`; `mqtt:` is looked at without certificates. */
  readonly url: string;
  /** With the agent's ca.pem, cert.pem and key.pem. */
  readonly directory: string;
  /** By the gateway's clock where it is known. */
  readonly nowMs: () => number;
  readonly withinMs?: number;
}

/** No finding where there are no credentials yet: that is said elsewhere. */
export async function lookAtBroker({ area, url, directory, nowMs, withinMs = REACH_MS }: BrokerCheck): Promise<Finding[]> {
  const { protocol, hostname, port } = new URL(url);
  const isPlain = protocol === 'mqtt:';
  const at = { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || (isPlain ? 1883 : 8883)) };
  const where = `${protocol}//${hostname}:${at.port}`;
  try {
    if (isPlain) {
      await reached(at, withinMs);
      return [ok(area, 'broker', `${where} answers`)];
    }
    const trust = trustOf(fixedSource(await readCredentials(directory), nowMs));
    const { socket, peer } = dialTls({ ...at, trust, accepts: ({ role }) => (role === 'gateway' ? '' : `its certificate is of ${role}`) });
    try {
      await within(withinMs, peer);
      if (await hears(socket)) {
        const todo = 'On the gateway: audit says why. After agents revoke only a new token lets it in again: token create.';
        return [bad(area, 'broker', `${where} turns this agent away: its certificate is not good any more`, todo)];
      }
      return [ok(area, 'broker', `${where} answers, with the gateway's certificate, and lets this agent in`)];
    } finally {
      socket.destroy();
    }
  } catch (error) {
    if (isChairError(error, 'CREDENTIALS_MISSING')) return [];
    if (isChairError(error)) return [thrownAt(area, 'broker', error)];
    const todo = 'Is the gateway up, is this its address, and is that port open to this machine?';
    return [bad(area, 'broker', `${where} cannot be reached: ${toChairError(error).message}`, todo)];
  }
}

async function reached(at: { readonly host: string; readonly port: number }, withinMs: number): Promise<void> {
  const socket = connect(at);
  try {
    await within(
      withinMs,
      new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve);
        socket.on('error', reject);
      }),
    );
  } finally {
    socket.destroy();
  }
}

/** The other end says something, or hangs up. */
function hears(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), VERDICT_MS);
    const heard = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    socket.once('data', heard);
    socket.once('close', heard);
  });
}

/** What comes later is nobody's. */
async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
