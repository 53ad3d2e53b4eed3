/**
 * One version of all schemas: avsc types, bounds walkers, fingerprint. The only file that imports avsc.
 * The schemas come from our own files, never from a peer.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import avro from 'avsc';
import { ChairError, isChairError } from '../errors.js';
import { type AvroEnum, type AvroRecord, type Check, compileChecks, DEFAULT_LIMITS, Walk } from './bounds.js';

/** Every `.avsc` file, each after those it names. The order is part of the fingerprint. */
export const SCHEMA_FILES = [
  // words
  ...['DType', 'Encoding', 'LaneKind', 'Box', 'TensorInfo', 'BlobRef'],
  // the plan
  ...['SliceRef', 'Port', 'PlanPart', 'PlanStage', 'Wire', 'PeerEntry', 'Neighbour'],
  // lanes
  ...['Activation', 'Submit', 'Result', 'ResultAck', 'Cancel', 'Trouble', 'Probe'],
  // membership
  ...['Hello', 'SeatHealth', 'LaneHealth', 'RefusalRow', 'Health', 'Gone', 'Reign', 'PeersQuestion'],
  // commands
  ...[
    'Prepare',
    'Commit',
    'Release',
    'Peers',
    'Refuse',
    'Ping',
    'Profile',
    'ProfileResult',
    'Measure',
    'Standby',
    'Update',
    'Confirm',
    'Trace',
    'StopProfile',
    'CommandBody',
    'Command',
    'LinkMeasurement',
    'Standing',
    'TraceSpan',
    'TraceSpans',
    'Reply',
    'Progress',
  ],
  // blobs
  ...['BlobRequest', 'BlobChunk', 'UploadChunk', 'UploadAck'],
  // operator requests
  ...[
    'ImageInput',
    'DeployRequest',
    'UndeployRequest',
    'StatusRequest',
    'ModelFile',
    'ModelOffer',
    'ProfileRequest',
    'LinksRequest',
    'PeersRequest',
    'AdjustRequest',
    'TrustRequest',
    'UpdateRequest',
    'DrainRequest',
    'TraceRequest',
    'RequestBody',
    'Request',
  ],
  ...[
    'PlanRow',
    'LinkRow',
    'MemoryRow',
    'PrecisionRow',
    'PrecisionReport',
    'RedundancyRow',
    'RedundancyReport',
    'PlanAlternative',
    'PlanDetails',
    'PlanReport',
    'AgentStatus',
    'LiveRow',
    'LossRow',
    'DeploymentStatus',
    'EventRow',
    'LinkStatus',
    'StatusReport',
    'MissingFile',
    'ModelAnswer',
    'ProfileClass',
    'ProfileMeasure',
    'ProfileCheck',
    'ProfileReport',
    'PeerRow',
    'PeerTableReport',
    'PeersReport',
    'TokenRow',
    'MemberRow',
    'AuditEntryRow',
    'TrustReport',
    'TraceReport',
    'Response',
  ],
] as const;

/** The schemas of this checkout or package; beside this file in both. */
export function readSchemaFiles(): (AvroRecord | AvroEnum)[] {
  return SCHEMA_FILES.map((name) => JSON.parse(readFileSync(new URL(`./${name}.avsc`, import.meta.url), 'utf8')));
}

/** The top-level message `name` of one set: encodes and decodes without prologue. */
export interface MessageType {
  readonly schema: AvroRecord;
  readonly maxBytes: number;
  readonly avro: avro.Type;
  readonly check: Check;
}

export class SchemaSet {
  /** sha256 (hex) over the fingerprints of the parsing canonical forms, in file order. */
  readonly fingerprint: string;
  readonly #messages = new Map<string, MessageType>();

  constructor(readonly schemas: readonly (AvroRecord | AvroEnum)[]) {
    const checks = compileChecks(schemas);
    const registry: { [name: string]: avro.Type } = {};
    const hash = createHash('sha256');
    for (const schema of schemas) {
      // avsc's own schema types do not know readonly data; the content is the same JSON.
      const type = avro.Type.forSchema(structuredClone(schema) as avro.schema.AvroSchema, { registry, omitRecordMethods: true });
      hash.update(type.fingerprint('sha256'));
      const check = checks.get(schema.name);
      if (schema.type === 'record' && check !== undefined) {
        this.#messages.set(schema.name, { schema, avro: type, check, maxBytes: schema.maxBytes ?? DEFAULT_LIMITS.maxMessageBytes });
      }
    }
    this.fingerprint = hash.digest('hex');
  }

  message(name: string): MessageType {
    const message = this.#messages.get(name);
    if (message === undefined) throw new ChairError('INTERNAL', `there is no message schema named ${name}`);
    return message;
  }

  has(name: string): boolean {
    return this.#messages.has(name);
  }
}

/** Reads `bytes` written with `writer` into the shape of `reader` (fields the writer did not have get their defaults). */
export function createReader(writer: MessageType, reader: MessageType): (bytes: Buffer) => unknown {
  if (writer === reader) return (bytes) => reader.avro.decode(bytes, 0).value;
  const resolver = reader.avro.createResolver(writer.avro);
  return (bytes) => reader.avro.decode(bytes, 0, resolver).value;
}

const SCRATCH_BYTES = 64 * 1024;
const scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);

/**
 * Avro bytes of `value` after `prefix`, in one new buffer. Throws CODEC_INVALID naming the field that does not fit the schema, CODEC_LIMIT when
 * a receiver would refuse the message.
 */
export function write(type: MessageType, prefix: Uint8Array, value: unknown): Buffer {
  const offset = prefix.length;
  let target: Buffer = scratch;
  let end = tryWrite(type, value, target, offset);
  if (end < 0) {
    // avsc answers with the bytes that were missing, negated.
    target = Buffer.allocUnsafeSlow(target.length - end);
    end = tryWrite(type, value, target, offset);
  }
  if (end - offset > type.maxBytes) {
    throw new ChairError('CODEC_LIMIT', `message ${type.schema.name} is too long`, {
      expected: `at most ${type.maxBytes} bytes`,
      came: `${end - offset}`,
    });
  }
  target.set(prefix, 0);
  const bytes = target === scratch ? Buffer.from(target.subarray(0, end)) : target.subarray(0, end);
  const walk = new Walk(bytes, end);
  walk.pos = offset;
  type.check(walk);
  return bytes;
}

function tryWrite(type: MessageType, value: unknown, target: Buffer, offset: number): number {
  try {
    return type.avro.encode(value, target, offset);
  } catch (cause) {
    if (isChairError(cause)) throw cause;
    throw new ChairError('CODEC_INVALID', `value does not fit schema ${type.schema.name}`, { ...explain(type, value), cause });
  }
}

/** Which field is wrong: avsc's own error names the value, not the path. */
function explain(type: MessageType, value: unknown): { expected?: string; came?: string } {
  let found: { expected: string; came: string } | undefined;
  type.avro.isValid(value, {
    errorHook: (path, wrong, want) => {
      found ??= { expected: `${want} at ${path.join('.') || 'the top'}`, came: `${typeof wrong} ${String(wrong).slice(0, 80)}` };
    },
  });
  return found ?? {};
}
