import { describe, expect, it } from 'vitest';
import type { AgentStatus, DeploymentStatus, PlanRow, StatusReport } from '../../broker/messages.js';
import { coveredMs, Settling, unsettled } from './convergence.js';

const agent = (name: string, state = 'ready', heldMs = 0) => ({ agent: name, state, heldMs }) as AgentStatus;
function deployment(name: string, epoch: number, agents: readonly string[], state = 'serving'): DeploymentStatus {
  const seats = agents.map((seated) => ({ agent: seated }) as PlanRow);
  return { name, epoch, state, why: 'so', plan: { seats } } as unknown as DeploymentStatus;
}
const status = (agents: readonly AgentStatus[], deployments: readonly DeploymentStatus[], term = 1) =>
  ({ term, agents, deployments }) as unknown as StatusReport;
const WANTED = { agents: ['a', 'b'], deployments: ['net'] };
const good = (epoch = 1) => status([agent('a'), agent('b')], [deployment('net', epoch, ['a', 'b'])]);

describe('a cluster at rest', () => {
  it('has all agents ready, and every deployment served by those that are there', () => {
    expect(unsettled(good(), WANTED)).toBe('');
    expect(unsettled(status([agent('a'), agent('b', 'suspect')], []), WANTED)).toBe('agent b is suspect');
    expect(unsettled(status([agent('a')], []), WANTED)).toBe('agent b is not known');
    expect(unsettled(status([agent('a'), agent('b')], []), WANTED)).toBe('there is no deployment net');
    expect(unsettled(status([agent('a'), agent('b')], [deployment('net', 1, ['a'], 'preparing')]), WANTED)).toBe('net is preparing: so');
    expect(unsettled(status([agent('a'), agent('b')], [deployment('net', 1, ['c'])]), WANTED)).toBe('net has a seat on c, which is gone');
    expect(unsettled(status([agent('a'), agent('b'), agent('c')], []), WANTED)).toBe('agent c is gone but ready');
  });

  it('does not wait for an agent that is held back for long', () => {
    const held = status([agent('a'), agent('b', 'joining', 20_000)], [deployment('net', 1, ['a'])]);
    expect(unsettled(held, WANTED)).toBe('');
    const soon = status([agent('a'), agent('b', 'joining', 2000)], [deployment('net', 1, ['a'])]);
    expect(unsettled(soon, WANTED)).toBe('agent b is joining');
  });

  it('has stayed as it is for a while, and says since when', () => {
    const settling = new Settling(WANTED, 3000);
    expect(settling.see(undefined, 0)).toBe(false);
    expect(settling.see(good(), 1000)).toBe(false);
    expect(settling.see(good(), 3900)).toBe(false);
    expect(settling.see(good(), 4000)).toBe(true);
    expect(settling.sinceMs).toBe(1000);
  });

  it('gives results, whatever its status says', () => {
    const settling = new Settling(WANTED, 3000);
    settling.see(good(), 0);
    expect(settling.see(good(), 3000, ['net'])).toBe(false);
    expect(settling.why).toBe('no results of net');
    expect(settling.see(good(), 5900)).toBe(false);
  });

  it('is disturbed by another plan, another term, or no answer', () => {
    for (const other of [good(2), status([agent('a'), agent('b')], [deployment('net', 1, ['a'])], 2), undefined]) {
      const settling = new Settling(WANTED, 3000);
      settling.see(good(), 0);
      settling.see(other, 2000);
      expect(settling.see(other, 4900)).toBe(false);
    }
  });
});

describe('time covered by transfers', () => {
  it('counts overlaps once, and only what lies within', () => {
    const intervals = [
      { fromMs: 40, toMs: 60 },
      { fromMs: 0, toMs: 20 },
      { fromMs: 10, toMs: 30 },
      { fromMs: 90, toMs: 200 },
    ];
    expect(coveredMs(intervals, 5, 100)).toBe(25 + 20 + 10);
    expect(coveredMs([], 0, 100)).toBe(0);
  });
});
