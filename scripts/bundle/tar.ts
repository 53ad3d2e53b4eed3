/**
 * The little of tar (POSIX ustar) that a bundle needs: regular files with a mode, in the order given, without times and owners, so that the same files
 * give the same bytes. The reader takes what this writer makes, and of foreign archives (a package that holds Node) what is a regular file.
 */
import { ChairError } from '../../broker/errors.js';

const BLOCK = 512;
const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
/** Of a foreign archive's long name. */
const MOST_NAME_BYTES = 4096;

export interface TarEntry {
  /** With `/`, relative. */
  readonly path: string;
  readonly mode: number;
  readonly bytes: Uint8Array;
}

export interface TarHeader {
  readonly path: string;
  readonly mode: number;
  readonly sizeBytes: number;
}

/** Header, content and padding of each entry. Throws BUNDLE_FAILED for a path that tar cannot hold. */
export function* writeTar(entries: Iterable<TarEntry>): Generator<Uint8Array> {
  for (const entry of entries) {
    yield header(entry);
    yield entry.bytes;
    yield new Uint8Array(padding(entry.bytes.length));
  }
  yield new Uint8Array(2 * BLOCK);
}

function padding(bytes: number): number {
  return (BLOCK - (bytes % BLOCK)) % BLOCK;
}

/** POSIX.1-2001, "ustar Header Block". */
function header({ path, mode, bytes }: TarEntry): Uint8Array {
  const block = Buffer.alloc(BLOCK);
  const { name, prefix } = split(path);
  const octal = (value: number, at: number, digits: number): void => {
    block.write(`${value.toString(8).padStart(digits, '0')}\0`, at, 'latin1');
  };
  block.write(name, 0, 'utf8');
  octal(mode & 0o7777, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(bytes.length, 124, 11);
  octal(0, 136, 11);
  block.write('        ', 148, 'latin1');
  block.write('0', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  block.write(prefix, 345, 'utf8');
  block.write(`${checksum(block).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** A long path stands in two fields, parted at a slash. */
function split(path: string): { readonly name: string; readonly prefix: string } {
  if (Buffer.byteLength(path) <= NAME_BYTES) return { name: path, prefix: '' };
  for (let at = path.indexOf('/'); at > 0; at = path.indexOf('/', at + 1)) {
    const prefix = path.slice(0, at);
    const name = path.slice(at + 1);
    if (Buffer.byteLength(name) <= NAME_BYTES && Buffer.byteLength(prefix) <= PREFIX_BYTES && name !== '') return { name, prefix };
  }
  throw new ChairError('BUNDLE_FAILED', `the path ${path} is too long for an archive`);
}

function checksum(block: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : (block[i] ?? 0);
  return sum;
}

/** What `takeEntry` gives back: takes the content in chunks; `end` when it is complete. */
export interface EntrySink {
  readonly write: (chunk: Uint8Array) => void | Promise<void>;
  readonly end: () => void | Promise<void>;
}

/**
 * Reads an archive as it comes; `takeEntry` is called for each regular file and gives where its content goes, or undefined to skip it. Throws
 * BUNDLE_DAMAGED for what is no tar, or ends too early.
 */
export async function readTar(
  source: AsyncIterable<Uint8Array>,
  takeEntry: (header: TarHeader) => EntrySink | undefined | Promise<EntrySink | undefined>,
): Promise<void> {
  const input = new Input(source);
  let longName = '';
  for (;;) {
    const block = await input.take(BLOCK);
    if (block.every((byte) => byte === 0)) break;
    const found = parse(block);
    const path = longName === '' ? found.path : longName;
    longName = '';
    if (found.type === 'L') {
      longName = await input.text(Math.min(found.sizeBytes, MOST_NAME_BYTES));
      await input.pass(found.sizeBytes - Math.min(found.sizeBytes, MOST_NAME_BYTES) + padding(found.sizeBytes));
      continue;
    }
    const sink = found.type === '0' ? await takeEntry({ path, mode: found.mode, sizeBytes: found.sizeBytes }) : undefined;
    await input.pass(found.sizeBytes, sink?.write);
    await input.pass(padding(found.sizeBytes));
    await sink?.end();
  }
  // To its end: a checksum of what is around the archive is only looked at there.
  await input.rest();
}

interface Parsed extends TarHeader {
  readonly type: string;
}

function parse(block: Uint8Array): Parsed {
  const text = (at: number, length: number): string => {
    const field = Buffer.from(block.subarray(at, at + length));
    const end = field.indexOf(0);
    return field.toString('utf8', 0, end < 0 ? length : end);
  };
  const octal = (at: number, length: number): number => Number.parseInt(text(at, length).trim() || '0', 8);
  const sizeBytes = octal(124, 12);
  if (octal(148, 8) !== checksum(block) || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw damaged('a tar header whose checksum is right', 'another one');
  }
  const prefix = text(257, 5) === 'ustar' ? text(345, PREFIX_BYTES) : '';
  const name = text(0, NAME_BYTES);
  const type = text(156, 1) || '0';
  return { path: prefix === '' ? name : `${prefix}/${name}`, mode: octal(100, 8) & 0o7777, sizeBytes, type };
}

/** Bytes of a stream in the portions that are asked for. */
class Input {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]();
  }

  async take(length: number): Promise<Uint8Array> {
    const out = new Uint8Array(length);
    let at = 0;
    await this.pass(length, (chunk) => {
      out.set(chunk, at);
      at += chunk.length;
    });
    return out;
  }

  async text(length: number): Promise<string> {
    return Buffer.from(await this.take(length))
      .toString('utf8')
      .replace(/\0.*$/s, '');
  }

  async pass(length: number, write?: (chunk: Uint8Array) => void | Promise<void>): Promise<void> {
    let left = length;
    while (left > 0) {
      if (this.#held.length === 0 && !(await this.#more())) throw damaged(`${left} bytes more`, 'the end');
      const chunk = this.#held.subarray(0, left);
      this.#held = this.#held.subarray(chunk.length);
      left -= chunk.length;
      await write?.(chunk);
    }
  }

  async rest(): Promise<void> {
    this.#held = new Uint8Array(0);
    while (await this.#more()) this.#held = new Uint8Array(0);
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const next = await this.#chunks.next();
      if (next.done === true) return false;
      if (next.value.length === 0) continue;
      this.#held = next.value;
      return true;
    }
  }
}

function damaged(expected: string, came: string): ChairError {
  return new ChairError('BUNDLE_DAMAGED', 'the archive is damaged or incomplete', { expected, came, todo: 'Make or copy it anew.' });
}
