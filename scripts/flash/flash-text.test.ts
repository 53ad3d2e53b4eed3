import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { formatToken } from '../../broker/credentials/token-text.js';
import type { DeviceFacts } from './device.js';
import { eraseQuestion, flashedText, namesDevice, progressText } from './flash-text.js';
import { testFolder } from './test-image.js';
import { parseTokens, readTokens } from './tokens.js';

const device: DeviceFacts = {
  path: '/dev/sdb',
  name: 'sdb',
  model: 'SanDisk Ultra',
  sizeBytes: 31_914_983_424,
  kind: 'disk',
  removable: true,
  readOnly: false,
  mounts: [],
  uses: [],
};

describe('progress', () => {
  it('shows part, bytes, rate and the time left', () => {
    expect(progressText('writing pi-1', 700_000_000, 2_800_000_000, 35_000)).toBe(
      'writing pi-1  [######------------------]   25 %   700 MB of 2.8 GB  20.0 MB/s  2 min left',
    );
  });
  it('gives up what matters least where there is little room, and its bar does not jump', () => {
    const at = (columns: number, elapsedMs = 35_000) =>
      progressText('writing pi-1 (2 of 6) to /dev/sdb', 700_000_000, 2_800_000_000, elapsedMs, columns);
    expect(at(110)).toMatch(/\] +25 % +700 MB of 2\.8 GB +20\.0 MB\/s +2 min left$/);
    expect(at(95)).toMatch(/\[#+-+\] +25 % +700 MB of 2\.8 GB +2 min left$/);
    expect(at(79)).toMatch(/\[#+-+\] +25 % +2 min left$/);
    expect(at(59)).toBe('writing pi-1 (2 of 6) to /dev/sdb   25 %  2 min left');
    for (let columns = 59; columns < 140; columns++) {
      expect(at(columns).length).toBeLessThanOrEqual(columns);
      const bar = (text: string) => /\[.*\]/.exec(text)?.[0].length;
      expect(bar(at(columns, 100))).toBe(bar(at(columns)));
    }
  });
  it('claims no rate at the start, and nothing beyond the end', () => {
    expect(progressText('x', 0, 100, 0)).toBe('x  [------------------------]    0 %      0 B of 100 B');
    expect(progressText('x', 120, 100, 0)).toContain('100 %');
    expect(progressText('x', 0, 0, 0)).toContain('100 %');
  });
});

describe('the question before a card is erased', () => {
  it('shows the card and its size, and wants its name', () => {
    expect(eraseQuestion(device, 'pi-1')).toBe(
      'Everything on /dev/sdb (SanDisk Ultra, 31.9 GB) will be erased for pi-1. Type sdb to go on: ',
    );
    expect(eraseQuestion(device, 'pi-2', true)).toMatch(/^Now put in the card for pi-2\. Everything on/);
    expect(['sdb', ' sdb\n', '/dev/sdb'].every((answer) => namesDevice(answer, device))).toBe(true);
    expect(['', 'y', 'yes', 'sda', 'sdb1', 'SDB'].some((answer) => namesDevice(answer, device))).toBe(false);
  });
});

describe('what was flashed', () => {
  it('is a table, and what to do next', () => {
    const card = {
      name: 'pi-1',
      written: 'cards/pi-1.img',
      release: '2025-12-04',
      writer: 'cloud-init',
      tokenExpiresMs: Date.UTC(2026, 10, 28, 12),
    };
    const text = flashedText([card], 80);
    expect(text).toContain('2026-11-28 12:00 UTC');
    expect(text).toContain('rpi-imager --cli cards/pi-1.img /dev/sdX');
    expect(flashedText([{ ...card, written: '/dev/sdb' }], 80)).not.toContain('rpi-imager');
    // What is typed or copied is never cut.
    const long = { ...card, name: 'greenhouse-camera-north-1', written: 'cards/greenhouse-camera-north-1.img' };
    expect(flashedText([long], 80).split('\n')[2]).toMatch(
      /^greenhouse-camera-north-1 +cards\/greenhouse-camera-north-1\.img .* 2026-11-28 12:00 UTC$/,
    );
  });
});

describe('a file of tokens', () => {
  it('is one token for one card, or names and tokens', () => {
    expect([...parseTokens('mc1.a\n', ['pi-1'])]).toEqual([['pi-1', 'mc1.a']]);
    expect([...parseTokens('# made today\npi-1 mc1.a\npi-2\tmc1.b\n', ['pi-1', 'pi-2'])]).toEqual([
      ['pi-1', 'mc1.a'],
      ['pi-2', 'mc1.b'],
    ]);
    expect(() => parseTokens('mc1.a\n', ['pi-1', 'pi-2'])).toThrow('lines of a name and a token');
    expect(() => parseTokens('pi-1 mc1.a and more\n', ['pi-1', 'pi-2'])).toThrow('lines of a name and a token');
  });

  it('must be for the agents that are flashed, in their cluster', async () => {
    const { folder, remove } = testFolder();
    const file = path.join(folder, 'tokens');
    const parts = {
      fingerprint: 'ab'.repeat(32),
      id: '0123456789abcdef',
      secret: 'cd'.repeat(20),
      cluster: 'lab',
      name: 'pi-1',
      role: 'agent',
    } as const;
    try {
      writeFileSync(file, formatToken(parts));
      expect(await readTokens(file, ['pi-1'], 'lab')('pi-1')).toEqual({ token: formatToken(parts) });
      expect(() => readTokens(file, ['pi-2'], 'lab')).toThrow('got the agent pi-1');
      expect(() => readTokens(file, ['pi-1'], 'default')).toThrow('expected the agent pi-1 of the cluster default');
      writeFileSync(file, formatToken({ ...parts, role: 'operator' }));
      expect(() => readTokens(file, ['pi-1'], 'lab')).toThrow('the operator pi-1');
      writeFileSync(file, formatToken(parts).slice(0, -1));
      expect(() => readTokens(file, ['pi-1'], 'lab')).toThrow(expect.objectContaining({ code: 'TOKEN_INVALID' }));
      expect(() => readTokens(path.join(folder, 'none'), ['pi-1'], 'lab')).toThrow(expect.objectContaining({ code: 'FILE_NOT_FOUND' }));
    } finally {
      remove();
    }
  });
});
