import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Role } from './credentials.js';
import { Ledger, type LedgerState, MOST_NAMES, NONE, stampOf } from './ledger.js';

const pi = { role: 'agent', name: 'pi-1' } as const;
const DAY = 86_400_000;
const LIFE = 'aaaaaaaa';

let numbers = 0;
/** Never the same twice. */
const tag = (): string => (++numbers + 0x1000).toString(16).padStart(8, '0');
const random = (): string => (++numbers).toString(16).padStart(10, '0');

function ledgerOf(state: Partial<LedgerState> = {}): Ledger {
  return new Ledger({ issued: [], revoked: [], life: LIFE, ...state });
}

function signed(ledger: Ledger, nowMs: number, who: { role: Role; name: string } = pi): string {
  const serial = ledger.nextSerial(who.name, nowMs, random());
  ledger.add({ serial, ...who, key: 'k', issuedMs: nowMs, notAfterMs: nowMs + 30 * DAY, by: 'test' });
  return serial;
}

/** As it comes from the disk. */
function reloaded({ issued, revoked, life }: Ledger): Ledger {
  return new Ledger(JSON.parse(JSON.stringify({ issued, revoked, life })));
}

describe('the ledger', () => {
  it('voids everything of a name in every role up to the revocation, and nothing after it, whatever the clock does', () => {
    const step = fc.record({ revoke: fc.boolean(), nowMs: fc.integer({ min: 0, max: 4e12 }), reload: fc.boolean(), viewer: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        let ledger = ledgerOf();
        const serials = new Map<string, boolean>();
        for (const { revoke, nowMs, reload, viewer } of steps) {
          if (reload) ledger = reloaded(ledger);
          if (revoke) {
            ledger.revoke(pi, 'test', nowMs, tag());
            for (const serial of serials.keys()) serials.set(serial, true);
          } else {
            const serial = signed(ledger, nowMs, { ...pi, role: viewer ? 'viewer' : 'agent' });
            expect(serials.has(serial)).toBe(false);
            expect(serial).toMatch(/^4E[0-9A-F]{38}$/);
            serials.set(serial, false);
          }
          for (const [serial, isVoid] of serials) expect(ledger.isRevoked(pi, serial)).toBe(isVoid);
        }
      }),
    );
  });

  it('knows the latest of each name, and keeps few of each', () => {
    const ledger = ledgerOf();
    for (let i = 0; i < 10; i++) signed(ledger, i * DAY);
    const last = signed(ledger, 11 * DAY);
    signed(ledger, 11 * DAY, { role: 'operator', name: 'alice' });
    expect(ledger.valid('pi-1', 12 * DAY)?.serial).toBe(last);
    expect(ledger.valid('pi-1', 50 * DAY)).toBeUndefined();
    expect(ledger.otherRole('alice', 'agent')).toBe('operator');
    expect(ledger.otherRole('pi-1', 'agent')).toBeUndefined();
    expect(ledger.issued.filter(({ name }) => name === 'pi-1')).toHaveLength(3);
    expect(ledger.all().map(({ name }) => name)).toEqual(['alice', 'pi-1']);
  });

  it('forgets nobody by a clock, however far ahead; of too many, those that were over first', () => {
    const ledger = ledgerOf();
    signed(ledger, 0);
    signed(ledger, 4000 * DAY, { role: 'agent', name: 'pi-9' });
    expect(ledger.all().map(({ name }) => name)).toEqual(['pi-1', 'pi-9']);
    for (let i = 2; i < MOST_NAMES; i++) signed(ledger, DAY + i, { role: 'viewer', name: `v-${i}` });
    expect(ledger.hasSigned('pi-1')).toBe(true);
    signed(ledger, 2 * DAY, { role: 'viewer', name: 'more' });
    expect(ledger.hasSigned('pi-1')).toBe(false);
    expect(ledger.all()).toHaveLength(MOST_NAMES);
  });

  it('takes a serial that is not of its making for void when the name was ever revoked', () => {
    const ledger = ledgerOf();
    expect(ledger.isRevoked(pi, 'FF')).toBe(false);
    ledger.revoke(pi, 'test', 5, tag());
    expect(ledger.isRevoked(pi, 'FF')).toBe(true);
    expect(ledger.isRevoked({ name: 'pi-2' }, 'FF')).toBe(false);
  });

  it('goes by the stamps of an earlier version where there are only those', () => {
    const former = (stamp: number): string => `4D${stamp.toString(16).padStart(12, '0')}${'0'.repeat(16)}`.toUpperCase();
    const ledger = ledgerOf({ revoked: [{ ...pi, stamp: 1000, atMs: 1000, why: 'lost' }] });
    expect([former(1000), former(1001), signed(ledger, 0)].map((serial) => ledger.isRevoked(pi, serial))).toEqual([true, false, false]);
    ledger.revoke(pi, 'again', 0, tag());
    expect(ledger.isRevoked(pi, former(9_000_000))).toBe(true);
  });
});

