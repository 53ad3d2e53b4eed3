import { connect as connectTls } from 'node:tls';
import { generate, type Packet, parser } from 'mqtt-packet';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { Credentials } from '../credentials/credentials.js';
import { connectBus } from '../mqtt-bus.js';
import { startBroker } from '../server.js';
import { crowd, NO_CROWD, resources, startProxy, until } from '../test-brokers.js';
import { RenewedSource, type TestAuthority, testAuthority } from '../test-credentials.js';
import { DISPATCHER, topicsOf } from '../topics.js';
import type { LaneMessage, Lanes } from './lane.js';
import { createLanes, type LanesOptions } from './lanes.js';
import { type LaneNode, laneNode } from './test-node.js';

const topics = topicsOf('test');
const LOCAL = ['127.0.0.1'];

let authority: TestAuthority;
const made = new Map<string, Credentials>();
beforeAll(async () => {
  authority = await testAuthority();
  for (const name of ['a', 'b', 'c']) made.set(name, await authority.make('agent', name));
  made.set(DISPATCHER, await authority.make('gateway', 'gateway'));
  made.set('alice', await authority.make('operator', 'alice'));
});

function credentialsOf(name: string): Credentials {
  const found = made.get(name);
  if (found === undefined) throw new Error(`no credentials of ${name}`);
  return found;
}

const node = (id: string, options: Partial<LanesOptions> = {}): Promise<LaneNode> => {
  const trust = authority.trust(credentialsOf(id.replace(/-[0-9a-f]{8}$/, '')));
  return laneNode(id, { cluster: 'test', trust, ...options }, topics.activation(id));
};

const entry = (agent: string, lanePort: number) => ({ agent, addresses: LOCAL, lanePort });
const laneOf = (lanes: Lanes, peer: string) => lanes.health().find((row) => row.peer === peer);

