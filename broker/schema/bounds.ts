/**
 * Walks Avro bytes along their schema before avsc sees them. avsc trusts counts and lengths: a 4-byte array header that claims two million
 * items makes it spin. Here every varint is bounded, every length must lie inside the buffer, and lists, strings and bytes have limits, so
 * that whatever passes is decoded in time and memory proportional to its own size. Nothing is allocated while walking.
 *
 * Limits come from attributes in the `.avsc` files, which Avro ignores (they are not part of the canonical form, so changing a limit is not a
 * change of schema): `maxItems` on arrays, `maxBytes` on strings, bytes and whole messages, `min` on int and long.
 */
import { ChairError } from '../errors.js';

/** Limits where the schema does not say otherwise. */
export const DEFAULT_LIMITS = {
  maxItems: 10_000,
  maxStringBytes: 16 * 1024,
  maxDataBytes: 4 * 1024 * 1024,
  maxMessageBytes: 64 * 1024,
} as const;

/** The part of Avro's schema language that this project uses: no maps, no fixed, no recursion, every named type in a file of its own. */
export type AvroSchema = string | AvroRecord | AvroEnum | AvroArray | AvroNumber | AvroBytes | readonly [string, AvroSchema];
export interface AvroRecord {
  readonly type: 'record';
  readonly name: string;
  /** For people, here and on fields: becomes the docstring of the TypeScript type. */
  readonly doc?: string;
  readonly maxBytes?: number;
  /** The record stands for a TypeScript union `{kind: 'a', a: A} | {kind: 'b', b: B}`: exactly the field named by `kind` is set. */
  readonly oneOf?: boolean;
  readonly fields: readonly AvroField[];
}
export interface AvroField {
  readonly name: string;
  readonly doc?: string;
  readonly type: AvroSchema;
  readonly default?: unknown;
}
export interface AvroEnum {
  readonly type: 'enum';
  readonly name: string;
  readonly doc?: string;
  readonly symbols: readonly string[];
}
export interface AvroArray {
  readonly type: 'array';
  readonly items: AvroSchema;
  readonly maxItems?: number;
}
export interface AvroNumber {
  readonly type: 'int' | 'long';
  readonly min?: number;
}
export interface AvroBytes {
  readonly type: 'bytes' | 'string';
  readonly maxBytes?: number;
}

/** A position in bytes, and where in the message we are (for the error). */
export class Walk {
  pos = 0;
  at = '';

  constructor(
    readonly bytes: Uint8Array,
    readonly end: number = bytes.length,
  ) {}

  invalid(expected: string, came: string): never {
    throw new ChairError('CODEC_INVALID', `bytes do not decode at ${this.at || 'start'} (byte ${this.pos})`, { expected, came });
  }

  limit(what: string, limit: number, came: number): never {
    throw new ChairError('CODEC_LIMIT', `${what} at ${this.at || 'start'} is over its bound`, {
      expected: `at most ${limit}`,
      came: `${came}`,
    });
  }

  byte(): number {
    const value = this.pos < this.end ? this.bytes[this.pos] : undefined;
    if (value === undefined) return this.invalid('more bytes', 'the end of the message');
    this.pos++;
    return value;
  }

  /**
   * A zigzag varint of at most ten bytes that is a safe integer (Avro spec, "Binary encoding": int and long). The sign bit is taken off the first
   * byte, so that the magnitude is summed exactly up to 2^53 - 1.
   */
  long(): number {
    let byte = this.byte();
    const negative = (byte & 1) === 1;
    let magnitude = (byte & 0x7f) >> 1;
    let scale = 64;
    for (let count = 1; byte >= 0x80; count++) {
      if (count === 10) return this.invalid('a varint of at most 10 bytes', 'a longer one');
      byte = this.byte();
      magnitude += (byte & 0x7f) * scale;
      scale *= 128;
    }
    if (magnitude > Number.MAX_SAFE_INTEGER) return this.invalid('an integer of at most 2^53 - 1', 'a larger one');
    return negative ? -magnitude - 1 : magnitude;
  }

  skip(length: number): void {
    if (length < 0 || length > this.end - this.pos) this.invalid(`${length} bytes`, `${this.end - this.pos} bytes left`);
    this.pos += length;
  }
}

/** Moves `walk` over one value or throws CODEC_INVALID or CODEC_LIMIT. */
export type Check = (walk: Walk) => void;

interface Compiled {
  readonly check: Check;
  /** Fewest bytes a value takes: what a claimed count is held against. */
  readonly minBytes: number;
}

const INT_MAX = 2 ** 31 - 1;
/** avsc's own range: beyond it its reader would lose the sign bit to rounding. */
const LONG_MAX = 2 ** 52 - 1;
const LONG_MIN = -(2 ** 52);

