import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeActivation } from '../broker/activation.js';
import { MAGIC } from '../broker/codec.js';
import type { Credentials } from '../broker/credentials/credentials.js';
import { type CredentialSource, fixedSource } from '../broker/credentials/source.js';
import { createFakeBroker, type FakeBroker, type FakeBus } from '../broker/fake-bus.js';
import { createFakeNetwork, type FakeNetwork } from '../broker/lanes/fake-lanes.js';
import type { Command, CommandBody, Gone, Health, Hello, PeersQuestion, Reply, Trouble } from '../broker/messages.js';
import { SCHEMA_VERSION } from '../broker/schema/version.js';
import { NO_SEAL } from '../broker/seal.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import { trustOf } from '../broker/trust.js';
import { Agent } from './agent.js';
import { parseAgentConfig } from './config.js';
import type { AgentOptions } from './options.js';
import { eventually, folder, rowsBox, ToyEngine, toyPlan } from './test-world.js';

const topics = topicsOf('c');
const neighbour = (agent: string) => ({ agent, addresses: ['10.0.0.9'], lanePort: 1, before: true, after: true, slices: [] });

let undo: (() => unknown)[] = [];
let broker: FakeBroker;
let network: FakeNetwork;
let bus: FakeBus;
/** Of the agent. */
let its: FakeBus;
let own: string[];
/** How often the agent asked for them. */
let looked: number;
let heard: { hellos: Hello[]; healths: Health[]; gones: Gone[]; questions: PeersQuestion[]; replies: Reply[]; troubles: Trouble[] };

beforeEach(async () => {
  undo = [];
  broker = createFakeBroker();
  network = createFakeNetwork();
  bus = broker.bus('scheduler');
  own = ['10.0.0.1', '127.0.0.1'];
  looked = 0;
  heard = { hellos: [], healths: [], gones: [], questions: [], replies: [], troubles: [] };
  await bus.subscribe(topics.hello, (m) => heard.hellos.push(m));
  await bus.subscribe(topics.health, (m) => heard.healths.push(m));
  await bus.subscribe(topics.gone, (m) => heard.gones.push(m));
  await bus.subscribe(topics.peersQuestion, (m) => heard.questions.push(m));
  await bus.subscribe(topics.reply, (m) => heard.replies.push(m));
  await bus.subscribe(topics.trouble, (m) => heard.troubles.push(m));
});

afterEach(async () => {
  for (const end of undo.reverse()) await end();
});

/** Health comes in its turn only every `healthMs`. */
async function start(healthMs = 60_000, options: Partial<AgentOptions> = {}): Promise<Agent> {
  const agent = new Agent({
    ...options,
    config: parseAgentConfig({ name: 'a', cluster: 'c', broker: 'memory', directory: await folder(undo), healthMs }),
    softwareVersion: '1',
    connect: async (will) => {
      its = broker.bus('a', { will });
      its.localAddress = '10.0.0.1';
      return its;
    },
    createLanes: () => network.lanes('a'),
    createEngine: async () => new ToyEngine(),
    memory: () => ({ limitBytes: 1e9, usedBytes: 0 }),
    fetch: { chunkBytes: 64, requestTimeoutMs: 50, random: () => 0 },
    ownAddresses: () => {
      looked++;
      return own;
    },
  });
  undo.push(() => agent.stop());
  await agent.start();
  await eventually(() => heard.questions.length === 1, 'hello and question');
  return agent;
}

let ids = 0;
async function ask(agent: Agent, body: CommandBody, term = 1): Promise<Reply> {
  const command: Command = { id: `c${ids++}`, term, scheduler: 's', nonce: agent.nonce, deadlineMs: 5000, body, seal: NO_SEAL };
  await bus.publish(topics.command('a'), command);
  await eventually(() => heard.replies.some(({ id }) => id === command.id), `reply to ${body.kind}`);
  return heard.replies.find(({ id }) => id === command.id) as Reply;
}

const told = (agent: Agent, version: number, peers = [neighbour('b')], term = 1) =>
  ask(agent, { kind: 'peers', peers: { version, peers, out: [] } }, term);

describe('an agent and its peer table', () => {
  it('asks for it at every connection, and says which one it holds', async () => {
    const agent = await start();
    expect(heard.questions).toMatchObject([{ agent: 'a', nonce: agent.nonce, term: 0, version: 0 }]);
    expect(await told(agent, 4)).toMatchObject({ code: '' });
    its.lose();
    its.restore();
    await eventually(() => heard.questions.length === 2, 'the second question');
    expect(heard.questions[1]).toMatchObject({ term: 1, version: 4 });
    // An older one changes nothing.
    await told(agent, 3, []);
    its.lose();
    its.restore();
    await eventually(() => heard.questions.length === 3, 'the third question');
    expect(heard.questions[2]).toMatchObject({ term: 1, version: 4 });
  });

  it('tells in its health which one it holds, and that a lane broke without waiting for its turn', async () => {
    const agent = await start();
    network.lanes('b');
    await told(agent, 1);
    expect(heard.healths).toEqual([]);
    network.join('a', 'b', 'relay', 'the cable was pulled');
    await eventually(() => heard.healths.length === 1, 'health out of turn');
    const [health] = heard.healths;
    expect(health).toMatchObject({ peersTerm: 1, peersVersion: 1 });
    expect(health?.lanes.find(({ peer }) => peer === 'b')).toMatchObject({ lane: 'relay', why: 'the cable was pulled' });
  });
});

