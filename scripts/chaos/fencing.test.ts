import { describe, expect, it } from 'vitest';
import type { CommandBody } from '../../broker/messages.js';
import { Fencing } from './fencing.js';

let ids = 0;
const command = (term: number, body: CommandBody, scheduler = 's') => ({ id: `c${++ids}`, term, scheduler, nonce: 'n1', body });
type Command = ReturnType<typeof command>;
const prepare = (term: number, epoch: number, scheduler = 's'): Command => {
  const none = { inputs: [], outputs: [], stages: [], wires: [], slices: [], peers: [] };
  return command(term, { kind: 'prepare', prepare: { deployment: 'net', epoch, ...none } }, scheduler);
};
const commit = (term: number, epoch: number): Command => command(term, { kind: 'commit', commit: { deployment: 'net', epoch } });
const release = (term: number, epoch: number): Command => command(term, { kind: 'release', release: { deployment: 'net', epoch } });
const replyTo = ({ id }: Command, code = '', fetchedBytes = 0) => ({ id, code, fetchedBytes });
const healthOf = (epoch: number) => ({
  agent: 'a',
  nonce: 'n1',
  seats: [{ deployment: 'net', epoch, stage: 0, replica: 0, part: 0, framesRun: 1, queue: 0, runMs: 1 }],
});

/** Sends a command that is obeyed; what is found. */
function obeyed(fencing: Fencing, asked: Command, atMs = 0) {
  return [...fencing.command('a', asked, atMs), ...fencing.reply(replyTo(asked), atMs)];
}

describe('fences, seen from outside', () => {
  it('hold in the usual course of things, an epoch abandoned before an older one included', () => {
    const fencing = new Fencing();
    const found = [prepare(1, 1), commit(1, 1), prepare(1, 2), release(1, 2), prepare(1, 3), commit(1, 3)].flatMap((c) =>
      obeyed(fencing, c),
    );
    expect([...found, ...fencing.health(healthOf(1), 60_000)]).toEqual([]);
    expect(fencing.accepted).toBe(6);
  });

  it('break when a lower term is obeyed that was sent after a higher one had been', () => {
    const fencing = new Fencing();
    obeyed(fencing, prepare(1, 1));
    obeyed(fencing, prepare(2, 1));
    expect(obeyed(fencing, release(1, 1))).toMatchObject([{ invariant: 'no command of a lower term is obeyed' }]);
  });

  it('break when two schedulers are obeyed in one term', () => {
    const fencing = new Fencing();
    obeyed(fencing, prepare(3, 1, 'one'));
    expect(obeyed(fencing, prepare(3, 2, 'one'))).toEqual([]);
    expect(obeyed(fencing, prepare(3, 3, 'other'))).toMatchObject([{ invariant: 'one scheduler is obeyed in a term' }]);
  });

  it('hold when a slow command of the former term is done after the first one of the next', () => {
    const fencing = new Fencing();
    const slow = prepare(1, 1);
    fencing.command('a', slow, 0);
    obeyed(fencing, prepare(2, 1));
    expect(fencing.reply(replyTo(slow), 5)).toEqual([]);
  });

  it('break when an epoch is prepared or committed again after its release, and not when that is refused', () => {
    const fencing = new Fencing();
    for (const c of [prepare(1, 1), release(1, 1)]) obeyed(fencing, c);
    const again = commit(1, 1);
    fencing.command('a', again, 0);
    expect(fencing.reply(replyTo(again, 'EPOCH_STALE'), 0)).toEqual([]);
    expect(fencing.refused).toBe(1);
    expect(obeyed(fencing, prepare(1, 1))).toMatchObject([{ invariant: 'no command of a released epoch is obeyed' }]);
  });

  it('hold when a later term uses the number of an epoch again that it had cleared away', () => {
    const fencing = new Fencing();
    const found = [prepare(1, 5), release(2, 5), prepare(2, 5), commit(2, 5)].flatMap((c) => obeyed(fencing, c));
    expect([...found, ...fencing.health(healthOf(5), 60_000)]).toEqual([]);
  });

  it('break when a process still shows a seat long after it said that it let go, not at once', () => {
    const fencing = new Fencing();
    for (const c of [prepare(1, 1), commit(1, 1), release(1, 1)]) obeyed(fencing, c, 1000);
    expect(fencing.health(healthOf(1), 1500)).toEqual([]);
    expect(fencing.health(healthOf(1), 9000)).toMatchObject([{ invariant: 'nothing is held after its release' }]);
  });

  it('keep when slices were fetched', () => {
    const fencing = new Fencing();
    const asked = prepare(1, 1);
    fencing.command('a', asked, 100);
    fencing.reply(replyTo(asked, '', 5e6), 900);
    expect(fencing.transfers).toEqual([{ agent: 'a', fromMs: 100, toMs: 900, bytes: 5e6 }]);
  });
});
