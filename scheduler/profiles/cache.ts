/**
 * Measurements on disk: one file per class of device (fingerprint, which the engine's version is part of). Its first line is all that was known, written whole and renamed
 * into place; what is measured since is added, a line each time, until that is as much again: some tens of models are 20 MB, too much for a memory card every two seconds.
 * What cannot be used is said and put aside, never fatal: measuring again is always possible.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ChairError, toChairError } from '../../broker/errors.js';
import { removeLeftovers, writeWhole } from '../../broker/sealed-file.js';
import { CUT_KINDS } from '../../models/slicing/partition.js';
import type { Problems } from '../problems.js';
import type { Need } from './needs.js';
import type { Entry, Measured } from './table.js';

/** Of the file's form, and of what its times mean; another one is not read. Times of format 1 were the clock's also under a CPU quota, which says too little of short runs. */
const FORMAT = 2;
const FINGERPRINT = /^[0-9a-z-]{1,64}$/;
/** Per class: some tens of models. The oldest go first. */
const MOST_ENTRIES = 20_000;
const WRITE_EVERY_MS = 2000;
/** Added to a file before it is written whole again, if that is not larger itself. */
const LEAST_ADDED_BYTES = 256 * 1024;
/** What is not there any more has no first line: it must not be made. */
const ADD = constants.O_WRONLY | constants.O_APPEND;
/** While the disk is full, or must not be written. */
const RETRY_EVERY_MS = 60_000;

export interface DeviceClass {
  readonly fingerprint: string;
  readonly engine: string;
  readonly engineVersion: string;
}

/** What is measured: the model as it was loaded (its bytes and the shapes of its inputs), nodes, cut and threads. */
export interface ProfileKey {
  readonly model: string;
  readonly need: Need;
  readonly threads: number;
}

interface Stored {
  /** sha256 of the slice's graph: the same slice of another model is the same measurement. */
  readonly slice: string;
  readonly threads: number;
  readonly model: string;
  readonly need: Need;
  readonly measured: Measured;
}

/** The first line. */
interface ClassFile extends DeviceClass {
  readonly format: number;
  /** Of the rest: figures that were changed by something else are no measurements. */
  readonly sha256: string;
  readonly entries: Readonly<Record<string, Stored>>;
}

/** Each further line: entries that are new, or other ones now. */
interface Addition {
  /** Of them and the class, as in the first line. */
  readonly sha256: string;
  readonly added: Readonly<Record<string, Stored>>;
}

interface Held {
  readonly device: DeviceClass;
  readonly entries: Map<string, Stored>;
  /** Keys of what is not on disk. */
  readonly fresh: Set<string>;
  /** Of the file: its first line, and what was added. Without a first line nothing can be. */
  wholeBytes: number;
  addedBytes: number;
}

export interface CacheOptions {
  readonly directory: string;
  readonly log: (error: ChairError) => void;
  /** For what lasts: files that cannot be used or written. */
  readonly problems?: Problems | undefined;
}

