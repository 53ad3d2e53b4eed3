import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AuditLog, auditLine } from './audit.js';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'mc-audit-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

describe('the audit log', () => {
  it('is one JSON document a line, for the owner alone, and goes on where it was', async () => {
    let log = new AuditLog({ directory, nowMs: () => 0 });
    await log.write({ event: 'joined', about: 'agent pi-1', from: '10.0.0.7' });
    await log.stop();
    log = new AuditLog({ directory, nowMs: () => 1000 });
    await log.write({ event: 'revoked', by: 'operator alice', about: 'agent pi-1', detail: 'stolen' });
    expect(await log.read(10)).toEqual([
      { at: '1970-01-01T00:00:00.000Z', event: 'joined', about: 'agent pi-1', from: '10.0.0.7' },
      { at: '1970-01-01T00:00:01.000Z', event: 'revoked', by: 'operator alice', about: 'agent pi-1', detail: 'stolen' },
    ]);
    expect(await log.read(1)).toMatchObject([{ event: 'revoked' }]);
    await log.stop();
    const file = join(directory, 'audit.log');
    expect(
      (await readFile(file, 'utf8'))
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toHaveLength(2);
    if (process.platform !== 'win32') expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it('shows whatever strangers call themselves as printable ASCII on one line, and reads it back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (text) => {
        const line = auditLine('now', { event: 'refused', about: text });
        expect(line).toMatch(/^[ -~]+\n$/);
        expect(JSON.parse(line).about ?? '').toBe(text.slice(0, 300));
      }),
    );
    expect(auditLine('now', { event: 'refused', about: '\u001b[2J\nmeow \u202e' })).not.toMatch(/[^ -~\n]/);
  });

  it('passes over a line that a power cut has left half, and the next one is whole', async () => {
    await writeFile(join(directory, 'audit.log'), '{"at":"x","event":"joined"}\n{"at":"y","eve');
    const log = new AuditLog({ directory });
    await log.write({ event: 'revoked', about: 'agent pi-1' });
    expect((await log.read(10)).map(({ event }) => event)).toEqual(['joined', 'revoked']);
    await log.stop();
  });

  it('is bounded: the oldest file goes', async () => {
    const log = new AuditLog({ directory, fileBytes: 400, files: 2 });
    for (let i = 0; i < 40; i++) await log.write({ event: 'joined', about: `agent pi-${i}`, detail: 'x'.repeat(60) });
    await log.stop();
    const files = await readdir(directory);
    expect(files.sort()).toEqual(expect.arrayContaining(['audit.1.log', 'audit.2.log']));
    expect(files.length).toBeLessThanOrEqual(3);
    const sizes = await Promise.all(files.map(async (file) => (await stat(join(directory, file))).size));
    expect(Math.max(...sizes)).toBeLessThan(600);
    const rows = await new AuditLog({ directory, files: 2 }).read(1000);
    expect(rows.at(-1)?.about).toBe('agent pi-39');
    // In their order, across files.
    const numbers = rows.map(({ about = '' }) => Number(about.slice('agent pi-'.length)));
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  });

  it('counts the refusals of somebody who tries without end, so that they push nothing out', async () => {
    let nowMs = 0;
    const log = new AuditLog({ directory, nowMs: () => nowMs });
    await log.write({ event: 'joined', about: 'agent pi-1' });
    for (let i = 0; i < 5000; i++) await log.write({ event: 'refused', from: '10.0.0.66', about: `${i}`, code: 'TOKEN_REFUSED' });
    // Takes a secret, so it is not lost among those that anybody can cause.
    await log.write({ event: 'refused', from: '10.0.0.67', code: 'TOKEN_USED' });
    nowMs = 20_000;
    await log.write({ event: 'refused', from: '10.0.0.66', code: 'TOKEN_REFUSED' });
    const rows = await log.read(1000);
    expect(rows).toHaveLength(53);
    expect(rows.at(-2)).toMatchObject({ code: 'TOKEN_USED' });
    expect(rows[0]?.event).toBe('joined');
    expect(rows.at(-1)?.unsaid).toBe(4950);
    await log.stop();
  });

  it('counts the same refusal again and again, and says it once in ten minutes', async () => {
    let nowMs = 0;
    const log = new AuditLog({ directory, nowMs: () => nowMs });
    for (let i = 0; i < 1200; i++, nowMs += 1000)
      await log.write({ event: 'refused', about: 'agent pi-3', from: '10.0.0.3', code: 'CERTIFICATE_REVOKED' });
    await log.write({ event: 'refused', about: 'agent pi-4', from: '10.0.0.4', code: 'CERTIFICATE_REVOKED' });
    expect((await log.read(100)).map(({ about, unsaid = 0 }) => `${about} ${unsaid}`)).toEqual([
      'agent pi-3 0',
      'agent pi-3 599',
      'agent pi-4 0',
    ]);
    await log.stop();
  });

  it('that cannot be written says so once, and keeps nobody from deciding', async () => {
    const said: string[] = [];
    const log = new AuditLog({ directory: join(directory, 'not', 'there'), log: (line) => said.push(line) });
    await log.write({ event: 'revoked', about: 'agent pi-1' });
    await log.write({ event: 'revoked', about: 'agent pi-2' });
    expect(said).toHaveLength(1);
    expect(await log.read(5)).toEqual([]);
    await log.stop();
  });

  it('reads lines that are not its own as if they were not there', async () => {
    await appendFile(join(directory, 'audit.log'), 'null\n[]\n{"at":1}\n{"at":"x","event":"danced"}\nx\n');
    expect(await new AuditLog({ directory }).read(5)).toEqual([]);
  });
});
