import { describe, expect, it } from 'vitest';
import type { LaneHealth, LinkMeasurement } from '../broker/messages.js';
import { DISPATCHER } from '../broker/topics.js';
import { laneOf } from './dashboard/fixture.js';
import { Registry } from './registry.js';
import { healthOf, helloOf } from './simulate/said.js';
import { SlowAgents } from './slow-agents.js';

const FAST = 12e6;

/** Agents a to d, and links of 96 Mbit/s; what is measured now is what the test says. */
function world() {
  const registry = new Registry();
  let nowMs = 0;
  for (const agent of 'abcd') {
    registry.apply({ kind: 'hello', hello: helloOf(agent, '1') }, 0);
    registry.apply({ kind: 'health', health: healthOf(agent, '1') }, 0);
  }
  const [lines, doubts, done]: [string[], string[], string[]] = [[], [], []];
  let measured = 0.2e6;
  const own: LaneHealth[] = [];
  const slow = new SlowAgents({
    registry,
    learning: {
      knownLink: () => FAST,
      doubtLink: (from, to, rate) => void doubts.push(`${from}>${to} ${rate}`),
      measureNow: async (agent) => {
        done.push(`measured ${agent}`);
        return { upBytesPerSecond: measured, downBytesPerSecond: measured } as LinkMeasurement;
      },
      accept: (agent) => void done.push(`accepted ${agent}`),
      trust: (agent) => void done.push(`trusted ${agent}`),
    },
    lanes: () => own,
    apply: (event) => void registry.apply(event, nowMs),
    now: () => nowMs,
    log: (kind, text) => void lines.push(`${kind}: ${text}`),
  });
  const busy = (peer: string): LaneHealth => laneOf(peer, { busyMs: 1500, busyBytesPerSecond: 0.2e6 });
  const stateOf = (agent: string) => registry.get(agent)?.state;
  /** Everybody's health, once a second; `slowOnes` are slow with everybody. */
  const pass = async (seconds: number, slowOnes: readonly string[] = []): Promise<void> => {
    for (let i = 0; i < 2 * seconds; i++) {
      nowMs += 500;
      for (const agent of i % 2 === 0 ? 'abcd' : '') {
        const peers = [...'abcd', DISPATCHER].filter((peer) => peer !== agent && [agent, peer].some((end) => slowOnes.includes(end)));
        const health = healthOf(agent, '1', { lanes: peers.map(busy) });
        registry.apply({ kind: 'health', health }, nowMs);
        slow.health(health);
      }
      slow.tick();
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const become = (rate: number): void => {
    measured = rate;
  };
  return { registry, slow, lines, doubts, done, own, busy, stateOf, pass, become };
}

describe('agents whose links become slow', () => {
  it('are suspect however well they are heard, and ready when their links were measured to be what they were', async () => {
    const { registry, slow, lines, doubts, done, stateOf, pass, become } = world();
    await pass(1, ['b']);
    expect('abcd'.split('').map(stateOf)).toEqual(['ready', 'suspect', 'ready', 'ready']);
    expect(registry.get('b')?.why).toMatch(/its link is slow: 1\.60 Mbit\/s from \w to \w, where 96\.0 Mbit\/s are known/);
    expect(registry.isSlow('b')).toBe(true);
    expect(slow.heldMs('b')).toBeGreaterThan(3000);
    expect(lines).toEqual([expect.stringContaining('slow link: agent b')]);
    expect(doubts).toContain('a>b 200000');
    await pass(8, ['b']);
    expect(stateOf('b')).toBe('suspect');
    expect(done).toEqual(['measured b']);
    become(FAST);
    await pass(8);
    expect(stateOf('b')).toBe('ready');
    expect(done).toEqual(['measured b', 'measured b', 'trusted b']);
    expect(registry.isSlow('b')).toBe(false);
  });

  it('are seen by the dispatcher alone, too', async () => {
    const { own, busy, stateOf, pass } = world();
    own.push(busy('c'));
    await pass(1);
    expect(stateOf('c')).toBe('suspect');
  });

  it('that are lost are forgotten: another process begins anew', async () => {
    const { registry, slow, stateOf, pass } = world();
    await pass(1, ['b']);
    registry.apply({ kind: 'gone', gone: { agent: 'b', nonce: '1', why: 'will', connection: 0 } }, 2000);
    expect([stateOf('b'), registry.isSlow('b')]).toEqual(['lost', false]);
    await pass(1);
    expect(slow.heldMs('b')).toBe(0);
  });
});
