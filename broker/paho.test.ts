/**
 * The interoperability cases of the Eclipse Paho test suite for MQTT 3.1.1 (paho.mqtt.testing, `interoperability/client_test.py`), written anew, on the gateway's own
 * broker without credentials: any MQTT client may be used there. With credentials, acl.ts refuses what we have no use for (wildcards, retained messages).
 */
import { connect } from 'node:net';
import { generate, type IConnectPacket, type Packet, parser } from 'mqtt-packet';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type BrokerOptions, type BrokerServer, startBroker } from './server.js';
import { until } from './test-brokers.js';

const TOPICS = ['TopicA', 'TopicA/B', 'Topic/C', 'TopicA/C', '/TopicA'] as const;

async function broker(options: Partial<BrokerOptions> = {}): Promise<BrokerServer> {
  const started = await startBroker({ host: '127.0.0.1', port: 0, ...options });
  onTestFinished(() => started.stop());
  return started;
}

type Received = Extract<Packet, { cmd: 'publish' }>;

/** A client that says exactly what it is told to; it acknowledges what comes, unless it is `mute`. */
class Raw {
  readonly packets: Packet[] = [];
  closed = false;
  mute = false;
  readonly #socket;
  #id = 0;

  constructor(port: number) {
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.#socket.on('error', () => undefined);
    this.#socket.on('close', () => {
      this.closed = true;
    });
    const parse = parser({ protocolVersion: 4 });
    parse.on('packet', (packet: Packet) => this.#got(packet));
    this.#socket.on('data', (chunk) => void parse.parse(chunk));
    onTestFinished(() => void this.#socket.destroy());
  }

  get messages(): Received[] {
    return this.packets.filter((packet): packet is Received => packet.cmd === 'publish');
  }

  get texts(): string[] {
    return this.messages.map(({ payload }) => payload.toString());
  }

  send(packet: Packet): void {
    this.#socket.write(generate(packet));
  }

  bytes(bytes: Buffer): void {
    this.#socket.write(bytes);
  }

  #got(packet: Packet): void {
    this.packets.push(packet);
    const { messageId } = packet;
    if (this.mute || messageId === undefined) return;
    if (packet.cmd === 'publish') this.send({ cmd: packet.qos === 1 ? 'puback' : 'pubrec', messageId });
    if (packet.cmd === 'pubrec') this.send({ cmd: 'pubrel', messageId });
    if (packet.cmd === 'pubrel') this.send({ cmd: 'pubcomp', messageId });
  }

  #next(): number {
    this.#id++;
    return this.#id;
  }

  async #answer<T extends Packet['cmd']>(cmd: T, messageId?: number): Promise<Extract<Packet, { cmd: T }>> {
    const find = () =>
      this.packets.find(
        (packet): packet is Extract<Packet, { cmd: T }> =>
          packet.cmd === cmd && (messageId === undefined || packet.messageId === messageId),
      );
    await until(`${cmd} or the end`, () => find() !== undefined || this.closed);
    const found = find();
    if (found === undefined) throw new Error(`the connection ended without ${cmd}`);
    return found;
  }

  connect(clientId: string, options: Partial<IConnectPacket> = {}) {
    this.send({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 0, clientId, ...options });
    return this.#answer('connack');
  }

  subscribe(...filters: readonly (readonly [topic: string, qos: 0 | 1 | 2])[]) {
    const messageId = this.#next();
    this.send({ cmd: 'subscribe', messageId, subscriptions: filters.map(([topic, qos]) => ({ topic, qos })) });
    return this.#answer('suback', messageId);
  }

  unsubscribe(...topics: string[]) {
    const messageId = this.#next();
    this.send({ cmd: 'unsubscribe', messageId, unsubscriptions: topics });
    return this.#answer('unsuback', messageId);
  }

  /** Resolves when the exchange of this QoS is over. */
  async publish(topic: string, text: string, qos: 0 | 1 | 2 = 0, retain = false): Promise<void> {
    const common = { cmd: 'publish', topic, payload: text, qos, retain, dup: false } as const;
    if (qos === 0) {
      this.send(common);
      return;
    }
    const messageId = this.#next();
    this.send({ ...common, messageId });
    await this.#answer(qos === 1 ? 'puback' : 'pubcomp', messageId);
  }

  /** What was sent before this has been handled: QoS 1 to a topic of one's own, and back. */
  async settle(): Promise<void> {
    const topic = `settle/${Math.random()}`;
    await this.subscribe([topic, 0]);
    await this.publish(topic, '', 1);
    await until('the echo', () => this.messages.some((message) => message.topic === topic));
  }

  async disconnect(): Promise<void> {
    this.send({ cmd: 'disconnect' });
    this.#socket.end();
    await until('the end', () => this.closed);
  }

  /** Without a word. */
  cut(): void {
    this.#socket.destroy();
  }
}

