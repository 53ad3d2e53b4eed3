import { describe, expect, it } from 'vitest';
import { createFakeBroker } from './fake-bus.js';
import type { Reign } from './messages.js';
import { until } from './test-brokers.js';
import { topicsOf } from './topics.js';

const topics = topicsOf('test');
const REIGN: Reign = { term: 1, scheduler: 's', schemaFingerprint: '', schemaVersion: 1000 };

describe('fake bus', () => {
  it('behaves as the real one: encodes, delivers later, in order, also to the publisher', async () => {
    const broker = createFakeBroker();
    const bus = broker.bus('a');
    const got: number[] = [];
    await bus.subscribe(topics.reign, (value) => got.push(value.term));
    const first = bus.publish(topics.reign, REIGN);
    await Promise.all([first, bus.publish(topics.reign, { ...REIGN, term: 2 })]);
    expect(got).toEqual([]);
    await until('both', () => got.length === 2);
    expect(got).toEqual([1, 2]);
    await expect(bus.publish(topics.reign, { ...REIGN, term: 'x' as unknown as number })).rejects.toThrow(/"long" at term/);
  });

  it('publishes the will of a bus that is lost, not of one that stops; and comes back', async () => {
    const broker = createFakeBroker();
    const watcher = broker.bus('w');
    const wills: string[] = [];
    await watcher.subscribe(topics.gone, (value) => wills.push(value.agent));
    const will = (agent: string) => ({ will: { topic: topics.gone, value: { agent, nonce: '', why: 'will', connection: 0 } } });
    const [a, b] = [broker.bus('a', will('a')), broker.bus('b', will('b'))];
    const events: string[] = [];
    a.onConnect(() => events.push('connected'));
    a.onDisconnect((why) => events.push(why));
    await until('the connection', () => events.length === 1);
    a.lose('cable');
    await b.stop();
    await expect(a.publish(topics.reign, REIGN)).rejects.toThrow(/not connected/);
    a.restore();
    await until('the will', () => wills.length === 1);
    expect(wills).toEqual(['a']);
    expect(events).toEqual(['connected', 'cable', 'connected']);
  });

  it('can lose messages', async () => {
    const broker = createFakeBroker();
    const bus = broker.bus('a');
    const got: number[] = [];
    await bus.subscribe(topics.reign, (value) => got.push(value.term));
    broker.filter = () => false;
    await bus.publish(topics.reign, REIGN);
    broker.filter = () => true;
    await bus.publish(topics.reign, { ...REIGN, term: 2 });
    await until('the second', () => got.length === 1);
    expect([got, broker.log]).toEqual([[2], [topics.reign.name, topics.reign.name]]);
  });
});
