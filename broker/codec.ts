/**
 * Bytes of every control message. A payload is a prologue of three bytes (magic, major, minor) and one Avro record, so that the writer's schema
 * version is known before anything is decoded. See README.md, "How schemas evolve".
 */
import { ChairError, isChairError } from './errors.js';
import { type AvroRecord, Walk } from './schema/bounds.js';
import { createReader, type MessageType, write } from './schema/set.js';
import { CURRENT, formatVersion, SCHEMA_VERSION, type SchemaVersion, schemasOf } from './schema/version.js';

/** First byte of every payload of this project. */
export const MAGIC = 0xc7;
export const PROLOGUE_BYTES = 3;

/**
 * Messages that must be readable whatever minor version wrote them, since versions are agreed on in them: new fields stand at their very end,
 * and an older reader stops where its own fields end.
 */
const GREETINGS: ReadonlySet<string> = new Set(['Hello', 'Reign']);

/** The three bytes in front of every payload. */
export function prologue(version: SchemaVersion = SCHEMA_VERSION): Uint8Array {
  return Uint8Array.of(MAGIC, version.major, version.minor);
}

/** Throws CODEC_INVALID when the bytes are not ours, SCHEMA_MISMATCH when the major versions differ. */
export function readPrologue(bytes: Uint8Array): SchemaVersion {
  const [magic, major, minor] = bytes;
  if (magic !== MAGIC || major === undefined || minor === undefined) {
    throw new ChairError('CODEC_INVALID', 'payload is not a message of this project', {
      expected: `a first byte 0x${MAGIC.toString(16)}`,
      came: magic === undefined ? 'nothing' : `0x${magic.toString(16)} and ${bytes.length} bytes in all`,
    });
  }
  if (major !== SCHEMA_VERSION.major) throw mismatch({ major, minor }, 'the major versions differ');
  return { major, minor };
}

function mismatch(theirs: SchemaVersion, why: string): ChairError {
  const older = theirs.major < SCHEMA_VERSION.major || (theirs.major === SCHEMA_VERSION.major && theirs.minor < SCHEMA_VERSION.minor);
  return new ChairError('SCHEMA_MISMATCH', `message cannot be read: ${why}`, {
    expected: `schema version ${formatVersion(SCHEMA_VERSION)}`,
    came: formatVersion(theirs),
    todo: older ? 'Update the sender.' : 'Update this machine.',
  });
}

/**
 * Encodes a control message. `version` is for a peer of an older minor version (see `reconcile`).
 * Throws CODEC_INVALID when the value does not fit, CODEC_LIMIT when a receiver would refuse it.
 */
export function encode(schemaName: string, value: unknown, version: SchemaVersion = SCHEMA_VERSION): Buffer {
  const schemas = schemasOf(version);
  if (schemas === undefined) throw mismatch(version, 'the version to write in is unknown here');
  const type = schemas.message(schemaName);
  return write(type, prologue(version), toAvro(type, value));
}

/**
 * Decodes a control message. Any bytes give a value that fits the schema, or CODEC_INVALID, CODEC_LIMIT or SCHEMA_MISMATCH, in time and memory
 * proportional to their length.
 */
export function decode(schemaName: string, bytes: Uint8Array): unknown {
  const reader = CURRENT.message(schemaName);
  if (bytes.length > reader.maxBytes + PROLOGUE_BYTES) {
    throw new ChairError('CODEC_LIMIT', `message ${schemaName} is too long`, {
      expected: `at most ${reader.maxBytes} bytes`,
      came: `${bytes.length}`,
    });
  }
  const theirs = readPrologue(bytes);
  const newer = theirs.minor > SCHEMA_VERSION.minor;
  if (newer && !GREETINGS.has(schemaName)) throw mismatch(theirs, 'the sender is newer and did not write in our version');
  const writer = newer ? reader : schemasOf(theirs)?.message(schemaName);
  if (writer === undefined) throw mismatch(theirs, 'its schemas are not in our history');
  const body = bytes.subarray(PROLOGUE_BYTES);
  const walk = new Walk(body);
  writer.check(walk);
  if (walk.pos !== body.length && !newer) {
    walk.invalid('the end of the message', `${body.length - walk.pos} more bytes`);
  }
  try {
    return fromAvro(reader, readerFor(writer, reader)(Buffer.from(body.buffer, body.byteOffset, body.length)));
  } catch (cause) {
    if (isChairError(cause)) throw cause;
    throw new ChairError('CODEC_INVALID', `bytes do not decode as ${schemaName}`, { cause });
  }
}