async function connected(server: BrokerServer, id: string, options: Partial<IConnectPacket> = {}): Promise<Raw> {
  const client = new Raw(server.port);
  const { returnCode } = await client.connect(id, options);
  expect(returnCode).toBe(0);
  return client;
}

describe('Paho interoperability, MQTT 3.1.1', () => {
  it('basic: one message of each QoS comes back in it', async () => {
    const a = await connected(await broker(), 'a');
    expect((await a.subscribe([TOPICS[0], 2])).granted).toEqual([2]);
    for (const qos of [0, 1, 2] as const) await a.publish(TOPICS[0], `qos ${qos}`, qos);
    await until('all three', () => a.messages.length === 3);
    expect(a.messages.map(({ payload, qos }) => `${payload} ${qos}`).sort()).toEqual(['qos 0 0', 'qos 1 1', 'qos 2 2']);
  });

  it('a second CONNECT, a wrong protocol name and a wrong version end the connection', async () => {
    const server = await broker();
    const twice = await connected(server, 'twice');
    void twice.connect('twice').catch(() => undefined);
    await until('the end', () => twice.closed);
    const strange = new Raw(server.port);
    // "hj" for MQTT, as the suite has it.
    strange.bytes(Buffer.from([0x10, 15, 0, 2, 0x68, 0x6a, 4, 2, 0, 0, 0, 5, 0x6d, 0x79, 0x63, 0x6c, 0x69]));
    await until('the end', () => strange.closed);
    expect(strange.packets).toEqual([]);
    const newer = new Raw(server.port);
    newer.bytes(Buffer.from([0x10, 14, 0, 4, 0x4d, 0x51, 0x54, 0x54, 9, 2, 0, 0, 0, 2, 0x6d, 0x79]));
    await until('the end', () => newer.closed);
  });

  it('retained messages are given to who subscribes later, to wildcards too, and are taken back by empty ones', async () => {
    const server = await broker();
    const a = await connected(server, 'a');
    await a.publish(TOPICS[1], 'qos 0', 0, true);
    await a.publish(TOPICS[2], 'qos 1', 1, true);
    await a.publish(TOPICS[3], 'qos 2', 2, true);
    await a.settle();
    await a.subscribe(['+/+', 2]);
    await until('all three', () => a.texts.filter((text) => text !== '').length === 3);
    expect(a.messages.filter(({ topic }) => !topic.startsWith('settle')).every(({ retain }) => retain)).toBe(true);
    await a.disconnect();
    const b = await connected(server, 'b');
    for (const topic of [TOPICS[1], TOPICS[2], TOPICS[3]]) await b.publish(topic, '', 1, true);
    await b.settle();
    await b.subscribe(['+/+', 2]);
    await b.settle();
    expect(b.texts.filter((text) => text !== '')).toEqual([]);
  });

  it('a client without an id may have no session: CONNACK 2 and the end; with a clean one it is let in', async () => {
    const server = await broker();
    const stored = new Raw(server.port);
    // Written out: a decent client library refuses to say it.
    stored.bytes(Buffer.from([0x10, 12, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 0, 0, 0, 0, 0]));
    await until('the answer', () => stored.packets.length > 0);
    expect(stored.packets).toMatchObject([{ cmd: 'connack', returnCode: 2, sessionPresent: false }]);
    await until('the end', () => stored.closed);
    const first = await connected(server, '');
    const second = await connected(server, '');
    await second.settle();
    expect(first.closed).toBe(false);
  });

  it('messages of QoS 1 and 2 wait for a client with a session that is away', async () => {
    const server = await broker();
    const away = await connected(server, 'away', { clean: false });
    await away.subscribe(['+/C', 2]);
    await away.disconnect();
    const b = await connected(server, 'b');
    for (const qos of [0, 1, 2] as const) await b.publish(qos === 1 ? TOPICS[3] : TOPICS[2], `qos ${qos}`, qos);
    const back = new Raw(server.port);
    expect(await back.connect('away', { clean: false })).toMatchObject({ returnCode: 0, sessionPresent: true });
    await until('both', () => back.texts.includes('qos 1') && back.texts.includes('qos 2'));
    // Of QoS 0 either is right.
    expect(back.texts.filter((text) => text !== 'qos 0').sort()).toEqual(['qos 1', 'qos 2']);
    const fresh = new Raw(server.port);
    expect(await fresh.connect('away')).toMatchObject({ returnCode: 0, sessionPresent: false });
  });

  it('overlapping subscriptions bring a message once with the highest QoS, or once for each', async () => {
    const a = await connected(await broker(), 'a');
    await a.subscribe(['TopicA/#', 2], ['TopicA/+', 1]);
    await a.publish(TOPICS[3], 'overlapping', 2);
    await a.settle();
    const qos = a.messages.filter(({ topic }) => topic === TOPICS[3]).map((message) => message.qos);
    expect([[2], [1, 2], [2, 1]]).toContainEqual(qos);
  });

  it('a client that is silent beyond its keep-alive is gone, and its Last Will is said', async () => {
    const server = await broker();
    const will = { topic: TOPICS[4], payload: Buffer.from('keepalive expiry'), qos: 2 as const, retain: true };
    const heard = await connected(server, 'heard');
    await heard.subscribe([TOPICS[4], 2]);
    const silent = await connected(server, 'silent', { keepalive: 1, will });
    await until('the will', () => heard.texts.includes('keepalive expiry'), 10_000);
    await until('the end', () => silent.closed);
    // It was to be retained.
    const late = await connected(server, 'late');
    await late.subscribe([TOPICS[4], 1]);
    await until('the retained will', () => late.texts.includes('keepalive expiry'));
  });

  it('a Last Will is said when the connection breaks, and not after DISCONNECT', async () => {
    const server = await broker();
    const heard = await connected(server, 'heard');
    await heard.subscribe([TOPICS[2], 2]);
    const will = (text: string) => ({ will: { topic: TOPICS[2], payload: Buffer.from(text), qos: 1 as const, retain: false } });
    await (await connected(server, 'polite', will('polite'))).disconnect();
    (await connected(server, 'cut', will('cut'))).cut();
    await until('the will', () => heard.texts.includes('cut'));
    expect(heard.texts).toEqual(['cut']);
  });

  it('what was not acknowledged is sent again when the client comes back', async () => {
    const server = await broker();
    const deaf = await connected(server, 'deaf', { clean: false });
    await deaf.subscribe(['+/+', 2]);
    deaf.mute = true;
    const b = await connected(server, 'b');
    await b.publish(TOPICS[1], 'one', 1);
    await b.publish(TOPICS[3], 'two', 2);
    await until('both', () => deaf.messages.length === 2);
    deaf.cut();
    const back = await connected(server, 'deaf', { clean: false });
    await until('both again', () => back.messages.length === 2);
    expect(back.texts.sort()).toEqual(['one', 'two']);
  });

  it('a subscription that is refused is answered with 0x80, and the others of the packet are granted', async () => {
    const server = await broker({ authorize: ({ action, topic }) => action !== 'subscribe' || topic !== 'test/nosubscribe' });
    const a = await connected(server, 'a');
    expect((await a.subscribe(['test/nosubscribe', 2])).granted).toEqual([0x80]);
    expect((await a.subscribe([TOPICS[0], 1], ['test/nosubscribe', 0], [TOPICS[1], 2])).granted).toEqual([1, 0x80, 2]);
    await a.publish('test/nosubscribe', 'unheard', 1);
    await a.publish(TOPICS[1], 'heard', 1);
    await until('one', () => a.messages.length > 0);
    expect(a.texts).toEqual(['heard']);
  });

  it("wildcards at the beginning do not match the broker's $ topics", async () => {
    const server = await broker({ heartbeatMs: 20 });
    const a = await connected(server, 'a');
    await a.subscribe(['#', 1], ['+/+/+', 1]);
    await a.subscribe(['$SYS/#', 0]);
    // The broker's own heartbeat goes to $SYS: only who names it hears it.
    await until('a heartbeat', () => a.messages.some(({ topic }) => topic.startsWith('$SYS/')));
    const b = await connected(server, 'b');
    await b.subscribe(['#', 1], ['+/+/+', 1]);
    await b.publish('x/y/z', 'seen', 1);
    await until('one', () => b.texts.includes('seen'));
    expect(b.messages.filter(({ topic }) => topic.startsWith('$'))).toEqual([]);
  });

  it('after UNSUBSCRIBE nothing more comes of that topic', async () => {
    const server = await broker();
    const a = await connected(server, 'a');
    await a.subscribe([TOPICS[0], 2], [TOPICS[1], 2], [TOPICS[2], 2]);
    await a.unsubscribe(TOPICS[0]);
    const b = await connected(server, 'b');
    for (const topic of TOPICS.slice(0, 3)) await b.publish(topic, topic, 1);
    await until('two', () => a.messages.length === 2);
    await a.settle();
    expect(a.texts.filter((text) => text !== '').sort()).toEqual([TOPICS[1], TOPICS[2]].sort());
  });

  it('the same id on a new connection takes the place of the old one', async () => {
    const server = await broker();
    const old = await connected(server, 'same');
    const young = await connected(server, 'same');
    await until('the end of the old one', () => old.closed);
    await young.settle();
  });
});
