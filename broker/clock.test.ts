/** The machine's clock jumps: a board without a battery learns the date minutes after its start, a laptop wakes up, somebody sets it back. */
import { connect } from 'node:net';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { connectBus } from './mqtt-bus.js';
import { startBroker } from './server.js';
import { until } from './test-brokers.js';
import { topicsOf } from './topics.js';

const topics = topicsOf('test');
const YEAR_MS = 365 * 24 * 3_600_000;
const realNow = Date.now;
afterEach(() => {
  vi.restoreAllMocks();
});

function jump(ms: number): void {
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + ms);
}

describe('when the clock jumps', () => {
  it.each([10 * YEAR_MS, -10 * YEAR_MS])('by %d ms, nobody who lives is said to be gone, and who dies then still is', async (ms) => {
    const broker = await startBroker({ host: '127.0.0.1', port: 0, heartbeatMs: 20 });
    onTestFinished(() => broker.stop());
    const watcher = await connectBus({ url: broker.url, id: 'watcher' });
    onTestFinished(() => watcher.stop());
    const gone: string[] = [];
    await watcher.subscribe(topics.gone, ({ agent }) => gone.push(agent));
    const lives = await connectBus({
      url: broker.url,
      id: 'a',
      will: { topic: topics.gone, value: { agent: 'a', nonce: '1', why: 'will', connection: 0 } },
    });
    onTestFinished(() => lives.stop());
    const got: number[] = [];
    await lives.subscribe(topics.reign, ({ term }) => got.push(term));
    // Often enough for every moment between two looks of the broker.
    for (let i = 1; i <= 30; i++) {
      jump(ms * i);
      await new Promise((resolve) => setTimeout(resolve, 13));
    }
    await watcher.publish(topics.reign, { term: 5, scheduler: 's', schemaFingerprint: '', schemaVersion: 0 });
    await until('messages travel', () => got.length === 1);
    expect(gone).toEqual([]);
    expect(lives.connected && watcher.connected).toBe(true);
    expect(broker.stats().clients).toBe(2);
    // MQTT 3.1.1, 3.1: a client `d` whose Last Will on topic `w` is `x`.
    const dies = connect(broker.port, '127.0.0.1');
    const wills: string[] = [];
    await watcher.subscribeBytes('w', (payload) => wills.push(Buffer.from(payload).toString()));
    dies.write(
      Buffer.from([
        0x10,
        19,
        0,
        4,
        ...Buffer.from('MQTT'),
        4,
        6,
        0,
        0,
        0,
        1,
        ...Buffer.from('d'),
        0,
        1,
        ...Buffer.from('w'),
        0,
        1,
        ...Buffer.from('x'),
      ]),
    );
    await until('it is connected', () => broker.stats().clients === 3);
    dies.destroy();
    await until('its will', () => wills.length === 1);
    expect(wills).toEqual(['x']);
  });
});