export class ProfileCache {
  /** Grows with every change: what was made from older entries is old. */
  revision = 0;
  /** Why the last figures are not on disk; undefined when they are, or soon will be. Writing is tried again with the next figure, every minute, and at the end. */
  unwritten: string | undefined;
  readonly #o: CacheOptions;
  readonly #held = new Map<string, Held>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: CacheOptions) {
    this.#o = options;
  }

  /** Reads what is there. Files that cannot be used are renamed to `*.unusable` and reported as PROFILE_INVALID. Never throws for what it reads. */
  static async open(options: CacheOptions): Promise<ProfileCache> {
    const cache = new ProfileCache(options);
    try {
      await mkdir(options.directory, { recursive: true });
      await removeLeftovers(options.directory);
      for (const name of await readdir(options.directory)) if (name.endsWith('.json')) await cache.#read(name);
    } catch (error) {
      cache.#trouble('read', toChairError(error, 'WORK_DIRECTORY_UNUSABLE'));
    }
    return cache;
  }

  get(device: DeviceClass, key: ProfileKey): Measured | undefined {
    return this.#of(device)?.entries.get(keyText(key))?.measured;
  }

  /** The same slice with as many threads, whatever model it is of. */
  bySlice(device: DeviceClass, slice: string, threads: number): Measured | undefined {
    for (const entry of this.#of(device)?.entries.values() ?? []) {
      if (entry.slice === slice && entry.threads === threads) return entry.measured;
    }
    return undefined;
  }

  /** All that is known of a model with so many threads. */
  all(device: DeviceClass, model: string, threads: number): Entry[] {
    const found: Entry[] = [];
    for (const entry of this.#of(device)?.entries.values() ?? []) {
      if (entry.threads === threads && (entry.model === model || entry.need.what === 'run')) found.push(entry);
    }
    return found;
  }

  set(device: DeviceClass, key: ProfileKey, slice: string, measured: Measured): void {
    if (!FINGERPRINT.test(device.fingerprint)) {
      throw new ChairError('PROFILE_INVALID', 'a measurement is of no class of device', {
        expected: 'a fingerprint',
        came: `'${device.fingerprint}'`,
      });
    }
    const held = this.#of(device) ?? { device, entries: new Map<string, Stored>(), fresh: new Set<string>(), wholeBytes: 0, addedBytes: 0 };
    this.#held.set(device.fingerprint, held);
    const text = keyText(key);
    put(held.entries, text, { slice, ...key, measured });
    held.fresh.add(text);
    this.revision++;
    if (!this.#closed) this.#timer ??= setTimeout(() => void this.flush(), WRITE_EVERY_MS).unref();
  }

  /** The last flush: nothing is written later, by no timer. */
  close(): Promise<void> {
    this.#closed = true;
    return this.flush();
  }

  /** Resolves when all is on disk, or was reported not to be. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(async () => {
      const failures: string[] = [];
      for (const held of this.#held.values()) if (held.fresh.size > 0) failures.push(...(await this.#write(held)));
      // Until then what was said before holds: another request's report is written meanwhile.
      this.unwritten = failures[0];
    });
    return this.#writing;
  }

  #of({ fingerprint, engine, engineVersion }: DeviceClass): Held | undefined {
    const held = this.#held.get(fingerprint);
    return held?.device.engine === engine && held.device.engineVersion === engineVersion ? held : undefined;
  }

  async #read(name: string): Promise<void> {
    const file = join(this.#o.directory, name);
    try {
      const text = await readFile(file, 'utf8');
      const [first = '', ...rest] = text.split('\n');
      const { entries: known, format: _, sha256: __, ...device } = checked(JSON.parse(first));
      if (`${device.fingerprint}.json` !== name) throw unusable(`a file named ${device.fingerprint}.json`, name);
      const entries = new Map(Object.entries(known));
      // Without an end it was being added when the process was killed: nobody was told that it is on disk. Nothing can be added behind it.
      const isCut = rest.pop() !== '';
      for (const line of rest) for (const [key, entry] of addedBy(JSON.parse(line), device)) put(entries, key, entry);
      const wholeBytes = isCut ? 0 : Buffer.byteLength(first);
      this.#held.set(device.fingerprint, {
        device,
        entries,
        fresh: new Set(),
        wholeBytes,
        addedBytes: Buffer.byteLength(text) - wholeBytes,
      });
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      this.#trouble(
        name,
        new ChairError('PROFILE_INVALID', `the profiles in ${file} cannot be used and are put aside: ${why}`, {
          todo: 'Nothing needs to be done: what is missing is measured again when it is asked for.',
          cause,
        }),
      );
      await rename(file, `${file}.unusable`).catch(() => undefined);
    }
  }

  /** Gives why it could not, if so. */
  async #write(held: Held): Promise<string[]> {
    const file = join(this.#o.directory, `${held.device.fingerprint}.json`);
    const fresh = [...held.fresh];
    held.fresh.clear();
    try {
      if (!(await add(held, fresh, file))) await this.#writeWhole(held, file);
      this.#o.problems?.clear(`profiles written ${held.device.fingerprint}`);
      return [];
    } catch (error) {
      for (const key of fresh) held.fresh.add(key);
      const { message } = toChairError(error);
      const todo = 'They are in use until the gateway ends; make room, or let it write there, and they are written with the next ones.';
      if (!this.#closed) this.#timer ??= setTimeout(() => void this.flush(), RETRY_EVERY_MS).unref();
      this.#trouble(
        `written ${held.device.fingerprint}`,
        new ChairError('PROFILE_INVALID', `profiles could not be written to ${file}: ${message}`, { todo, cause: error }),
      );
      return [message];
    }
  }

  async #writeWhole(held: Held, file: string): Promise<void> {
    // Until it is there, whatever happens.
    held.wholeBytes = 0;
    const entries = Object.fromEntries(held.entries);
    const content: ClassFile = { format: FORMAT, sha256: sealOf(held.device, entries), ...held.device, entries };
    const text = JSON.stringify(content);
    await mkdir(this.#o.directory, { recursive: true });
    await writeWhole(file, `${text}\n`, { full: 'GATEWAY_STORE_FULL' });
    held.wholeBytes = Buffer.byteLength(text);
    held.addedBytes = 0;
  }

  #trouble(what: string, error: ChairError): void {
    if (this.#o.problems?.set(`profiles ${what}`, error.message) !== false) this.#o.log(error);
  }
}

/** Last written, last in order. */
function put(entries: Map<string, Stored>, key: string, entry: Stored): void {
  entries.delete(key);
  entries.set(key, entry);
  for (const oldest of entries.keys()) {
    if (entries.size <= MOST_ENTRIES) return;
    entries.delete(oldest);
  }
}

