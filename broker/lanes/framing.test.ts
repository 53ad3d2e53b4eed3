import fc from 'fast-check';
import { generate, type Packet } from 'mqtt-packet';
import { describe, expect, it, test } from 'vitest';
import { isChairError } from '../errors.js';
import { joinSegments, SegmentReader } from '../segments.js';
import { Framer, lengthBytes, partHeader, publishHeader } from './framing.js';

interface Seen {
  readonly topic: string;
  readonly payload: string;
  readonly qos: number;
  readonly id: number;
}

function feed(
  chunks: readonly Uint8Array[],
  maxPacketBytes = 1_000_000,
): { seen: (Seen | Packet['cmd'])[]; code: string; segments: number } {
  const seen: (Seen | Packet['cmd'])[] = [];
  let segments = 0;
  const framer = new Framer({
    maxPacketBytes,
    first: 'connect',
    onPublish: ({ topic, qos, messageId, payload, payloadBytes }) => {
      const bytes = Buffer.from(joinSegments(payload));
      expect(bytes.length).toBe(payloadBytes);
      segments = payload.length;
      seen.push({ topic, qos, id: messageId, payload: bytes.toString('latin1') });
    },
    onPacket: (packet) => seen.push(packet.cmd),
  });
  try {
    for (const chunk of chunks) framer.push(chunk);
  } catch (error) {
    if (isChairError(error)) return { seen, segments, code: error.code };
    throw error;
  }
  return { seen, segments, code: 'none' };
}

function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  let at = 0;
  for (const size of sizes) {
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return [...chunks, bytes.subarray(at)];
}

const CONNECT = generate({ cmd: 'connect', clientId: 'a~1', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 5 });

/** A message in parts of these sizes, and a whole message after the first. */
function parts(topic: string, payload: Buffer, sizes: readonly number[], between: Buffer = Buffer.alloc(0)): Buffer[] {
  const cuts = cut(payload, sizes).filter((part) => part.length > 0);
  return cuts.flatMap((part, i) => [
    Buffer.concat([partHeader(topic, part.length, i === cuts.length - 1), part]),
    ...(i === 0 ? [between] : []),
  ]);
}

describe('pings', () => {
  const pings = [generate({ cmd: 'pingreq' }), generate({ cmd: 'pingresp' })];

  test('are told between messages, however the stream is cut', () => {
    const message = Buffer.concat([publishHeader('t', 3, 1000), Buffer.from('abc')]);
    const stream = Buffer.concat([CONNECT, ...pings, message, ...pings]);
    for (const size of [1, 2, 3, 7, stream.length]) {
      const sizes = Array.from({ length: Math.ceil(stream.length / size) }, () => size);
      const { seen, code } = feed(cut(stream, sizes));
      expect(code).toBe('none');
      expect(seen.map((one) => (typeof one === 'object' ? one.payload : one))).toEqual([
        ...['connect', 'pingreq', 'pingresp', 'abc'],
        ...['pingreq', 'pingresp'],
      ]);
    }
  });

  test.each([
    [0xc1, 0],
    [0xd8, 0],
  ])('with flags (%i) are refused', (first, length) => {
    expect(feed([CONNECT, Buffer.from([first, length])]).code).toBe('CODEC_INVALID');
  });
});

