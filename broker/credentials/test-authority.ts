/** For tests: an authority in a folder of its own, with a clock that can be set, and machines that join it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Authority, type AuthorityOptions } from './authority.js';
import { keyFingerprint, makeKey, makeRequest, publicKeyOf } from './certificates.js';
import type { Credentials, Role } from './credentials.js';
import { enrol } from './enrolment.js';
import { EnrolmentServer, type EnrolmentServerOptions } from './enrolment-server.js';
import { GatewayClock } from './gateway-clock.js';

export const NOON = Date.UTC(2026, 10, 21, 12);
export const DAY = 86_400_000;

/** A clock that stands where it is put. */
export class HandClock {
  constructor(public nowMs = NOON) {}
  readonly read = (): number => this.nowMs;
}

export interface TestAuthority {
  readonly authority: Authority;
  readonly directory: string;
  readonly clock: HandClock;
  readonly log: string[];
  /** Opens what is on the disk anew, as after a crash: nothing is closed or written before. */
  reopen(options?: Partial<AuthorityOptions>): Promise<Authority>;
  stop(): Promise<void>;
}

export async function testAuthority(options: Partial<AuthorityOptions> = {}): Promise<TestAuthority> {
  const directory = await mkdtemp(join(tmpdir(), 'mc-trust-'));
  const clock = new HandClock();
  const log: string[] = [];
  const open = (more: Partial<AuthorityOptions> = {}): Promise<Authority> =>
    Authority.open({
      directory: join(directory, 'credentials'),
      cluster: 'home',
      nowMs: clock.read,
      log: (line) => log.push(line),
      ...options,
      ...more,
    });
  const opened: Authority[] = [await open()];
  const [authority] = opened;
  if (authority === undefined) throw new Error('not opened');
  return {
    authority,
    directory,
    clock,
    log,
    reopen: async (more) => {
      const again = await open(more);
      opened.push(again);
      return again;
    },
    stop: async () => {
      await Promise.all(opened.map((one) => one.stop()));
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A machine's key, and its request. */
export async function machine(): Promise<{ readonly key: string; readonly csr: string; readonly fingerprint: string }> {
  const key = await makeKey();
  return { key, csr: await makeRequest(key), fingerprint: keyFingerprint(publicKeyOf(key)) };
}

export async function invite(
  authority: Authority,
  name: string,
  more: { role?: Role; ttlMs?: number; hold?: boolean; replace?: boolean } = {},
): Promise<string> {
  const { text } = await authority.createToken({ name, role: 'agent', ttlMs: 3_600_000, ...more }, 'test');
  return text;
}

export async function serve(authority: Authority, options: Partial<EnrolmentServerOptions> = {}): Promise<EnrolmentServer> {
  const server = new EnrolmentServer({ authority, host: '127.0.0.1', port: 0, ...options });
  await server.start();
  return server;
}

/** Joins over the network, as a machine does. */
export function joinAt(
  server: EnrolmentServer,
  directory: string,
  token: string,
  more: { name?: string; role?: Role; clock?: GatewayClock } = {},
): Promise<Credentials> {
  const { clock = new GatewayClock(), ...who } = more;
  return enrol({ directory, token, gateway: { host: '127.0.0.1', port: server.port }, clock, ...who });
}
