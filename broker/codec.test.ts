import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { decode, encode, MAGIC, PROLOGUE_BYTES, prologue } from './codec.js';
import { isChairError } from './errors.js';
import type { AvroEnum, AvroRecord, AvroSchema } from './schema/bounds.js';
import { LANE_RECORDS } from './schema/generate.js';
import { readSchemaFiles } from './schema/set.js';
import { CURRENT, SCHEMA_VERSION } from './schema/version.js';
import { topicsOf } from './topics.js';

const SCHEMAS = new Map(readSchemaFiles().map((schema) => [schema.name, schema]));
const TOPICS = topicsOf('test');
/** Schemas of every topic: the messages of the control plane. Lane topics are bare names. */
const MESSAGES = [
  ...new Set(
    Object.values<unknown>(TOPICS).flatMap((entry) => {
      const topic: unknown = typeof entry === 'function' ? entry('x') : entry;
      return typeof topic === 'object' && topic !== null && 'schema' in topic ? [String(topic.schema)] : [];
    }),
  ),
];

/** Values of a schema, generated from the schema itself, within its bounds. */
function valuesOf(schema: AvroSchema): fc.Arbitrary<unknown> {
  if (typeof schema === 'string') return named(schema);
  if (!('type' in schema)) return fc.option(valuesOf(schema[1]), { nil: null });
  switch (schema.type) {
    case 'array':
      return fc.array(valuesOf(schema.items), { maxLength: Math.min(3, schema.maxItems ?? 3) });
    case 'int':
      return fc.integer({ min: schema.min ?? -(2 ** 31), max: 2 ** 31 - 1 });
    case 'long':
      return fc.integer({ min: schema.min ?? -(2 ** 52), max: 2 ** 52 - 1 });
    case 'string':
      return fc.string({ maxLength: 20 });
    case 'bytes':
      return fc.uint8Array({ maxLength: 50 });
    case 'enum':
      return fc.constantFrom(...schema.symbols);
    case 'record':
      return recordsOf(schema);
  }
}

function named(name: string): fc.Arbitrary<unknown> {
  switch (name) {
    case 'boolean':
      return fc.boolean();
    case 'int':
    case 'long':
    case 'string':
    case 'bytes':
      return valuesOf({ type: name });
    case 'double':
      return fc.double();
  }
  const schema: AvroRecord | AvroEnum | undefined = SCHEMAS.get(name);
  if (schema === undefined) throw new Error(`no schema ${name}`);
  return valuesOf(schema);
}

function recordsOf(record: AvroRecord): fc.Arbitrary<unknown> {
  if (record.oneOf === true) {
    return fc.oneof(
      ...record.fields.slice(1).map(({ name, type }) => {
        const inner = typeof type === 'object' && !('type' in type) ? valuesOf(type[1]) : fc.constant(null);
        return inner.map((value) => ({ kind: name, [name]: value }));
      }),
    );
  }
  return fc.record(Object.fromEntries(record.fields.map(({ name, type }) => [name, valuesOf(type)])));
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (isChairError(error)) return error.code;
    throw error;
  }
  return 'none';
}

const KNOWN = ['none', 'CODEC_INVALID', 'CODEC_LIMIT', 'SCHEMA_MISMATCH'];

const COMMAND = {
  id: '1',
  term: 2,
  scheduler: 's',
  nonce: 'n',
  deadlineMs: 1000,
  body: { kind: 'commit', commit: { deployment: 'd', epoch: 3 } },
  seal: Buffer.alloc(0),
};

describe('codec', () => {
  it('has a schema for every topic', () => {
    expect(MESSAGES.length).toBe(17);
    for (const name of MESSAGES) expect(CURRENT.has(name)).toBe(true);
  });

  test.each(MESSAGES)('%s: what is encoded is decoded', (name) => {
    fc.assert(
      fc.property(named(name), (value) => {
        const decoded = decode(name, encode(name, value));
        // Records come back as instances, bytes as Buffer: compare what they say.
        expect(JSON.parse(JSON.stringify(decoded))).toEqual(JSON.parse(JSON.stringify(value, bytesAsBuffer)));
      }),
      { numRuns: 60 },
    );
  });

  test.each(MESSAGES)('%s: changed, cut and random bytes give a value or a coded error', (name) => {
    const change = fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(255));
    fc.assert(
      fc.property(
        named(name),
        fc.array(change, { minLength: 1, maxLength: 4 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.boolean(),
        (value, changes, keep, cut) => {
          const whole = encode(name, value);
          const bytes = Uint8Array.from(cut ? whole.subarray(0, Math.floor(keep * whole.length)) : whole);
          for (const [where, byte] of changes) bytes[Math.floor(where * bytes.length)] = byte;
          expect(KNOWN).toContain(codeOf(() => decode(name, bytes)));
        },
      ),
      { numRuns: 150 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        expect(KNOWN).toContain(codeOf(() => decode(name, Buffer.concat([prologue(), noise]))));
      }),
      { numRuns: 150 },
    );
  });

  it('starts with three bytes that say who wrote it', () => {
    expect([...encode('Commit', { deployment: 'd', epoch: 1 }).subarray(0, PROLOGUE_BYTES)]).toEqual([
      MAGIC,
      SCHEMA_VERSION.major,
      SCHEMA_VERSION.minor,
    ]);
  });

  it('is Avro behind the prologue, byte for byte', () => {
    // Avro spec, "Binary encoding": strings are length and UTF-8, ints zigzag; a union is its branch and the value.
    const body = encode('Gone', { agent: 'pi', nonce: 'ä', why: '', connection: 0 }).subarray(PROLOGUE_BYTES);
    expect(body.toString('hex')).toBe(['04', '7069', '04', 'c3a4', '00', '00'].join(''));
    expect(encode('Ping', { padBytes: -65 }).subarray(PROLOGUE_BYTES).toString('hex')).toBe('8101');
    const command = encode('Command', COMMAND).subarray(PROLOGUE_BYTES).toString('hex');
    expect(command).toBe(
      [
        '0231',
        '04',
        '0273',
        '026e',
        '0000000000408f40',
        '0c',
        Buffer.from('commit').toString('hex'),
        '00',
        '02',
        '0264',
        '06',
        '0000000000000000000000',
        // No seal.
        '00',
      ].join(''),
    );
  });

  it('names the field that does not fit, and whom to tell when a union is not understood', () => {
    expect(() => encode('Reply', { id: 'x', agent: 5 })).toThrow(/"string" at agent; got number 5/);
    expect(codeOf(() => encode('Reply', undefined))).toBe('CODEC_INVALID');
    expect(() => encode('Command', { ...COMMAND, body: { kind: 'dance', dance: {} } })).toThrow(/prepare, commit.*got kind "dance"/);
    expect(() => encode('Command', { ...COMMAND, body: { kind: 'commit' } })).toThrow(/kind and the field it names/);
    expect(codeOf(() => encode('Progress', { agent: 'a', deployment: 'd', epoch: 1.5, step: 'x', doneBytes: 0, totalBytes: 0 }))).toBe(
      'CODEC_INVALID',
    );
  });
});

