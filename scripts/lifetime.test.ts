import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { interruptible } from './lifetime.js';

const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

/** A process that stops so slowly that only `untilStopped` ends it. */
async function hanging(terminateWithinMs: number, channel: readonly 'ipc'[] = []): Promise<ChildProcess> {
  const lifetime = new URL('./lifetime.ts', import.meta.url).href;
  const code = `import { untilStopped } from ${JSON.stringify(lifetime)};
    setInterval(() => {}, 1000);
    const stopped = untilStopped(${terminateWithinMs});
    console.log('ready');
    console.log(await stopped);`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', code], {
    stdio: ['ignore', 'pipe', 'pipe', ...channel],
  });
  running.push(child);
  if (child.stdout !== null) await once(child.stdout, 'data');
  return child;
}

/** Later than any passing on of the same request. */
const LATER_MS = 1_500;

async function firstSignal(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM');
  if (child.stdout !== null) expect(String((await once(child.stdout, 'data'))[0])).toContain('SIGTERM');
}

async function exitCode(child: ChildProcess): Promise<number | null> {
  const [code] = await once(child, 'exit');
  return code as number | null;
}

describe.skipIf(process.platform === 'win32')('a process that is asked to stop', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('takes %s at once after the first as the same request, a later one as haste', async (again) => {
    const child = await hanging(60_000);
    const ended = exitCode(child);
    await firstSignal(child);
    // As npm and `timeout` do.
    child.kill(again);
    await delay(LATER_MS);
    expect(child.exitCode).toBeNull();
    child.kill(again);
    if (child.stderr !== null) expect(String((await once(child.stderr, 'data'))[0])).toContain(`ended at once, as ${again} came`);
    expect(await ended).toBe(130);
  });

  it('goes on stopping when who started it asks in its own turn, long after a key went to all', async () => {
    const child = await hanging(60_000, ['ipc']);
    await firstSignal(child);
    await delay(LATER_MS);
    child.kill('SIGTERM');
    await delay(LATER_MS);
    expect(child.exitCode).toBeNull();
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
