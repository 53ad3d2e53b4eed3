import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeBroker, type FakeBroker } from '../broker/fake-bus.js';
import type { Command, Health, Hello, LaneHealth, PeerEntry } from '../broker/messages.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import { Commands } from './commands.js';
import type { Deployment } from './deployment.js';
import { Peers } from './peers.js';
import { Registry } from './registry.js';

const topics = topicsOf('c');
const box = { start: [], end: [] };
const between = (fromStage: number, toStage: number) => ({
  ...{ fromStage, fromPart: 0, output: 0, toStage, toPart: 0, input: 0, box, encoding: 'raw' as const },
});
/** a -> b. */
const PLAN = {
  ...{ deployment: 'd', epoch: 1, stages: ['a', 'b'].map((name) => ({ agents: [[name]], parts: [{ slice: `slice of ${name}` }] })) },
  wires: [between(SOURCE, 0), between(0, 1), between(1, SINK)],
} as unknown as Plan;

let broker: FakeBroker;
let registry: Registry;
let commands: Commands;
let peers: Peers;
let now: number;
let plans: Plan[];
let got: { agent: string; command: Command }[];
let seen: { broken: string[]; moved: string[]; entries: readonly PeerEntry[]; logged: string[] };

const hello = (agent: string, addresses = [`at ${agent}`]): Hello =>
  ({ agent, nonce: `${agent}1`, addresses, lanePort: 5, healthMs: 1000, connection: 0, schemaVersion: 1 }) as unknown as Hello;
const lane = (peer: string, kind: LaneHealth['lane'], why = ''): LaneHealth => ({
  ...{ peer, lane: kind, why, bytesSent: 0, messagesSent: 0, sendMs: 0, receivedBytesPerSecond: 0, receivedSamples: 0, roundTripMs: 0 },
  ...{ waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0, messagesDropped: 0 },
});
const health = (agent: string, peersVersion: number, lanes: LaneHealth[] = []): Health =>
  ({ agent, nonce: `${agent}1`, peersTerm: 1, peersVersion, lanes, seats: [] }) as unknown as Health;
const delivered = () => new Promise((resolve) => setTimeout(resolve, 10));
/** Versions that the agent was told. */
const versions = (agent: string) =>
  got.flatMap(({ agent: to, command: { body } }) => (to === agent && body.kind === 'peers' ? [body.peers.version] : []));

function join(agent: string): void {
  registry.apply({ kind: 'hello', hello: hello(agent) }, now);
  registry.apply({ kind: 'health', health: health(agent, 0) }, now);
}

beforeEach(async () => {
  broker = createFakeBroker();
  const bus = broker.bus('scheduler');
  registry = new Registry();
  commands = new Commands(bus, topics, 's');
  now = 0;
  plans = [PLAN];
  got = [];
  seen = { broken: [], moved: [], entries: [], logged: [] };
  peers = new Peers({
    ...{ registry, commands, term: () => 1, now: () => now, lanes: () => [] },
    deployments: () => [{ serving: { plan: plans[0] }, next: undefined, draining: new Map() } as unknown as Deployment],
    dispatcherPeer: () => ({ agent: DISPATCHER, addresses: ['at the gateway'], lanePort: 9 }),
    onPeers: (entries) => {
      seen.entries = entries;
    },
    onBroken: (agent, why) => seen.broken.push(`${agent}: ${why}`),
    onMoved: (agent) => seen.moved.push(agent),
    log: (_kind, text) => seen.logged.push(text),
  });
  for (const agent of ['a', 'b', 'spare']) {
    await broker.bus(agent).subscribe(topics.command(agent), (command) => got.push({ agent, command }));
    join(agent);
  }
});
afterEach(() => commands.stop());

