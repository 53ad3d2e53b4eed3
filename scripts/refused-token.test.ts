import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ChairError, type ErrorCode } from '../broker/errors.js';
import { withAnotherToken } from './refused-token.js';

async function waiting(codes: readonly (ErrorCode | '')[]) {
  const folder = await mkdtemp(path.join(tmpdir(), 'mc-token-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const tokenFile = path.join(folder, 'token');
  await writeFile(tokenFile, 'first\n');
  const stop = new AbortController();
  const said: string[] = [];
  let tries = 0;
  const join = async (): Promise<string> => {
    const code = codes[tries++] ?? '';
    if (code !== '') throw new ChairError(code, 'no');
    return 'joined';
  };
  const joining = withAnotherToken(join, { tokenFile, signal: stop.signal, say: (line) => said.push(line), lookMs: 5 });
  return { joining, tokenFile, stop, said, tries: () => tries };
}

describe('an agent whose token was refused', () => {
  it('shows it once, says why, and joins with the next one', async () => {
    const { joining, tokenFile, said, tries } = await waiting(['TOKEN_EXPIRED', 'TOKEN_USED']);
    await vi.waitFor(() => expect(said).toHaveLength(1), { timeout: 10_000 });
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(tries()).toBe(1);
    expect(said[0]).toContain('TOKEN_EXPIRED');
    await writeFile(tokenFile, 'second\n');
    await vi.waitFor(() => expect(tries()).toBe(2), { timeout: 10_000 });
    await writeFile(tokenFile, 'third\n');
    await expect(joining).resolves.toBe('joined');
  });

  it('ends with what no token helps against, and when it is stopped', async () => {
    await expect((await waiting(['CONFIG_INVALID'])).joining).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const { joining, stop } = await waiting(['CREDENTIALS_MISSING']);
    setTimeout(() => stop.abort(), 20);
    await expect(joining).rejects.toMatchObject({ code: 'STOPPED' });
  });
});
