import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAX_TOKENS, type Presented, REPEAT_MS, TokenBook, type TokenRecord } from './token-book.js';

const sha = (text: string): string => createHash('sha256').update(text).digest('hex');
const T0 = 1_700_000_000_000;

function token(fields: Partial<TokenRecord> = {}): TokenRecord {
  const times = { createdMs: T0, sinceMs: T0, expiresMs: T0 + 3_600_000 };
  const who = { role: 'agent', name: 'pi-1' } as const;
  return { id: 'aa', secretSha256: sha('secret'), ...who, hold: false, state: 'open', key: '', failures: 0, ...times, ...fields };
}

function shown(fields: Partial<Presented> = {}): Presented {
  return { id: 'aa', secretSha256: sha('secret'), key: sha('key 1'), name: '', role: '', ...fields };
}

function codeOf([verdict]: ReturnType<TokenBook['presented']>): string {
  return verdict.kind === 'refused' ? verdict.error.code : verdict.kind;
}

describe('a token', () => {
  it('lets one key in, and that key again when its answer was lost', () => {
    const [first, after] = new TokenBook([token()]).presented(shown(), T0 + 1);
    expect(first).toMatchObject({ kind: 'sign', first: true });
    const [again] = after.presented(shown(), T0 + 4_000_000);
    expect(again).toMatchObject({ kind: 'sign', first: false });
    expect(codeOf(after.presented(shown({ key: sha('key 2') }), T0 + 2))).toBe('TOKEN_USED');
    expect(codeOf(after.presented(shown(), T0 + 2 + REPEAT_MS))).toBe('TOKEN_EXPIRED');
  });

  it('is refused with the same words when its id is unknown, its secret wrong, or it was revoked', () => {
    const book = new TokenBook([token()]);
    const texts = [
      book.presented(shown({ id: 'bb' }), T0),
      book.presented(shown({ secretSha256: sha('another') }), T0),
      book.presented(shown({ secretSha256: '' }), T0),
      book.nameRevoked('pi-1', T0).presented(shown(), T0),
    ].map(([verdict]) => (verdict.kind === 'refused' ? `${verdict.error.code} ${verdict.error.message}` : verdict.kind));
    expect(new Set(texts).size).toBe(1);
    expect(texts[0]).toMatch(/^TOKEN_REFUSED /);
  });

  it('of a name that was revoked stays so when the clock goes back: also one that was over by then, and one whose key may not come again', () => {
    const [, used] = new TokenBook([token(), token({ id: 'bb' })]).presented(shown(), T0);
    const book = used.nameRevoked('pi-1', T0 + 2 * REPEAT_MS);
    expect(codeOf(book.presented(shown(), T0 + 1))).toBe('TOKEN_REFUSED');
    expect(codeOf(book.presented(shown({ id: 'bb' }), T0 + 1))).toBe('TOKEN_REFUSED');
  });

  it('is over at its time, for another name, and for another role', () => {
    const book = new TokenBook([token()]);
    expect(codeOf(book.presented(shown(), T0 + 3_600_001))).toBe('TOKEN_EXPIRED');
    expect(codeOf(book.presented(shown({ name: 'pi-2' }), T0))).toBe('TOKEN_NAME_WRONG');
    expect(codeOf(book.presented(shown({ role: 'operator' }), T0))).toBe('TOKEN_NAME_WRONG');
    expect(codeOf(book.presented(shown({ name: 'pi-1', role: 'agent' }), T0))).toBe('sign');
  });

  it('that was over stays so when the clock goes back: when it was shown then, and when that was noted', () => {
    const late = T0 + 3_600_001;
    const [refused, shownLate] = new TokenBook([token()]).presented(shown(), late);
    expect(refused).toMatchObject({ kind: 'refused', ended: true, locked: false, error: { code: 'TOKEN_EXPIRED' } });
    expect(codeOf(shownLate.presented(shown(), T0 + 1))).toBe('TOKEN_EXPIRED');
    expect(codeOf(shownLate.presented(shown({ key: sha('key 2') }), T0 + 1))).toBe('TOKEN_EXPIRED');
    const book = new TokenBook([token(), token({ id: 'bb', expiresMs: T0 + 9_000_000 })]);
    expect(book.over(T0)).toEqual([]);
    expect(book.over(late)).toEqual(['aa']);
    const noted = book.expired(['aa'], late);
    expect(noted.over(late)).toEqual([]);
    expect([codeOf(noted.presented(shown(), T0)), codeOf(noted.presented(shown({ id: 'bb' }), T0))]).toEqual(['TOKEN_EXPIRED', 'sign']);
    // Whoever has joined with it meanwhile is not concerned.
    const [, used] = book.presented(shown(), T0);
    expect(codeOf(used.expired(['aa'], late).presented(shown(), T0))).toBe('sign');
  });

  it('is locked after ten wrong secrets, and then its own does not open it either', () => {
    let book = new TokenBook([token()]);
    for (let i = 0; i < 9; i++) [, book] = book.presented(shown({ secretSha256: sha(`${i}`) }), T0);
    expect(codeOf(book.presented(shown(), T0))).toBe('sign');
    const [last, locked] = book.presented(shown({ secretSha256: sha('ten') }), T0);
    expect(last).toMatchObject({ kind: 'refused', locked: true });
    expect(codeOf(locked.presented(shown(), T0))).toBe('TOKEN_REFUSED');
  });

  it('that was used is not locked by wrong secrets: whoever has joined may still come again', () => {
    let [, book] = new TokenBook([token()]).presented(shown(), T0);
    for (let i = 0; i < 30; i++) [, book] = book.presented(shown({ secretSha256: sha(`${i}`) }), T0);
    expect(codeOf(book.presented(shown(), T0))).toBe('sign');
  });

  it('that holds waits for an operator, who can say which key is meant', () => {
    const [verdict, book] = new TokenBook([token({ hold: true })]).presented(shown(), T0);
    expect(verdict).toMatchObject({ kind: 'held', first: true });
    expect(codeOf(book.presented(shown({ key: sha('key 2') }), T0))).toBe('TOKEN_USED');
    expect(() => book.approved('pi-1', sha('key 2').slice(0, 8), T0)).toThrow(expect.objectContaining({ code: 'IDENTITY_UNKNOWN' }));
    // Bound in time: approving it may take longer than the token is good for.
    const [, after] = book.approved('pi-1', sha('key 1').slice(0, 8), T0 + 7_200_000);
    expect(codeOf(after.presented(shown(), T0 + 7_200_001))).toBe('sign');
  });

  it('for a name ends the one before, and lists stay bounded', () => {
    const book = new TokenBook([token()]).created(token({ id: 'bb', createdMs: T0 + 1 }), T0 + 1);
    expect(codeOf(book.presented(shown(), T0 + 2))).toBe('TOKEN_REFUSED');
    expect(codeOf(book.presented(shown({ id: 'bb' }), T0 + 2))).toBe('sign');
    const many = Array.from({ length: MAX_TOKENS }, (_, i) => token({ id: `t${i}`, name: `n${i}` }));
    expect(() => new TokenBook(many).created(token({ id: 'x', name: 'x' }), T0)).toThrow(expect.objectContaining({ code: 'QUEUE_FULL' }));
    const expired = many.map((record, i) => (i < 5 ? { ...record, expiresMs: T0 - 1 } : record));
    expect(new TokenBook(expired).created(token({ id: 'x', name: 'x' }), T0).all()).toHaveLength(MAX_TOKENS);
  });

  it('whose beginning fits two is not revoked', () => {
    const book = new TokenBook([token({ id: 'aa1' }), token({ id: 'aa2', name: 'pi-2' })]);
    expect(() => book.revoked('aa', T0)).toThrow(expect.objectContaining({ code: 'TOKEN_REFUSED' }));
    expect(() => book.revoked('', T0)).toThrow(expect.objectContaining({ code: 'TOKEN_REFUSED' }));
    expect(book.revoked('aa1', T0)[0].state).toBe('revoked');
  });
});