describe('after a restore', () => {
  /** A backup of `ledger`, as it is when it was restored. */
  function restored(ledger: Ledger): Ledger {
    const again = reloaded(ledger);
    again.beginLife(tag());
    return again;
  }

  it('a revocation voids what was signed after the backup, though its stamp is later than the clock here', () => {
    // Restored, and put back by hand as the image of a card is; of a version that left no mark when somebody joined, and of this one.
    for (const [copy, marked] of [restored, reloaded].flatMap((each) => [[each, false] as const, [each, true] as const])) {
      const ledger = ledgerOf();
      if (marked) ledger.revoke(pi, 'joined anew', 0, tag(), false);
      const first = signed(ledger, 0);
      const backup = copy(ledger);
      const renewed = signed(ledger, 20 * DAY);
      ledger.revoke(pi, 'joined anew', 21 * DAY, tag(), false);
      const anew = signed(ledger, 21 * DAY);
      backup.revoke(pi, 'stolen', 19 * DAY, tag());
      expect(stampOf(renewed)).toBeGreaterThan(backup.stamp);
      for (const of of [backup, reloaded(backup)]) expect(of.isRevoked(pi, anew)).toBe(true);
      // And for good: also when that state was backed up and restored again.
      for (const of of [backup, restored(backup), reloaded(backup)]) {
        expect([first, renewed].map((serial) => of.isRevoked(pi, serial))).toEqual([true, true]);
        expect(of.isRevoked(pi, signed(of, 0))).toBe(false);
      }
    }
  });

  it('who joined anew after the backup stays in, until the name is revoked', () => {
    const ledger = ledgerOf();
    ledger.revoke(pi, 'joined anew', 0, tag());
    const old = signed(ledger, 1);
    const backup = restored(ledger);
    ledger.revoke(pi, 'joined anew', 2, tag());
    const between = signed(ledger, 3);
    ledger.revoke(pi, 'joined anew', 4, tag(), false);
    const latest = signed(ledger, 5);
    expect(backup.isRevoked(pi, latest)).toBe(false);
    expect(backup.isRevoked(pi, old)).toBe(false);
    // Whom it replaced is out from the moment on that it was seen.
    expect(backup.learnMark({ ...pi, serial: old })).toBe(false);
    expect(backup.learnMark({ ...pi, serial: latest })).toBe(true);
    expect([old, between, latest, signed(backup, 0)].map((serial) => backup.isRevoked(pi, serial))).toEqual([true, true, false, false]);
    expect(backup.learnMark({ ...pi, serial: old })).toBe(false);
    backup.revoke(pi, 'stolen', 0, tag());
    expect([old, latest].map((serial) => backup.isRevoked(pi, serial))).toEqual([true, true]);
  });

  it('who replaced a machine whose name is newer than the backup throws it out when he is seen, whoever comes first', () => {
    const ledger = ledgerOf();
    const backup = restored(ledger);
    ledger.revoke(pi, 'joined anew', 1, tag(), false);
    const stolen = signed(ledger, 2);
    ledger.revoke(pi, 'joined anew', 3, tag(), false);
    const honest = signed(ledger, 4);
    for (const order of [[honest], [stolen, honest]]) {
      const here = reloaded(backup);
      for (const serial of order) expect(here.learnMark({ ...pi, serial })).toBe(true);
      for (const of of [here, reloaded(here)]) {
        expect([stolen, honest, signed(of, 0)].map((serial) => of.isRevoked(pi, serial))).toEqual([true, false, false]);
      }
      expect(here.isOut('pi-1')).toBe(false);
    }
  });

  it('a fleet that was renewed meanwhile stays in, also over two restores of the same backup', () => {
    const ledger = ledgerOf();
    ledger.revoke(pi, 'joined anew', 0, tag());
    signed(ledger, 1);
    const first = restored(ledger);
    const renewed = signed(first, 2);
    expect(restored(ledger).isRevoked(pi, renewed)).toBe(false);
  });

  it('takes over what the other memory knows: who is out, and who has joined', () => {
    const ledger = ledgerOf();
    const stolen = signed(ledger, 0);
    const backup = restored(ledger);
    ledger.revoke(pi, 'stolen', 5, tag());
    const late = { role: 'agent', name: 'late' } as const;
    const serial = signed(ledger, 6, late);
    const given = { role: 'agent', name: 'given' } as const;
    ledger.revoke(given, 'joined anew', 7, tag(), false);
    backup.adopt(ledger, tag);
    expect(backup.isRevoked(pi, stolen)).toBe(true);
    expect(['pi-1', 'given', 'nobody'].map((name) => backup.isOut(name))).toEqual([true, false, false]);
    expect(backup.valid('late', 7)?.serial).toBe(serial);
    const back = signed(backup, 0);
    expect(backup.isRevoked(pi, back)).toBe(false);
    expect(backup.isOut('pi-1')).toBe(false);
  });

  it('of two memories that each let somebody else in under one name, neither is believed', () => {
    const ledger = ledgerOf();
    const other = restored(ledger);
    ledger.revoke(pi, 'joined anew', 1, tag());
    other.revoke(pi, 'joined anew', 1, tag());
    const both = [signed(ledger, 2), signed(other, 2)];
    other.adopt(ledger, tag);
    expect(both.map((serial) => other.isRevoked(pi, serial))).toEqual([true, true]);
    expect(other.isRevoked(pi, signed(other, 0))).toBe(false);
    // Taken over once more, nothing changes.
    const [mark] = other.revoked;
    other.adopt(ledger, tag);
    expect(other.revoked).toEqual([mark]);
  });
});

