import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { interruptible } from './lifetime.js';

const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

/** A process that stops so slowly that only `untilStopped` ends it. */
async function hanging(terminateWithinMs: number): Promise<ChildProcess> {
  const lifetime = new URL('./lifetime.ts', import.meta.url).href;
  const code = `import { untilStopped } from ${JSON.stringify(lifetime)};
    setInterval(() => {}, 1000);
    const stopped = untilStopped(${terminateWithinMs});
    console.log('ready');
    console.log(await stopped);`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.push(child);
  if (child.stdout !== null) await once(child.stdout, 'data');
  return child;
}

async function exitCode(child: ChildProcess): Promise<number | null> {
  const [code] = await once(child, 'exit');
  return code as number | null;
}

describe.skipIf(process.platform === 'win32')('a process that is asked to stop', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('ends at once when it is asked again by %s, however long it may take', async (again) => {
    const child = await hanging(60_000);
    const ended = exitCode(child);
    child.kill('SIGTERM');
    if (child.stdout !== null) expect(String((await once(child.stdout, 'data'))[0])).toContain('SIGTERM');
    child.kill(again);
    expect(await ended).toBe(130);
  });

  it('ends itself when the time is over that SIGTERM leaves it', async () => {
    const child = await hanging(300);
    const ended = exitCode(child);
    child.kill('SIGTERM');
    expect(await ended).toBe(1);
  });
});

describe('work that Ctrl-C ends in order', () => {
  it('is told once, also when npm passes the same key on a second time, and signals are as before when it is over', async () => {
    const before = process.listenerCount('SIGINT');
    const result = await interruptible(async (signal) => {
      expect(signal.aborted).toBe(false);
      process.emit('SIGINT');
      // At once a second time: it would end this process.
      process.emit('SIGINT');
      return signal.aborted;
    });
    expect(result).toBe(true);
    expect(process.listenerCount('SIGINT')).toBe(before);
    await expect(interruptible(() => Promise.reject(new Error('its own fault')))).rejects.toThrow('its own fault');
    expect(process.listenerCount('SIGINT')).toBe(before);
  });
});