describe('a message in parts', () => {
  test('comes out whole however it and the stream are cut, with whole ones between', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 9000 }),
        fc.array(fc.nat(4000), { maxLength: 4 }),
        fc.array(fc.nat(1500), { maxLength: 30 }),
        (bytes, sizes, chunks) => {
          const payload = Buffer.from(bytes);
          const small = Buffer.concat([publishHeader('small', 3, 10_000), Buffer.from('abc')]);
          const stream = Buffer.concat([CONNECT, ...parts('large', payload, sizes, small), generate({ cmd: 'pingreq' })]);
          const { seen, code } = feed(cut(stream, chunks));
          expect(code).toBe('none');
          const whole = { topic: 'large', payload: payload.toString('latin1'), qos: 0, id: 0 };
          const other = { topic: 'small', payload: 'abc', qos: 0, id: 0 };
          // In one part it is over before the other one comes.
          expect([
            ['connect', other, whole, 'pingreq'],
            ['connect', whole, other, 'pingreq'],
          ]).toContainEqual(seen);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('is forgotten when its sender says that the rest will not come; the next one is not mixed up with it', () => {
    const begun = Buffer.concat([partHeader('t', 5, false), Buffer.from('begun'), partHeader('t', 0, true)]);
    const { seen, code } = feed([Buffer.concat([CONNECT, begun, ...parts('t', Buffer.from('another'), [3])])]);
    expect(code).toBe('none');
    expect(seen).toEqual(['connect', { topic: 't', payload: 'another', qos: 0, id: 0 }]);
  });

  it('is bounded as one packet is, by size, by number and by age', () => {
    const part = (topic: string, bytes: number) => Buffer.concat([partHeader(topic, bytes, false), Buffer.alloc(bytes)]);
    expect(feed([CONNECT, part('t', 600), part('t', 300)], 1000).code).toBe('none');
    expect(feed([CONNECT, part('t', 600), part('t', 600)], 1000).code).toBe('PACKET_TOO_LARGE');
    expect(feed([CONNECT, part('t', 600), part('u', 1)], 1000).code).toBe('CODEC_INVALID');
    const framer = new Framer({ maxPacketBytes: 1000, first: 'connect', onPublish: () => undefined, onPacket: () => undefined });
    framer.push(CONNECT, 0);
    framer.push(part('t', 600), 1000);
    framer.push(generate({ cmd: 'pingreq' }), 50_000);
    expect(() => framer.push(generate({ cmd: 'pingreq' }), 62_000)).toThrow(/begun and not ended/);
  });

  it('costs no more in crumbs than in one piece, also with whole messages between them', () => {
    const part = (i: number) => Buffer.concat([partHeader('t', 1, i === 4999), Buffer.of(i & 0xff)]);
    const whole = Buffer.concat([publishHeader('u', 0, 1000), publishHeader('u', 1, 1000), Buffer.of(7)]);
    const stream = [CONNECT, ...Array.from({ length: 5000 }, (_, i) => Buffer.concat([whole, part(i)]))];
    const { segments, code } = feed(stream);
    expect(code).toBe('none');
    expect(segments).toBeLessThan(4);
  });

  it('leaves its chunks to its reader alone, who may drop them at once', () => {
    const own = (bytes: Buffer): Buffer => Buffer.from(new Uint8Array(bytes).buffer);
    const read: SegmentReader[] = [];
    const onPublish = ({ payload }: { readonly payload: readonly Uint8Array[] }) => void read.push(new SegmentReader(payload));
    const framer = new Framer({ maxPacketBytes: 100_000, first: 'connect', onPublish, onPacket: () => undefined });
    framer.push(CONNECT);
    const chunk = own(Buffer.concat(parts('t', Buffer.alloc(20_000, 1), [9000, 9000])));
    framer.push(chunk);
    read[0]?.discard();
    expect(chunk.buffer.byteLength).toBe(0);
  });
});

