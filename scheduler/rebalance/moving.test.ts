import { describe, expect, it } from 'vitest';
import { chain } from '../planners/chain-model.js';
import { ENGINE_BYTES } from '../planners/cost.js';
import { estimate } from '../planners/estimate.js';
import type { Device, Links, PlanDraft, SeatedStage } from '../planners/problem.js';
import { agentMoves, planKey, prepareMs } from './moving.js';

const MIB = 2 ** 20;
const model = chain(new Array(4).fill({ macs: 1e9, weightBytes: 100 * MIB, rows: 12 }), 12);
const links: Links = { usual: { bytesPerSecond: 100 * MIB, latencyMs: 1 }, between: new Map() };
const device = (agent: string, memoryBytes: number): Device => ({ agent, macsPerSecond: 1e10, memoryBytes });

function draft(stages: readonly SeatedStage[], memoryMib = 2000): PlanDraft {
  const cut = model.cut(stages.map(({ spec }) => spec));
  if ('refused' in cut) throw new Error(cut.reason);
  const devices = ['a', 'b', 'c'].map((name) => device(name, memoryMib * MIB));
  return { planner: 'test', why: '', stages, cut, inFlight: 2, estimate: estimate(cut, stages, devices, links, 2) };
}
const whole = (from: number, to: number, ...agents: string[]): SeatedStage => ({
  spec: { nodes: [from, to], cut: 'whole', shares: [1] },
  agents: agents.map((agent) => [agent]),
});
const move = (from: PlanDraft, to: PlanDraft, cpu = 1) => agentMoves({ from, to, cpuOf: () => cpu });

describe('what a move takes', () => {
  it('is nothing where an agent keeps its slice', () => {
    const moves = move(draft([whole(0, 2, 'a'), whole(2, 4, 'b')]), draft([whole(0, 2, 'a'), whole(2, 4, 'c')]));
    expect(moves.find(({ agent }) => agent === 'a')).toEqual({ agent: 'a', bytes: 0, loadMs: 0, tight: false });
    expect(moves.find(({ agent }) => agent === 'c')?.bytes).toBe(200 * MIB);
  });

  it('is tight where both plans fit by themselves and not together', () => {
    const need = ENGINE_BYTES / MIB + 420;
    const [from, to] = [draft([whole(0, 4, 'a', 'b')], need), draft([whole(0, 2, 'a'), whole(2, 4, 'b')], need)];
    expect(move(from, to).map(({ agent, tight }) => [agent, tight])).toEqual([
      ['a', true],
      ['b', true],
    ]);
    const [roomy, other] = [draft([whole(0, 4, 'a', 'b')], need + 300), draft([whole(0, 2, 'a'), whole(2, 4, 'b')], need + 300)];
    expect(move(roomy, other).some(({ tight }) => tight)).toBe(false);
  });

  it('takes the time of the gateway, which sends to all, and of a slow processor that loads', () => {
    const moves = move(draft([whole(0, 4, 'a')]), draft([whole(0, 4, 'a', 'b', 'c')]), 0.1);
    // Two times 400 MiB through one link of 100 MiB/s.
    expect(prepareMs(moves, links, new Map())).toBeCloseTo(8000, -1);
    expect(moves.find(({ agent }) => agent === 'b')?.loadMs).toBeCloseTo(50 + (400 * MIB) / 2e5, 0);
  });
});

describe('the key of a plan', () => {
  it('is equal for shares that say the same, and other for other agents', () => {
    const rows = (shares: number[], ...agents: string[]): SeatedStage => ({
      spec: { nodes: [0, 4], cut: 'rows', shares },
      agents: [agents],
    });
    expect(planKey(draft([rows([1, 1], 'a', 'b')]))).toBe(planKey(draft([rows([2, 2], 'a', 'b')])));
    expect(planKey(draft([rows([1, 1], 'a', 'b')]))).not.toBe(planKey(draft([rows([1, 1], 'a', 'c')])));
    expect(planKey(draft([rows([1, 1], 'a', 'b')]))).not.toBe(planKey(draft([rows([2, 1], 'a', 'b')])));
  });
});