describe('an agent whose address changes', () => {
  it('gives up the connection from the old one, and says hello from the new one, without a farewell', async () => {
    await start();
    expect(heard.hellos[0]).toMatchObject({ addresses: own, connection: 0 });
    own = ['10.0.0.2', '127.0.0.1'];
    await eventually(() => heard.hellos.length === 2, 'the second hello');
    expect(heard.hellos[1]).toMatchObject({ addresses: own, connection: 1, nonce: heard.hellos[0]?.nonce });
    expect(heard.gones).toEqual([]);
    // The Will of the new connection is told from the one of the old.
    its.localAddress = '10.0.0.2';
    its.lose();
    await eventually(() => heard.gones.length === 1, 'the Will');
    expect(heard.gones[0]).toMatchObject({ why: 'will', connection: 1 });
  });

  it('only says hello when its connection is from one that it still has', async () => {
    await start();
    own = ['10.0.0.1', '10.0.0.2', '127.0.0.1'];
    await eventually(() => heard.hellos.length === 2, 'the second hello');
    expect(heard.hellos[1]).toMatchObject({ addresses: own, connection: 0 });
  });

  it('waits while it has none at all', async () => {
    await start();
    own = ['127.0.0.1'];
    const before = looked;
    await eventually(() => looked > before, 'a look at the addresses');
    expect(heard.hellos).toHaveLength(1);
    own = ['10.0.0.3', '127.0.0.1'];
    await eventually(() => heard.hellos.length === 2, 'the second hello');
    expect(heard.hellos[1]).toMatchObject({ connection: 1 });
  });
});

describe('an agent whose certificate was renewed', () => {
  it('comes back to the broker with the new one, without a farewell, before the connection of the old one is ended', async () => {
    let renewed = (): void => undefined;
    const source: CredentialSource = {
      ...fixedSource({} as Credentials),
      onChange: (listener) => {
        renewed = listener;
        return () => undefined;
      },
    };
    await start(60_000, { trust: trustOf(source), reconnectWithinMs: 20 });
    expect(heard.hellos).toHaveLength(1);
    renewed();
    renewed();
    await eventually(() => heard.hellos.length === 2, 'the second hello');
    expect(heard.hellos[1]).toMatchObject({ connection: 1, nonce: heard.hellos[0]?.nonce });
    expect(heard.gones).toEqual([]);
    its.lose();
    await eventually(() => heard.gones.length === 1, 'the Will');
    // Of the connection that is there, and of no other.
    expect(heard.gones[0]).toMatchObject({ why: 'will', connection: 1 });
  });
});

describe('what an agent does not act on', () => {
  it('is counted by code and told in its health: wrong sender, released epoch, former scheduler, another schema, bytes that are no message', async () => {
    const agent = await start(50);
    const lanes = network.lanes(DISPATCHER);
    const stranger = network.lanes('stranger');
    const plan = toyPlan('d', 1, [{ parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] }]);
    await bus.subscribe(topics.blobRequest, ({ agent: name, id, sha256, offset, length }) => {
      const data = plan.blobs.get(sha256) ?? Buffer.alloc(0);
      const chunk = { id, sha256, offset, totalBytes: data.length, code: '', data: data.subarray(offset, offset + length) };
      void bus.publish(topics.blobChunk(name), chunk);
    });
    const { deployment, epoch } = plan.prepare;
    expect(await ask(agent, { kind: 'prepare', prepare: plan.prepare })).toMatchObject({ code: '' });
    const send = (from: typeof lanes, frame: number) => {
      const tensor = { dtype: 'float32' as const, dims: [8, 4], encoding: 'raw' as const, scale: 1, zero: 0 };
      const header = { deployment, term: 1, epoch, frame, attempt: 1, route: [0], wire: 0, lowWater: 0, remainingMs: 10_000, ...tensor };
      return from.send('a', topics.activation('a'), encodeActivation(header, new Uint8Array(128), rowsBox(0, 8), rowsBox(0, 8)));
    };
    await send(stranger, 1);
    await send(lanes, 1);
    await eventually(() => agent.state.counts.received === 2, 'both');
    const counted = () => Object.fromEntries((heard.healths.at(-1)?.refusals ?? []).map(({ code, count }) => [code, count]));
    await eventually(() => counted().SENDER_WRONG === 1, 'the stranger is counted');
    expect(heard.healths.at(-1)?.refusals[0]?.latest).toContain('came from stranger and not from dispatcher');
    // The dispatcher is not told: its own frame is under way.
    expect(heard.troubles).toEqual([]);
    await ask(agent, { kind: 'release', release: { deployment, epoch } });
    await send(lanes, 2);
    await bus.publishBytes(topics.command('a').name, Buffer.from('no message'));
    await bus.publishBytes(topics.command('a').name, Buffer.from([MAGIC, SCHEMA_VERSION.major + 1, 0]));
    expect(await ask(agent, { kind: 'ping', ping: { padBytes: 0 } }, 3)).toMatchObject({ code: '' });
    expect(await ask(agent, { kind: 'ping', ping: { padBytes: 0 } }, 2)).toMatchObject({ code: 'TERM_STALE' });
    const expected = { CODEC_INVALID: 1, EPOCH_STALE: 1, SCHEMA_MISMATCH: 1, SENDER_WRONG: 1, TERM_STALE: 1 };
    await eventually(() => Object.keys(counted()).length >= Object.keys(expected).length, 'all are counted');
    expect(counted()).toEqual(expected);
  });
});
