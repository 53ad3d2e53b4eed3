import { EventEmitter } from 'node:events';
import type { Server, Socket } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Doorkeeper, type DoorkeeperOptions } from './doorkeeper.js';

/** As much of a socket as a doorkeeper looks at. */
class FakeSocket extends EventEmitter {
  destroyed = false;
  readonly localAddress = '10.0.0.1';
  readonly localPort = 8884;

  constructor(
    readonly remoteAddress: string | undefined,
    readonly remotePort: number,
  ) {
    super();
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.emit('close');
  }

  get socket(): Socket {
    return this as unknown as Socket;
  }
}

function door(options: Partial<DoorkeeperOptions> = {}) {
  const server = new EventEmitter();
  const log: string[] = [];
  const clock = { nowMs: 0 };
  const keeper = new Doorkeeper(server as unknown as Server, {
    places: 256,
    rate: { burst: 1e9, everyMs: 1 },
    nowMs: () => clock.nowMs,
    log: (line) => log.push(line),
    ...options,
  });
  let port = 1024;
  const come = (host: string | undefined): FakeSocket => {
    const socket = new FakeSocket(host, port++);
    server.emit('connection', socket);
    return socket;
  };
  const crowd = (hosts: number, each: number): FakeSocket[] =>
    Array.from({ length: each }, () => Array.from({ length: hosts }, (_, i) => come(`10.1.${i >> 8}.${i & 255}`))).flat();
  return { keeper, come, crowd, log, clock };
}

describe('a doorkeeper', () => {
  it('lets somebody in while twenty addresses hold all places, and takes the place from the oldest of whoever has most', () => {
    const { keeper, come, crowd, log } = door();
    const held = [...crowd(20, 12), ...Array.from({ length: 16 }, () => come('10.9.9.9'))];
    expect(keeper.strangers).toBe(256);
    const newcomer = come('192.168.1.7');
    expect(keeper.strangers).toBe(256);
    expect(held.filter(({ destroyed }) => destroyed)).toEqual([held[240]]);
    expect(log).toEqual([expect.stringContaining('10.9.9.9')]);
    // Whatever they do from now on, it keeps its place.
    crowd(20, 30);
    expect(newcomer.destroyed).toBe(false);
  });

  it('ends no connection of an address that has no more than its share, in whatever order who comes and goes', () => {
    const step = fc.record({ host: fc.integer({ min: 1, max: 5 }), goes: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.integer({ min: 5, max: 20 }), (steps, places) => {
        const { keeper, come } = door({ places });
        const all = new Map<number, FakeSocket[]>();
        const fair = Math.floor(places / 5);
        for (const { host, goes } of steps) {
          const own = all.get(host) ?? [];
          all.set(host, own);
          if (goes) own.shift()?.destroy();
          else own.push(come(`10.0.0.${host}`));
          expect(keeper.strangers).toBeLessThanOrEqual(places);
          for (const [, sockets] of all) {
            const left = sockets.filter(({ destroyed }) => !destroyed);
            expect(left.length).toBeGreaterThanOrEqual(Math.min(sockets.length, fair));
            // The oldest went first.
            expect(sockets.slice(sockets.length - left.length)).toEqual(left);
          }
          for (const [key, sockets] of all)
            all.set(
              key,
              sockets.filter(({ destroyed }) => !destroyed),
            );
        }
      }),
      { numRuns: 60 },
    );
  });

  it('gives somebody who comes from an address that others crowd the time that they leave it', () => {
    const { come } = door({ places: 64 });
    const honest = come('10.0.0.1');
    for (let i = 0; i < 63; i++) come('10.0.0.1');
    expect(honest.destroyed).toBe(false);
    come('10.0.0.1');
    expect(honest.destroyed).toBe(true);
  });

  it('leaves those alone who are known, or are being answered', () => {
    const { keeper, come, crowd } = door({ places: 10 });
    const [known, heard] = [come('10.1.0.0'), come('10.1.0.0')];
    keeper.known(known.socket);
    // TLS hands over another socket with the same ends.
    keeper.heard(new FakeSocket(heard.remoteAddress, heard.remotePort).socket);
    crowd(1, 50);
    expect([known.destroyed, heard.destroyed]).toEqual([false, false]);
    expect(keeper.strangers).toBe(10);
  });

  it('ends the oldest of all when a thousand addresses hold one each: a newcomer has the time that as many newer ones leave it', () => {
    const { come, crowd } = door();
    crowd(1_000, 1);
    const newcomer = come('192.168.1.7');
    crowd(255, 1);
    expect(newcomer.destroyed).toBe(false);
  });

  it('tells hosts of one IPv6 network apart, and no host is more than its network', () => {
    const { come } = door({ places: 40 });
    const elsewhere = come('2001:db8:2::1');
    const neighbour = come('2001:db8:1::7');
    // One host, and then as many as it likes.
    for (let i = 0; i < 100; i++) come('2001:db8:1::666');
    expect([elsewhere.destroyed, neighbour.destroyed]).toEqual([false, false]);
    for (let i = 0; i < 1_000; i++) come(`2001:db8:1::f:${i.toString(16)}`);
    expect(elsewhere.destroyed).toBe(false);
  });

  it('holds up an address whose connections come to nothing, and not one whose are let in', () => {
    const { keeper, come, log, clock } = door({ rate: { burst: 5, everyMs: 100 } });
    const many = (host: string, times: number): number =>
      Array.from({ length: times }, () => come(host)).filter(({ destroyed }) => !destroyed).length;
    expect(many('10.0.0.66', 20)).toBe(5);
    // Whoever goes on for hours fills no log.
    expect(log).toHaveLength(1);
    for (let i = 0; i < 20; i++) {
      const socket = come('10.0.0.1');
      expect(socket.destroyed).toBe(false);
      keeper.known(socket.socket);
    }
    clock.nowMs += 1_000;
    expect(many('10.0.0.66', 20)).toBe(5);
    // A network of IPv6, with ever other addresses: four times as much.
    const addresses = Array.from({ length: 50 }, (_, i) => come(`2001:db8::${i.toString(16)}`));
    expect(addresses.filter(({ destroyed }) => !destroyed)).toHaveLength(20);
    expect(come('2001:db8:0:1::1').destroyed).toBe(false);
  });

  it('forgets who has gone, also before anybody looked, and does not take another for him', () => {
    const { keeper, come } = door();
    expect(come(undefined).destroyed).toBe(true);
    const socket = come('10.0.0.1');
    expect(keeper.strangers).toBe(1);
    socket.destroy();
    expect(keeper.strangers).toBe(0);
    keeper.known(socket.socket);
    const [one, two] = [come('10.0.0.1'), come('10.0.0.1')];
    keeper.stop();
    expect([one.destroyed, two.destroyed, keeper.strangers]).toEqual([true, true, 0]);
  });
});
