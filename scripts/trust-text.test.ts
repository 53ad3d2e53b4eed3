import { describe, expect, it } from 'vitest';
import type { AuditEntryRow, MemberRow, TokenRow } from '../broker/messages.js';
import { durationText, parseDuration } from './duration.js';
import { auditText, inheritedLines, invitedText, membersText, tokensText } from './trust-text.js';

const NOW = Date.UTC(2026, 2, 1, 12);
const HOUR = 3_600_000;
const KEY = '3f2a90c154d07b1e'.repeat(4);
const NOTHING: AuditEntryRow = { at: '2026-03-01T12:00:00.000Z', event: '', by: '', about: '', from: '', code: '', detail: '', unsaid: 0 };
const row = (fields: Partial<TokenRow> = {}): TokenRow => ({
  ...{ id: '00112233aabbccdd', role: 'agent', name: 'pi-1', state: 'open', createdMs: NOW, expiresMs: NOW + HOUR, sinceMs: NOW },
  ...{ hold: false, failures: 0, key: '', ...fields },
});

describe('a new token', () => {
  const facts = { token: 'mc1.AAAA', cluster: 'default', gateway: '192.168.1.5', program: 'mc', nowMs: NOW };

  it('comes with the line to type on the machine that is to join', () => {
    const text = invitedText({ ...facts, row: row() });
    expect(text).toContain('agent pi-1, good for one machine and 60 min (until 2026-03-01 13:00 UTC)');
    expect(text).toContain('\n  mc agent --name pi-1 --gateway 192.168.1.5 --token mc1.AAAA');
    expect(invitedText({ ...facts, cluster: 'home', row: row() })).toContain('--name pi-1 --cluster home --gateway');
    expect(text).toContain('\n  sudo ./musical-chair/install.sh --name pi-1 --gateway 192.168.1.5 --token-file -');
    expect(invitedText({ ...facts, gateway: '[fe80::1]', row: row() })).toContain('install.sh --name pi-1 --gateway fe80::1 --token-file');
    // It cannot be told of other ports.
    expect(invitedText({ ...facts, gateway: '192.168.1.5:9884', row: row() })).not.toContain('install.sh');
    expect(invitedText({ ...facts, gateway: '[fe80::1]:9884', row: row() })).not.toContain('install.sh');
  });

  it('of a person is used by enrol, and one that holds says what comes after', () => {
    expect(invitedText({ ...facts, row: row({ role: 'viewer', name: 'alice' }) })).toContain('mc enrol --gateway 192.168.1.5 --token');
    expect(invitedText({ ...facts, row: row({ hold: true }) })).toContain('mc agents approve pi-1');
  });
});

