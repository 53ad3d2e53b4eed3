import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { anyText } from '../test-text.js';
import { AuditLog } from './audit.js';
import { auditLine, brief } from './audit-entry.js';

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

  it('shows whatever strangers call themselves as printable ASCII on one line of a bounded length, and reads it back', () => {
    fc.assert(
      fc.property(anyText(2_000), (text) => {
        const row = { at: 'now', ...brief({ event: 'refused', about: text, from: text, detail: text }) };
        const line = auditLine(row);
        expect(line).toMatch(/^[ -~]+\n$/);
        expect(line.length).toBeLessThan(800);
        const { detail = '' } = JSON.parse(line);
        expect(detail === text || text.startsWith(detail.replace(/\.\.\.$/, ''))).toBe(true);
      }),
    );
    expect(brief({ event: 'refused', about: 'agent pi-1' }).about).toBe('agent pi-1');
    expect(brief({ event: 'refused', about: '\u001b[2J\nmeow \u202e' }).about).toBe('no name of 11 characters: \u001b[2J\nmeow ...');
    // A path is no name, and no refusal.
    expect(brief({ event: 'backed up', about: '/a b/c.tar' }).about).toBe('/a b/c.tar');
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

  it('counts the refusals of somebody who tries without end under ever other names, and shows how many', async () => {
    let nowMs = 0;
    const log = new AuditLog({ directory, nowMs: () => nowMs });
    await log.write({ event: 'joined', about: 'agent pi-1' });
    for (let i = 0; i < 5000; i++) await log.write({ event: 'refused', from: '10.0.0.66', about: `pi-${i}`, code: 'TOKEN_REFUSED' });
    // Takes a secret, so it is not lost among those that anybody can cause.
    await log.write({ event: 'refused', from: '10.0.0.67', about: 'pi-7', code: 'TOKEN_USED' });
    nowMs = 20_000;
    await log.write({ event: 'refused', from: '10.0.0.66', about: 'pi-1', code: 'TOKEN_REFUSED' });
    const seen = async () => (await log.read(1000)).map(({ event, about, code, unsaid = 0 }) => [event, about, code, unsaid]);
    const rows = [
      ['joined', 'agent pi-1', undefined, 0],
      ['refused', 'pi-7', 'TOKEN_USED', 0],
      ['refused', 'pi-0', 'TOKEN_REFUSED', 0],
      ['refused', 'pi-1', 'TOKEN_REFUSED', 4999],
    ];
    expect(await seen()).toEqual(rows);
    // What was only counted is written at the end.
    await log.stop();
    expect(await seen()).toEqual(rows);
    expect((await readdir(directory)).sort()).toEqual(['audit.log', 'refused.log', 'strangers.log']);
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
      'agent pi-3 598',
      'agent pi-4 0',
    ]);
    await log.stop();
  });

  it('counts renewals of one name from one address, and writes each of a whole fleet', async () => {
    let nowMs = 0;
    let log = new AuditLog({ directory, nowMs: () => nowMs });
    for (let i = 0; i < 200; i++) await log.write({ event: 'renewed', about: `agent pi-${i}`, from: '10.0.0.3', detail: `serial ${i}` });
    for (let i = 0; i < 900; i++, nowMs += 1000)
      await log.write({ event: 'renewed', about: 'agent pi-3', from: '10.0.0.3', detail: `serial again ${i}` });
    await log.write({ event: 'renewed', about: 'agent pi-3', from: '10.0.0.4' });
    const seen = async () => (await log.read(1_000)).map(({ about, from, unsaid = 0 }) => [about, from, unsaid]);
    const fleet = Array.from({ length: 200 }, (_, i) => [`agent pi-${i}`, '10.0.0.3', 0]);
    const [again, last] = [
      ['agent pi-3', '10.0.0.3', 600],
      ['agent pi-3', '10.0.0.3', 298],
    ];
    const rows = [...fleet, again, last, ['agent pi-3', '10.0.0.4', 0]];
    expect(await seen()).toEqual(rows);
    await log.stop();
    log = new AuditLog({ directory });
    expect((await seen()).sort()).toEqual(rows.sort());
    await log.stop();
  });

  it.each([
    ['one address', 1],
    ['a thousand addresses', 1_000],
  ])('keeps what was done, and what took a secret, whatever strangers of %s cause for hours', async (_what, addresses) => {
    let nowMs = 0;
    const log = new AuditLog({ directory, nowMs: () => nowMs, fileBytes: 1_024 });
    await log.write({ event: 'revoked', by: 'operator alice', about: 'agent pi-1', detail: 'stolen' });
    await log.write({ event: 'refused', from: '10.0.0.67', about: 'pi-1', code: 'TOKEN_USED' });
    const name = '\u2603'.repeat(400);
    for (let i = 0; i < 60; i++, nowMs += 10_000) {
      const from = `10.66.${(i % addresses) >> 8}.${(i % addresses) & 255}`;
      for (const code of ['TOKEN_INVALID', 'TOKEN_REFUSED', 'JOIN_REFUSED', 'CERTIFICATE_FOREIGN'])
        await log.write({ event: 'refused', from, about: `${i}${name}`, code, detail: name });
    }
    expect((await log.read(50))[0]).toMatchObject({ event: 'revoked' });
    expect((await log.read(1_000, 'refused')).some(({ code }) => code === 'TOKEN_USED')).toBe(true);
    expect(await log.read(1_000, 'done')).toMatchObject([{ event: 'revoked' }]);
    await log.stop();
    const sizes = await Promise.all((await readdir(directory)).map(async (file) => (await stat(join(directory, file))).size));
    expect(sizes.length).toBeLessThanOrEqual(5);
    expect(Math.max(...sizes)).toBeLessThan(2_000);
  });

  it('shows refusals as at most half of what is asked for, by time, where as much was done', async () => {
    let nowMs = 0;
    const clock = (): number => {
      nowMs += 1_000;
      return nowMs;
    };
    const log = new AuditLog({ directory, nowMs: clock });
    for (let i = 0; i < 20; i++) {
      await log.write({ event: 'joined', about: `agent pi-${i}` });
      await log.write({ event: 'refused', about: `agent pi-${i}`, code: 'CERTIFICATE_REVOKED' });
      await log.write({ event: 'refused', from: `10.0.0.${i}`, code: 'TLS_FAILED' });
    }
    const rows = await log.read(10);
    expect(rows.map(({ event }) => event).filter((event) => event === 'joined')).toHaveLength(5);
    expect(rows.map(({ at }) => at)).toEqual(rows.map(({ at }) => at).sort());
    expect(rows.at(-1)).toMatchObject({ code: 'TLS_FAILED', from: '10.0.0.19' });
    expect(await log.read(1_000)).toHaveLength(60);
    expect((await log.read(6, 'refused')).map(({ code }) => code)).toEqual([1, 2, 3].flatMap(() => ['CERTIFICATE_REVOKED', 'TLS_FAILED']));
    expect((await log.read(3, 'done')).map(({ about }) => about)).toEqual(['agent pi-17', 'agent pi-18', 'agent pi-19']);
    // What was done, when only one can be shown.
    expect(await log.read(1)).toMatchObject([{ event: 'joined' }]);
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