function compileInteger(type: 'int' | 'long', min: number | undefined): Compiled {
  const low = min ?? (type === 'int' ? -INT_MAX - 1 : LONG_MIN);
  const high = type === 'int' ? INT_MAX : LONG_MAX;
  return {
    minBytes: 1,
    check: (walk) => {
      const value = walk.long();
      if (value < low || value > high) walk.invalid(`an integer from ${low} to ${high}`, `${value}`);
    },
  };
}

function compileSized(maxBytes: number): Compiled {
  return {
    minBytes: 1,
    check: (walk) => {
      const length = walk.long();
      if (length > maxBytes) walk.limit('length in bytes', maxBytes, length);
      walk.skip(length);
    },
  };
}

function compileArray(items: Compiled, maxItems: number): Compiled {
  const check: Check = (walk) => {
    let total = 0;
    for (;;) {
      let count = walk.long();
      if (count === 0) return;
      if (count < 0) {
        // A block with its size in bytes in front (Avro spec, "Complex types": arrays). The size is for skippers; we go by the items.
        count = -count;
        walk.long();
      }
      total += count;
      if (total > maxItems) walk.limit('list length', maxItems, total);
      if (count * items.minBytes > walk.end - walk.pos) walk.invalid(`${count} items`, `${walk.end - walk.pos} bytes left`);
      for (let i = 0; i < count; i++) items.check(walk);
    }
  };
  return { check, minBytes: 1 };
}

function compileRecord(record: AvroRecord, known: ReadonlyMap<string, Compiled>): Compiled {
  const fields = record.fields.map((field) => ({ at: `${record.name}.${field.name}`, compiled: compile(field.type, known) }));
  const minBytes = fields.reduce((sum, field) => sum + field.compiled.minBytes, 0);
  if (minBytes === 0) throw new ChairError('INTERNAL', `schema ${record.name} has no bytes: a list of it could not be bounded`);
  const check: Check = (walk) => {
    for (const field of fields) {
      walk.at = field.at;
      field.compiled.check(walk);
    }
  };
  return { check, minBytes };
}

function compilePrimitive(name: string, known: ReadonlyMap<string, Compiled>): Compiled {
  switch (name) {
    case 'boolean':
      return { minBytes: 1, check: (walk) => void (walk.byte() > 1 && walk.invalid('a boolean', 'another byte')) };
    case 'int':
    case 'long':
      return compileInteger(name, undefined);
    case 'double':
      return { minBytes: 8, check: (walk) => walk.skip(8) };
    case 'string':
      return compileSized(DEFAULT_LIMITS.maxStringBytes);
    case 'bytes':
      return compileSized(DEFAULT_LIMITS.maxDataBytes);
  }
  const named = known.get(name);
  if (named === undefined) throw new ChairError('INTERNAL', `schema ${name} is used before it is defined`);
  return named;
}

function compileNullable(schema: readonly [string, AvroSchema], known: ReadonlyMap<string, Compiled>): Compiled {
  if (schema.length !== 2 || schema[0] !== 'null') throw new ChairError('INTERNAL', 'the only unions used are ["null", X]');
  const some = compile(schema[1], known);
  const check: Check = (walk) => {
    const branch = walk.long();
    if (branch === 1) some.check(walk);
    else if (branch !== 0) walk.invalid('union branch 0 or 1', `${branch}`);
  };
  return { check, minBytes: 1 };
}

function compile(schema: AvroSchema, known: ReadonlyMap<string, Compiled>): Compiled {
  if (typeof schema === 'string') return compilePrimitive(schema, known);
  if (!('type' in schema)) return compileNullable(schema, known);
  switch (schema.type) {
    case 'record':
      return compileRecord(schema, known);
    case 'array':
      return compileArray(compile(schema.items, known), schema.maxItems ?? DEFAULT_LIMITS.maxItems);
    case 'int':
    case 'long':
      return compileInteger(schema.type, schema.min);
    case 'string':
      return compileSized(schema.maxBytes ?? DEFAULT_LIMITS.maxStringBytes);
    case 'bytes':
      return compileSized(schema.maxBytes ?? DEFAULT_LIMITS.maxDataBytes);
    case 'enum': {
      const count = schema.symbols.length;
      return { minBytes: 1, check: (walk) => checkSymbol(walk, count) };
    }
  }
}

function checkSymbol(walk: Walk, count: number): void {
  const index = walk.long();
  if (index < 0 || index >= count) walk.invalid(`an enum index below ${count}`, `${index}`);
}

/** Compiles the walkers of named schemas; each may use those before it. */
export function compileChecks(schemas: readonly (AvroRecord | AvroEnum)[]): ReadonlyMap<string, Check> {
  const known = new Map<string, Compiled>();
  for (const schema of schemas) known.set(schema.name, compile(schema, known));
  return new Map([...known].map(([name, compiled]) => [name, compiled.check]));
}