describe('lists', () => {
  it('show what became of each token, with as much of a key as people compare', () => {
    const text = tokensText(
      [
        row(),
        row({ expiresMs: NOW - 1 }),
        row({ state: 'used', key: KEY }),
        row({ state: 'locked', failures: 10 }),
        row({ state: 'expired' }),
      ],
      NOW,
      120,
    );
    const lines = text.split('\n').slice(2);
    expect(lines[0]).toMatch(/open +for 60 min/);
    expect(lines[1]).toContain('expired');
    expect(lines[2]).toMatch(/used .*3f2a90c154d07b1e(?!3)/);
    expect(lines[3]).toMatch(/locked .* 10$/);
    // When it was over, not when that was noticed.
    expect(lines[4]).toMatch(/expired +2026-03-01 13:00/);
    expect(tokensText([], NOW, 80)).toBe('no tokens');
  });

  it('show of each member whether its certificate is good, and whether it is here', () => {
    const member = (fields: Partial<MemberRow>): MemberRow => ({
      ...{
        role: 'agent',
        name: 'pi-1',
        state: 'valid',
        serial: '4D',
        issuedMs: NOW,
        notAfterMs: NOW + 30 * 24 * HOUR,
        key: KEY,
        why: 'token 0011',
      },
      ...fields,
    });
    const rows = [
      member({}),
      member({ name: 'pi-2', state: 'revoked', why: 'lost' }),
      member({ name: 'pi-3', state: 'invited', notAfterMs: 0, key: '' }),
      member({ name: 'alice', role: 'viewer' }),
    ];
    const lines = membersText(rows, [{ agent: 'pi-1', state: 'ready' }], NOW, 120)
      .split('\n')
      .slice(2);
    expect(lines[0]).toMatch(/^pi-1 +agent +valid +ready +for 30 d/);
    expect(lines[1]).toMatch(/^pi-2 +agent +revoked +- .* lost$/);
    expect(lines[2]).toMatch(/^pi-3 +agent +invited +-/);
    expect(lines[3]).toMatch(/^alice +viewer +valid +for 30 d/);
  });

  it('show whole dates and names, however little room there is', () => {
    const member: MemberRow = {
      ...{ role: 'operator', name: 'operator-upstairs', state: 'revoked', serial: '4D', issuedMs: NOW, notAfterMs: NOW },
      ...{ key: KEY, why: 'lost on the train, with everything else that was in the bag' },
    };
    for (const columns of [80, 60]) {
      const lines = membersText([member, { ...member, state: 'expired' }], [], NOW, columns).split('\n');
      for (const line of lines.slice(2)) expect(line).toMatch(/^operator-upstairs .*until 2026-03-01 /);
    }
    const text = membersText([member], [], NOW, 80);
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
    expect(tokensText([row({ state: 'used', name: 'operator-upstairs', key: KEY })], NOW, 80)).toContain('2026-03-01 12:00');
  });

  it('of the audit log say who did what to whom from where, a line each', () => {
    const entry = (fields: Partial<AuditEntryRow>): AuditEntryRow => ({
      ...{ ...NOTHING, event: 'joined', about: 'agent pi-1', from: '10.0.0.7' },
      ...fields,
    });
    const text = auditText([
      entry({}),
      entry({ event: 'revoked', by: 'alice', from: '', detail: 'lost' }),
      entry({ event: 'refused', about: '', code: 'TOKEN_USED', unsaid: 7 }),
    ]);
    expect(text.split('\n')).toEqual([
      'time (UTC)           what            to whom, by whom, from where',
      '2026-03-01 12:00:00  joined          agent pi-1, from 10.0.0.7',
      '2026-03-01 12:00:00  revoked         agent pi-1, by alice: lost',
      '2026-03-01 12:00:00  refused         TOKEN_USED, from 10.0.0.7 (and 7 more before it)',
    ]);
    expect(auditText([])).toBe('nothing of this is in the audit log');
    const advised = entry({
      ...{ event: 'refused', about: '\u001b[2J\nFAKE', code: 'TOKEN_EXPIRED' },
      detail: 'the token has expired; expected its use until 2026-03-01T11:00:00.000Z; got 2026-03-01T12:00:00.000Z. Make another one.',
    });
    // One line, whoever chose the name; and without what only the machine should do.
    expect(auditText([advised]).split('\n')[1]).toMatch(
      /TOKEN_EXPIRED, \?\[2J FAKE, from 10.0.0.7: the token has expired; expected its use until 2026-03-01 11:00; got 2026-03-01 12:00$/,
    );
  });

  it.each([80, 120])('of the audit log fit into %d columns, with keys cut to what people compare', (columns) => {
    const id = '0123456789abcdef';
    const rows: AuditEntryRow[] = [
      { ...NOTHING, event: 'joined', about: 'agent pi-1', from: '10.0.0.7', detail: `key ${KEY}, token ${id}` },
      {
        ...NOTHING,
        event: 'refused',
        code: 'TOKEN_USED',
        about: 'pi-1',
        from: '10.0.0.66',
        detail: `${'word '.repeat(40)}end`,
        unsaid: 12,
      },
      { ...NOTHING, event: 'refused', code: 'JOIN_REFUSED', from: '10.0.0.66', detail: 'x'.repeat(300) },
    ];
    const text = auditText(rows, columns);
    const lines = text.split('\n');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(columns);
    expect(text).toContain('3f2a90c154d07b1e…');
    expect(text).toContain(id);
    expect(text).not.toContain(KEY.slice(0, 17));
    // Each entry begins with its time, and nothing else does.
    expect(lines.filter((line) => /^2026-/.test(line))).toHaveLength(3);
    expect(lines.filter((line) => !/^(2026-|time| {23}\S)/.test(line))).toEqual([]);
    expect(lines.join('').replaceAll(' ', '')).toContain(`${'word'.repeat(40)}end(and12morebeforeit)`);
  });
});

describe('after a restore', () => {
  const report = { madeAtMs: NOW, clockBehindMs: 0, trust: { stillRevoked: [], read: [], unread: [] } };

  it('says who stays revoked and by which folder, or that nothing is known of that', () => {
    expect(inheritedLines(report, 'mc').join('\n')).toMatch(/is in again: revoke them again \(mc agents revoke NAME; with --unknown/);
    const trust = { stillRevoked: ['pi-1', 'pi-2'], read: ['/s.before-1'], unread: ['/s.before-2'] };
    const text = inheritedLines({ ...report, trust }, 'mc').join('\n');
    expect(text).toContain('Still revoked, as /s.before-1 says: pi-1, pi-2.');
    expect(text).toContain('in /s.before-2 cannot be read');
    expect(text).not.toContain('--unknown');
    expect(inheritedLines({ ...report, trust: { ...trust, stillRevoked: [] } }, 'mc')[0]).toContain('says: nobody else.');
  });

  it('says that the clock is behind the backup, when it is', () => {
    expect(inheritedLines(report, 'mc').join('\n')).not.toContain('clock');
    expect(inheritedLines({ ...report, clockBehindMs: HOUR }, 'mc').at(-1)).toContain('2026-03-01 11:00 UTC, before the backup');
  });
});

describe('a span of time', () => {
  it.each([
    ['90s', 90_000],
    ['30m', 1_800_000],
    ['1.5h', 5_400_000],
    ['7d', 604_800_000],
  ])('%s is %d ms', (text, ms) => {
    expect(parseDuration(text, '--ttl')).toBe(ms);
  });

  it.each(['', '1', 'h', '-1h', '1w', '1h30m', '1e9h', ' 1h'])('%j is none', (text) => {
    expect(() => parseDuration(text, '--ttl')).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  it('is written in one unit, rounded down', () => {
    expect([0, 119_000, 120_000, 2 * HOUR - 1, 2 * HOUR, 47 * HOUR, 48 * HOUR].map(durationText)).toEqual([
      '0 s',
      '119 s',
      '2 min',
      '119 min',
      '2 h',
      '47 h',
      '2 d',
    ]);
  });
});