describe('lanes with credentials', () => {
  it('carry messages both ways between peers, large ones too, and say who sent them', async () => {
    const [a, b] = [await node('a'), await node('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    b.lanes.setPeers([entry('a', a.lanes.port)]);
    const large = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 31) & 0xff);
    await Promise.all([a.lanes.send('b', topics.activation('b'), [large]), b.lanes.send('a', topics.activation('a'), [Uint8Array.of(1)])]);
    await until('both', () => a.got.length === 1 && b.got.length === 1);
    expect(Buffer.concat([...(b.got[0]?.payload ?? [])]).equals(large)).toBe(true);
    expect([a.got[0]?.from, b.got[0]?.from, b.got[0]?.relayed]).toEqual(['b', 'a', false]);
    expect([...a.refused, ...b.refused]).toEqual([]);
  });

  it('have a connection beside them, on which nobody says what he may not say elsewhere', async () => {
    const [a, gateway] = [await node('a'), await node(DISPATCHER)];
    a.lanes.setPeers([entry(DISPATCHER, gateway.lanes.port)]);
    gateway.lanes.setPeers([entry('a', 0)]);
    const requests: LaneMessage[] = [];
    gateway.lanes.on(topics.blobRequest.name, (message) => requests.push(message));
    let answers = 0;
    const events = { maxMessageBytes: 100_000, onMessage: () => answers++, onChange: () => undefined };
    const side = a.lanes.beside(DISPATCHER, events);
    await until('the connection', () => side.state === 'up');
    await side.send(topics.blobRequest.name, [Uint8Array.of(1)]);
    await until('the request', () => requests.length === 1);
    expect(requests[0]?.from).toBe('a');
    await requests[0]?.answer?.(topics.blobChunk('a').name, [new Uint8Array(50_000)]);
    await until('the answer', () => answers === 1);
    await side.send(topics.reign.name, [Uint8Array.of(1)]).catch(() => undefined);
    await until('the refusal', () => gateway.refused.includes('(listener) SENDER_WRONG'));
  });

  it('let in only the peers of the table, and those from when they are in it to when they are not', async () => {
    const [a, b] = [await node('a'), await node('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    await until('the refusal', () => b.refused.length > 0);
    expect(b.refused[0]).toBe('(listener) SENDER_WRONG');
    await until('the word of it', () => /does not know us as its peer/.test(laneOf(a.lanes, 'b')?.why ?? ''));
    expect(laneOf(a.lanes, 'b')?.lane).toBe('down');
    // b has no listener to dial: only a's own connection can bring them together.
    b.lanes.setPeers([entry('a', 0)]);
    await until('the lane', () => laneOf(a.lanes, 'b')?.lane === 'direct');
    await a.lanes.send('b', topics.activation('b'), [Uint8Array.of(1)]);
    await until('the message', () => b.got.length === 1);
    b.lanes.setPeers([]);
    await until('the end', () => laneOf(a.lanes, 'b')?.lane === 'down');
  });

  it("dial nobody else: what listens at a peer's address must show the certificate of that peer", async () => {
    const [a, c] = [await node('a'), await node('c')];
    c.lanes.setPeers([entry('a', a.lanes.port)]);
    a.lanes.setPeers([entry('b', c.lanes.port)]);
    await until('the refusal', () => /the certificate is agent c's, and the peer is b/.test(laneOf(a.lanes, 'b')?.why ?? ''));
    await expect(a.lanes.send('b', topics.activation('b'), [Uint8Array.of(1)])).rejects.toMatchObject({ code: 'LANE_DOWN' });
    expect(c.got).toEqual([]);
  });

  it('take the dispatcher for the gateway only, and the gateway for nothing else', async () => {
    const [a, d] = [await node('a'), await node(DISPATCHER)];
    d.lanes.setPeers([entry('a', a.lanes.port)]);
    await d.lanes.send('a', topics.activation('a'), [Uint8Array.of(1)]);
    await until('the message', () => a.got.length === 1);
    expect(a.got[0]?.from).toBe(DISPATCHER);
    const impostor = await node('b', { id: DISPATCHER, trust: authority.trust(credentialsOf('b')) });
    impostor.lanes.setPeers([entry('a', a.lanes.port)]);
    await until('the refusal', () => a.refused.includes('(listener) SENDER_WRONG'));
    expect(laneOf(impostor.lanes, 'a')?.lane).toBe('down');
  });

  it("let a client's sessions bring frames and nothing else, where they are let in at all", async () => {
    const admits = ({ role, name }: { readonly role: string; readonly name: string }) =>
      role === 'operator' ? '' : `${name} sends no frames`;
    const d = await node(DISPATCHER, { admits });
    const submits: string[] = [];
    d.lanes.on(topics.submit, ({ from }) => submits.push(from));
    const client = await node('alice-1a2b3c4d', { listen: false });
    client.lanes.setPeers([entry(DISPATCHER, d.lanes.port)]);
    await client.lanes.send(DISPATCHER, topics.submit, [Uint8Array.of(1)]);
    await until('the frame', () => submits.length === 1);
    expect(submits).toEqual(['alice-1a2b3c4d']);
    // A result of a slice is not a client's to give.
    await client.lanes.send(DISPATCHER, topics.activation(DISPATCHER), [Uint8Array.of(1)]).catch(() => undefined);
    await until('the refusal', () => d.refused.includes('(listener) SENDER_WRONG'));
    expect(d.got).toEqual([]);
    const agent = await node('a', { listen: false });
    agent.lanes.setPeers([entry(DISPATCHER, d.lanes.port)]);
    await until('the refusal', () => d.refused.filter((line) => line.includes('SENDER_WRONG')).length >= 2);
    expect(laneOf(agent.lanes, DISPATCHER)?.lane).toBe('down');
  });

  it('give a stock client that shows the right certificate nothing that is not for it', async () => {
    const a = await node('a');
    a.lanes.setPeers([entry('b', 0)]);
    const { ca, certificate, key } = credentialsOf('b');
    const socket = connectTls({ port: a.lanes.port, host: '127.0.0.1', ca, cert: certificate, key, rejectUnauthorized: false });
    socket.on('error', () => undefined);
    onTestFinished(() => void socket.destroy());
    const packets: Packet[] = [];
    const parse = parser({ protocolVersion: 4 });
    parse.on('packet', (packet: Packet) => packets.push(packet));
    socket.on('data', (chunk) => void parse.parse(chunk));
    const say = (packet: Packet) => socket.write(generate(packet));
    say({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId: 'b~x', keepalive: 0 });
    const subscriptions = [topics.activation('b'), topics.activation('c'), topics.command('b').name].map((topic) => ({
      topic,
      qos: 0 as const,
    }));
    say({ cmd: 'subscribe', messageId: 1, subscriptions });
    await until('the answer', () => packets.length === 2);
    expect(packets).toMatchObject([
      { cmd: 'connack', returnCode: 0 },
      { cmd: 'suback', granted: [0, 128, 128] },
    ]);
    say({ cmd: 'publish', topic: topics.cancel('a').name, payload: 'x', qos: 0, dup: false, retain: false });
    await until('the end', () => socket.destroyed);
    expect(a.refused).toContain('(listener) SENDER_WRONG');
  });

  it('turn away who has a longer name than anybody, before his name is looked at', async () => {
    const a = await node('a');
    a.lanes.setPeers([entry('b', 0)]);
    const { ca, certificate, key } = credentialsOf('b');
    for (const clientId of ['b~'.padEnd(257, 'x'), 'b~'.padEnd(256, 'x')]) {
      const socket = connectTls({ port: a.lanes.port, host: '127.0.0.1', ca, cert: certificate, key, rejectUnauthorized: false });
      socket.on('error', () => undefined);
      onTestFinished(() => void socket.destroy());
      const answer = new Promise<Buffer>((resolve) => void socket.once('data', resolve));
      socket.write(generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId, keepalive: 0 }));
      // CONNACK: identifier rejected, or accepted.
      expect([...(await answer)]).toEqual([0x20, 2, 0, clientId.length > 256 ? 2 : 0]);
    }
    expect(a.refused).toEqual(['(listener) CODEC_INVALID']);
  });

  it('turn away other clusters, no certificate, and who is revoked, whose connection ends at once', async () => {
    const other = await testAuthority();
    const [a, b] = [await node('a'), await node('b')];
    b.lanes.setPeers([entry('a', a.lanes.port)]);
    a.lanes.setPeers([entry('b', 0), entry('d', 0)]);
    await until('the lane', () => laneOf(b.lanes, 'a')?.lane === 'direct');
    const stranger = await node('c', { id: 'b', trust: other.trust(await other.make('agent', 'b')) });
    stranger.lanes.setPeers([entry('a', a.lanes.port)]);
    await until('both ends refuse', () => /not signed by the CA/.test(laneOf(stranger.lanes, 'a')?.why ?? ''));
    const bare = connectTls({ port: a.lanes.port, host: '127.0.0.1', rejectUnauthorized: false });
    bare.on('error', () => undefined);
    bare.resume();
    await until('the end', () => bare.destroyed);
    await until('the refusal', () => a.refused.includes('(listener) CERTIFICATE_FOREIGN'));
    made.set('d', await authority.make('agent', 'd'));
    const d = await node('d');
    d.lanes.setPeers([entry('a', a.lanes.port)]);
    await until('the lane', () => laneOf(d.lanes, 'a')?.lane === 'direct');
    authority.revoke('d');
    await until('the end', () => laneOf(d.lanes, 'a')?.lane === 'down');
    expect(laneOf(b.lanes, 'a')?.lane).toBe('direct');
  });

  it.skipIf(NO_CROWD !== '')('let a peer in while twenty addresses hold all the connections they may, and stop at once', async () => {
    const a = await node('a', { maxConnections: 40 });
    const others = await crowd(a.lanes.port, 20, 5);
    onTestFinished(() => others.stop());
    expect(others.open).toBeGreaterThan(0);
    const b = await node('b');
    a.lanes.setPeers([entry('b', 0)]);
    b.lanes.setPeers([entry('a', a.lanes.port)]);
    await until('the lane', () => laneOf(b.lanes, 'a')?.lane === 'direct');
    const from = performance.now();
    await a.lanes.stop();
    expect(performance.now() - from).toBeLessThan(5_000);
  });

  it('resume TLS sessions when a connection breaks, also through renewed credentials', async () => {
    const source = new RenewedSource(credentialsOf('a'));
    const [a, b] = [await node('a', { trust: authority.trust(source) }), await node('b')];
    const wire = await startProxy(b.lanes.port);
    onTestFinished(() => wire.stop());
    b.lanes.setPeers([entry('a', 0)]);
    a.lanes.setPeers([entry('b', wire.port)]);
    const deliver = async (count: number) => {
      await until('the lane', () => laneOf(a.lanes, 'b')?.lane === 'direct');
      await a.lanes.send('b', topics.activation('b'), [Uint8Array.of(count)]);
      await until(`message ${count}`, () => b.got.length === count);
    };
    await deliver(1);
    wire.cut();
    await until('the end', () => laneOf(a.lanes, 'b')?.lane !== 'direct');
    await deliver(2);
    source.current = await authority.make('agent', 'a');
    await a.lanes.send('b', topics.activation('b'), [Uint8Array.of(3)]);
    await until('the same connection serves on', () => b.got.length === 3);
    wire.cut();
    await until('the end', () => laneOf(a.lanes, 'b')?.lane !== 'direct');
    await deliver(4);
    expect(b.refused).toEqual([]);
  });

  it('relay what cannot go directly, under the name of the sender', async () => {
    const server = await startBroker({ host: '127.0.0.1', port: 0, trust: authority.trust(credentialsOf(DISPATCHER)) });
    onTestFinished(() => server.stop());
    const busOf = async (id: string) => {
      const bus = await connectBus({ url: server.url, id, trust: authority.trust(credentialsOf(id)) });
      onTestFinished(() => bus.stop());
      return bus;
    };
    const a = await node('a', { bus: await busOf('a'), listen: false });
    const b = await node('b', { bus: await busOf('b'), listen: false });
    await a.lanes.send('b', topics.activation('b'), [Uint8Array.of(1)]);
    await until('the message', () => b.got.length === 1);
    expect(b.got[0]).toMatchObject({ from: 'a', relayed: true, topic: topics.activation('b') });
  });

  it('stop and leave nothing behind', async () => {
    const before = resources();
    const trust = (name: string) => authority.trust(credentialsOf(name));
    const a = createLanes({ id: 'a', cluster: 'test', host: '127.0.0.1', trust: trust('a') });
    const b = createLanes({ id: 'b', cluster: 'test', host: '127.0.0.1', trust: trust('b') });
    await Promise.all([a.start(), b.start()]);
    a.setPeers([entry('b', b.port)]);
    b.setPeers([entry('a', a.port)]);
    await until('the lane', () => laneOf(a, 'b')?.lane === 'direct');
    await Promise.all([a.stop(), b.stop(), a.stop()]);
    await until('the end of all sockets and timers', () => resources().length <= before.length);
  });
});
