import { describe, expect, it } from 'vitest';
import type { Neighbour, PeerEntry } from '../broker/messages.js';
import { PeerTable } from './peers.js';

const peer = (agent: string, lanePort = 1): PeerEntry => ({ agent, addresses: ['10.0.0.1'], lanePort });
const neighbour = (agent: string, lanePort = 1): Neighbour => ({ ...peer(agent, lanePort), before: true, after: false, slices: [] });
const epoch = (n: number, term = 1) => ({ term, deployment: 'd', epoch: n });
const nothing = () => false;

describe('the peer table', () => {
  it('takes newer whole tables only', () => {
    const table = new PeerTable('me');
    expect(table.replace(1, 5, [neighbour('b'), neighbour('me')])).toBe(true);
    expect(table.all).toEqual([peer('b')]);
    expect(table.replace(1, 5, [])).toBe(false);
    expect(table.replace(1, 4, [])).toBe(false);
    expect(table.version).toEqual({ term: 1, version: 5 });
    // A new scheduler counts anew.
    expect(table.replace(2, 1, [neighbour('d')])).toBe(true);
    expect(table.all).toEqual([peer('d')]);
    expect(table.replace(1, 99, [])).toBe(false);
    expect(table.version).toEqual({ term: 2, version: 1 });
  });

  it('keeps the peers of an epoch that is held, whatever a scheduler says that does not know it', () => {
    const table = new PeerTable('me');
    table.prepare(epoch(1), [peer('b'), peer('me')]);
    expect(table.all).toEqual([peer('b')]);
    table.replace(2, 1, []);
    expect(table.all).toEqual([peer('b')]);
    expect(table.tidy(() => true, 0)).toBe(false);
    expect(table.tidy(nothing, 0)).toBe(true);
    expect(table.all).toEqual([]);
  });

  it('does not go back to an address that a prepare names which was repeated after the table had changed', () => {
    const table = new PeerTable('me');
    table.prepare(epoch(1), [peer('b', 1), peer('c', 1)]);
    table.replace(1, 2, [neighbour('b', 2)]);
    table.prepare(epoch(1), [peer('b', 1), peer('c', 1)]);
    expect(table.all.toSorted((x, y) => x.agent.localeCompare(y.agent))).toEqual([peer('b', 2), peer('c', 1)]);
    // The same epoch twice is one.
    table.tidy(nothing, 0);
    expect(table.all).toEqual([peer('b', 2)]);
  });

  it('names nobody who was thrown out, whatever else does, until he is let in again', () => {
    const table = new PeerTable('me');
    table.prepare(epoch(1), [peer('b'), peer('thief')]);
    table.borrow(peer('thief'), 0);
    table.replace(1, 1, [neighbour('b'), neighbour('thief')]);
    expect(table.all).toContainEqual(peer('thief'));
    table.replace(1, 2, [neighbour('b')], ['thief', 'other']);
    expect(table.all).toEqual([peer('b')]);
    table.prepare(epoch(2), [peer('thief')]);
    expect(table.all).toEqual([peer('b')]);
    table.replace(1, 3, [neighbour('b')], ['other']);
    expect(table.all).toContainEqual(peer('thief'));
  });

  it('keeps a peer whose link was measured for a while, through changes of the table', () => {
    const table = new PeerTable('me');
    table.borrow(peer('far'), 1000);
    table.replace(1, 1, [neighbour('b')]);
    expect(table.all.map(({ agent }) => agent).toSorted()).toEqual(['b', 'far']);
    expect(table.tidy(nothing, 30_999)).toBe(false);
    expect(table.tidy(nothing, 31_000)).toBe(true);
    expect(table.all).toEqual([peer('b')]);
  });
});