describe('peer tables', () => {
  it('are told once to everyone, and again only to whom they changed', async () => {
    peers.sync();
    peers.sync();
    await delivered();
    expect(got.map(({ agent }) => agent).toSorted()).toEqual(['a', 'b', 'spare']);
    const before = versions('a')[0] ?? 0;
    registry.apply({ kind: 'gone', gone: { agent: 'spare', nonce: 'spare1', why: 'stopped', connection: 0 } }, now);
    peers.sync();
    await delivered();
    expect(got).toHaveLength(3);
    plans = [{ ...PLAN, wires: [between(SOURCE, 0), between(0, SINK)] }];
    peers.sync();
    await delivered();
    expect(versions('a')).toHaveLength(2);
    expect(versions('a')[1]).toBeGreaterThan(before);
    expect(got.at(-1)?.command).toMatchObject({ term: 1, scheduler: 's' });
  });

  it('are told to who asks, if it is the process that is known', async () => {
    peers.sync();
    await delivered();
    got = [];
    peers.asked({ agent: 'a', nonce: 'another', term: 0, version: 0 });
    peers.asked({ agent: 'nobody', nonce: 'n', term: 0, version: 0 });
    await delivered();
    expect(got).toEqual([]);
    peers.asked({ agent: 'a', nonce: 'a1', term: 0, version: 0 });
    await delivered();
    expect(got[0]?.command.body).toMatchObject({
      kind: 'peers',
      peers: {
        peers: [
          { agent: DISPATCHER, before: true, after: false, addresses: ['at the gateway'], lanePort: 9, slices: [] },
          { agent: 'b', before: false, after: true, addresses: ['at b'], lanePort: 5, slices: ['slice of b'] },
        ],
      },
    });
  });

  it('are told again when health shows for a while that the agent does not hold them', async () => {
    peers.sync();
    await delivered();
    const [version = 0] = versions('a');
    now = 1000;
    peers.health(null, health('a', version - 1));
    now = 4000;
    peers.health(null, health('a', version));
    await delivered();
    expect(versions('a')).toEqual([version]);
    peers.health(null, health('a', version - 1));
    // Not at every health from then on.
    peers.health(null, health('a', version - 1));
    await delivered();
    expect(versions('a')).toEqual([version, version]);
  });

  it('are reported with what agents say of their lanes', () => {
    peers.sync();
    const report = { ...lane('b', 'direct'), roundTripMs: 2, receivedBytesPerSecond: 0 };
    registry.apply({ kind: 'health', health: health('a', 0, [report]) }, now);
    registry.apply({ kind: 'health', health: health('b', 0, [{ ...lane('a', 'direct'), receivedBytesPerSecond: 5e6 }]) }, now);
    const [table] = peers.report('a').tables;
    expect(table).toMatchObject({ agent: 'a', heldVersion: 0 });
    expect(table?.rows[1]).toMatchObject({
      agent: 'b',
      state: 'ready',
      lane: 'direct',
      roundTripMs: 2,
      inBytesPerSecond: 0,
      outBytesPerSecond: 5e6,
      waitingBytes: 0,
      busyMs: 0,
      busyBytesPerSecond: 0,
    });
    expect(peers.report('').tables).toHaveLength(3);
    expect(() => peers.report('nobody')).toThrow(/AGENT_UNKNOWN|no agent is called/);
  });
});

describe('an agent whose certificate was revoked', () => {
  const outOf = (agent: string) =>
    got.flatMap(({ agent: to, command: { body } }) => (to === agent && body.kind === 'peers' ? [body.peers] : [])).at(-1);

  it('is out of the tables of those who have seats beside it at once, though the plan names it, and everybody is told', async () => {
    peers.sync();
    await delivered();
    expect(outOf('a')).toMatchObject({ out: [] });
    registry.apply({ kind: 'revoked', agent: 'b' }, now);
    peers.revoked('b');
    peers.sync();
    await delivered();
    expect(outOf('a')?.peers.map(({ agent }) => agent)).toEqual([DISPATCHER]);
    for (const agent of ['a', 'spare']) expect(outOf(agent)).toMatchObject({ out: ['b'] });
    // Neither do prepares name it, nor the dispatcher's own lanes.
    expect(peers.entries(['a', 'b']).map(({ agent }) => agent)).toEqual([DISPATCHER, 'a']);
    peers.back('b');
    peers.sync();
    await delivered();
    expect(outOf('a')).toMatchObject({ out: [] });
    expect(outOf('a')?.peers.map(({ agent }) => agent)).toEqual([DISPATCHER, 'b']);
  });

  it('is told of for long, but not without end', async () => {
    for (let i = 0; i < 1000; i++) peers.revoked(`x${i}`);
    peers.sync();
    await delivered();
    expect(outOf('a')?.out.length).toBeLessThanOrEqual(256);
    expect(outOf('a')?.out.at(-1)).toBe('x999');
  });
});

