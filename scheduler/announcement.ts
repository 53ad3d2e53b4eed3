/** What a gateway announces of its broker on the local network, be it its own or one outside. */
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { hostname } from 'node:os';
import { Announcer } from '../broker/discovery/announcer.js';
import { ipv4Interfaces } from '../broker/discovery/interfaces.js';

type Where = { readonly host: string; readonly port: number; readonly encrypted?: boolean } | { readonly url: string };

export interface AnnouncementOptions {
  readonly cluster: string;
  readonly softwareVersion: string;
  /** Where our own broker listens, or the URL of one outside. */
  readonly where: Where;
  /** Where machines join, if they have to. */
  readonly enrolmentPort?: number;
  readonly log?: (line: string) => void;
}

const MQTT_PORT = 1883;
const REACH_MS = 1_000;

/** Not started yet. undefined when the broker is not for everybody, which is logged. */
export async function announcerOf({
  cluster,
  softwareVersion,
  where,
  enrolmentPort,
  log,
}: AnnouncementOptions): Promise<Announcer | undefined> {
  const broker = await announced(where);
  if (broker === undefined) {
    log?.("not announced on the network: the broker's URL holds a password. Agents and commands need --broker");
    return undefined;
  }
  const { host, ...at } = broker;
  const notice = {
    id: randomBytes(6).toString('hex'),
    cluster,
    host: hostname(),
    softwareVersion,
    ...at,
    ...(enrolmentPort === undefined ? {} : { enrolmentPort }),
  };
  return new Announcer({ notice, host, ...(log === undefined ? {} : { log }) });
}

/**
 * Where the broker is, to those who join, who may hear nothing of us on the network: `:PORT` = on this machine, by whatever address they reach it; '' = nothing that is
 * for everybody.
 */
export function saidToJoiners(broker: { readonly url: string } | { readonly port: number }): string {
  if ('port' in broker) return broker.port === 0 ? '' : `:${broker.port}`;
  const { protocol, hostname, port, username, password } = new URL(broker.url);
  if (protocol !== 'mqtts:' || username !== '' || password !== '') return '';
  return `${LOOPBACK.test(hostname) ? '' : `mqtts://${hostname}`}:${port || SECURE_MQTT_PORT}`;
}

const SECURE_MQTT_PORT = 8883;
const LOOPBACK = /^(localhost|127\..*|\[::1\])$/;

/**
 * On which of our addresses the broker is announced, and as what; undefined when it is not for everybody. A broker on this machine is announced with this machine's addresses when it answers there: `127.0.0.1` means another machine to everybody else. One that listens
 * on loopback only is announced there. Any other is announced as the URL that it was given to us by.
 */
export async function announced(
  where: Where,
): Promise<{ readonly host: string; readonly port: number; readonly encrypted?: boolean; readonly brokerUrl?: string } | undefined> {
  if (!('url' in where)) return where;
  const url = new URL(where.url);
  if (url.username !== '' || url.password !== '') return undefined;
  const brokerUrl = `${url.protocol}//${url.host}`;
  if (!LOOPBACK.test(url.hostname)) return { host: '0.0.0.0', port: 0, brokerUrl };
  const port = Number(url.port) || MQTT_PORT;
  const outside = ipv4Interfaces().find(({ internal }) => !internal)?.address;
  if (url.protocol === 'mqtt:' && outside !== undefined && (await answers(outside, port))) return { host: '0.0.0.0', port };
  return { host: '127.0.0.1', port: 0, brokerUrl };
}

async function answers(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port, timeout: REACH_MS });
  const up = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true));
    for (const end of ['error', 'timeout'] as const) socket.once(end, () => resolve(false));
  });
  socket.destroy();
  return up;
}
