import { describe, expect, it } from 'vitest';
import type { RefusalRow, StatusReport } from '../../broker/messages.js';
import { countsOf, Tally, uncounted } from './refusals.js';

const row = (code: string, count: number): RefusalRow => ({ code, count, latest: '' });
const status = (term: number, gateway: RefusalRow[], agents: Record<string, [nonce: string, ...rows: RefusalRow[]]>): StatusReport =>
  ({
    ...{ term, refusals: gateway },
    agents: Object.entries(agents).map(([agent, [nonce, ...refusals]]) => ({ agent, health: { nonce, refusals } })),
  }) as unknown as StatusReport;

describe('what was refused', () => {
  const before = countsOf(status(1, [row('SENDER_WRONG', 2)], { a: ['x', row('TERM_STALE', 1)], b: ['y'] }));

  it('is missed where a lie was told and its code did not grow', () => {
    const told = [
      { lie: 'old-term', agent: 'a' },
      { lie: 'other-health', agent: 'b' },
      { lie: 'wrong-process', agent: 'b' },
      { lie: 'false-will', agent: 'b' },
    ] as const;
    expect(uncounted(told, before, before)).toEqual([
      "'old-term' about a was not counted as TERM_STALE at a",
      "'other-health' about b was not counted as SENDER_WRONG at gateway",
      "'wrong-process' about b was not counted as EPOCH_STALE at b",
    ]);
    const after = countsOf(status(1, [row('SENDER_WRONG', 3)], { a: ['x', row('TERM_STALE', 2)], b: ['y', row('EPOCH_STALE', 1)] }));
    expect(uncounted(told, before, after)).toEqual([]);
  });

  it('is not asked of a process that was started since, which counts from nothing', () => {
    const told = [
      { lie: 'old-term', agent: 'a' },
      { lie: 'garbage', agent: 'b' },
    ] as const;
    const after = countsOf(status(2, [], { a: ['z'] }));
    expect(uncounted(told, before, after)).toEqual([]);
  });

  it('is summed over all processes there were, however often they are looked at', () => {
    const tally = new Tally();
    tally.see(before);
    tally.see(before);
    tally.see(countsOf(status(2, [row('SENDER_WRONG', 1)], { a: ['z', row('TERM_STALE', 4)] })));
    expect(tally.byCode()).toEqual({ SENDER_WRONG: 3, TERM_STALE: 5 });
  });
});
