import { describe, expect, it } from 'vitest';
import { testCa } from './test-trust.js';
import { checkOrder, isLater, parseOrder, signOrder, type UpdateFacts } from './update-order.js';

const NOW = Date.now();
const FACTS: UpdateFacts = {
  agent: 'pi-1',
  name: '1.0.0-0123456789abcdef',
  arch: 'arm64',
  sha256: 'a'.repeat(64),
  sizeBytes: 1000,
  issuedMs: NOW,
  term: 3,
  number: 2,
};
const RULES = { agent: 'pi-1', arch: 'arm64', nowMs: NOW };

describe('an order to update', () => {
  it('of the gateway is obeyed, also after it was written and read', async () => {
    const { ca, credentials } = await testCa();
    const order = signOrder(FACTS, await credentials('gateway', 'gateway'));
    checkOrder(order, { ca, ...RULES });
    checkOrder(parseOrder(JSON.stringify(order)), { ca, ...RULES });
  });

  it('with any fact changed is refused', async () => {
    const { ca, credentials } = await testCa();
    const order = signOrder(FACTS, await credentials('gateway', 'gateway'));
    const changes: Partial<UpdateFacts>[] = [
      { agent: 'pi-2' },
      { name: '1.0.0-0123456789abcdee' },
      { arch: 'x64' },
      { sha256: 'b'.repeat(64) },
      { sizeBytes: 1001 },
      { issuedMs: NOW + 1 },
      { term: 4 },
      { number: 3 },
    ];
    for (const change of changes) {
      const { agent: _any, ...rules } = RULES;
      const changed = { ...order, ...change };
      expect(() => checkOrder(changed, { ca, ...rules, arch: changed.arch }), JSON.stringify(change)).toThrow(
        expect.objectContaining({ code: 'UPDATE_REFUSED' }),
      );
    }
  });

  it('of anybody but a gateway of this cluster is refused', async () => {
    const [ours, other] = [await testCa(), await testCa()];
    for (const role of ['agent', 'operator', 'viewer'] as const) {
      const order = signOrder(FACTS, await ours.credentials(role, 'gateway'));
      expect(() => checkOrder(order, { ca: ours.ca, ...RULES })).toThrow(expect.objectContaining({ code: 'CERTIFICATE_FOREIGN' }));
    }
    const foreign = signOrder(FACTS, await other.credentials('gateway', 'gateway'));
    expect(() => checkOrder(foreign, { ca: ours.ca, ...RULES })).toThrow(expect.objectContaining({ code: 'CERTIFICATE_FOREIGN' }));
    const borrowed = { ...foreign, certificate: (await ours.credentials('gateway', 'gateway')).certificate };
    expect(() => checkOrder(borrowed, { ca: ours.ca, ...RULES })).toThrow(expect.objectContaining({ code: 'UPDATE_REFUSED' }));
    expect(() => checkOrder({ ...foreign, certificate: 'x' }, { ca: ours.ca, ...RULES })).toThrow(
      expect.objectContaining({ code: 'UPDATE_REFUSED' }),
    );
  });

  it('is for one agent, one kind of processor, and one hour', async () => {
    const { ca, credentials } = await testCa();
    const order = signOrder(FACTS, await credentials('gateway', 'gateway'));
    expect(() => checkOrder(order, { ca, ...RULES, agent: 'pi-2' })).toThrow(expect.objectContaining({ code: 'UPDATE_REFUSED' }));
    expect(() => checkOrder(order, { ca, ...RULES, arch: 'x64' })).toThrow(expect.objectContaining({ code: 'BUNDLE_WRONG_ARCH' }));
    for (const nowMs of [NOW + 2 * 3_600_000, NOW - 600_000]) {
      expect(() => checkOrder(order, { ca, ...RULES, nowMs })).toThrow(expect.objectContaining({ code: 'UPDATE_REFUSED' }));
    }
    // Root looks at no dates: its clock may be anything.
    checkOrder(order, { ca, arch: 'arm64', nowMs: undefined });
  });

  it('is later by the term, then by its number, and never by a clock', () => {
    const order = (term: number, number: number, issuedMs: number) => ({ ...FACTS, term, number, issuedMs });
    expect(isLater(order(4, 1, 1), order(3, 9, 2))).toBe(true);
    expect(isLater(order(3, 3, 1), order(3, 2, 2))).toBe(true);
    expect(isLater(order(3, 2, 2), order(3, 2, 1))).toBe(false);
    expect(isLater(order(3, 1, 2), order(3, 2, 1))).toBe(false);
    expect(isLater(order(2, 9, 2), order(3, 1, 1))).toBe(false);
  });

  it.each(['', '[]', '{}', '{"agent":1}', JSON.stringify({ ...FACTS, certificate: '', signature: '', sizeBytes: -1 })])(
    'that is none is refused: %j',
    (text) => {
      expect(() => parseOrder(text)).toThrow(expect.objectContaining({ code: 'UPDATE_REFUSED' }));
    },
  );
});