type Step =
  | { readonly kind: 'present'; readonly id: number; readonly key: number; readonly right: boolean; readonly stored: boolean }
  | { readonly kind: 'create'; readonly id: number; readonly hold: boolean; readonly stored: boolean }
  | { readonly kind: 'approve' | 'revoke' | 'out'; readonly id: number; readonly stored: boolean }
  | { readonly kind: 'wait'; readonly ms: number };

const mostly = fc.integer({ min: 0, max: 5 }).map((n) => n > 0);
const id = fc.integer({ min: 0, max: 3 });
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant('present' as const),
        id,
        key: fc.integer({ min: 0, max: 2 }),
        right: mostly,
        stored: mostly,
      }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('create' as const), id, hold: fc.boolean(), stored: mostly }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('approve' as const), id, stored: mostly }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('revoke' as const, 'out' as const), id, stored: mostly }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 3_000_000 }) }) },
  ),
  { minLength: 20, maxLength: 80 },
);

it('whatever happens in whatever order, and wherever the power fails: one token lets one key in, in time, and none after it was revoked', () => {
  let signatures = 0;
  fc.assert(
    fc.property(steps, (all) => {
      // Two tokens for each of two names. `stored` false: the power failed before the new book was on the disk, so it never was and nobody was told.
      const nameOf = (token: number): string => `pi-${token % 2}`;
      const keyOf = new Map<number, number>();
      const ended = new Set<number>();
      const madeMs = new Map<number, number>();
      let book = new TokenBook();
      let nowMs = T0;
      for (const step of all) {
        if (step.kind === 'wait') {
          nowMs += step.ms;
          continue;
        }
        const sameName = [0, 1, 2, 3].filter((other) => nameOf(other) === nameOf(step.id));
        if (step.kind === 'create') {
          if (madeMs.has(step.id) || !step.stored) continue;
          const times = { createdMs: nowMs, sinceMs: nowMs, expiresMs: nowMs + 3_600_000 };
          const before = book;
          book = book.created(token({ id: `${step.id}`, name: nameOf(step.id), hold: step.hold, ...times }), nowMs);
          for (const other of sameName) {
            const state = before.get(`${other}`)?.state;
            if (state === 'open' || state === 'held') ended.add(other);
          }
          madeMs.set(step.id, nowMs);
        } else if (step.kind === 'present') {
          const secretSha256 = sha(step.right ? 'secret' : 'wrong');
          const [verdict, next] = book.presented(shown({ id: `${step.id}`, secretSha256, key: sha(`${step.key}`) }), nowMs);
          if (!step.stored) continue;
          book = next;
          if (verdict.kind === 'refused' && verdict.locked) ended.add(step.id);
          if (verdict.kind === 'refused') continue;
          expect(step.right).toBe(true);
          expect(ended.has(step.id)).toBe(false);
          const known = keyOf.get(step.id);
          if (known === undefined) expect(nowMs).toBeLessThanOrEqual((madeMs.get(step.id) ?? 0) + 3_600_000);
          else expect(step.key).toBe(known);
          keyOf.set(step.id, step.key);
          if (verdict.kind === 'sign') signatures++;
        } else if (step.kind === 'approve') {
          try {
            const [, next] = book.approved(nameOf(step.id), '', nowMs);
            if (step.stored) book = next;
          } catch (error) {
            expect(error).toMatchObject({ code: 'IDENTITY_UNKNOWN' });
          }
        } else if (step.kind === 'revoke' && madeMs.has(step.id) && step.stored) {
          [, book] = book.revoked(`${step.id}`, nowMs);
          ended.add(step.id);
        } else if (step.kind === 'out' && step.stored) {
          book = book.nameRevoked(nameOf(step.id), nowMs);
          for (const other of sameName) if (madeMs.has(other)) ended.add(other);
        }
      }
    }),
    { numRuns: 400 },
  );
  expect(signatures).toBeGreaterThan(100);
});
