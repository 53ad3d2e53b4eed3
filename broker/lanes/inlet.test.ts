import { connect, createServer, type Socket } from 'node:net';
import fc from 'fast-check';
import { generate } from 'mqtt-packet';
import { describe, expect, it, onTestFinished, test } from 'vitest';
import { BufferPool } from '../buffers.js';
import { listen } from '../listen.js';
import { SegmentReader } from '../segments.js';
import { until } from '../test-brokers.js';
import { Framer, lengthBytes, publishHeader } from './framing.js';
import { Inlet, readThrough } from './inlet.js';

const MIB = 2 ** 20;
const CONNECT = generate({ cmd: 'connect', clientId: 'a~1', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 5 });
const PING = generate({ cmd: 'pingreq' });
/** Where a message is read in another way than one that is a byte shorter: nothing at all, what fits behind others, what fills a piece. */
const EDGES = [0, 4096, 16_384, 16_385, 61_440, 65_533, 65_536];
const publishOf = (payload: Uint8Array): Uint8Array => Buffer.concat([publishHeader('t', payload.length, 256 * MIB), payload]);

/** A socket that gives as many bytes at a time as it is told, and what comes out of the lane's end of it. */
function wire(pool: BufferPool, onPayload: (reader: SegmentReader) => void) {
  const inlet = new Inlet(pool);
  const framer = new Framer({
    ...{ maxPacketBytes: 256 * MIB, first: 'connect', onPacket: () => undefined },
    onPublish: ({ payload }) => onPayload(new SegmentReader(payload)),
  });
  inlet.open(framer, (chunk, memory) => framer.push(chunk, 0, memory));
  const next = typeof inlet.onread.buffer === 'function' ? inlet.onread.buffer : () => new Uint8Array();
  let into = next();
  /** As Node does: what is there, up to the room there is; then it asks where the next bytes go. */
  const read = (bytes: Uint8Array): number => {
    const taken = bytes.subarray(0, into.length);
    into.set(taken);
    inlet.onread.callback(taken.length, into);
    into = next();
    return taken.length;
  };
  const feed = (stream: Uint8Array, sizes: readonly number[] = []): number => {
    let reads = 0;
    for (let at = 0; at < stream.length; reads++) at += read(stream.subarray(at, at + (sizes[reads] ?? stream.length)));
    return reads;
  };
  return { inlet, feed, room: () => into.length };
}

function bytesOf(reader: SegmentReader): Uint8Array {
  const bytes = new Uint8Array(reader.bytesLeft);
  reader.copyTo(bytes, 0, bytes.length);
  reader.discard();
  return bytes;
}

