/**
 * Which schema version we speak, which older ones we can read, and what two sides do when theirs differ.
 * The rule in words stands in ../README.md, "How schemas evolve".
 */
import { readFileSync } from 'node:fs';
import { ChairError } from '../errors.js';
import type { AvroEnum, AvroRecord } from './bounds.js';
import { readSchemaFiles, SchemaSet } from './set.js';

/** Both 0 to 255. Within a major version fields are only added, at the end of records and with defaults. */
export interface SchemaVersion {
  readonly major: number;
  readonly minor: number;
}

export const SCHEMA_VERSION: SchemaVersion = { major: 1, minor: 0 };

/** The schemas of this version. */
export const CURRENT = new SchemaSet(readSchemaFiles());

/** As in `Hello.schemaVersion`: 1000 * major + minor. */
export function versionNumber(version: SchemaVersion = SCHEMA_VERSION): number {
  return version.major * 1000 + version.minor;
}

export function versionOfNumber(number: number): SchemaVersion {
  return { major: Math.floor(number / 1000), minor: number % 1000 };
}

export function formatVersion(version: SchemaVersion): string {
  return `${version.major}.${version.minor}`;
}

/** Where a released version's schemas are kept, as one JSON array in the order of SCHEMA_FILES. */
export function historyUrl(version: SchemaVersion): URL {
  return new URL(`./history/${formatVersion(version)}.json`, import.meta.url);
}

const loaded = new Map<string, SchemaSet | undefined>([[formatVersion(SCHEMA_VERSION), CURRENT]]);

/** The schemas of one of our own versions (this one, or an older minor from the history), else undefined. Never asks a peer. */
export function schemasOf(version: SchemaVersion): SchemaSet | undefined {
  const key = formatVersion(version);
  if (loaded.has(key)) return loaded.get(key);
  if (version.major !== SCHEMA_VERSION.major || version.minor > SCHEMA_VERSION.minor) return undefined;
  const set = new SchemaSet(JSON.parse(readFileSync(historyUrl(version), 'utf8')) as (AvroRecord | AvroEnum)[]);
  loaded.set(key, set);
  return set;
}

/** What a side says about its schemas in hello and reign. */
export interface SchemaStand {
  readonly schemaVersion: number;
  readonly schemaFingerprint: string;
}

/** What this side says. */
export const OUR_SCHEMAS: SchemaStand = { schemaVersion: versionNumber(), schemaFingerprint: CURRENT.fingerprint };

/** False for what no version of this project ever said of itself: such a message is noise, not a side that cannot be talked to. */
export function isSchemaStand({ schemaVersion, schemaFingerprint }: SchemaStand): boolean {
  return schemaVersion >= 1000 && schemaVersion < 256_000 && /^[0-9a-f]{64}$/.test(schemaFingerprint);
}

export type Reconciled =
  /** Speak `version` to this peer: our own, or the older minor of the two. */
  { readonly ok: true; readonly version: SchemaVersion } | { readonly ok: false; readonly error: ChairError };

/**
 * Decides whether two sides can talk and in which version. The newer side adapts: it reads the older one's messages by its history and writes in the
 * older version; the older side need not know that. `fingerprintOf` gives the fingerprint of one of our own versions (an argument for tests).
 */
export function reconcile(
  mine: SchemaStand,
  theirs: SchemaStand,
  fingerprintOf: (version: SchemaVersion) => string | undefined = (version) => schemasOf(version)?.fingerprint,
): Reconciled {
  const [ours, other] = [versionOfNumber(mine.schemaVersion), versionOfNumber(theirs.schemaVersion)];
  const refuse = (why: string, todo: string): Reconciled => ({
    ok: false,
    error: new ChairError('SCHEMA_MISMATCH', why, {
      expected: `schema version ${formatVersion(ours)} (${mine.schemaFingerprint.slice(0, 12)})`,
      came: `${formatVersion(other)} (${theirs.schemaFingerprint.slice(0, 12)})`,
      todo,
    }),
  });
  const theirsIsOlder = theirs.schemaVersion < mine.schemaVersion;
  const update = theirsIsOlder ? 'Update musical-chair on the other side.' : 'Update musical-chair on this side.';
  if (ours.major !== other.major) return refuse('major schema versions differ', update);
  if (ours.minor === other.minor) {
    if (mine.schemaFingerprint === theirs.schemaFingerprint) return { ok: true, version: ours };
    return refuse('same schema version but different schemas', 'One side runs a modified build: install the same release on both.');
  }
  // The other side is newer: it knows our version and adapts (or refuses us).
  if (!theirsIsOlder) return { ok: true, version: ours };
  const known = fingerprintOf(other);
  if (known === undefined) return refuse('the other side is older and its schemas are not in our history', update);
  if (known !== theirs.schemaFingerprint) {
    return refuse('the other side is older and its schemas are not what that version had', 'Install a released version on the other side.');
  }
  return { ok: true, version: other };
}