describe('bounds', () => {
  const hello = {
    ...{
      agent: 'a',
      nonce: 'n',
      schemaFingerprint: '',
      schemaVersion: 1000,
      softwareVersion: '',
      term: 0,
      scheduler: '',
      addresses: [],
      lanePort: 0,
      cores: 4,
      host: '',
      hostCores: 4,
      cpuLimit: 0,
      cpuPeriodMs: 0,
      engineThreads: 4,
    },
    ...{
      memoryBytes: 1,
      arch: '',
      engine: '',
      engineVersion: '',
      cpu: '',
      fingerprint: '',
      probeMacsPerSecond: 0,
      probeBytesPerSecond: 0,
      probeSmallRunMs: 0,
      storeBytesFree: 0,
    },
    healthMs: 1000,
    connection: 0,
    encrypted: false,
  };

  it('hold for the sender too: what no receiver would take is not sent', () => {
    expect(codeOf(() => encode('Hello', { ...hello, slices: new Array(1000).fill('ab') }))).toBe('none');
    expect(codeOf(() => encode('Hello', { ...hello, slices: new Array(1001).fill('ab') }))).toBe('CODEC_LIMIT');
    expect(codeOf(() => encode('Hello', { ...hello, slices: [], arch: 'x'.repeat(20_000) }))).toBe('CODEC_LIMIT');
    expect(
      codeOf(() => encode('BlobChunk', { id: '', sha256: '', offset: 0, totalBytes: 0, code: '', data: new Uint8Array(5_000_000) })),
    ).toBe('CODEC_LIMIT');
  });

  it('cost nothing to enforce: counts and lengths that are not there are refused at once', () => {
    // Of a Hello: agent, nonce, fingerprint '', version 0, software '', term 0, scheduler ''; then what is claimed of `addresses`.
    const claim = (...count: number[]) => Buffer.concat([prologue(), Buffer.from([0, 0, 0, 0, 0, 0, 0, ...count])]);
    const started = performance.now();
    const twoMillion = [0x80, 0x92, 0xf4, 0x01];
    expect(codeOf(() => decode('Hello', claim(...twoMillion)))).toBe('CODEC_LIMIT');
    // The same as a block with its size in front, a count within the bound and nothing behind it, a string of 2^34 bytes, a varint without end.
    expect(codeOf(() => decode('Hello', claim(0xff, 0x91, 0xf4, 0x01, 0x00)))).toBe('CODEC_LIMIT');
    expect(codeOf(() => decode('Hello', claim(0x3e)))).toBe('CODEC_INVALID');
    expect(codeOf(() => decode('Hello', claim(0x02, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01)))).toBe('CODEC_LIMIT');
    expect(codeOf(() => decode('Hello', claim(...new Array(5000).fill(0xff))))).toBe('CODEC_INVALID');
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  it('refuse a message that is over its class before looking at it', () => {
    expect(codeOf(() => decode('Gone', Buffer.concat([prologue(), Buffer.alloc(200_000)])))).toBe('CODEC_LIMIT');
  });

  it('hold ranks to eight and dims to what is not negative', () => {
    const body = (dims: number[]) => ({
      ...{ deployment: 'd', epoch: 1, outputs: [], stages: [], wires: [], slices: [], peers: [] },
      inputs: [{ name: 'x', dtype: 'float32', dims }],
    });
    const command = (dims: number[]) => ({ ...COMMAND, body: { kind: 'prepare', prepare: body(dims) } });
    expect(codeOf(() => encode('Command', command([1, 2, 3, 4, 5, 6, 7, 8])))).toBe('none');
    expect(codeOf(() => encode('Command', command(new Array(9).fill(1))))).toBe('CODEC_LIMIT');
    expect(codeOf(() => encode('Command', command([-1])))).toBe('CODEC_INVALID');
  });

  it('are set for every lane record', () => {
    for (const name of LANE_RECORDS) expect(CURRENT.message(name).maxBytes).toBeGreaterThan(256 * 1024 * 1024);
  });
});

function bytesAsBuffer(_key: string, value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value).toJSON() : value;
}