describe('framer', () => {
  test('packets come out the same however the stream is cut', () => {
    const publish = fc.record({
      topic: fc.constantFrom('t', 'mc/x/lane/pi-3', 'ä'.repeat(70)),
      payload: fc.uint8Array({ maxLength: 3000 }),
      qos: fc.constantFrom(0, 1),
    });
    fc.assert(
      fc.property(fc.array(publish, { maxLength: 4 }), fc.array(fc.nat(1500), { maxLength: 30 }), (messages, sizes) => {
        const stream = [CONNECT];
        const want: (Seen | string)[] = ['connect'];
        messages.forEach(({ topic, payload, qos }, i) => {
          const messageId = qos === 0 ? 0 : i + 1;
          stream.push(
            generate({
              cmd: 'publish',
              topic,
              payload: Buffer.from(payload),
              qos: qos === 0 ? 0 : 1,
              dup: false,
              retain: false,
              messageId,
            }),
          );
          want.push({ topic, payload: Buffer.from(payload).toString('latin1'), qos, id: messageId });
          if (i === 1) {
            stream.push(
              generate({ cmd: 'pingreq' }),
              generate({ cmd: 'subscribe', messageId: 9, subscriptions: [{ topic: 'r', qos: 0 }] }),
            );
            want.push('pingreq', 'subscribe');
          }
        });
        const { seen, code } = feed(cut(Buffer.concat(stream), sizes));
        expect(code).toBe('none');
        expect(seen).toEqual(want);
      }),
      { numRuns: 300 },
    );
  });

  it('hands a payload over in the segments it came in', () => {
    const stream = Buffer.concat([CONNECT, publishHeader('t', 10_000, 20_000), Buffer.alloc(10_000, 7)]);
    expect(feed(cut(stream, [5000]).map((chunk) => Uint8Array.from(chunk))).segments).toBe(2);
    // What follows in the same memory is one.
    expect(feed(cut(stream, [5000])).segments).toBe(1);
  });

  it('does not keep a record for every byte of a peer that drips', () => {
    const stream = Buffer.concat([CONNECT, publishHeader('t', 40_000, 50_000), Buffer.alloc(40_000, 7)]);
    const { segments, seen } = feed(cut(stream, new Array(stream.length).fill(1)));
    expect(seen).toHaveLength(2);
    expect(segments).toBeLessThan(5);
  });

  it('writes the header that mqtt-packet would', () => {
    const whole = generate({ cmd: 'publish', topic: 'mc/x', payload: Buffer.alloc(300), qos: 0, dup: false, retain: false });
    expect(Buffer.concat([publishHeader('mc/x', 300, 1000), Buffer.alloc(300)]).equals(whole)).toBe(true);
    // Lengths of one to four bytes, with the 9 of the topic and its length.
    for (const bytes of [0, 118, 119, 16_374, 16_375, 2_097_142, 2_097_143]) {
      const payload = Buffer.alloc(bytes);
      const packet = generate({ cmd: 'publish', topic: 'mc/läne', payload, qos: 0, dup: false, retain: false });
      expect(Buffer.concat([publishHeader('mc/läne', bytes, 3_000_000), payload]).equals(packet)).toBe(true);
    }
    expect([0, 127, 128, 16_383, 16_384, 268_435_455].map((length) => Buffer.from(lengthBytes(length)).toString('hex'))).toEqual([
      '00',
      '7f',
      '8001',
      'ff7f',
      '808001',
      'ffffff7f',
    ]);
  });

  test.each([
    ['a packet before CONNECT', Buffer.concat([publishHeader('t', 0, 10), CONNECT]), 'CODEC_INVALID'],
    ['a web browser', Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'CODEC_INVALID'],
    ['a PUBLISH that announces too much', Buffer.concat([CONNECT, Buffer.of(0x30), lengthBytes(1_000_001)]), 'PACKET_TOO_LARGE'],
    ['a CONNECT that announces too much', Buffer.concat([Buffer.of(0x10), lengthBytes(70_000)]), 'PACKET_TOO_LARGE'],
    ['a length of five bytes', Buffer.concat([CONNECT, Buffer.of(0x30, 0xff, 0xff, 0xff, 0xff, 0x01)]), 'CODEC_INVALID'],
    ['a topic that is longer than its packet', Buffer.concat([CONNECT, Buffer.of(0x30, 4, 0, 9, 65, 65)]), 'CODEC_INVALID'],
    ['a topic of 60,000 bytes', Buffer.concat([CONNECT, Buffer.of(0x30), lengthBytes(60_002), Buffer.of(0xea, 0x60)]), 'PACKET_TOO_LARGE'],
    ['a wildcard as a topic', Buffer.concat([CONNECT, publishHeader('a/#', 0, 10)]), 'CODEC_INVALID'],
    ['QoS 2', Buffer.concat([CONNECT, Buffer.of(0x34, 5, 0, 1, 65, 0, 1)]), 'CODEC_INVALID'],
  ])('refuses %s', (_what, bytes, code) => {
    expect(feed([bytes]).code).toBe(code);
    expect(feed(cut(bytes, [1, 1, 1])).code).toBe(code);
  });

  test('any bytes give packets or a coded error', () => {
    const codes = new Set<string>();
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.constant(CONNECT), fc.constant(publishHeader('t', 3, 99))), {
          maxLength: 12,
        }),
        (parts) => {
          codes.add(feed([CONNECT, ...parts], 5000).code);
        },
      ),
      { numRuns: 1000 },
    );
    expect([...codes].sort()).toEqual(['CODEC_INVALID', 'PACKET_TOO_LARGE', 'none']);
  });
});