type Step = {
  readonly kind: 'join' | 'renew' | 'revoke' | 'seen' | 'backup' | 'restore' | 'restore beside' | 'lose' | 'other gateway';
  readonly name: string;
  readonly role: Role;
  readonly pick: number;
  readonly nowMs: number;
};

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    kind: fc.constantFrom(
      'join',
      'join',
      'renew',
      'renew',
      'revoke',
      'seen',
      'seen',
      'backup',
      'backup',
      'restore',
      'restore beside',
      'lose',
      'other gateway',
    ),
    name: fc.constantFrom('pi-1', 'pi-2'),
    role: fc.constantFrom('agent', 'viewer'),
    pick: fc.nat(1000),
    nowMs: fc.integer({ min: 0, max: 4e12 }),
  }),
  { minLength: 10, maxLength: 60 },
) as fc.Arbitrary<Step[]>;

it('whatever is restored in whatever order, by whatever clock: what a memory revoked, or let somebody else have, is void in it and in all that come from it', () => {
  let voids = 0;
  let restores = 0;
  let news = 0;
  fc.assert(
    fc.property(steps, (all) => {
      // Of each certificate, which marks of its name its signer knew; of each memory, which it knows. What is void follows from these alone.
      interface Memory {
        readonly ledger: Ledger;
        readonly marks: Map<string, ReadonlySet<number>>;
        /** Names of which a mark is or was known by a certificate alone. */
        readonly learned: Set<string>;
      }
      const certificates: { readonly name: string; readonly serial: string; readonly knew: ReadonlySet<number> }[] = [];
      const backups: Memory[] = [];
      // Gateways that somebody restored elsewhere, and that run on with the same CA.
      const others: Memory[] = [];
      let marks = 0;
      let here: Memory = { ledger: ledgerOf(), marks: new Map(), learned: new Set() };
      const knownOf = ({ marks: known }: Memory, name: string): ReadonlySet<number> => known.get(name) ?? new Set();
      const mark = (name: string, role: Role, nowMs: number): void => {
        here.ledger.revoke({ role, name }, 'test', nowMs, tag());
        here.marks.set(name, new Set([...knownOf(here, name), ++marks]));
        expect(certificates.filter((one) => one.name === name && !here.ledger.isRevoked(one, one.serial))).toEqual([]);
      };
      const sign = (name: string, role: Role, nowMs: number): void => {
        const serial = signed(here.ledger, nowMs, { role, name });
        expect(here.ledger.isRevoked({ name }, serial)).toBe(false);
        certificates.push({ name, serial, knew: knownOf(here, name) });
      };
      for (const { kind, name, role, pick, nowMs } of all) {
        if (kind === 'join') {
          mark(name, role, nowMs);
          sign(name, role, nowMs);
        } else if (kind === 'renew') {
          const good = certificates.filter((one) => one.name === name && !here.ledger.isRevoked(one, one.serial));
          if (good.length > 0) sign(name, role, nowMs);
        } else if (kind === 'revoke') {
          mark(name, role, nowMs);
        } else if (kind === 'backup') {
          backups.push({ ledger: reloaded(here.ledger), marks: new Map(here.marks), learned: new Set(here.learned) });
        } else if (kind === 'seen') {
          const good = certificates.filter((one) => one.name === name && !here.ledger.isRevoked(one, one.serial));
          const shown = good[pick % Math.max(1, good.length)];
          if (shown === undefined) continue;
          const [known, isLearned] = [knownOf(here, name), here.ledger.learnMark({ ...shown, role })];
          expect(here.ledger.isRevoked(shown, shown.serial)).toBe(false);
          // Of a name that is newer than all that is known here.
          if (known.size === 0) expect(isLearned).toBe(shown.knew.size > 0);
          if (known.size === 0 && isLearned) news++;
          if (!isLearned) continue;
          here.marks.set(name, new Set([...known, ...shown.knew]));
          here.learned.add(name);
        } else if (kind === 'lose') {
          const { revoked } = here.ledger;
          here = { ledger: ledgerOf({ revoked, life: tag() }), marks: here.marks, learned: here.learned };
        } else if (kind === 'other gateway') {
          const other = others[pick % Math.max(1, others.length)];
          if (other === undefined) continue;
          others[others.indexOf(other)] = here;
          here = other;
        } else {
          const backup = backups[pick % Math.max(1, backups.length)];
          if (backup === undefined) continue;
          restores++;
          const former = here;
          others.push(former);
          here = { ledger: reloaded(backup.ledger), marks: new Map(backup.marks), learned: new Set(backup.learned) };
          here.ledger.beginLife(tag());
          if (kind === 'restore') continue;
          const before = new Set([here, former].flatMap(({ ledger }) => ledger.revoked.map((record) => record.tag)));
          here.ledger.adopt(former.ledger, tag);
          for (const each of former.marks.keys()) {
            const [a, b] = [knownOf(here, each), knownOf(former, each)];
            const isNested = [...a].every((one) => b.has(one)) || [...b].every((one) => a.has(one));
            const isNew = !before.has(here.ledger.revocation({ name: each })?.tag ?? '');
            // A certificate does not tell what came before its mark: two that are known so may be taken for strangers, never the other way round.
            const isLearned = here.learned.has(each) || former.learned.has(each);
            if (!isLearned || !isNested) expect(isNew).toBe(!isNested);
            here.marks.set(each, new Set([...a, ...b, ...(isNew ? [++marks] : [])]));
            if (isLearned) here.learned.add(each);
          }
        }
        const wrong = certificates.filter((one) => {
          const known = knownOf(here, one.name);
          const isVoid = here.ledger.isRevoked(one, one.serial);
          const must = [...known].some((each) => !one.knew.has(each));
          if (must) voids++;
          // Whoever was let in by somebody who knew more than is known here may be good or not: see the examples.
          return must ? !isVoid : isVoid && one.knew.size === known.size;
        });
        expect(wrong).toEqual([]);
      }
    }),
    { numRuns: 200 },
  );
  expect(voids).toBeGreaterThan(100);
  expect(restores).toBeGreaterThan(100);
  expect(news).toBeGreaterThan(0);
});

it('a serial without a tag says so', () => {
  const serial = signed(ledgerOf(), 5);
  expect(serial.toLowerCase()).toContain(`${LIFE}${NONE}`);
});
