import { describe, expect, it } from 'vitest';
import { joinSegments } from '../segments.js';
import { until } from '../test-brokers.js';
import { createFakeNetwork } from './fake-lanes.js';

describe('fake lanes', () => {
  it('deliver later and in order, unless told to lose, delay or break', async () => {
    const network = createFakeNetwork();
    const [a, b] = [network.lanes('a'), network.lanes('b')];
    const got: string[] = [];
    const told: string[] = [];
    b.on('t', (message) => got.push(`${message.from}${message.relayed ? ' relayed' : ''} ${Buffer.from(joinSegments(message.payload))}`));
    a.onPeer((peer, lane) => told.push(`${peer} ${lane}`));
    a.setPeers([{ agent: 'b', addresses: [], lanePort: 1 }]);
    const payload = Buffer.from('1');
    const sent = a.send('b', 't', [payload]);
    payload.fill('x');
    expect(got).toEqual([]);
    await sent;
    network.join('a', 'b', 'relay');
    await a.send('b', 't', [Buffer.from('2')]);
    await until('both', () => got.length === 2);
    expect(got).toEqual(['a 1', 'a relayed 2']);
    network.filter = () => false;
    await a.send('b', 't', [Buffer.from('3')]);
    network.filter = () => true;
    network.delayMs = () => 20;
    await a.send('b', 't', [Buffer.from('4')]);
    expect(got).toHaveLength(2);
    await until('the delayed one', () => got.length === 3);
    network.join('a', 'b', 'down');
    await expect(a.send('b', 't', [Buffer.from('5')])).rejects.toThrow(/no lane to b/);
    expect(told).toEqual(['b direct', 'b relay', 'b down']);
    expect(a.health()).toMatchObject([{ peer: 'b', lane: 'down', bytesSent: 4, messagesSent: 4 }]);
    await b.stop();
    await expect(b.send('a', 't', [])).rejects.toThrow(/stopped/);
  });

  it('hold a handler that throws away from the others, as real lanes do', async () => {
    const network = createFakeNetwork();
    const [a, b] = [network.lanes('a'), network.lanes('b')];
    let got = 0;
    b.on('t', () => {
      throw new Error('a bad handler');
    });
    b.on('t', () => got++);
    await a.send('b', 't', []);
    await until('the second handler', () => got === 1);
    expect(network.refused).toMatchObject([{ at: 'b', topic: 't', error: { message: 'a bad handler' } }]);
  });
});
