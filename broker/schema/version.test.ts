import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decode, encode, prologue } from '../codec.js';
import { isChairError } from '../errors.js';
import type { AvroEnum, AvroRecord, AvroSchema } from './bounds.js';
import { LANE_RECORDS } from './generate.js';
import { createReader, SchemaSet, write } from './set.js';
import {
  CURRENT,
  historyUrl,
  OUR_SCHEMAS,
  reconcile,
  SCHEMA_VERSION,
  type SchemaStand,
  schemasOf,
  versionNumber,
  versionOfNumber,
} from './version.js';

/** The current schemas with one field taken off the end of, or put at the end of, a record. */
function changed(name: string, change: (fields: AvroRecord['fields']) => AvroRecord['fields']): SchemaSet {
  return new SchemaSet(
    CURRENT.schemas.map((schema) =>
      schema.name === name && schema.type === 'record' ? { ...schema, fields: change(schema.fields) } : schema,
    ),
  );
}

function history(minor: number): (AvroRecord | AvroEnum)[] {
  return JSON.parse(readFileSync(historyUrl({ ...SCHEMA_VERSION, minor }), 'utf8'));
}

function stand(version: { major: number; minor: number }, fingerprint = 'f'): SchemaStand {
  return { schemaVersion: versionNumber(version), schemaFingerprint: fingerprint };
}

const REIGN = { term: 9, scheduler: 's', schemaFingerprint: 'abc', schemaVersion: 1001 };

describe('history', () => {
  it('holds the current schemas: a change of a schema needs a new version and a new file', () => {
    const kept = new SchemaSet(history(SCHEMA_VERSION.minor));
    expect(kept.fingerprint, 'schemas changed: raise SCHEMA_VERSION and run freeze.ts').toBe(CURRENT.fingerprint);
  });

  it('can be read: every minor of this major, message by message, and lane records and nested unions did not change', () => {
    for (let minor = 0; minor <= SCHEMA_VERSION.minor; minor++) {
      const set = schemasOf({ ...SCHEMA_VERSION, minor });
      expect(set).toBeDefined();
      for (const schema of set?.schemas ?? []) {
        if (schema.type !== 'record') continue;
        const [then, now] = [set?.message(schema.name), CURRENT.message(schema.name)];
        if (then === undefined) continue;
        expect(() => createReader(then, now)).not.toThrow();
        expect(now.schema.fields.slice(0, then.schema.fields.length).map((field) => field.name)).toEqual(
          then.schema.fields.map((field) => field.name),
        );
        if (LANE_RECORDS.has(schema.name) || schema.name === 'BlobChunk')
          expect(now.avro.fingerprint('sha256').equals(then.avro.fingerprint('sha256'))).toBe(true);
      }
    }
  });

  it('does not know other majors or later minors', () => {
    expect(schemasOf({ major: SCHEMA_VERSION.major + 1, minor: 0 })).toBeUndefined();
    expect(schemasOf({ ...SCHEMA_VERSION, minor: SCHEMA_VERSION.minor + 1 })).toBeUndefined();
  });
});

describe('a fingerprint', () => {
  it('changes with a field and not with a bound or a comment', () => {
    expect(changed('Reply', (fields) => [...fields, { name: 'added', type: 'string', default: '' }]).fingerprint).not.toBe(
      CURRENT.fingerprint,
    );
    const bounded = CURRENT.schemas.map((schema) => (schema.name === 'Reply' ? { ...schema, maxBytes: 5, doc: 'Yes or no.' } : schema));
    expect(new SchemaSet(bounded).fingerprint).toBe(CURRENT.fingerprint);
  });
});

describe('an older writer', () => {
  it('is read compatibly: fields it does not have get their defaults, also in nested records', () => {
    const added: AvroSchema = 'string';
    const newer = changed('SeatHealth', (fields) => [...fields, { name: 'governor', type: added, default: 'unknown' }]);
    const seat = { deployment: 'd', epoch: 1, stage: 0, replica: 0, part: 0, framesRun: 5, queue: 0, runMs: 1.5 };
    const health = {
      ...{
        agent: 'a',
        nonce: 'n',
        uptimeMs: 1,
        cpu: 0.5,
        rssBytes: 1,
        anonymousBytes: 1,
        memoryFreeBytes: 1,
        temperature: 0,
        throttled: -1,
        p50Ms: 0,
        p95Ms: 0,
        reconnects: 0,
        queue: 0,
      },
      ...{ framesPerSecond: 0, refused: 0, damaged: 0, encodedMessages: 0, rawFallbacks: 0, seats: [seat, seat], lanes: [] },
      ...{ peersTerm: 0, peersVersion: 0, refusals: [] },
    };
    const [then, now] = [CURRENT.message('Health'), newer.message('Health')];
    const bytes = write(then, new Uint8Array(0), health);
    const read = createReader(then, now)(bytes) as { seats: { governor: string; runMs: number }[] };
    expect(read.seats.map((row) => [row.governor, row.runMs])).toEqual([
      ['unknown', 1.5],
      ['unknown', 1.5],
    ]);
  });

  it('cannot be read when a field was added without a default: a test of the history fails', () => {
    const newer = changed('Reply', (fields) => [...fields, { name: 'added', type: 'string' }]);
    expect(() => createReader(CURRENT.message('Reply'), newer.message('Reply'))).toThrow(/default/);
  });
});

