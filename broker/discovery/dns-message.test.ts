import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DNS_TYPE, type DnsMessage, type DnsRecord, decodeDns, encodeDns, sameName } from './dns-message.js';

const label = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }).filter((text) => Buffer.byteLength(text) <= 63);
const name = fc.array(label, { maxLength: 3 });
const base = { name, ttlSeconds: fc.nat(2 ** 31), unique: fc.boolean() };
const octet = fc.nat(255);
const record: fc.Arbitrary<DnsRecord> = fc.oneof(
  fc.record({ ...base, type: fc.constant('ptr' as const), target: name }),
  fc.record({ ...base, type: fc.constant('srv' as const), port: fc.nat(65_535), target: name }),
  fc.record({ ...base, type: fc.constant('txt' as const), strings: fc.array(label, { maxLength: 4 }) }),
  fc.record({ ...base, type: fc.constant('a' as const), address: fc.tuple(octet, octet, octet, octet).map((bytes) => bytes.join('.')) }),
);
const message: fc.Arbitrary<DnsMessage> = fc.record({
  id: fc.nat(65_535),
  response: fc.boolean(),
  questions: fc.array(fc.record({ name, type: fc.constantFrom(...Object.values(DNS_TYPE)), unicast: fc.boolean() }), { maxLength: 3 }),
  answers: fc.array(record, { maxLength: 4 }),
  additionals: fc.array(record, { maxLength: 4 }),
});

describe('DNS messages', () => {
  it('decode to what was encoded', () => {
    fc.assert(
      fc.property(message, (value) => {
        expect(decodeDns(encodeDns(value))).toEqual(value);
      }),
    );
  });

  it('give a message or nothing, whatever the bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void decodeDns(Buffer.from(bytes))));
    fc.assert(
      fc.property(message, fc.nat(), fc.nat(255), (value, at, byte) => {
        const bytes = encodeDns(value);
        bytes[at % bytes.length] = byte;
        decodeDns(bytes);
        decodeDns(bytes.subarray(0, at % bytes.length));
      }),
    );
  });

  it('read a question as RFC 1035 writes it', () => {
    const bytes = Buffer.concat([
      Buffer.from('1234 0000 0001 0000 0000 0000'.replaceAll(' ', ''), 'hex'),
      Buffer.from('\x04_mqt\x04_tcp\x05local\x00'),
      Buffer.from('000c8001', 'hex'),
    ]);
    const question = { name: ['_mqt', '_tcp', 'local'], type: DNS_TYPE.ptr, unicast: true };
    expect(decodeDns(bytes)).toEqual({ id: 0x1234, response: false, questions: [question], answers: [], additionals: [] });
  });

  it('follow names that were compressed, and none that turn in circles', () => {
    const header = Buffer.from('00008400 0000 0001 0000 0001'.replaceAll(' ', ''), 'hex');
    // At 12: "b" "local"; its target: "a", then a pointer back to 12. The second record's name is a pointer, too, and of a type that is skipped.
    const pointer = Buffer.concat([
      Buffer.from('\x01b\x05local\x00'),
      Buffer.from('000c0001000000780004', 'hex'),
      Buffer.from('0161c00c', 'hex'),
    ]);
    const skipped = Buffer.from('c00c002f00010000007800020000', 'hex');
    const bytes = Buffer.concat([header, pointer, skipped]);
    expect(decodeDns(bytes)).toMatchObject({
      answers: [{ name: ['b', 'local'], type: 'ptr', target: ['a', 'b', 'local'] }],
      additionals: [],
    });
    const circle = Buffer.concat([Buffer.from('000000000001000000000000', 'hex'), Buffer.from('c00c000c0001', 'hex')]);
    expect(decodeDns(circle)).toBeUndefined();
    // A header that claims 65,535 records costs nothing.
    expect(decodeDns(Buffer.from('00008400ffffffffffffffff', 'hex'))).toBeUndefined();
  });

  it('cannot hold a name that is too long', () => {
    const long = { name: ['x'.repeat(64)], type: DNS_TYPE.ptr, unicast: false };
    expect(() => encodeDns({ id: 0, response: false, questions: [long], answers: [], additionals: [] })).toThrow(/longer than 63/);
  });

  it('compare names without case', () => {
    expect(sameName(['A', 'local'], ['a', 'LOCAL'])).toBe(true);
    expect(sameName(['a', 'local'], ['a'])).toBe(false);
  });
});
