import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type IssuedRecord, Ledger, stampOf } from './ledger.js';

const RANDOM = '0123456789abcdef';
const pi = { role: 'agent', name: 'pi-1' } as const;
const DAY = 86_400_000;

function signed(ledger: Ledger, nowMs: number, who: { role: 'agent' | 'operator'; name: string } = pi): string {
  const serial = ledger.nextSerial(nowMs, RANDOM);
  ledger.add({ serial, ...who, key: 'k', issuedMs: nowMs, notAfterMs: nowMs + 30 * DAY, by: 'test' }, nowMs);
  return serial;
}

describe('the ledger', () => {
  it('voids everything of a name up to the revocation, and nothing after it, whatever the clock does', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ revoke: fc.boolean(), nowMs: fc.integer({ min: 0, max: 4e12 }), reload: fc.boolean() }), { maxLength: 40 }),
        (steps) => {
          let ledger = new Ledger();
          const serials = new Map<string, boolean>();
          for (const { revoke, nowMs, reload } of steps) {
            if (reload) ledger = new Ledger(ledger.issued, ledger.revoked);
            if (revoke) {
              ledger.revoke(pi, 'test', nowMs);
              for (const serial of serials.keys()) serials.set(serial, true);
            } else {
              const serial = signed(ledger, nowMs);
              expect(serials.has(serial)).toBe(false);
              expect(serial).toMatch(/^4D[0-9A-F]{28}$/);
              serials.set(serial, false);
            }
            for (const [serial, isVoid] of serials) expect(ledger.isRevoked(pi, serial)).toBe(isVoid);
          }
        },
      ),
    );
  });

  it('also when the list of what was signed is lost, or is of before: then by the serial alone', () => {
    const before = new Ledger();
    const backup = [...before.issued];
    const old = signed(before, 1_000_000);
    before.revoke(pi, 'stolen', 1_000_500);
    const restored = new Ledger(backup, before.revoked);
    expect(restored.isRevoked(pi, old)).toBe(true);
    const next = signed(restored, 0);
    expect(restored.isRevoked(pi, next)).toBe(false);
    expect(stampOf(next)).toBeGreaterThan(stampOf(old));
  });

  it('takes a serial that is not of its making for void when the name was ever revoked', () => {
    const ledger = new Ledger();
    expect(ledger.isRevoked(pi, 'FF')).toBe(false);
    ledger.revoke(pi, 'test', 5);
    expect(ledger.isRevoked(pi, 'FF')).toBe(true);
    expect(ledger.isRevoked({ ...pi, name: 'pi-2' }, 'FF')).toBe(false);
  });

  it('knows the latest of each name, keeps few of each, and forgets what ended a year ago', () => {
    const ledger = new Ledger();
    for (let i = 0; i < 10; i++) signed(ledger, i * DAY);
    const last = signed(ledger, 11 * DAY);
    signed(ledger, 11 * DAY, { role: 'operator', name: 'alice' });
    expect(ledger.latest('pi-1')?.serial).toBe(last);
    expect(ledger.valid('pi-1', 12 * DAY)?.serial).toBe(last);
    expect(ledger.valid('pi-1', 50 * DAY)).toBeUndefined();
    expect(ledger.otherRole('alice', 'agent')).toBe('operator');
    expect(ledger.otherRole('pi-1', 'agent')).toBeUndefined();
    expect(ledger.issued.filter((record: IssuedRecord) => record.name === 'pi-1')).toHaveLength(3);
    expect(ledger.all().map(({ name }) => name)).toEqual(['alice', 'pi-1']);
    signed(ledger, 1000 * DAY, { role: 'agent', name: 'pi-9' });
    expect(ledger.all().map(({ name }) => name)).toEqual(['pi-9']);
  });
});