const readers = new WeakMap<MessageType, (bytes: Buffer) => unknown>();

/** The reader's own type never changes, so the writer's type is key enough. */
function readerFor(writer: MessageType, reader: MessageType): (bytes: Buffer) => unknown {
  const known = readers.get(writer);
  if (known !== undefined) return known;
  const made = createReader(writer, reader);
  readers.set(writer, made);
  return made;
}

// ---- where TypeScript and Avro say the same thing differently ------------------------------------------------------------

interface Bridge {
  /** Fields that are Uint8Array here and Buffer in avsc. */
  readonly bytes: readonly string[];
  /** Fields that are a union with `kind` here, and a record of nullable fields in Avro (which may grow within a major version). */
  readonly unions: readonly { readonly field: string; readonly kinds: ReadonlySet<string> }[];
}

const bridges = new WeakMap<MessageType, Bridge>();

function bridgeOf(type: MessageType): Bridge {
  const known = bridges.get(type);
  if (known !== undefined) return known;
  const bytes: string[] = [];
  const unions: { field: string; kinds: ReadonlySet<string> }[] = [];
  for (const field of type.schema.fields) {
    const wire = field.type;
    if (wire === 'bytes' || (typeof wire === 'object' && 'type' in wire && wire.type === 'bytes')) bytes.push(field.name);
    const named = typeof wire === 'string' ? CURRENT.schemas.find((schema) => schema.name === wire) : undefined;
    if (named?.type === 'record' && named.oneOf === true) unions.push({ field: field.name, kinds: kindsOf(named) });
  }
  const bridge = { bytes, unions };
  bridges.set(type, bridge);
  return bridge;
}

function kindsOf(union: AvroRecord): ReadonlySet<string> {
  return new Set(union.fields.map((field) => field.name).filter((name) => name !== 'kind'));
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}

/** The value of a union's set field. Throws CODEC_INVALID unless `kind` names a field and that field is set. */
function chosen(body: unknown, kinds: ReadonlySet<string>, where: string): { kind: string; value: unknown } {
  const kind = isObject(body) ? body.kind : undefined;
  const value = isObject(body) && typeof kind === 'string' && kinds.has(kind) ? body[kind] : undefined;
  if (typeof kind === 'string' && isObject(value)) return { kind, value };
  throw new ChairError('CODEC_INVALID', `${where} does not say what it is`, {
    expected: `kind and the field it names, one of ${[...kinds].join(', ')}`,
    came: `kind ${JSON.stringify(kind)}`,
    todo: 'If the sender is newer than this machine, update this machine.',
  });
}

function toAvro(type: MessageType, value: unknown): unknown {
  const bridge = bridgeOf(type);
  if (!isObject(value) || (bridge.bytes.length === 0 && bridge.unions.length === 0)) return value;
  const wire: Record<string, unknown> = { ...value };
  for (const name of bridge.bytes) {
    const bytes = wire[name];
    if (bytes instanceof Uint8Array) wire[name] = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  for (const { field, kinds } of bridge.unions) {
    const { kind, value: inner } = chosen(wire[field], kinds, `${type.schema.name}.${field}`);
    wire[field] = { kind, [kind]: inner };
  }
  return wire;
}

function fromAvro(type: MessageType, wire: unknown): unknown {
  const bridge = bridgeOf(type);
  if (!isObject(wire) || bridge.unions.length === 0) return wire;
  const value: Record<string, unknown> = { ...wire };
  for (const { field, kinds } of bridge.unions) {
    const { kind, value: inner } = chosen(wire[field], kinds, `${type.schema.name}.${field}`);
    value[field] = { kind, [kind]: inner };
  }
  return value;
}