describe('an agent that moved', () => {
  const move = async (addresses: string[]): Promise<void> => {
    peers.sync();
    await delivered();
    got = [];
    registry.apply({ kind: 'hello', hello: hello('b', addresses) }, now);
    peers.moved('b', hello('b'), hello('b', addresses));
    await delivered();
  };

  it('is told to its neighbours and to the dispatcher, and its frames are issued again when those know', async () => {
    await move(['elsewhere']);
    expect(seen.entries.find(({ agent }) => agent === 'b')?.addresses).toEqual(['elsewhere']);
    // The spare has nothing to do with it.
    expect(got.map(({ agent }) => agent)).toEqual(['a']);
    expect(seen.moved).toEqual([]);
    commands.settle({ id: got[0]?.command.id ?? '', agent: 'a', code: '', message: '' } as never);
    await delivered();
    expect(seen.moved).toEqual(['b']);
  });

  it('has nothing issued again when it only has one more address', async () => {
    await move(['at b', 'elsewhere']);
    expect(got.map(({ agent }) => agent)).toEqual(['a']);
    await delivered();
    expect(seen.moved).toEqual([]);
  });

  it('is not suspected because lanes to where it was break', async () => {
    await move(['elsewhere']);
    now = 1000;
    peers.health(health('a', 0, [lane('b', 'direct')]), health('a', 0, [lane('b', 'relay', 'reset')]));
    peers.unreached('b', 'a', 'LANE_DOWN');
    expect(seen.broken).toEqual([]);
    now = 6000;
    peers.health(health('a', 0, [lane('b', 'direct')]), health('a', 0, [lane('b', 'relay', 'reset')]));
    expect(seen.broken).toEqual(['b: the direct lane of a to it broke (reset)']);
  });
});

describe('a lane that broke', () => {
  const broke = (agent: string, peer: string, nonce = `${agent}1`): void =>
    peers.health({ ...health(agent, 0, [lane(peer, 'direct')]), nonce }, { ...health(agent, 0, [lane(peer, 'relay', 'reset')]), nonce });

  it('is believed of peers only, and of agents that serve', () => {
    peers.sync();
    // It has no seat beside b, or none at all; a process that has not the name; one that is gone.
    broke('spare', 'b');
    peers.unreached('b', 'spare', 'LANE_DOWN');
    broke('a', 'b', 'another');
    broke('nobody', 'b');
    expect(seen.broken).toEqual([]);
    broke('a', 'b');
    expect(seen.broken).toEqual(['b: the direct lane of a to it broke (reset)']);
    registry.apply({ kind: 'gone', gone: { agent: 'a', nonce: 'a1', why: 'will', connection: 0 } }, now);
    broke('a', 'b');
    expect(seen.broken).toHaveLength(1);
  });
});

describe('a neighbour that says at every health that a peer cannot be reached', () => {
  const lies = (times: number): void => {
    for (let i = 0; i < times; i++) {
      now += 500;
      peers.health(health('a', 0, [lane('b', 'direct')]), health('a', 0, [lane('b', 'relay', 'reset')]));
      peers.unreached('b', 'a', 'LANE_DOWN');
      now += 500;
      peers.health(null, health('b', 0));
    }
  };

  it('is not believed any more when the peer answers each time; what the dispatcher sees still counts, and another agent', () => {
    peers.sync();
    lies(60);
    // Twice in each of the first three seconds: by its health, and by frames.
    expect(seen.broken).toHaveLength(6);
    expect(peers.doubted()).toMatchObject([{ agent: 'a', peer: 'b' }]);
    seen.broken = [];
    peers.ownLane('b', 'direct', '');
    peers.ownLane('b', 'down', 'reset');
    peers.health(health('b', 0, [lane('a', 'direct')]), health('b', 0, [lane('a', 'relay', 'reset')]));
    expect(seen.broken.map((text) => text.slice(0, 1))).toEqual(['b', 'a']);
    now += 30 * 60_000;
    expect(peers.doubted()).toEqual([]);
  });

  it('was right when the peer is lost then', () => {
    peers.sync();
    for (let i = 0; i < 10; i++) {
      peers.unreached('b', 'a', 'LANE_DOWN');
      peers.gone('b');
      peers.health(null, health('b', 0));
    }
    expect(seen.broken).toHaveLength(10);
  });
});

describe('the dispatcher', () => {
  it('says of its own lanes which broke: only those that were direct', () => {
    peers.ownLane('a', 'relay', 'not yet');
    peers.ownLane('a', 'direct', '');
    peers.ownLane('a', 'relay', 'reset');
    peers.ownLane('a', 'down', 'reset');
    expect(seen.broken).toEqual(['a: the direct lane of the dispatcher to it broke (reset)']);
  });
});
