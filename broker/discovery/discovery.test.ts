import { createSocket } from 'node:dgram';
import { describe, expect, it, onTestFinished } from 'vitest';
import { resources, until } from '../test-brokers.js';
import { DNS_TYPE, type DnsMessage, encodeDns } from './dns-message.js';
import { chooseBroker, type FindOptions, findGateways, seekBroker, trackBroker } from './finder.js';
import {
  announcement,
  answerTo,
  type FoundGateway,
  GATEWAYS_QUESTION,
  type GatewayNotice,
  HeardRecords,
  recordsOf,
} from './gateway-notice.js';
import { isOnLink } from './interfaces.js';
import { type Heard, MDNS_GROUP, MulticastSocket } from './multicast-socket.js';
import { announce, freePort, interfaces } from './test-announce.js';

const notice = (id: string, extra: Partial<GatewayNotice> = {}): GatewayNotice => ({
  id,
  cluster: 'lab',
  host: 'pi-1',
  port: 1883,
  softwareVersion: '1.2.3',
  ...extra,
});

const find = (groupPort: number, extra: Partial<FindOptions> = {}) => findGateways({ waitMs: 5_000, interfaces, groupPort, ...extra });

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : String(error);
  }
}

describe('discovery', () => {
  it('finds gateways with their clusters and addresses, an external broker by its URL', async () => {
    const groupPort = await freePort();
    await announce(groupPort, notice('aaaaaa'));
    await announce(groupPort, notice('bbbbbb', { cluster: 'x'.repeat(64), brokerUrl: 'mqtt://mosquitto.lan:1884', port: 0 }));
    const { gateways, interfaces: asked } = await find(groupPort, { enough: (found) => found.length === 2 });
    expect(asked).toEqual(['lo']);
    expect([...gateways].sort((a, b) => a.cluster.localeCompare(b.cluster))).toEqual([
      { name: 'lab on pi-1 aaaaaa', cluster: 'lab', url: 'mqtt://127.0.0.1:1883', softwareVersion: '1.2.3' },
      { name: `${'x'.repeat(24)} on pi-1 bbbbbb`, cluster: 'x'.repeat(64), url: 'mqtt://mosquitto.lan:1884', softwareVersion: '1.2.3' },
    ]);
  });

  it('keeps clusters apart, and names those that are there', async () => {
    const groupPort = await freePort();
    await announce(groupPort, notice('aaaaaa'));
    await announce(groupPort, notice('bbbbbb', { cluster: 'home', port: 1884 }));
    expect(await seekBroker({ cluster: 'home', interfaces, groupPort })).toBe('mqtt://127.0.0.1:1884');
    expect(await seekBroker({ cluster: 'lab', interfaces, groupPort })).toBe('mqtt://127.0.0.1:1883');
    await expect(seekBroker({ cluster: 'attic', interfaces, groupPort, waitMs: 700 })).rejects.toThrow(
      /no gateway of cluster 'attic'.*looked on lo.*'lab' at mqtt:\/\/127.0.0.1:1883.*--broker/,
    );
  });

  it('does not choose between two gateways of one cluster', async () => {
    const groupPort = await freePort();
    await announce(groupPort, notice('aaaaaa'));
    await announce(groupPort, notice('bbbbbb', { port: 1884 }));
    expect(await codeOf(seekBroker({ cluster: 'lab', interfaces, groupPort }))).toBe('GATEWAY_AMBIGUOUS');
  });

  it('hears a gateway that comes up while it waits, without asking again', async () => {
    const groupPort = await freePort();
    let settled = false;
    const found = find(groupPort, { askAgainMs: [], settleMs: 0, waitMs: 20_000, enough: (list) => list.length > 0 });
    void found.then(() => {
      settled = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(settled).toBe(false);
    await announce(groupPort, notice('aaaaaa'));
    expect((await found).gateways).toHaveLength(1);
  });

  it('announces nothing where the broker does not listen', async () => {
    const groupPort = await freePort();
    await announce(groupPort, notice('aaaaaa'), { host: '192.0.2.1' });
    await announce(groupPort, notice('bbbbbb'), { host: 'localhost' });
    expect((await find(groupPort, { waitMs: 600 })).gateways.map(({ name }) => name)).toEqual(['lab on pi-1 bbbbbb']);
  });

  it('finds the gateway anew when it is not where it was', async () => {
    const groupPort = await freePort();
    const lines: string[] = [];
    const track = trackBroker({ cluster: 'lab', interfaces, groupPort, log: (line) => lines.push(line), random: () => 0 });
    const { signal } = new AbortController();
    const first = await announce(groupPort, notice('aaaaaa'));
    expect(await track(signal)).toBe('mqtt://127.0.0.1:1883');
    await first.stop();
    await announce(groupPort, notice('bbbbbb', { port: 2883 }));
    // After the search it asks the network once more, then tries where it was, then the network.
    const tried = [await track(signal), await track(signal)];
    expect(tried).toContain('mqtt://127.0.0.1:2883');
    expect(lines).toEqual([
      "found the gateway of cluster 'lab' at mqtt://127.0.0.1:1883",
      "found the gateway of cluster 'lab' at mqtt://127.0.0.1:2883",
    ]);
  });

  it('says goodbye, so that who listens forgets it', async () => {
    const groupPort = await freePort();
    const heard: Heard[] = [];
    const listener = new MulticastSocket({ interfaces, groupPort, bind: 'group', onHeard: (h) => heard.push(h) });
    onTestFinished(() => listener.close());
    await listener.open();
    const records = new HeardRecords();
    const announcer = await announce(groupPort, notice('aaaaaa'));
    await until('the announcement', () => heard.length > 0);
    records.add(heard[0]?.message as DnsMessage, '127.0.0.1');
    expect(records.gateways()).toHaveLength(1);
    const before = heard.length;
    await announcer.stop();
    await until('the goodbye', () => heard.length > before);
    records.add(heard.at(-1)?.message as DnsMessage, '127.0.0.1');
    expect(records.gateways()).toEqual([]);
  });

  it('is told to stop, leaves nothing behind, and survives what strangers send', async () => {
    const before = resources();
    const groupPort = await freePort();
    const announcer = await announce(groupPort, notice('aaaaaa'));
    const stranger = createSocket('udp4');
    await new Promise<void>((resolve) => stranger.bind(0, resolve));
    stranger.setMulticastInterface('127.0.0.1');
    for (const bytes of [Buffer.alloc(0), Buffer.from('what is this'), Buffer.alloc(8_000, 0xff)])
      stranger.send(bytes, groupPort, MDNS_GROUP);
    expect((await find(groupPort, { enough: (found) => found.length > 0 })).gateways).toHaveLength(1);
    await new Promise<void>((resolve) => stranger.close(() => resolve()));
    const abort = new AbortController();
    const search = codeOf(find(groupPort, { signal: abort.signal }));
    abort.abort();
    expect(await search).toBe('STOPPED');
    await announcer.stop();
    await announcer.stop();
    await until('the end of all timers', () => resources().length <= before.length);
  });

  it('serves on without discovery when the port cannot be had, and takes part as soon as it can', async () => {
    const groupPort = await freePort();
    // Not shared: nobody else gets the port.
    const holder = createSocket('udp4');
    await new Promise<void>((resolve) => holder.bind(groupPort, resolve));
    const lines: string[] = [];
    await announce(groupPort, notice('aaaaaa'), { log: (line) => lines.push(line), refreshMs: 200 });
    expect(lines.join()).toMatch(/not announced.*--broker.*EADDRINUSE/);
    await new Promise<void>((resolve) => holder.close(() => resolve()));
    const found = await find(groupPort, { waitMs: 15_000, enough: (list) => list.length > 0 });
    expect(found.gateways).toHaveLength(1);
  });
});

describe('where machines join', () => {
  const heard = (what: Partial<GatewayNotice>): FoundGateway | undefined => {
    const records = new HeardRecords();
    records.add(announcement(recordsOf({ ...notice('aaaaaa'), ...what }, ['10.0.0.1'])), '10.0.0.1');
    return records.gateways()[0];
  };

  it('is said beside the broker, and on the gateway itself when its broker is elsewhere', () => {
    expect(heard({ encrypted: true, enrolmentPort: 9000 })).toMatchObject({
      url: 'mqtts://10.0.0.1:1883',
      enrolment: { host: '10.0.0.1', port: 9000 },
    });
    const elsewhere = heard({ brokerUrl: 'mqtts://broker:8883', port: 0, enrolmentPort: 8884 });
    expect(elsewhere).toMatchObject({ url: 'mqtts://broker:8883', enrolment: { host: '10.0.0.1', port: 8884 } });
  });

  it('is not made up', () => {
    expect(heard({})).not.toHaveProperty('enrolment');
    for (const enrolmentPort of [0, -1, 65_536, Number.NaN]) expect(heard({ enrolmentPort })).not.toHaveProperty('enrolment');
  });
});

describe('answers to queries', () => {
  const records = recordsOf(notice('aaaaaa'), ['10.0.0.1']);
  const query = (extra: Partial<DnsMessage> = {}): DnsMessage => ({
    id: 7,
    response: false,
    questions: [GATEWAYS_QUESTION],
    answers: [],
    additionals: [],
    ...extra,
  });

  it('bring everything in one message: the pointer, and what it points to', () => {
    const answer = answerTo(query(), records, false);
    expect(answer?.id).toBe(0);
    expect(answer?.answers.map(({ type }) => type)).toEqual(['ptr']);
    expect(answer?.additionals.map(({ type }) => type)).toEqual(['srv', 'txt', 'a']);
    expect(encodeDns(answer as DnsMessage).length).toBeLessThan(1_400);
  });

  it('give a one-shot asker its number and question back, and records it will soon forget', () => {
    const answer = answerTo(query(), records, true);
    expect(answer).toMatchObject({ id: 7, questions: [GATEWAYS_QUESTION] });
    expect([...(answer?.answers ?? []), ...(answer?.additionals ?? [])].every((r) => r.ttlSeconds <= 10 && !r.unique)).toBe(true);
  });

  it('are not given to other questions, to answers, or to who knows them already', () => {
    const other = { name: ['_http', '_tcp', 'local'], type: DNS_TYPE.ptr, unicast: false };
    expect(answerTo(query({ questions: [other] }), records, false)).toBeUndefined();
    expect(answerTo(query({ response: true }), records, false)).toBeUndefined();
    expect(answerTo(query({ answers: records.slice(0, 1) }), records, false)).toBeUndefined();
    const stale = records.slice(0, 1).map((record) => ({ ...record, ttlSeconds: 10 }));
    expect(answerTo(query({ answers: stale }), records, false)).toBeDefined();
  });

  it('tell a browser of all services that there is this one', () => {
    const all = { name: ['_services', '_dns-sd', '_udp', 'local'], type: DNS_TYPE.ptr, unicast: false };
    expect(answerTo(query({ questions: [all] }), records, false)?.answers).toMatchObject([{ target: ['_musical-chair', '_tcp', 'local'] }]);
  });
});

describe('what was heard', () => {
  it('is pieced together from several messages, and what is missing is asked for', () => {
    const [ptr, srv, txt, a] = recordsOf(notice('aaaaaa'), ['10.0.0.1']);
    const heard = new HeardRecords();
    const add = (...answers: (typeof ptr)[]) =>
      heard.add({ id: 0, response: true, questions: [], answers: answers.flatMap((r) => r ?? []), additionals: [] }, '10.0.0.9');
    add(ptr);
    expect(heard.questions().map(({ type }) => type)).toEqual([DNS_TYPE.ptr, DNS_TYPE.any]);
    add(srv, txt);
    expect(heard.gateways()).toEqual([]);
    expect(heard.questions().map(({ type }) => type)).toEqual([DNS_TYPE.ptr, DNS_TYPE.a]);
    add(a);
    expect(heard.gateways()).toMatchObject([{ url: 'mqtt://10.0.0.1:1883' }]);
    expect(heard.questions()).toEqual([GATEWAYS_QUESTION]);
  });

  it('prefers the address that answered, and ignores records that name no broker or are made up without end', () => {
    const heard = new HeardRecords();
    const say = (gateway: GatewayNotice, source = '10.0.0.2') =>
      heard.add(
        { id: 0, response: true, questions: [], answers: recordsOf(gateway, ['192.168.1.2', '10.0.0.2']), additionals: [] },
        source,
      );
    say(notice('aaaaaa'));
    expect(heard.gateways()).toMatchObject([{ url: 'mqtt://10.0.0.2:1883' }]);
    say(notice('bbbbbb', { brokerUrl: 'file:///etc/passwd' }));
    expect(heard.gateways()).toHaveLength(1);
    for (let i = 0; i < 1_000; i++) say(notice(`c${i}`.padEnd(6, '0')));
    expect(heard.gateways().length).toBeLessThan(100);
  });
});

describe('the choice', () => {
  const gateway = (cluster: string, url: string): FoundGateway => ({ name: cluster, cluster, url, softwareVersion: '' });

  it('takes two announcements of one broker for one', () => {
    const gateways = [gateway('lab', 'mqtt://a:1'), gateway('lab', 'mqtt://a:1'), gateway('home', 'mqtt://b:1')];
    expect(chooseBroker({ gateways, interfaces: [] }, 'lab')).toBe('mqtt://a:1');
  });

  it('says when there is no network at all', () => {
    expect(() => chooseBroker({ gateways: [], interfaces: [] }, 'lab')).toThrow(/there is no network/);
  });
});

describe('interfaces', () => {
  it('know who is on their link', () => {
    const lan = { address: '192.168.1.7', netmask: '255.255.255.0' };
    expect(isOnLink(lan, '192.168.1.200')).toBe(true);
    expect(isOnLink(lan, '192.168.2.1')).toBe(false);
    expect(isOnLink({ address: '10.1.2.3', netmask: '255.0.0.0' }, '10.255.0.1')).toBe(true);
  });
});
