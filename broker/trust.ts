/** What transport needs to know of trust: who we are, who is revoked, and whom to tell of those that were turned away. Absent = everything is plain, and anybody may. */
import type { X509Certificate } from 'node:crypto';
import type { Credentials, Identity } from './credentials/credentials.js';
import type { CredentialSource } from './credentials/source.js';
import type { ChairError } from './errors.js';

export interface Trust {
  /** Asked for every connection: credentials are renewed while a process runs. */
  readonly source: CredentialSource;
  /** Only the gateway knows. Others need not: revoked agents disappear from the peer tables. */
  isRevoked(peer: Identity, serial: string): boolean;
  /** Somebody was revoked: who is connected is looked through again, at once. Returns the unsubscriber. */
  onRevoked(listener: () => void): () => void;
  /** Somebody was let in with this certificate. Must not throw. */
  seen?(peer: Identity, certificate: X509Certificate): void;
  /** Somebody was turned away, or tried what he may not; for the audit log. Must not throw. */
  refused?(error: ChairError, peer: Identity | undefined, address: string): void;
}

/** Of a process that hears of revocations only by their effects: agents, clients. */
export function trustOf(source: CredentialSource): Trust {
  return { source, isRevoked: () => false, onRevoked: () => () => undefined };
}

/** Who we are. */
export function ownIdentity({ source }: Trust): Identity {
  return source.current.identity;
}

export type { CredentialSource, Credentials, Identity };
