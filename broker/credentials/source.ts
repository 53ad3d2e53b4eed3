/** The seam between trust and transport: what dials or listens asks it for each new connection, since credentials are renewed while a process runs. */
import type { Credentials } from './credentials.js';

export interface CredentialSource {
  /** In force now. */
  readonly current: Credentials;
  /** The gateway's time, as far as it is known: a board without a clock has none of its own. */
  nowMs(): number;
  /** Takes the gateway's time anew, and renews what is due; for when a certificate was found to be out of its time. Never throws. */
  look(): Promise<void>;
  /** Called after `current` has changed. Returns the unsubscriber. */
  onChange(listener: () => void): () => void;
}

/** Credentials that stay as they are: for tests, and for commands that end before anything is due. */
export function fixedSource(current: Credentials, nowMs: () => number = Date.now): CredentialSource {
  return { current, nowMs, look: async () => undefined, onChange: () => () => undefined };
}
