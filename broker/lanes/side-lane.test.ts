import { describe, expect, it, onTestFinished } from 'vitest';
import { joinSegments } from '../segments.js';
import { resources, startProxy, until } from '../test-brokers.js';
import type { SideLane } from './lane.js';
import { type LaneNode, laneNode } from './test-node.js';

const MOST = 100_000;

interface Beside {
  readonly side: SideLane;
  readonly answers: string[];
  /** States as they were told. */
  readonly told: string[];
}

function beside({ lanes }: LaneNode, peer: string, onMessage: (text: string) => void = () => undefined): Beside {
  const [answers, told]: [string[], string[]] = [[], []];
  const side: SideLane = lanes.beside(peer, {
    maxMessageBytes: MOST,
    onMessage: ({ payload }) => {
      const text = Buffer.from(joinSegments(payload)).toString();
      answers.push(text.slice(0, 10));
      onMessage(text);
    },
    onChange: () => told.push(side.state),
  });
  onTestFinished(() => side.close());
  return { side, answers, told };
}

const entry = (agent: string, lanePort: number, address = '127.0.0.1') => ({ agent, addresses: [address], lanePort });
const text = (said: string) => [Buffer.from(said)];
const isUp = (what: Beside) => until('the connection', () => what.side.state === 'up');

describe('a connection beside a lane', () => {
  it('carries requests to a peer and its answers back, and frames and what is known of the link are not of it', async () => {
    const [a, b] = [await laneNode('a'), await laneNode('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    b.lanes.setPeers([entry('a', a.lanes.port)]);
    const line = beside(a, 'b');
    await isUp(line);
    await until('the lanes', () => [a, b].every(({ lanes }) => lanes.health()[0]?.lane === 'direct'));
    await line.side.send('t/b', text('wanted'));
    await until('the request', () => b.got.length === 1);
    const [request] = b.got;
    expect([request?.from, request?.relayed]).toEqual(['a', false]);
    expect(await request?.answer?.('any/topic', [Buffer.alloc(90_000, 'x')])).toBe(true);
    await until('the answer', () => line.answers.length === 1);
    // Neither came to a handler of the lane, and both ends count nothing.
    expect(a.got).toEqual([]);
    expect([...a.lanes.health(), ...b.lanes.health()].map(({ bytesSent, waitingBytes }) => [bytesSent, waitingBytes])).toEqual([
      [0, 0],
      [0, 0],
    ]);
    await b.lanes.send('a', 't/a', text('frame'));
    await until('the frame', () => a.got.length === 1);
    expect(line.answers).toEqual(['xxxxxxxxxx']);
  });

  it('is there while the table names the peer, and is no lane: nothing is sent on it but answers', async () => {
    const [a, b] = [await laneNode('a', { listen: false }), await laneNode('b')];
    const line = beside(a, 'b');
    expect(line.side.state).toBe('down');
    await expect(line.side.send('t/b', text('early'))).rejects.toMatchObject({ code: 'LANE_DOWN' });
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    await isUp(line);
    await line.side.send('t/b', text('wanted'));
    await until('the request', () => b.got.length === 1);
    // On its lane it has not subscribed to this.
    await expect(b.lanes.send('a', 'another/topic', text('frame'))).rejects.toMatchObject({ code: 'LANE_DOWN' });
    a.lanes.setPeers([]);
    await until('the end', () => line.side.state === 'down');
  });

  it('comes back when it broke, again and again for the same reason, and each time that is told', async () => {
    const [a, b] = [await laneNode('a'), await laneNode('b')];
    const proxy = await startProxy(b.lanes.port);
    onTestFinished(() => proxy.stop());
    a.lanes.setPeers([entry('b', proxy.port)]);
    const line = beside(a, 'b');
    for (let i = 1; i <= 3; i++) {
      await isUp(line);
      expect(line.told.filter((state) => state === 'up')).toHaveLength(i);
      proxy.cut();
      await until('the break', () => line.told.filter((state) => state === 'down').length === i);
    }
  });

  it('tells the same break of a lane again, too', async () => {
    const [a, b] = [await laneNode('a'), await laneNode('b')];
    const proxy = await startProxy(b.lanes.port);
    onTestFinished(() => proxy.stop());
    const told: string[] = [];
    a.lanes.onPeer((_, lane) => told.push(lane));
    a.lanes.setPeers([entry('b', proxy.port)]);
    for (let i = 1; i <= 3; i++) {
      await until('the lane', () => told.filter((lane) => lane === 'direct').length === i);
      proxy.cut();
      await until('the break', () => told.filter((lane) => lane === 'down').length === i);
    }
  });

  it('moves with the peer', async () => {
    const a = await laneNode('a');
    const [here, there] = [await laneNode('b', { host: '127.0.0.1' }), await laneNode('b', { host: '127.0.0.2' })];
    a.lanes.setPeers([entry('b', here.lanes.port)]);
    const line = beside(a, 'b');
    await isUp(line);
    a.lanes.setPeers([entry('b', there.lanes.port, '127.0.0.2')]);
    await isUp(line);
    await line.side.send('t/b', text('wanted'));
    await until('the request', () => there.got.length === 1);
    expect(here.got).toEqual([]);
  });

  it('takes no larger message than it said, and what its reader throws is reported', async () => {
    const reported: string[] = [];
    const [a, b] = [await laneNode('a', { onRefused: (_, error) => reported.push(error.message) }), await laneNode('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    const line = beside(a, 'b', (said) => {
      if (said === 'nonsense') throw new Error('nobody understands this');
    });
    await isUp(line);
    await line.side.send('t/b', text('wanted'));
    await until('the request', () => b.got.length === 1);
    await b.got[0]?.answer?.('t', text('nonsense'));
    await until('the report', () => reported.length === 1);
    expect(reported[0]).toContain('nobody understands this');
    expect(line.side.state).toBe('up');
    void b.got[0]?.answer?.('t', [Buffer.alloc(MOST + 1)]).catch(() => undefined);
    await until('the end', () => line.told.includes('down'));
    expect(line.answers).toEqual(['nonsense']);
  });

  it('leaves nothing behind when it is closed, and says nothing any more', async () => {
    const before = resources();
    const [a, b] = [await laneNode('a'), await laneNode('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    const [closed, stopped] = [beside(a, 'b'), beside(a, 'b')];
    await isUp(closed);
    await isUp(stopped);
    closed.side.close();
    closed.side.close();
    expect(closed.side.state).toBe('down');
    await expect(closed.side.send('t/b', text('late'))).rejects.toMatchObject({ code: 'LANE_DOWN' });
    await a.lanes.stop();
    await b.lanes.stop();
    expect(() => a.lanes.beside('b', { maxMessageBytes: 1, onMessage: () => undefined, onChange: () => undefined })).toThrow(
      expect.objectContaining({ code: 'STOPPED' }),
    );
    await until('nothing to be left', () => resources().length <= before.length);
    expect([closed.told, stopped.told]).toEqual([['up'], ['up']]);
  });
});
