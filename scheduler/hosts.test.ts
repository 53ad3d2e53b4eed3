import { describe, expect, it } from 'vitest';
import type { Hello } from '../broker/messages.js';
import { coresOf, hostLines, hostShares } from './hosts.js';

const hello = (agent: string, limits: Partial<Hello> = {}): Hello =>
  ({ agent, cores: 2, host: 'h', hostCores: 2, cpuLimit: 0, engineThreads: 2, ...limits }) as Hello;
const many = (count: number, limits: Partial<Hello> = {}): Hello[] =>
  Array.from({ length: count }, (_, i) => hello(`agent-${i + 1}`, limits));

describe('agents of one machine', () => {
  it('do not share it while their quotas fit together', () => {
    expect(hostShares(many(6, { cpuLimit: 0.18 })).size).toBe(0);
    expect(hostShares(many(2, { cpuLimit: 1 })).size).toBe(0);
    expect(hostShares(many(4, { hostCores: 4, cores: 4, engineThreads: 1 })).size).toBe(0);
  });

  it('share it when they can take more than it has', () => {
    const shares = hostShares(many(8));
    expect(shares.size).toBe(8);
    expect(shares.get('agent-3')).toEqual({ host: 'of agent-1', share: 1 });
    expect(hostShares(many(8, { hostCores: 4, cores: 4, engineThreads: 1 })).get('agent-8')).toEqual({ host: 'of agent-1', share: 0.25 });
    // Twelve of 0.18 core are 2.16 cores on two.
    expect(hostShares(many(12, { cpuLimit: 0.18 })).get('agent-1')?.share).toBeCloseTo(0.09);
  });

  it('are told from those of another machine, and of none that is known', () => {
    expect(hostShares([hello('a'), hello('b', { host: 'other' })]).size).toBe(0);
    expect(hostShares([hello('a', { host: '' }), hello('b', { host: '' })]).size).toBe(0);
    expect(hostShares([hello('a'), hello('b'), hello('c', { host: 'other' })]).has('c')).toBe(false);
  });

  it('keep as many cores busy as the least of their limits says', () => {
    expect(coresOf(hello('a', { cores: 8, hostCores: 8, engineThreads: 4, cpuLimit: 1.5 }))).toBe(1.5);
    expect(coresOf(hello('a', { cores: 8, hostCores: 8, engineThreads: 4 }))).toBe(4);
    expect(coresOf(hello('a', { cores: 1, hostCores: 8, engineThreads: 0 }))).toBe(1);
  });

  it('are named for people, with the gateway where it is beside them', () => {
    expect(hostLines(many(8), 'h')).toEqual(["agent-1, ..., agent-8 (8 agents) run on the gateway's own machine and share its 2 cores."]);
    expect(hostLines(many(2, { cpuLimit: 0.18 }), 'elsewhere')).toEqual([
      'agent-1, agent-2 run on one machine, which has 2 cores, enough for what they may use.',
    ]);
    expect(hostLines([hello('pi')], 'h')).toEqual(["pi runs on the gateway's own machine (2 cores)."]);
    expect(hostLines([hello('pi')], 'elsewhere')).toEqual([]);
  });
});
