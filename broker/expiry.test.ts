import { EventEmitter } from 'node:events';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Credentials } from './credentials/credentials.js';
import { CLOCK_TOLERANCE_MS } from './credentials/verify.js';
import type { ChairError } from './errors.js';
import { createLanes } from './lanes/lanes.js';
import { connectBus } from './mqtt-bus.js';
import { startBroker } from './server.js';
import { startProxy, until } from './test-brokers.js';
import { RenewedSource, testAuthority } from './test-credentials.js';
import { endWhenOver, type Peer } from './tls.js';
import { DISPATCHER, topicsOf } from './topics.js';
import { type Trust, trustOf } from './trust.js';

const DAY_MS = 86_400_000;
const topics = topicsOf('test');

describe('a certificate that is over', () => {
  afterEach(() => void vi.useRealTimers());

  const started = (role: Peer['identity']['role'], aheadMs: () => number = () => 0) => {
    vi.useFakeTimers();
    const socket = new EventEmitter();
    const ends: ChairError[] = [];
    const source = new RenewedSource({} as Credentials, () => Date.now() + aheadMs());
    const peer: Peer = { identity: { cluster: 'test', role, name: 'x' }, serial: '01', notAfterMs: Date.now() + 30 * DAY_MS };
    endWhenOver(
      socket as never,
      peer,
      trustOf(source),
      (error) => ends.push(error),
      () => 0.9,
    );
    return { socket, ends };
  };

  it('ends its connection once, after what clocks may differ by, and not before', () => {
    const { ends } = started('agent');
    vi.advanceTimersByTime(30 * DAY_MS + CLOCK_TOLERANCE_MS);
    expect(ends).toEqual([]);
    vi.advanceTimersByTime(2);
    expect(ends).toMatchObject([{ code: 'CERTIFICATE_EXPIRED' }]);
    vi.advanceTimersByTime(30 * DAY_MS);
    expect(ends).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("goes by the gateway's time, also when that is set meanwhile", () => {
    let aheadMs = 0;
    const { ends } = started('operator', () => aheadMs);
    vi.advanceTimersByTime(DAY_MS);
    aheadMs = 30 * DAY_MS;
    // Not all connections of a cluster in the same moment.
    vi.advanceTimersByTime(3_600_000 + 600_000);
    expect(ends).toHaveLength(1);
  });

  it('that only seemed to be over, since a clock was wrong for a while, ends nothing', () => {
    let aheadMs = 0;
    const { ends } = started('agent', () => aheadMs);
    vi.advanceTimersByTime(DAY_MS - 1);
    aheadMs = 40 * DAY_MS;
    vi.advanceTimersByTime(2);
    aheadMs = 0;
    vi.advanceTimersByTime(DAY_MS);
    expect(ends).toEqual([]);
  });

  it('is nothing to the gateway, nor to a connection that has ended', () => {
    const { ends } = started('gateway');
    expect(vi.getTimerCount()).toBe(0);
    const other = started('agent');
    other.socket.emit('close');
    expect(vi.getTimerCount()).toBe(0);
    vi.advanceTimersByTime(40 * DAY_MS);
    expect([...ends, ...other.ends]).toEqual([]);
  });
});

/** An agent that has its certificate renewed when it is told to look. */
class Renewing extends RenewedSource {
  constructor(
    current: Credentials,
    private readonly renewed: Credentials,
    nowMs: () => number,
  ) {
    super(current, nowMs);
  }

  override async look(): Promise<void> {
    await super.look();
    this.current = this.renewed;
  }
}

describe('connections that began with a certificate', () => {
  /** The gateway's clock says that pi-1's certificate is over in `leftMs`; another one is at hand. */
  async function world(leftMs: number) {
    const authority = await testAuthority();
    const notAfterMs = Math.floor(Date.now() / 1000) * 1000 + 3_600_000;
    const later = notAfterMs + DAY_MS;
    const [gateway, served, old, renewed, other] = await Promise.all([
      authority.make('gateway', 'gateway', { notAfterMs }),
      authority.make('gateway', 'gateway', { notAfterMs: later }),
      authority.make('agent', 'pi-1', { notAfterMs }),
      authority.make('agent', 'pi-1', { notAfterMs: later }),
      authority.make('agent', 'pi-2', { notAfterMs: later }),
    ]);
    const began = performance.now();
    const nowMs = (): number => notAfterMs + CLOCK_TOLERANCE_MS - leftMs + (performance.now() - began);
    const isOver = (): boolean => performance.now() - began > leftMs;
    const trustOf = (credentials: Credentials) => authority.trust(new RenewedSource(credentials, nowMs));
    const source = new Renewing(old, renewed, nowMs);
    return { authority, gateway, served, other, source, nowMs, isOver, trustOf };
  }

  /** Everything has to be connected before the certificate is over: on a busy machine that takes longer. */
  async function inTime(attempt: (leftMs: number) => Promise<boolean>): Promise<void> {
    for (let leftMs = 1_000; !(await attempt(leftMs)); leftMs *= 3) expect(leftMs).toBeLessThan(30_000);
  }

  it('to the broker end with it, and whoever is turned away for it renews it and is back', { timeout: 90_000 }, async () => {
    await inTime(async (leftMs) => {
      const { authority, gateway, served, source, isOver, trustOf: trusting } = await world(leftMs);
      const trust = trusting(served);
      const server = await startBroker({ host: '127.0.0.1', port: 0, trust });
      onTestFinished(() => server.stop());
      const connected = async (id: string, its: Trust) => {
        const bus = await connectBus({ url: server.url, id, trust: its, random: () => 0.1 });
        onTestFinished(() => bus.stop());
        return bus;
      };
      // One of the gateway's is as old, and stays.
      const scheduler = await connected('scheduler', trusting(gateway)).catch(() => undefined);
      const agent = await connected('pi-1', authority.trust(source)).catch(() => undefined);
      let lost = 0;
      const cut: boolean[] = [];
      scheduler?.onDisconnect(() => lost++);
      agent?.onDisconnect(() => cut.push(isOver()));
      if (scheduler === undefined || agent === undefined || isOver()) return false;
      await until('the cut', () => cut.length > 0, leftMs + 10_000);
      expect(cut[0]).toBe(true);
      await until('it is back', () => agent.connected, 15_000);
      expect(source.looked).toBe(1);
      expect(trust.refusals.map(({ error, who }) => `${error.code} ${who}`)).toContain('CERTIFICATE_EXPIRED agent pi-1');
      await agent.publish(topics.gone, { agent: 'pi-1', nonce: 'n', why: 'stopped', connection: 0 });
      expect(lost).toBe(0);
      return true;
    });
  });

  it('between agents are made anew with another one; the dispatcher keeps its own', { timeout: 90_000 }, async () => {
    await inTime(async (leftMs) => {
      const { authority, gateway, other, source, isOver, trustOf: trusting } = await world(leftMs);
      const node = async (id: string, trust: Trust) => {
        const lanes = createLanes({ id, cluster: 'test', host: '127.0.0.1', random: () => 0.1, trust });
        onTestFinished(() => lanes.stop());
        await lanes.start();
        return lanes;
      };
      const [one, two, dispatcher] = await Promise.all([
        node('pi-1', authority.trust(source)),
        node('pi-2', trusting(other)),
        node(DISPATCHER, trusting(gateway)),
      ]);
      const [toOne, fromDispatcher] = await Promise.all([startProxy(one.port), startProxy(two.port)]);
      onTestFinished(() => Promise.all([toOne.stop(), fromDispatcher.stop()]).then(() => undefined));
      const entry = (agent: string, lanePort: number) => ({ agent, addresses: ['127.0.0.1'], lanePort });
      one.setPeers([entry('pi-2', 0)]);
      two.setPeers([entry('pi-1', toOne.port)]);
      dispatcher.setPeers([entry('pi-2', fromDispatcher.port)]);
      const isDirect = () => two.health().find(({ peer }) => peer === 'pi-1')?.lane === 'direct';
      const hasPeer = () => dispatcher.health().find(({ peer }) => peer === 'pi-2')?.lane === 'direct';
      await until('the lanes, or the end', () => (isDirect() && hasPeer()) || isOver(), leftMs + 5_000);
      if (isOver()) return false;
      expect([toOne.connections, fromDispatcher.connections]).toEqual([1, 1]);
      await source.look();
      await until('the other lane', () => toOne.connections > 1 && isDirect(), leftMs + 10_000);
      expect(isOver()).toBe(true);
      await two.send('pi-1', topics.activation('pi-1'), [Uint8Array.of(1)]);
      expect([hasPeer(), fromDispatcher.connections]).toEqual([true, 1]);
      return true;
    });
  });
});
