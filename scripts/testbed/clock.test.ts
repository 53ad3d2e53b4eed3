import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Child } from '../children.js';

const CLOCK = new URL('./clock.mjs', import.meta.url).href;
const YEAR_MS = 365 * 86_400_000;

describe('a process whose date jumps', () => {
  it('has another date and the same timers, until it is told the right one', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'musical-chair-clock-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const program = path.join(folder, 'program.mjs');
    writeFileSync(
      program,
      `process.on('message', ({ ask, id }) => {
        if (ask !== 'dates') return;
        const value = [Date.now(), new Date().getTime(), new Date(5).getTime(), performance.now(), new Date() instanceof Date];
        process.send({ answered: id, value });
      });
      process.send({ ready: true });
      // As the sockets of a process of ours do.
      setInterval(() => {}, 1000);`,
    );
    const child = new Child('clocked', [], undefined, { command: [process.execPath, '--import', CLOCK, program] });
    onTestFinished(() => void child.process.kill('SIGKILL'));
    await child.ready;
    const dates = async () => (await child.ask('dates', { withinMs: 20_000 })) as [number, number, number, number, boolean];
    for (const shiftMs of [0, 10 * YEAR_MS, -10 * YEAR_MS, 0]) {
      await child.ask('clock', { argument: shiftMs, withinMs: 20_000 });
      const [now, made, named, monotonic, isDate] = await dates();
      // What passes meanwhile is nothing to a year.
      expect(Math.abs(now - Date.now() - shiftMs)).toBeLessThan(60_000);
      expect(Math.abs(made - now)).toBeLessThan(60_000);
      expect([named, isDate]).toEqual([5, true]);
      expect(monotonic).toBeLessThan(600_000);
    }
  }, 90_000);
});