describe('an inlet', () => {
  test('gives every message as it was sent, however the bytes come and whenever each message is read, or taken over and its memory handed on', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            bytes: fc.oneof(fc.nat(100_000), fc.constantFrom(...EDGES)),
            seed: fc.nat(255),
            how: fc.constantFrom('now', 'later', 'taken over'),
            ping: fc.boolean(),
          }),
          {
            minLength: 1,
            maxLength: 12,
          },
        ),
        fc.array(fc.integer({ min: 1, max: 90_000 }), { maxLength: 40 }),
        (messages, sizes) => {
          const payloads = messages.map(({ bytes, seed }) => Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + seed) & 0xff));
          const pool = new BufferPool(MIB);
          const readers: SegmentReader[] = [];
          const read: Uint8Array[] = [];
          const { feed } = wire(pool, (reader) => {
            readers.push(reader);
            const message = readers.length - 1;
            const whole = messages[message]?.how === 'taken over' ? reader.adopt() : undefined;
            if (whole !== undefined) {
              expect((whole.byteOffset + whole.length) % 8).toBe(0);
              // As an engine takes its input: nobody else has that memory any more.
              read[message] = whole.slice();
              structuredClone(null, { transfer: [whole.buffer as ArrayBuffer] });
            } else if (messages[message]?.how !== 'later') read[message] = bytesOf(reader);
            // Whoever takes memory from the pool now must not get what a message still lies in.
            pool.give(pool.take(40_000).fill(0xee));
          });
          feed(
            Buffer.concat([CONNECT, ...payloads.flatMap((payload, i) => [publishOf(payload), messages[i]?.ping ? PING : EMPTY])]),
            sizes,
          );
          expect(readers).toHaveLength(payloads.length);
          for (const [i, payload] of payloads.entries()) {
            const got = read[i] ?? bytesOf(readers[i] ?? new SegmentReader([]));
            expect(Buffer.compare(got, payload)).toBe(0);
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  it('reads what is left of a message in one piece, and a stream of them into the same memory', () => {
    const pool = new BufferPool(8 * MIB);
    const pieces: number[] = [];
    const { feed } = wire(pool, (reader) => {
      pieces.push(reader.segments.length);
      reader.discard();
    });
    feed(CONNECT);
    const message = publishOf(new Uint8Array(600_000));
    const reads = Array.from({ length: 20 }, () => feed(message));
    expect([...new Set(reads), ...new Set(pieces)]).toEqual([2, 2]);
    expect(pool.made).toBe(2);
    // The bytes of one message come as a slow link brings them.
    feed(
      message,
      Array.from({ length: 1000 }, () => 1448),
    );
    expect(pieces.at(-1)).toBe(2);
  });

  it('hands a message over whole, aligned, with only its beginning copied; and never memory that is looked at', () => {
    const pool = new BufferPool(8 * MIB);
    const kept: Uint8Array[] = [];
    let handOn = false;
    const { feed } = wire(pool, (reader) => {
      // A header, as lane messages have one.
      reader.copyTo(new Uint8Array(101), 0, 101);
      const left = reader.bytesLeft;
      const whole = reader.adopt();
      if (whole === undefined) throw new Error('it lies in several pieces');
      expect([whole.length, whole.byteOffset % 8, reader.bytesLeft]).toEqual([left, 0, 0]);
      // To another thread, before the call is over.
      kept.push(handOn ? structuredClone(whole, { transfer: [whole.buffer as ArrayBuffer] }) : whole);
    });
    feed(CONNECT);
    const sizes = [[1000], [65_536], [90, 400_000], [1, 1, 1], []];
    sizes.forEach((reads, i) => {
      feed(publishOf(new Uint8Array(101 + 600_000).fill(i + 1)), reads);
    });
    expect(kept.map((bytes) => [...new Set(bytes)])).toEqual(sizes.map((_, i) => [i + 1]));
    expect(new Set(kept.map(({ buffer }) => buffer)).size).toBe(sizes.length);
    // Whoever took it over gives it back.
    for (const bytes of kept) pool.give(bytes);
    const { made } = pool;
    feed(publishOf(new Uint8Array(101 + 600_000).fill(9)));
    expect([pool.made, kept.at(-1)?.[0]]).toEqual([made, 9]);
    handOn = true;
    for (const value of [10, 11]) feed(publishOf(new Uint8Array(101 + 600_000).fill(value)));
    expect(kept.slice(-2).map((bytes) => [...new Set(bytes)])).toEqual([[10], [11]]);
  });

  it('hands over no memory that it reads on into, though a message lies in it alone, from its beginning', () => {
    const pool = new BufferPool(8 * MIB);
    const readers: SegmentReader[] = [];
    const { feed, room } = wire(pool, (reader) => readers.push(new SegmentReader(reader.segments, readers.length === 0 ? 0 : HEAD)));
    const HEAD = 200;
    feed(CONNECT);
    // A message that is read later leaves just room enough for the head of the next, which comes by itself.
    const filling = room() - 4096 - HEAD;
    feed(publishOf(new Uint8Array(filling)));
    const message = publishOf(Uint8Array.from({ length: HEAD + 8001 }, (_, i) => i & 0xff));
    feed(message, [message.length - 8001]);
    const [, second] = readers;
    expect(second?.segments.map(({ byteOffset }) => byteOffset)).toEqual([expect.any(Number), 0]);
    expect(second?.adopt()).toBeUndefined();
    expect(second?.bytesLeft).toBe(8001);
  });

  it('takes no memory for what is only announced', () => {
    const pool = new BufferPool(8 * MIB);
    const { feed, room } = wire(pool, () => undefined);
    feed(Buffer.concat([CONNECT, Buffer.of(0x30), lengthBytes(200 * MIB), Buffer.of(0, 1, 116, 1)]));
    expect(room()).toBe(2 * MIB);
  });

  it('leaves memory alone as long as a message lies in it', () => {
    const pool = new BufferPool(8 * MIB);
    const kept: SegmentReader[] = [];
    const { feed } = wire(pool, (reader) => kept.push(reader));
    feed(CONNECT);
    for (let i = 0; i < 50; i++) feed(publishOf(new Uint8Array(5000).fill(i)));
    kept.forEach((reader, i) => {
      expect([...new Set(bytesOf(reader))]).toEqual([i]);
    });
  });
});

const EMPTY = new Uint8Array(0);

describe('a connection that was accepted and is read through an inlet', () => {
  async function accepting(onSocket: (socket: Socket) => void) {
    const server = createServer((accepted) => {
      const inlet = new Inlet(new BufferPool(MIB));
      inlet.open({ payloadLeft: 0, payloadBytes: 0 }, (chunk) => got.push(...chunk));
      const socket = readThrough(accepted, inlet);
      if (socket === undefined) throw new Error('this runtime has no handle to read through');
      onSocket(socket);
    });
    const got: number[] = [];
    onTestFinished(() => void server.close());
    return { server, got, port: await listen(server, '127.0.0.1', 0) };
  }

  it('carries bytes both ways, knows its addresses, and ends with the other end', async () => {
    const events: string[] = [];
    let near: Socket | undefined;
    const { got, port, server } = await accepting((socket) => {
      near = socket;
      for (const event of ['end', 'close'] as const) socket.on(event, () => events.push(event));
      socket.write('hello');
    });
    const far = connect({ port, host: '127.0.0.1' });
    let heard = '';
    far.on('data', (chunk) => {
      heard += chunk;
    });
    far.write(Buffer.of(1, 2, 3));
    await until('both ways', () => got.length === 3 && heard === 'hello');
    expect([near?.remotePort, near?.localPort, near?.bytesRead]).toEqual([far.localPort, port, 3]);
    far.end();
    await until('the end', () => events.length === 2);
    // It counts as one connection of the server, and is over: only then does a server close.
    await new Promise((closed) => server.close(closed));
  });

  it('is destroyed from here as any other', async () => {
    const sockets: Socket[] = [];
    const { port, server } = await accepting((socket) => sockets.push(socket));
    const far = connect({ port, host: '127.0.0.1' }).on('error', () => undefined);
    await until('it is there', () => sockets.length === 1);
    sockets[0]?.destroy();
    await new Promise((closed) => far.once('close', closed));
    await new Promise((closed) => server.close(closed));
  });
});
