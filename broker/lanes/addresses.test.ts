/** Lanes when an end moves to another address. Loopback has many: 127.0.0.1 and 127.0.0.2 stand for the old and the new one. */
import { describe, expect, it, onTestFinished } from 'vitest';
import { until } from '../test-brokers.js';
import type { LaneMessage, Lanes } from './lane.js';
import { createLanes } from './lanes.js';

const [OLD, NEW] = ['127.0.0.1', '127.0.0.2'];

interface Node {
  readonly lanes: Lanes;
  readonly got: LaneMessage[];
  readonly told: string[];
}

/** Listens on all addresses. */
async function node(id: string): Promise<Node> {
  const lanes = createLanes({ id, random: () => 0.05, graceMs: 10_000 });
  const [got, told]: [LaneMessage[], string[]] = [[], []];
  lanes.on(`t/${id}`, (message) => got.push(message));
  lanes.onPeer((peer, lane) => told.push(`${peer} ${lane}`));
  onTestFinished(() => lanes.stop());
  await lanes.start();
  return { lanes, got, told };
}

const entry = (agent: string, { lanes }: Node, addresses: readonly string[]) => ({ agent, addresses, lanePort: lanes.port });
const text = (text: string) => [Buffer.from(text)];

describe('a peer that moves', () => {
  it('keeps its lane while the address in use is still one of its own', async () => {
    const [a, b] = [await node('a'), await node('b')];
    a.lanes.setPeers([entry('b', b, [OLD])]);
    await a.lanes.send('b', 't/b', text('before'));
    await until('the first', () => b.got.length === 1);
    a.lanes.setPeers([entry('b', b, [NEW, OLD])]);
    await a.lanes.send('b', 't/b', text('after'));
    await until('the second', () => b.got.length === 2);
    // One connection all the time: the receiver was never told of another.
    expect(b.told).toEqual(['a direct']);
    expect(a.told).toEqual(['b direct']);
  });

  it('is dialled where it is now, and a message sent meanwhile waits for that', async () => {
    const [a, b] = [await node('a'), await node('b')];
    a.lanes.setPeers([entry('b', b, [OLD])]);
    await a.lanes.send('b', 't/b', text('before'));
    a.lanes.setPeers([entry('b', b, [NEW])]);
    await a.lanes.send('b', 't/b', text('after'));
    await until('both', () => b.got.length === 2);
    expect(b.got.map(({ from }) => from)).toEqual(['a', 'a']);
    expect(a.lanes.health()).toMatchObject([{ peer: 'b', lane: 'direct' }]);
  });

  it('is not sent anything on a connection that it made from where it was', async () => {
    const [a, b] = [await node('a'), await node('b')];
    // Only b dials.
    a.lanes.setPeers([{ agent: 'b', addresses: [OLD], lanePort: 0 }]);
    b.lanes.setPeers([entry('a', a, [OLD])]);
    await until('the lane', () => a.told.includes('b direct'));
    const before = a.told.length;
    a.lanes.setPeers([{ agent: 'b', addresses: [NEW], lanePort: 0 }]);
    await until('the old connection is ended', () => a.told.length > before);
    expect(a.told[before]).toBe('b down');
    // b is really still there, and dials again.
    await until('another one', () => a.told.at(-1) === 'b direct');
  });
});

describe('a machine that moves', () => {
  it('makes anew the lanes it dialled from an address that it has no more, and leaves others alone', async () => {
    const [a, b] = [await node('a'), await node('b')];
    a.lanes.setPeers([entry('b', b, [OLD])]);
    await a.lanes.send('b', 't/b', text('before'));
    a.lanes.readdress(new Set([OLD, NEW]));
    await a.lanes.send('b', 't/b', text('the same'));
    await until('both', () => b.got.length === 2);
    expect(a.told).toEqual(['b direct']);
    a.lanes.readdress(new Set([NEW]));
    await until('the lane broke and came back', () => a.told.length === 3);
    expect(a.told).toEqual(['b direct', 'b down', 'b direct']);
  });

  it('ends the connections of peers to an address that it has no more', async () => {
    const [a, b] = [await node('a'), await node('b')];
    a.lanes.setPeers([entry('b', b, [NEW])]);
    await until('the lane', () => b.told.includes('a direct'));
    b.lanes.readdress(new Set([OLD]));
    await until('the lane broke', () => b.told.includes('a down'));
  });
});
