import { describe, expect, it } from 'vitest';
import type { SliceRef } from '../broker/plan.js';
import { type LossQuestion, lossRows, type WorkedOut } from './loss-rows.js';
import type { Repair } from './repair.js';

const slice = (name: string, sizeBytes = 1000): SliceRef => ({
  ...{ graph: { sha256: `${name}.graph`, sizeBytes: 10 }, blobs: [{ sha256: `${name}.weights`, sizeBytes }] },
  ...{ macs: 1, weightBytes: sizeBytes, activationBytes: 1 },
});
const stage = (...agents: string[][]) => ({ agents, redundancy: 0 });
const links = { usual: { bytesPerSecond: 1000, latencyMs: 0 }, between: new Map() };

/** Whoever is lost of the keys, the agents named take its slices. */
function worked(repairs: Record<string, readonly [to: string, slice: SliceRef][]>, open: Record<string, string> = {}): WorkedOut {
  const moves = (agent: string) => (repairs[agent] ?? []).map(([to, one], part) => ({ from: agent, to, stage: 0, part, slice: one }));
  const found = new Map(Object.keys(repairs).map((agent) => [agent, { moves: moves(agent) } as unknown as Repair]));
  return { ahead: { standby: new Map(), repairs: found, open: new Map(Object.entries(open)) }, devices: [], links };
}

/** `has`: `agent file` on disk, `agent file!` also loaded. */
function rows(stages: LossQuestion['stages'], more: Partial<LossQuestion> & { readonly has?: readonly string[] } = {}) {
  const { has = [], ...question } = more;
  const holdings = {
    stored: (agent: string, sha256: string) => has.some((one) => one.replace('!', '') === `${agent} ${sha256}`),
    loaded: (agent: string, sha256: string) => has.includes(`${agent} ${sha256}!`),
  };
  return lossRows({ stages, gone: new Set(), worked: worked({}), holdings, ...question });
}
const outcomes = (...of: Parameters<typeof rows>) => Object.fromEntries(rows(...of).map(({ agent, outcome }) => [agent, outcome]));

describe('what the loss of an agent would mean', () => {
  it('is nothing to the frames where another replica is whole, or a parity stands in', () => {
    expect(outcomes([stage(['a'], ['b']), stage(['c'])])).toEqual({ a: 'goes-on', b: 'goes-on', c: 'unknown' });
    expect(outcomes([{ agents: [['a', 'b', 'p']], redundancy: 1 }])).toEqual({ a: 'goes-on', b: 'goes-on', p: 'goes-on' });
    // One that does without it where it is coded, and needs it where it is not.
    expect(outcomes([{ agents: [['a', 'b', 'p']], redundancy: 1 }, stage(['a'])])).toMatchObject({ a: 'unknown', b: 'goes-on' });
  });

  it('is a repair at hand when the takers have all of it, and one that is being fetched until then', () => {
    const plan = [stage(['a']), stage(['b'])];
    const both = worked({
      a: [
        ['c', slice('x')],
        ['d', slice('y', 500)],
      ],
    });
    const [none] = rows(plan, { worked: both });
    expect(none).toMatchObject({ agent: 'a', outcome: 'fetching', takers: ['c', 'd'], missingBytes: 1520 });
    expect(none?.pauseMs).toBeGreaterThan(1000);
    const [half] = rows(plan, { worked: both, has: ['c x.graph', 'c x.weights'] });
    expect(half).toMatchObject({ outcome: 'fetching', missingBytes: 510 });
    const stored = ['c x.graph', 'c x.weights', 'd y.graph', 'd y.weights'];
    const [disk] = rows(plan, { worked: both, has: stored });
    expect(disk).toMatchObject({ outcome: 'repair', missingBytes: 0 });
    expect(disk?.pauseMs).toBeGreaterThan(0);
    const [memory] = rows(plan, { worked: both, has: stored.flatMap((one) => [one, `${one}!`]) });
    expect(memory).toMatchObject({ outcome: 'repair', pauseMs: 0 });
  });

  it('is another plan where nobody can take the seats, with the reason', () => {
    const [row] = rows([stage(['a'])], { worked: worked({}, { a: 'nobody has room' }) });
    expect(row).toMatchObject({ outcome: 'plan', why: 'nobody has room', takers: [] });
  });

  it('is not known before it was worked out, and while another one is lost already', () => {
    const plan = [stage(['a'], ['b']), stage(['c'])];
    expect(rows(plan, { worked: undefined })[2]).toMatchObject({ agent: 'c', outcome: 'unknown', why: 'it is being worked out' });
    expect(rows(plan, { worked: { none: 'nothing may stand by' } })[2]).toMatchObject({ outcome: 'unknown', why: 'nothing may stand by' });
    const after = rows(plan, { gone: new Set(['b']), worked: worked({ c: [['a', slice('x')]] }) });
    expect(after.map(({ agent }) => agent)).toEqual(['a', 'c']);
    // The other replica is no help any more.
    expect(after[0]).toMatchObject({ outcome: 'unknown', why: 'b is lost: that comes first' });
  });
});