describe('memory of chunks', () => {
  /** Reads each message into memory of its own when it comes, or `later`, and discards it. */
  function receive(stream: Uint8Array, sizes: readonly number[], later: (message: number) => boolean) {
    const chunks = cut(stream, sizes).map((chunk) => Uint8Array.from(chunk));
    const readers: SegmentReader[] = [];
    const read: Uint8Array[] = [];
    const take = (message: number): void => {
      const reader = readers[message];
      if (reader === undefined) throw new Error('no message');
      const bytes = new Uint8Array(reader.bytesLeft);
      reader.copyTo(bytes, 0, bytes.length);
      reader.discard();
      read[message] = bytes;
    };
    const framer = new Framer({
      maxPacketBytes: 1_000_000,
      first: 'connect',
      onPublish: ({ payload }) => {
        readers.push(new SegmentReader(payload));
        if (!later(readers.length - 1)) take(readers.length - 1);
      },
      onPacket: () => undefined,
    });
    for (const chunk of chunks) framer.push(chunk);
    for (const message of readers.keys()) if (read[message] === undefined) take(message);
    return { read, chunks };
  }

  const publishOf = (payload: Uint8Array): Uint8Array => Buffer.concat([publishHeader('t', payload.length, 1_000_000), payload]);

  it('goes back at once where one message alone looks at it', () => {
    const message = publishOf(new Uint8Array(100_000).fill(7));
    const { read, chunks } = receive(Buffer.concat([CONNECT, message]), [CONNECT.length, 40_000, 40_000], () => false);
    expect(read[0]).toEqual(new Uint8Array(100_000).fill(7));
    expect(chunks.map((chunk) => chunk.length)).toEqual([CONNECT.length, 0, 0, 0]);
  });

  it('stays as long as another message looks at it', () => {
    const two = Buffer.concat([CONNECT, publishOf(new Uint8Array(9000).fill(1)), publishOf(new Uint8Array(9000).fill(2))]);
    const chunk = Uint8Array.from(two);
    const readers: SegmentReader[] = [];
    const onPublish = ({ payload }: { readonly payload: readonly Uint8Array[] }) => void readers.push(new SegmentReader(payload));
    new Framer({ maxPacketBytes: 1_000_000, first: 'connect', onPublish, onPacket: () => undefined }).push(chunk);
    const lengths = readers.map((reader) => {
      reader.discard();
      // Twice is once.
      reader.discard();
      return chunk.length;
    });
    expect(lengths).toEqual([two.length, 0]);
  });

  test('no message is read wrong, however the stream is cut and whenever each is read', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 0, maxLength: 20_000 }), { minLength: 1, maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 15_000 }), { maxLength: 12 }),
        fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }),
        (payloads, sizes, late) => {
          const stream = Buffer.concat([CONNECT, ...payloads.map(publishOf)]);
          const { read } = receive(stream, sizes, (message) => late[message] ?? false);
          expect(read).toHaveLength(payloads.length);
          for (const [i, payload] of payloads.entries()) expect(Buffer.compare(read[i] ?? EMPTY, payload)).toBe(0);
        },
      ),
      { numRuns: 200 },
    );
  });
});

const EMPTY = new Uint8Array(0);
