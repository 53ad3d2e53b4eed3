import { describe, expect, it } from 'vitest';
import type { Health, LaneHealth, PeerEntry } from '../broker/messages.js';
import { type Plan, SINK, SOURCE, type Wire } from '../broker/plan.js';
import { DISPATCHER } from '../broker/topics.js';
import { brokenLanes, neighboursOf, PeerTables } from './peer-tables.js';

/** Stages of agents by replica and part; `wires`: from stage and part to stage and part. */
function plan(epoch: number, stages: readonly (readonly (readonly string[])[])[], wires: readonly (readonly number[])[]): Plan {
  const wire = ([fromStage = 0, fromPart = 0, toStage = 0, toPart = 0]: readonly number[]): Wire => ({
    ...{ fromStage, fromPart, output: 0, toStage, toPart, input: 0 },
    box: { start: [], end: [] },
    encoding: 'raw',
  });
  return {
    ...{ deployment: 'd', model: 'm', term: 1, epoch, inputs: [], outputs: [], slices: {}, predictedLatencyMs: 1, predictedFps: 1 },
    stages: stages.map((agents, s) => ({
      cut: 'x',
      agents,
      parts: (agents[0] ?? []).map((_, p) => ({ slice: `s${s}p${p}`, inputs: [], outputs: [] })),
    })),
    wires: wires.map(wire),
  } as unknown as Plan;
}

/** Two parts of a stage, an exchange between them, and one that gathers; a replica each of the first. */
const HALO = plan(
  1,
  [
    [
      ['a', 'b'],
      ['c', 'd'],
    ],
    [
      ['a', 'b'],
      ['c', 'd'],
    ],
    [['e']],
  ],
  [
    [SOURCE, 0, 0, 0],
    [SOURCE, 0, 0, 1],
    [0, 0, 1, 0],
    [0, 0, 1, 1],
    [0, 1, 1, 0],
    [0, 1, 1, 1],
    [1, 0, 2, 0],
    [1, 1, 2, 0],
    [2, 0, SINK, 0],
  ],
);

const entry = (name: string): PeerEntry => ({ agent: name, addresses: [`at-${name}`], lanePort: 1 });
const seen = (plans: readonly Plan[], agents: readonly string[]) => ({ plans, agents, entry });

describe('neighbours', () => {
  it('are those on any route: before, after, or both; never the agent itself', () => {
    const relations = neighboursOf(HALO);
    expect(Object.fromEntries(relations.get('a') ?? [])).toEqual({
      [DISPATCHER]: { before: true, after: false },
      b: { before: true, after: true },
      c: { before: true, after: true },
      d: { before: true, after: true },
      e: { before: false, after: true },
    });
    expect(Object.fromEntries(relations.get('e') ?? [])).toMatchObject({ a: { before: true, after: false }, dispatcher: { after: true } });
    expect([...(relations.get(DISPATCHER)?.keys() ?? [])].toSorted()).toEqual(['a', 'b', 'c', 'd', 'e']);
  });
});

describe('peer tables', () => {
  it('have a row for each neighbour in all plans, with address and slices; one without seats knows the dispatcher alone', () => {
    const tables = new PeerTables();
    const other = plan(2, [[['a']], [['f']]], [[0, 0, 1, 0]]);
    expect(tables.update(seen([HALO, other], ['a', 'e', 'spare']))).toEqual(['a', 'e', 'spare']);
    const rows = tables.get('a')?.rows ?? [];
    expect(rows.map(({ agent }) => agent)).toEqual([DISPATCHER, 'b', 'c', 'd', 'e', 'f']);
    expect(rows.find(({ agent }) => agent === 'b')).toEqual({ ...entry('b'), before: true, after: true, slices: ['s0p1', 's1p1'] });
    expect(tables.get('spare')?.rows).toEqual([{ ...entry(DISPATCHER), before: false, after: false, slices: [] }]);
  });

  it('get a new version when they change, and only then', () => {
    const tables = new PeerTables();
    tables.update(seen([HALO], ['a', 'e', 'spare']));
    const before = ['a', 'e', 'spare'].map((name) => tables.get(name)?.version ?? 0);
    expect(tables.update(seen([HALO], ['a', 'e', 'spare']))).toEqual([]);
    // One neighbour listens elsewhere now: the tables that name it change, and no other.
    const moved = (name: string) => (name === 'b' ? { ...entry(name), addresses: ['elsewhere'] } : entry(name));
    expect(tables.update({ ...seen([HALO], ['a', 'e', 'spare']), entry: moved })).toEqual(['a', 'e']);
    const after = ['a', 'e', 'spare'].map((name) => tables.get(name)?.version ?? 0);
    expect(after[0]).toBeGreaterThan(before[0] ?? 0);
    expect(after[2]).toBe(before[2]);
    // The plan is gone.
    expect(tables.update(seen([], ['a', 'e', 'spare']))).toEqual(['a', 'e']);
  });

  it('never use a version twice, also for an agent that was away', () => {
    const tables = new PeerTables();
    tables.update(seen([HALO], ['a']));
    const first = tables.get('a')?.version ?? 0;
    tables.update(seen([HALO], []));
    expect(tables.get('a')).toBeUndefined();
    tables.update(seen([HALO], ['a']));
    expect(tables.get('a')?.version).toBeGreaterThan(first);
  });

  it('leave out whom nobody knows', () => {
    const tables = new PeerTables();
    tables.update({ ...seen([HALO], ['a']), entry: (name) => (name === 'b' ? undefined : entry(name)) });
    expect(tables.get('a')?.rows.map(({ agent }) => agent)).toEqual([DISPATCHER, 'c', 'd', 'e']);
  });
});

describe('a lane broke', () => {
  const health = (nonce: string, lanes: Record<string, LaneHealth['lane']>): Health =>
    ({
      agent: 'a',
      nonce,
      lanes: Object.entries(lanes).map(([peer, lane]) => ({ peer, lane, why: `${peer} is away` })),
    }) as unknown as Health;

  it('when it was direct in the last health of the same process, and is relayed or down now', () => {
    const before = health('1', { b: 'direct', c: 'direct', d: 'relay', e: 'direct', f: 'down' });
    const now = health('1', { b: 'relay', c: 'down', d: 'relay', f: 'direct', g: 'relay' });
    expect(brokenLanes(before, now)).toEqual([
      { peer: 'b', why: 'b is away' },
      { peer: 'c', why: 'c is away' },
    ]);
    expect(brokenLanes(health('2', { b: 'direct' }), now)).toEqual([]);
    expect(brokenLanes(null, now)).toEqual([]);
  });
});