describe('a newer writer', () => {
  const newer = changed('Reign', (fields) => [...fields, { name: 'motto', type: 'string', default: '' }]);
  const next = { ...SCHEMA_VERSION, minor: SCHEMA_VERSION.minor + 1 };

  it('is understood in its greeting, in which versions are agreed on', () => {
    const bytes = write(newer.message('Reign'), prologue(next), { ...REIGN, motto: 'more' });
    expect({ ...(decode('Reign', bytes) as object) }).toEqual(REIGN);
  });

  it('is refused in anything else, naming both versions and whom to update', () => {
    const bytes = write(CURRENT.message('Gone'), prologue(next), { agent: 'a', nonce: 'n', why: '', connection: 0 });
    const what = `expected schema version ${SCHEMA_VERSION.major}.${SCHEMA_VERSION.minor}; got ${next.major}.${next.minor}. Update this machine.`;
    expect(() => decode('Gone', bytes)).toThrow(what);
  });

  it('may not append to a message of our own version', () => {
    const bytes = write(newer.message('Reign'), prologue(), { ...REIGN, motto: 'more' });
    expect(() => decode('Reign', bytes)).toThrow(/end of the message/);
  });
});

describe('another major version', () => {
  it.each([
    [SCHEMA_VERSION.major + 1, 'Update this machine.'],
    [SCHEMA_VERSION.major - 1, 'Update the sender.'],
  ])('%i is refused before decoding, in greetings too', (major, todo) => {
    const bytes = write(CURRENT.message('Reign'), prologue({ major, minor: 0 }), REIGN);
    try {
      decode('Reign', bytes);
      expect.unreachable();
    } catch (error) {
      expect(isChairError(error, 'SCHEMA_MISMATCH')).toBe(true);
      expect(String(error)).toContain(todo);
    }
  });

  it('cannot be written', () => {
    expect(() => encode('Reign', REIGN, { major: SCHEMA_VERSION.major + 1, minor: 0 })).toThrow(/unknown here/);
  });
});

describe('reconcile', () => {
  const mine = stand({ major: 2, minor: 3 }, 'mine');
  const known = (version: { major: number; minor: number }) => (version.minor === 2 ? 'two' : undefined);

  it.each([
    ['the same', stand({ major: 2, minor: 3 }, 'mine'), '2.3'],
    ['an older minor of our history', stand({ major: 2, minor: 2 }, 'two'), '2.2'],
    ['a newer minor, which adapts to us', stand({ major: 2, minor: 4 }, 'whatever'), '2.3'],
  ])('speaks with %s', (_what, theirs, version) => {
    const result = reconcile(mine, theirs, known);
    expect(result.ok && `${result.version.major}.${result.version.minor}`).toBe(version);
  });

  it.each([
    [
      'another major that is older',
      stand({ major: 1, minor: 3 }),
      /major schema versions differ; expected schema version 2.3 .*; got 1.3 .*on the other side/,
    ],
    ['another major that is newer', stand({ major: 3, minor: 0 }), /got 3.0 .*on this side/],
    ['a modified build', stand({ major: 2, minor: 3 }, 'theirs'), /different schemas; .*same release/],
    ['an older minor that we have forgotten', stand({ major: 2, minor: 1 }), /not in our history/],
    ['an older minor that was modified', stand({ major: 2, minor: 2 }, 'other'), /not what that version had/],
  ])('refuses %s', (_what, theirs, message) => {
    const result = reconcile(mine, theirs, known);
    expect(result.ok).toBe(false);
    if (result.ok) return;
    expect(result.error.code).toBe('SCHEMA_MISMATCH');
    expect(result.error.message).toMatch(message);
  });

  it('works with what we say of ourselves', () => {
    expect(versionOfNumber(OUR_SCHEMAS.schemaVersion)).toEqual(SCHEMA_VERSION);
    expect(reconcile(OUR_SCHEMAS, OUR_SCHEMAS)).toEqual({ ok: true, version: SCHEMA_VERSION });
  });
});
