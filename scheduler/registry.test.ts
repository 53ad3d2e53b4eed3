import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { followSuspicion, Registry, type RegistryChange, type RegistryEvent } from './registry.js';
import { healthOf as health, helloOf as hello } from './simulate/said.js';

const kinds = (changes: readonly RegistryChange[]) => changes.map((c) => c.kind);

function readyAgent(registry: Registry, agent: string, nonce: string, nowMs: number): void {
  registry.apply({ kind: 'hello', hello: hello(agent, nonce) }, nowMs);
  registry.apply({ kind: 'health', health: health(agent, nonce) }, nowMs);
}

describe('registry', () => {
  it('makes an agent ready at its first health after hello', () => {
    const registry = new Registry();
    expect(kinds(registry.apply({ kind: 'hello', hello: hello('a', '1') }, 0))).toEqual(['joined']);
    expect(registry.get('a')?.state).toBe('joining');
    expect(kinds(registry.apply({ kind: 'health', health: health('a', '1') }, 10))).toEqual(['ready']);
    expect(registry.serves('a', '1')).toBe(true);
    expect(registry.serves('a', '2')).toBe(false);
  });

  it('refuses a second live process of the same name and leaves the first alone', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    const changes = registry.apply({ kind: 'hello', hello: hello('a', '2') }, 1000);
    expect(changes).toMatchObject([{ kind: 'refuse', nonce: '2', code: 'AGENT_NAME_TAKEN' }]);
    expect(registry.get('a')).toMatchObject({ nonce: '1', state: 'ready' });
    expect(registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '2', why: 'will', connection: 0 } }, 1001)).toEqual([]);
  });

  it('knows a bounded number of agents: those that are gone make room, then newcomers are refused', () => {
    const registry = new Registry({ maxAgents: 2 });
    readyAgent(registry, 'a', '1', 0);
    readyAgent(registry, 'b', '1', 0);
    const join = (agent: string) => registry.apply({ kind: 'hello', hello: hello(agent, '1') }, 1);
    expect(join('c')).toMatchObject([{ kind: 'refuse', agent: 'c', code: 'AGENT_BUSY' }]);
    expect(kinds(join('a'))).toEqual([]);
    registry.apply({ kind: 'gone', gone: { agent: 'b', nonce: '1', why: 'stopped', connection: 0 } }, 1);
    expect(kinds(join('c'))).toEqual(['joined']);
    expect(registry.all().map((record) => record.agent)).toEqual(['a', 'c']);
  });

  it('lets a newcomer replace a process that fell silent', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    expect(kinds(registry.apply({ kind: 'hello', hello: hello('a', '2') }, 3600))).toEqual(['lost', 'joined']);
    expect(registry.get('a')).toMatchObject({ nonce: '2', state: 'joining' });
  });

  it('lets a restarted process in as soon as the Will of the old one arrived', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    expect(kinds(registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '1', why: 'will', connection: 0 } }, 10))).toEqual(['lost']);
    expect(kinds(registry.apply({ kind: 'hello', hello: hello('a', '2') }, 20))).toEqual(['joined']);
  });

  it('suspects an agent whose link is slow as long as that lasts, however well it is heard', () => {
    const registry = new Registry();
    for (const agent of ['a', 'b']) readyAgent(registry, agent, '1', 0);
    const slow = (agent: string, why: string, nowMs: number) => registry.apply({ kind: 'slow', agent, why }, nowMs);
    expect(slow('a', 'its link is slow', 100)).toMatchObject([{ kind: 'suspect', agent: 'a', why: 'its link is slow' }]);
    expect(registry.apply({ kind: 'health', health: health('a', '1') }, 1000)).toEqual([]);
    expect(registry.get('a')).toMatchObject({ state: 'suspect', why: 'its link is slow', seenMs: 1000 });
    expect([registry.isSlow('a'), registry.serves('a', '1'), registry.isSlow('b')]).toEqual([true, true, false]);
    expect(slow('a', '', 2000)).toMatchObject([{ kind: 'ready', agent: 'a' }]);
    expect(slow('a', '', 2000)).toEqual([]);
    // It is lost by silence as any other, and comes back without a word of its link.
    slow('a', 'its link is slow', 2100);
    registry.apply({ kind: 'tick' }, 2200);
    for (let ms = 2700; ms <= 6000; ms += 500) registry.apply({ kind: 'tick' }, ms);
    expect(registry.get('a')?.state).toBe('lost');
    expect(registry.isSlow('a')).toBe(false);
    expect(slow('nobody', 'its link is slow', 7000)).toEqual([]);
  });

  it('drains an agent when an operator asks, and takes that back; what the agent asked for itself, it does not', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    const drain = (undo: boolean, now: number) => kinds(registry.apply({ kind: 'drain', agent: 'a', undo }, now));
    expect(drain(true, 1)).toEqual([]);
    expect(drain(false, 2)).toEqual(['draining']);
    expect(drain(false, 3)).toEqual([]);
    // It says nothing of it: health and a reconnect leave it so, and it holds its seats until they are moved.
    registry.apply({ kind: 'health', health: health('a', '1') }, 4);
    registry.apply({ kind: 'hello', hello: hello('a', '1') }, 5);
    expect(registry.get('a')).toMatchObject({ state: 'draining', why: 'an operator asked for it' });
    expect(registry.serves('a', '1')).toBe(true);
    expect(drain(true, 6)).toEqual(['ready']);
    expect(registry.get('a')).toMatchObject({ state: 'ready', why: '' });
    drain(false, 7);
    registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '1', why: 'draining', connection: 0 } }, 8);
    expect(drain(true, 9)).toEqual([]);
    expect(registry.get('a')?.state).toBe('draining');
    expect(registry.apply({ kind: 'drain', agent: 'nobody', undo: false }, 10)).toEqual([]);
  });

  it('gives no seats to an agent that was drained, lost for a moment, and is back as the same process, until that is taken back', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    registry.apply({ kind: 'drain', agent: 'a', undo: false }, 1);
    registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '1', why: 'will', connection: 0 } }, 2);
    registry.apply({ kind: 'hello', hello: hello('a', '1') }, 3);
    expect(kinds(registry.apply({ kind: 'health', health: health('a', '1') }, 4))).toEqual(['draining']);
    expect(registry.get('a')).toMatchObject({ state: 'draining', why: 'an operator asked for it' });
    expect(kinds(registry.apply({ kind: 'drain', agent: 'a', undo: true }, 5))).toEqual(['ready']);
    registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '1', why: 'will', connection: 0 } }, 6);
    readyAgent(registry, 'a', '1', 100_000);
    expect(registry.get('a')?.state).toBe('ready');
  });

  it('gives seats again to an agent that was drained and started anew', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    registry.apply({ kind: 'drain', agent: 'a', undo: false }, 1);
    registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '1', why: 'stopped', connection: 0 } }, 2);
    readyAgent(registry, 'a', '2', 3);
    expect(registry.get('a')?.state).toBe('ready');
    expect([...registry.drained]).toEqual([]);
  });

  it('knows whom an operator drained before this scheduler began, until that is taken back, here or while it is away', () => {
    const registry = new Registry();
    const drains = ['a', 'b', 'c'].map((agent) => ({ agent, nonce: '1' }));
    expect(registry.apply({ kind: 'drained before', drains }, 0)).toEqual([]);
    readyAgent(registry, 'a', '1', 1);
    expect(registry.get('a')).toMatchObject({ state: 'draining', why: 'an operator asked for it' });
    registry.apply({ kind: 'drain', agent: 'a', undo: true }, 2);
    registry.apply({ kind: 'drain', agent: 'b', undo: true }, 2);
    readyAgent(registry, 'b', '1', 3);
    // A process that nobody drained.
    readyAgent(registry, 'c', '2', 3);
    for (const agent of ['a', 'b', 'c']) expect(registry.get(agent)?.state).toBe('ready');
    expect([...registry.drained]).toEqual([]);
    // It is not a memory without end.
    registry.apply({ kind: 'drained before', drains: Array.from({ length: 3000 }, (_, i) => ({ agent: `x${i}`, nonce: '1' })) }, 4);
    registry.apply({ kind: 'drain', agent: 'a', undo: false }, 5);
    expect(registry.drained.size).toBeLessThanOrEqual(1000);
    expect(registry.drained.get('a')).toBe('1');
  });

  it('suspects and then loses a hung agent, and takes it back when it speaks again', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    const seen: string[] = [];
    for (let now = 0; now <= 4000; now += 500) seen.push(...kinds(registry.apply({ kind: 'tick' }, now)));
    expect(seen).toEqual(['suspect', 'lost']);
    expect(kinds(registry.apply({ kind: 'health', health: health('a', '1') }, 5000))).toEqual(['ready']);
  });

  it('counts silence in the intervals that an agent says, and in as many of them as it is told to', () => {
    const lostAfter = (missedHealth: number, healthMs: number): number => {
      const registry = new Registry({ missedHealth });
      registry.apply({ kind: 'hello', hello: hello('a', '1', { healthMs }) }, 0);
      registry.apply({ kind: 'health', health: health('a', '1') }, 0);
      for (let now = 100; now < 1e6; now += 100) {
        if (kinds(registry.apply({ kind: 'tick' }, now)).includes('lost')) return now;
      }
      return 0;
    };
    expect(lostAfter(3, 1000)).toBe(3500);
    expect(lostAfter(5, 1000)).toBe(5500);
    expect(lostAfter(3, 5000)).toBe(17_500);
    // Not below what a stall of our own may take, nor by what cannot be.
    expect(lostAfter(3, 100)).toBe(1000);
    expect(lostAfter(3, -1)).toBe(3500);
    expect(lostAfter(3, 1e9)).toBe(3500);
  });

  it('takes an agent that a peer cannot reach for lost as soon as one health message is missing, and not before', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    readyAgent(registry, 'b', '1', 0);
    const broke = (agent: string) => ({ kind: 'unreachable' as const, agent, why: 'its lane broke' });
    expect(registry.apply(broke('a'), 100)).toMatchObject([{ kind: 'suspect', agent: 'a', why: 'its lane broke' }]);
    expect(registry.apply(broke('a'), 200)).toEqual([]);
    expect(registry.apply(broke('b'), 200)).toMatchObject([{ kind: 'suspect', agent: 'b' }]);
    // The link between the two was at fault: b is heard.
    expect(kinds(registry.apply({ kind: 'health', health: health('b', '1') }, 900))).toEqual(['recovered']);
    const lost: [number, string][] = [];
    for (let now = 250; now <= 3000; now += 250) {
      for (const change of registry.apply({ kind: 'tick' }, now)) if (change.kind === 'lost') lost.push([now, change.agent]);
    }
    expect(lost).toEqual([[1500, 'a']]);
    expect(registry.get('a')?.why).toContain('its lane broke');
  });

  it('takes an agent for lost at once when it is revoked, and for welcome when it is let in again', () => {
    const registry = new Registry({ holdDown: { baseMs: 2000 } });
    readyAgent(registry, 'a', '1', 0);
    readyAgent(registry, 'b', '1', 0);
    for (const nonce of ['2', '3', '4']) {
      expect(registry.apply({ kind: 'revoked', agent: 'a' }, 100)).toMatchObject([
        { kind: 'lost', agent: 'a', why: 'its certificate was revoked' },
      ]);
      expect(registry.apply({ kind: 'revoked', agent: 'a' }, 100)).toEqual([]);
      // What it said before it was cut off.
      const out = `${Number(nonce) - 1}`;
      expect(registry.apply({ kind: 'health', health: health('a', out) }, 110)).toEqual([]);
      expect(registry.apply({ kind: 'hello', hello: hello('a', out) }, 120)).toEqual([]);
      expect(registry.get('a')).toMatchObject({ state: 'stopped', why: 'its certificate was revoked' });
      readyAgent(registry, 'a', nonce, 200);
      expect(registry.get('a')?.state).toBe('ready');
    }
    expect(registry.apply({ kind: 'revoked', agent: 'nobody' }, 300)).toEqual([]);
    // The same process, by a new certificate.
    registry.apply({ kind: 'revoked', agent: 'a' }, 400);
    readyAgent(registry, 'a', '4', 20_000);
    expect(registry.get('a')?.state).toBe('ready');
  });

  it('holds an agent back that is lost again and again, for ever longer, and forgives it when it stays', () => {
    const registry = new Registry({ holdDown: { baseMs: 2000, mostMs: 10_000, halfLifeMs: 600_000 } });
    readyAgent(registry, 'other', '1', 0);
    let expectedMs = 0;
    /** Lost and back at once; when it is ready. */
    const heldFor = (from: number, nonce: string): number => {
      registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: registry.get('a')?.nonce ?? '', why: 'will', connection: 0 } }, from);
      registry.apply({ kind: 'hello', hello: hello('a', nonce) }, from);
      for (let now = from; now < from + 1e6; now += 500) {
        registry.apply({ kind: 'health', health: health('other', '1') }, now);
        if (kinds(registry.apply({ kind: 'health', health: health('a', nonce) }, now)).includes('ready')) return now - from;
        expect(registry.get('a')).toMatchObject({ state: 'joining', why: expect.stringContaining('held back') });
        expect(registry.serves('a', nonce)).toBe(false);
        expect(registry.flapping('a', now).heldMs).toBe(from + expectedMs - now);
      }
      return Number.NaN;
    };
    readyAgent(registry, 'a', '0', 0);
    let now = 1000;
    for (const [i, expected] of [0, 2000, 4000, 8000, 10_000].entries()) {
      expectedMs = expected;
      expect(heldFor(now, String(i + 1)), `loss ${i + 1}`).toBe(expected);
      expect(registry.flapping('a', now + expected)).toEqual({ losses: i + 1, heldMs: 0 });
      now += expected + 1000;
    }
    // Ten half-lives later nothing is left of it.
    expectedMs = 0;
    expect(heldFor(now + 6_000_000, '9')).toBe(0);
  });

  it('says once that it holds an agent back, and does not when nobody else could serve', () => {
    const registry = new Registry();
    const back = (nowMs: number) => registry.apply({ kind: 'health', health: health('a', '1') }, nowMs);
    const lose = (nowMs: number) => {
      registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '1', why: 'will', connection: 0 } }, nowMs);
    };
    readyAgent(registry, 'a', '1', 0);
    readyAgent(registry, 'b', '1', 0);
    lose(100);
    expect(kinds(back(200))).toEqual(['ready']);
    lose(300);
    expect(back(400)).toMatchObject([{ kind: 'held', why: 'held back: it was lost 2 times' }]);
    expect(back(500)).toEqual([]);
    registry.apply({ kind: 'gone', gone: { agent: 'b', nonce: '1', why: 'stopped', connection: 0 } }, 550);
    expect(kinds(back(600))).toEqual(['ready']);
  });

  it('does not believe the Will of a connection that the agent gave up itself', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    expect(registry.apply({ kind: 'hello', hello: hello('a', '1', { connection: 1, addresses: ['10.0.0.2'] }) }, 500)).toEqual([]);
    const will = (connection: number) => ({ kind: 'gone' as const, gone: { agent: 'a', nonce: '1', why: 'will', connection } });
    expect(registry.apply(will(0), 600)).toEqual([]);
    expect(registry.get('a')).toMatchObject({ state: 'ready', hello: { addresses: ['10.0.0.2'] } });
    expect(kinds(registry.apply(will(1), 700))).toEqual(['lost']);
  });

  it('does not act on what comes in the name of an agent that another process has', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    expect(registry.apply({ kind: 'health', health: health('a', '2') }, 10)).toMatchObject([{ kind: 'impostor', agent: 'a', nonce: '2' }]);
    expect(kinds(registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '2', why: 'stopped', connection: 0 } }, 20))).toEqual([
      'impostor',
    ]);
    expect(kinds(registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '2', why: 'draining', connection: 0 } }, 20))).toEqual([
      'impostor',
    ]);
    expect(registry.get('a')).toMatchObject({ nonce: '1', state: 'ready', seenMs: 0 });
  });

  it('asks a process that slept while another one had its name and left it who it is: the name is free', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    registry.apply({ kind: 'hello', hello: hello('a', '2') }, 4000);
    registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '2', why: 'stopped', connection: 0 } }, 5000);
    expect(kinds(registry.apply({ kind: 'health', health: health('a', '1') }, 6000))).toEqual(['unknown']);
    expect(kinds(registry.apply({ kind: 'hello', hello: hello('a', '1') }, 6100))).toEqual(['joined']);
  });

  it('does not blame the agents when the gateway itself stood still or was cut off', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', '1', 0);
    registry.apply({ kind: 'tick' }, 0);
    expect(registry.apply({ kind: 'tick' }, 6000)).toEqual([]);
    registry.apply({ kind: 'offline' }, 6000);
    for (let now = 6500; now < 20_000; now += 500) expect(registry.apply({ kind: 'tick' }, now)).toEqual([]);
    registry.apply({ kind: 'online' }, 20_000);
    expect(registry.apply({ kind: 'tick' }, 20_500)).toEqual([]);
    expect(registry.get('a')?.state).toBe('ready');
  });

  it('waits for agents that lost the broker with it, as long as their way back may take, and no longer', () => {
    const registry = new Registry();
    for (const agent of ['quick', 'slow', 'dead', 'cut off']) {
      registry.apply({ kind: 'hello', hello: hello(agent.replace(' ', '-'), 'n1') }, 0);
      registry.apply({ kind: 'health', health: health(agent.replace(' ', '-'), 'n1') }, 500);
    }
    registry.apply({ kind: 'offline' }, 1000);
    registry.apply({ kind: 'online' }, 20_000);
    registry.apply({ kind: 'health', health: health('quick', 'n1') }, 20_100);
    registry.apply({ kind: 'unreachable', agent: 'cut-off', why: 'the lane broke' }, 20_200);
    const said: string[] = [];
    for (let now = 20_500; now <= 32_000; now += 500) {
      if (now === 25_500) registry.apply({ kind: 'hello', hello: hello('slow', 'n1') }, now);
      if (now >= 25_500) registry.apply({ kind: 'health', health: health('slow', 'n1') }, now);
      for (const change of registry.apply({ kind: 'tick' }, now)) said.push(`${(now - 20_000) / 1000} ${change.agent} ${change.kind}`);
    }
    // What speaks on the new connection is judged as ever; a peer's word counts at once.
    expect(said).toEqual(['1.5 cut-off lost', '2.5 quick suspect', '4 quick lost', '9.5 dead lost']);
  });

  it('takes a machine that was started anew while the broker was gone for what it is, and the one it replaces for a second of its name', () => {
    const registry = new Registry();
    readyAgent(registry, 'a', 'old', 0);
    registry.apply({ kind: 'offline' }, 1000);
    registry.apply({ kind: 'online' }, 20_000);
    const changes = registry.apply({ kind: 'hello', hello: hello('a', 'new') }, 20_500);
    expect(changes.map(({ kind }) => kind)).toEqual(['lost', 'joined']);
    expect(registry.apply({ kind: 'hello', hello: hello('a', 'old') }, 20_600)).toMatchObject([
      { kind: 'refuse', code: 'AGENT_NAME_TAKEN' },
    ]);
  });

  it('refuses what it cannot read, and names that are not allowed', () => {
    const registry = new Registry({ incompatible: (h) => (h.schemaVersion < 1 ? 'too old' : undefined) });
    const old = registry.apply({ kind: 'hello', hello: hello('a', '1', { schemaVersion: 0 }) }, 0);
    expect(old).toMatchObject([{ kind: 'refuse', code: 'SCHEMA_MISMATCH' }]);
    expect(registry.get('a')?.state).toBe('refused');
    expect(registry.apply({ kind: 'health', health: health('a', '1') }, 0)).toEqual([]);
    for (const name of ['dispatcher', 'a/b', '', '#']) {
      expect(registry.apply({ kind: 'hello', hello: hello(name, '1') }, 0)).toMatchObject([{ code: 'AGENT_NAME_INVALID' }]);
    }
  });

  it('asks who it is when an unknown agent sends health', () => {
    expect(kinds(new Registry().apply({ kind: 'health', health: health('a', '1') }, 0))).toEqual(['unknown']);
  });

  it('tells an agent that said goodbye from one that broke off, and takes it back', () => {
    const registry = new Registry();
    registry.apply({ kind: 'hello', hello: hello('a', '1') }, 0);
    registry.apply({ kind: 'health', health: health('a', '1') }, 0);
    expect(kinds(registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: '1', why: 'stopped', connection: 0 } }, 10))).toEqual([
      'stopped',
    ]);
    expect(registry.get('a')?.state).toBe('stopped');
    expect(registry.serves('a', '1')).toBe(false);
    expect(kinds(registry.apply({ kind: 'tick' }, 9000))).toEqual([]);
    expect(kinds(registry.apply({ kind: 'hello', hello: hello('a', '2') }, 9100))).toEqual(['joined']);
  });

  it('stays consistent under any interleaving: one process per name, and every loss follows a join', () => {
    const agent = fc.constantFrom('a', 'b', 'c');
    const nonce = fc.constantFrom('1', '2', '3');
    const event: fc.Arbitrary<RegistryEvent> = fc.oneof(
      fc.record({ agent, nonce }).map(({ agent, nonce }) => ({ kind: 'hello' as const, hello: hello(agent, nonce) })),
      fc.record({ agent, nonce }).map(({ agent, nonce }) => ({ kind: 'health' as const, health: health(agent, nonce) })),
      fc
        .record({ agent, nonce, why: fc.constantFrom('will', 'stopped', 'draining'), connection: fc.constantFrom(0, 1) })
        .map((gone) => ({ kind: 'gone' as const, gone })),
      agent.map((name) => ({ kind: 'unreachable' as const, agent: name, why: 'x' })),
      agent.map((name) => ({ kind: 'revoked' as const, agent: name })),
      fc.constantFrom({ kind: 'tick' as const }, { kind: 'offline' as const }, { kind: 'online' as const }),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(event, fc.integer({ min: 0, max: 1500 })), { maxLength: 80 }), (steps) => {
        const registry = new Registry();
        const holder = new Map<string, string>();
        let now = 0;
        for (const [step, passed] of steps) {
          now += passed;
          for (const change of registry.apply(step, now)) {
            if (change.kind === 'joined') {
              expect(holder.has(change.agent)).toBe(false);
              holder.set(change.agent, change.nonce);
            } else if (change.kind === 'lost' || change.kind === 'stopped') {
              expect(holder.get(change.agent)).toBe(change.nonce);
              holder.delete(change.agent);
            } else if (change.kind === 'ready' || change.kind === 'held') holder.set(change.agent, change.nonce);
          }
          for (const [name, held] of holder) expect(registry.get(name)?.nonce).toBe(held);
          for (const record of registry.all()) {
            const live = ['joining', 'ready', 'suspect', 'draining'].includes(record.state);
            expect(live).toBe(holder.has(record.agent));
          }
        }
      }),
    );
  });
});

describe('the set of suspects', () => {
  it('has who falls silent until it is heard, or known to be gone, whatever another process of its name says', () => {
    const registry = new Registry();
    const suspects = new Set<string>();
    const apply = (event: RegistryEvent, nowMs: number) => {
      for (const change of registry.apply(event, nowMs)) followSuspicion(suspects, change);
      return [...suspects];
    };
    readyAgent(registry, 'a', '1', 0);
    readyAgent(registry, 'b', '1', 0);
    expect(apply({ kind: 'tick' }, 0)).toEqual([]);
    for (const agent of ['a', 'b']) expect(apply({ kind: 'unreachable', agent, why: 'no lane' }, 500)).toContain(agent);
    expect(apply({ kind: 'health', health: health('a', '1') }, 900)).toEqual(['b']);
    expect(apply({ kind: 'hello', hello: hello('b', '2') }, 950)).toEqual(['b']);
    expect(apply({ kind: 'gone', gone: { agent: 'b', nonce: '1', why: 'will', connection: 0 } }, 1000)).toEqual([]);
  });
});
