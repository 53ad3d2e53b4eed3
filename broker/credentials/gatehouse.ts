/**
 * What a gateway with certificates has at its door: the authority, the port where machines join, and the answers to operators who invite, approve and revoke. Opened
 * before the broker, closed after it.
 */
import { hostname, networkInterfaces } from 'node:os';
import { ChairError } from '../errors.js';
import type { AuditEntryRow, MemberRow, TokenRow, TrustReport, TrustRequest } from '../messages.js';
import { type AuditEvent, type AuditRow, printable } from './audit.js';
import { Authority, type AuthorityOptions } from './authority.js';
import { ROLES, type Role } from './credentials.js';
import { EnrolmentServer } from './enrolment-server.js';
import { SESSION } from './invitations.js';

export interface GatehouseOptions extends Pick<AuthorityOptions, 'cluster' | 'directory' | 'nowMs' | 'log' | 'lifetimeMs'> {
  /** Where machines join; default `0.0.0.0`. */
  readonly host?: string;
  /** 0 = any free port. */
  readonly port: number;
  /** Where the broker is, for those who join: see enrolment-server.ts. */
  readonly broker?: () => string;
}

/** Of a long list, an answer holds so many. */
const MOST_ROWS = 5_000;
const MOST_AUDIT = 1_000;

export class Gatehouse {
  readonly authority: Authority;
  readonly #server: EnrolmentServer;

  /** Throws what `Authority.open` does, PORT_IN_USE. */
  static async open(options: GatehouseOptions): Promise<Gatehouse> {
    const { port, host, broker, ...rest } = options;
    const authority = await Authority.open({ hosts: namesOfThisMachine(), ...rest });
    const { log } = options;
    const at = { port, ...(host === undefined ? {} : { host }), ...(broker === undefined ? {} : { broker }) };
    const server = new EnrolmentServer({ authority, ...at, ...(log === undefined ? {} : { log }) });
    try {
      await server.start();
    } catch (error) {
      await authority.stop();
      throw error;
    }
    return new Gatehouse(authority, server);
  }

  private constructor(authority: Authority, server: EnrolmentServer) {
    this.authority = authority;
    this.#server = server;
  }

  /** Of the port where machines join. */
  get port(): number {
    return this.#server.port;
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    await this.#server.stop();
    await this.authority.stop();
  }

  /**
   * What an operator asked for, and who it is: that it is one, the broker has seen to. Throws AGENT_NAME_INVALID, IDENTITY_TAKEN, IDENTITY_UNKNOWN, TOKEN_REFUSED,
   * USAGE, GATEWAY_STORE_FULL.
   */
  async answer(request: TrustRequest, client: string): Promise<TrustReport> {
    const { authority } = this;
    const by = ownerOf(client);
    const { action, name, key, why, count, unknown } = request;
    const empty: TrustReport = {
      token: '',
      fingerprint: authority.fingerprint,
      enrolmentPort: this.port,
      tokens: [],
      members: [],
      audit: [],
    };
    switch (action) {
      case 'invite': {
        const { ttlMs, hold, replace } = request;
        const { text, record } = await authority.createToken({ name, role: roleOf(request.role), ttlMs, hold, replace }, by);
        return { ...empty, token: text, tokens: [this.#tokenRow(record.id)] };
      }
      case 'tokens':
        return { ...empty, tokens: authority.tokens().slice(-MOST_ROWS).map(tokenRow) };
      case 'revoke token':
        return { ...empty, tokens: [tokenRow(await authority.revokeToken(key, by))] };
      case 'members':
        return { ...empty, members: this.#members() };
      case 'approve':
        await authority.approve(name, key, by);
        return { ...empty, members: this.#members(name) };
      case 'revoke':
        await authority.revoke(name, why, by, { unknown });
        return { ...empty, members: this.#members(name) };
      case 'audit':
        return { ...empty, audit: await this.#history(count) };
      case 'audit done':
        return { ...empty, audit: await this.#history(count, 'done') };
      case 'audit refused':
        return { ...empty, audit: await this.#history(count, 'refused') };
      default:
        throw new ChairError('USAGE', 'a gateway cannot be asked for this', { came: JSON.stringify(action.slice(0, 50)) });
    }
  }

  /** What an operator decided about deployments and agents, for the audit log. */
  decided(event: Decision, about: string, client: string, detail: string): void {
    this.authority.note({ event, by: ownerOf(client), about, detail });
  }

  #members(name = ''): MemberRow[] {
    return this.authority
      .members()
      .filter((member) => name === '' || member.name === name)
      .slice(0, MOST_ROWS)
      .map((member) => ({ ...member, why: printable(member.why) }));
  }

  async #history(count: number, only?: 'done' | 'refused'): Promise<AuditEntryRow[]> {
    return (await this.authority.audit.read(Math.min(MOST_AUDIT, Math.max(1, count)), only)).map(auditRow);
  }

  #tokenRow(id: string): TokenRow {
    const record = this.authority.tokens().find((known) => known.id === id);
    if (record === undefined) throw new ChairError('INTERNAL', 'a token that was made is not there');
    return tokenRow(record);
  }
}

/** What operators decide besides who may be here. */
export type Decision = Extract<
  AuditEvent,
  'deployed' | 'undeployed' | 'adjusted' | 'drained' | 'drain undone' | 'update ordered' | 'updated' | 'update failed'
>;

/** Of a client's name: `alice-1a2b3c4d` is one of alice's. */
function ownerOf(client: string): string {
  return client.replace(SESSION, '');
}

function tokenRow(record: ReturnType<Authority['tokens']>[number]): TokenRow {
  const { id, role, name, state, createdMs, expiresMs, sinceMs, hold, failures, key } = record;
  return { id, role, name, state, createdMs, expiresMs, sinceMs, hold, failures, key };
}

/** Much of it was said by strangers. */
function auditRow({ at, event, by = '', about = '', from = '', code = '', detail = '', unsaid = 0 }: AuditRow): AuditEntryRow {
  const [who, whom, where, what] = [by, about, from, detail].map((text) => printable(text));
  return { at, event, by: who ?? '', about: whom ?? '', from: where ?? '', code, detail: what ?? '', unsaid };
}

function roleOf(text: string): Role {
  const role = ROLES.find((known) => known === text);
  if (role !== undefined) return role;
  throw new ChairError('USAGE', 'there is no such role', {
    expected: 'agent, operator or viewer',
    came: JSON.stringify(text.slice(0, 50)),
  });
}

/** For the gateway's certificate: nothing of ours looks at them, but other programs do. */
function namesOfThisMachine(): string[] {
  const own = hostname()
    .replaceAll(/[^A-Za-z0-9.-]/g, '-')
    .slice(0, 200);
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const usable = addresses.filter(({ internal, scopeid }) => !internal && (scopeid ?? 0) === 0).map(({ address }) => address);
  return [...(own === '' ? [] : [own, ...(own.includes('.') ? [] : [`${own}.local`])]), 'localhost', '127.0.0.1', ...usable.slice(0, 16)];
}