/** False: it has to be written whole. That is also how a file that cannot be added to is found out about. */
async function add(held: Held, keys: readonly string[], file: string): Promise<boolean> {
  if (held.wholeBytes === 0) return false;
  const added: Record<string, Stored> = {};
  for (const key of keys) {
    const entry = held.entries.get(key);
    if (entry !== undefined) added[key] = entry;
  }
  const addition: Addition = { sha256: sealOf(held.device, added), added };
  const line = `${JSON.stringify(addition)}\n`;
  held.addedBytes += Buffer.byteLength(line);
  if (held.addedBytes > Math.max(LEAST_ADDED_BYTES, held.wholeBytes)) return false;
  return writeFile(file, line, { flag: ADD, flush: true }).then(
    () => true,
    () => false,
  );
}

function keyText({ model, need, threads }: ProfileKey): string {
  // A run of next to nothing is the same for every model.
  return need.what === 'run' ? `run t${threads}` : `${model} ${need.nodes.join('-')} ${need.cut} ${need.parts} t${threads}`;
}

/** Throws PROFILE_INVALID. */
function checked(value: unknown): ClassFile {
  if (!isRecord(value)) throw unusable('an object', typeof value);
  if (value.format !== FORMAT) throw unusable(`format ${FORMAT}`, JSON.stringify(value.format)?.slice(0, 40) ?? 'none');
  const { fingerprint, engine, engineVersion, entries, sha256 } = value;
  if (typeof fingerprint !== 'string' || !FINGERPRINT.test(fingerprint)) throw unusable('a fingerprint', String(fingerprint).slice(0, 40));
  if (typeof engine !== 'string' || typeof engineVersion !== 'string') throw unusable('an engine and its version', 'none');
  if (!isRecord(entries)) throw unusable('entries', typeof entries);
  const good: Record<string, Stored> = {};
  for (const [key, entry] of Object.entries(entries)) good[key] = checkedEntry(key, entry);
  const seal = sealOf({ fingerprint, engine, engineVersion }, entries);
  if (sha256 !== seal) throw unusable('the sha256 of its figures', 'another one');
  return { format: FORMAT, sha256: seal, fingerprint, engine, engineVersion, entries: good };
}

/** Throws PROFILE_INVALID. */
function addedBy(value: unknown, device: DeviceClass): (readonly [string, Stored])[] {
  if (!isRecord(value) || !isRecord(value.added)) throw unusable('added entries', typeof value);
  const { sha256, added } = value;
  if (sha256 !== sealOf(device, added)) throw unusable('the sha256 of added figures', 'another one');
  return Object.entries(added).map(([key, entry]) => [key, checkedEntry(key, entry)]);
}

function sealOf({ fingerprint, engine, engineVersion }: DeviceClass, entries: Readonly<Record<string, unknown>>): string {
  return createHash('sha256')
    .update(JSON.stringify([fingerprint, engine, engineVersion, entries]))
    .digest('hex');
}

function checkedEntry(key: string, entry: unknown): Stored {
  const wrong = (): ChairError => unusable('an entry with a slice, a need and figures of at least 0', `'${key.slice(0, 80)}'`);
  if (!isRecord(entry)) throw wrong();
  const { slice, threads, model, need, measured } = entry;
  if (typeof slice !== 'string' || typeof model !== 'string' || !isCount(threads) || !isNeed(need) || !isMeasured(measured)) throw wrong();
  return { slice, threads, model, need, measured };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

const KINDS: readonly unknown[] = ['run', 'block', 'range', 'model'] satisfies Need['what'][];

function isNeed(value: unknown): value is Need {
  if (!isRecord(value) || !KINDS.includes(value.what) || !CUT_KINDS.some((kind) => kind === value.cut)) return false;
  const { nodes, parts, part, macs, weightBytes, inBytes, outBytes, label, check } = value;
  const counts = [parts, part, macs, weightBytes, inBytes, outBytes].every(isCount);
  return (
    counts && Array.isArray(nodes) && nodes.length === 2 && nodes.every(isCount) && typeof label === 'string' && typeof check === 'boolean'
  );
}

function isMeasured(value: unknown): value is Measured {
  if (!isRecord(value)) return false;
  const { agent, samplesMs, loadMs, loadPeakBytes, runPeakBytes, busy } = value;
  const samples = Array.isArray(samplesMs) && samplesMs.length > 0 && samplesMs.every(isCount);
  return samples && [loadMs, loadPeakBytes, runPeakBytes].every(isCount) && typeof agent === 'string' && typeof busy === 'boolean';
}

function unusable(expected: string, came: string): ChairError {
  return new ChairError('PROFILE_INVALID', 'not a file of profiles', { expected, came });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
