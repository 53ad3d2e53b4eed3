/**
 * An agent that a supervisor keeps running, and whose token the gateway has refused: started again and again, it would show the same token for ever, and fill the
 * gateway's audit log. So it stays, says what is wrong, and tries again when somebody has put another token into the file.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError, type ErrorCode, toChairError } from '../broker/errors.js';

/** What another try with the same token does not mend. */
const FINAL = new Set<ErrorCode>([
  'TOKEN_INVALID',
  'TOKEN_REFUSED',
  'TOKEN_EXPIRED',
  'TOKEN_USED',
  'TOKEN_NAME_WRONG',
  'CA_WRONG',
  'JOIN_REFUSED',
  'IDENTITY_TAKEN',
  'CREDENTIALS_MISSING',
  'CREDENTIALS_WRONG',
  'CREDENTIALS_DAMAGED',
]);
const LOOK_MS = 10_000;

export interface RefusedTokenOptions {
  readonly tokenFile: string;
  readonly signal: AbortSignal;
  /** What is wrong, and what helps. */
  readonly say: (line: string) => void;
  readonly lookMs?: number;
}

/** What `join` gives in the end. Throws what no other token helps against; STOPPED when the signal says so. */
export async function withAnotherToken<T>(
  join: () => Promise<T>,
  { tokenFile, signal, say, lookMs = LOOK_MS }: RefusedTokenOptions,
): Promise<T> {
  for (;;) {
    const shown = await digestOf(tokenFile);
    try {
      return await join();
    } catch (thrown) {
      const error = toChairError(thrown);
      if (!FINAL.has(error.code)) throw error;
      say(`${error.code}: ${error.message} Waiting for another token in ${tokenFile}`);
    }
    while ((await digestOf(tokenFile)) === shown) {
      await delay(lookMs, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) throw new ChairError('STOPPED', 'stopped while it waited for another token');
    }
    say(`another token is in ${tokenFile}: joining with it`);
  }
}

/** '' when there is none: a file that was removed, by hand or because it was used, is waited for as well. */
async function digestOf(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => '');
  return text.trim() === '' ? '' : createHash('sha256').update(text.trim()).digest('hex');
}
