import { describe, expect, it } from 'vitest';
import type { PeerRow } from '../broker/messages.js';
import { peersText } from './peers-text.js';

const row = (agent: string, over: Partial<PeerRow> = {}): PeerRow => ({
  ...{ agent, state: 'ready', before: false, after: false, addresses: ['10.0.0.7'], lanePort: 4000, lane: 'direct', why: '' },
  ...{ roundTripMs: 0, inBytesPerSecond: 0, outBytesPerSecond: 0, slices: [] },
  ...{ waitingBytes: 0, busyMs: 0, busyBytesPerSecond: 0 },
  ...over,
});

describe('peer tables for people', () => {
  it('say who is before and after, where, by which lane and how fast, in 80 columns', () => {
    const rows = [
      row('dispatcher', { state: '', before: true }),
      row('pi-1', { before: true, after: true, roundTripMs: 0.4, inBytesPerSecond: 12.5e6, slices: ['a'.repeat(64), 'b'.repeat(64)] }),
      row('pi-9', { after: true, waitingBytes: 2_400_000, busyMs: 2900, busyBytesPerSecond: 0.175e6 }),
      row('pi-10', { after: true, lane: 'relay', why: 'no answer from 10.0.0.7:4000', slices: ['c'.repeat(64)] }),
      row('pi-11', { state: 'suspect', lanePort: 0, lane: '' }),
    ];
    const text = peersText({ term: 4, tables: [{ agent: 'pi-2', version: 7, heldVersion: 6, rows }] });
    expect(text).toContain('1 peer table of term 4.');
    expect(text).toContain('Peers of pi-2, version 7 (it holds 6)');
    expect(text).toMatch(/dispatcher +before +10\.0\.0\.7:4000 +direct/);
    expect(text).toMatch(/pi-1 +both +10\.0\.0\.7:4000 +direct +0\.4.* ms +100\.0 +- +aaaaaa \+1/);
    expect(text).toMatch(/pi-10 +after +.* +relay +- +- +- +cccccc/);
    expect(text).toMatch(/pi-11 +- +no listener +-/);
    expect(text).toContain('pi-10: no answer from 10.0.0.7:4000');
    expect(text).toContain('pi-11 is suspect');
    expect(text.replace(/\s+/g, ' ')).toContain(
      'pi-9: 2.4 MB wait to arrive there: 1.40 Mbit/s, while something waited in 2.9 of the last 3 s',
    );
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });

  it('say when there are none, and which was not told yet', () => {
    expect(peersText({ term: 1, tables: [] })).toBe('No agents, so no peer tables.');
    expect(peersText({ term: 1, tables: [{ agent: 'a', version: 1, heldVersion: 0, rows: [] }] })).toContain('version 1 (not told yet)');
  });
});
