/**
 * Files as a tar archive (POSIX ustar), for backups and bundles: what `tar` lists and unpacks. Nothing of it is held in memory, and the same entries give the same
 * bytes. The reader also takes archives of others: long names as GNU tar writes them, and every kind of entry, by its type.
 */
import { ChairError, type ErrorCode } from './errors.js';

const BLOCK = 512;
const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
/** What eleven octal digits can say; larger sizes are written in base 256, as GNU tar does. */
const OCTAL_LIMIT = 8 ** 11;
/** Longer names, which another tar may write, are refused. */
const MOST_NAME_BYTES = 4096;
/** Type flags of POSIX.1-2001, and GNU tar's for "the next entry's name". */
export const PLAIN_FILE = '0';
const LONG_NAME = 'L';

export interface TarEntry {
  /** With `/` between folders. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Permissions, such as 0o600. */
  readonly mode: number;
  /** Seconds since 1970. */
  readonly modifiedS: number;
}

function octal(value: number, width: number): string {
  return `${Math.floor(value)
    .toString(8)
    .padStart(width - 1, '0')}\0`;
}

/** A name of more than 100 bytes is parted at a `/`. */
function partsOf(name: string, code: ErrorCode): { readonly prefix: string; readonly last: string } {
  if (Buffer.byteLength(name) <= NAME_BYTES) return { prefix: '', last: name };
  for (let at = name.indexOf('/'); at > 0; at = name.indexOf('/', at + 1)) {
    const [prefix, last] = [name.slice(0, at), name.slice(at + 1)];
    if (Buffer.byteLength(prefix) <= PREFIX_BYTES && Buffer.byteLength(last) <= NAME_BYTES && last !== '') return { prefix, last };
  }
  throw new ChairError(code, 'a file name is too long for an archive', { expected: `at most ${NAME_BYTES} bytes`, came: name });
}

/** The sum counts its own field as spaces. */
function checksum(block: Buffer): number {
  return block.reduce((sum, byte, i) => sum + (i >= 148 && i < 156 ? 0x20 : byte), 0);
}

/** The 512 bytes before a plain file's content. Throws `code` for a name that an archive cannot hold. */
export function tarHeader({ name, sizeBytes, mode, modifiedS }: TarEntry, code: ErrorCode): Buffer {
  const block = Buffer.alloc(BLOCK);
  const { prefix, last } = partsOf(name, code);
  block.write(last, 0);
  block.write(octal(mode & 0o7777, 8), 100);
  block.write(octal(0, 8), 108);
  block.write(octal(0, 8), 116);
  if (sizeBytes < OCTAL_LIMIT) block.write(octal(sizeBytes, 12), 124);
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(sizeBytes), 128);
  }
  block.write(octal(modifiedS, 12), 136);
  block.write(PLAIN_FILE, 156);
  block.write('ustar\x0000', 257, 'latin1');
  block.write(prefix, 345);
  block.write(`${octal(checksum(block), 7)} `, 148);
  return block;
}

/** Zeros after a file's content. */
export function tarPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((BLOCK - (sizeBytes % BLOCK)) % BLOCK);
}

/** What an archive ends with. */
export const TAR_END = Buffer.alloc(2 * BLOCK);

export interface TarFile extends TarEntry {
  /** `PLAIN_FILE`, or of another kind, which only another tar writes: a folder ('5'), a link ('1', '2') ... */
  readonly type: string;
  /** To be read, or left, before the next entry is asked for. */
  readonly content: AsyncIterable<Uint8Array>;
}

/** Bytes of a stream, as many as are asked for. */
class Bytes {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #code: ErrorCode;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterable<Uint8Array>, code: ErrorCode) {
    this.#source = source[Symbol.asyncIterator]();
    this.#code = code;
  }

  /** At most `most` bytes, at least one; undefined at the end. */
  async some(most: number): Promise<Uint8Array | undefined> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#source.next();
      if (done === true) return undefined;
      this.#rest = value;
    }
    const chunk = this.#rest.subarray(0, most);
    this.#rest = this.#rest.subarray(chunk.length);
    return chunk;
  }

  async *next(count: number): AsyncGenerator<Uint8Array> {
    for (let left = count; left > 0; ) {
      const chunk = await this.some(left);
      if (chunk === undefined) {
        throw new ChairError(this.#code, 'the archive is cut off', { todo: 'It was not written or copied to its end: take another one.' });
      }
      left -= chunk.length;
      yield chunk;
    }
  }

  async exactly(count: number): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.next(count)) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}

/** The entries of an archive, in their order. Throws `code` for what is no archive, is damaged, or ends too early. */
export async function* readTar(source: AsyncIterable<Uint8Array>, code: ErrorCode): AsyncGenerator<TarFile> {
  const bytes = new Bytes(source, code);
  let longName = '';
  try {
    for (;;) {
      const block = await bytes.exactly(BLOCK);
      if (block.every((byte) => byte === 0)) break;
      const entry = entryOf(block, code);
      const { sizeBytes } = entry;
      let left = sizeBytes;
      const content = async function* (): AsyncGenerator<Uint8Array> {
        for await (const chunk of bytes.next(left)) {
          left -= chunk.length;
          yield chunk;
        }
      };
      if (entry.type === LONG_NAME) {
        if (sizeBytes > MOST_NAME_BYTES)
          throw new ChairError(code, 'the archive holds a name that is too long', { came: `${sizeBytes} bytes` });
        longName = textAt(await bytes.exactly(sizeBytes), 0, sizeBytes);
        left = 0;
      } else {
        yield { ...entry, ...(longName === '' ? {} : { name: longName }), content: content() };
        longName = '';
      }
      // What nobody wanted to see.
      for await (const _ of content());
      await bytes.exactly(tarPadding(sizeBytes).length);
    }
    // To its end: the checksum of a compressed archive stands behind it.
    while ((await bytes.some(Number.POSITIVE_INFINITY)) !== undefined);
  } finally {
    await bytes.close();
  }
}

/** The text of a field, which ends at its first zero. */
function textAt(block: Buffer, at: number, length: number): string {
  return block.toString('utf8', at, at + length).replace(/\0.*$/s, '');
}

function entryOf(block: Buffer, code: ErrorCode): Omit<TarFile, 'content'> {
  const number = (at: number, length: number): number => Number.parseInt(textAt(block, at, length).trim() || '0', 8);
  if (number(148, 8) !== checksum(block)) {
    throw new ChairError(code, 'the file is no archive, or is damaged', {
      expected: 'a tar archive, each header with its right checksum',
      came: 'other bytes',
      todo: 'Make or copy it anew.',
    });
  }
  const prefix = textAt(block, 257, 5) === 'ustar' ? textAt(block, 345, PREFIX_BYTES) : '';
  const name = `${prefix === '' ? '' : `${prefix}/`}${textAt(block, 0, NAME_BYTES)}`;
  const sizeBytes = block[124] === 0x80 ? Number(block.readBigUInt64BE(128)) : number(124, 12);
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw new ChairError(code, `the archive says no size of ${name}`);
  return { name, sizeBytes, mode: number(100, 8) & 0o7777, modifiedS: number(136, 12), type: textAt(block, 156, 1) || PLAIN_FILE };
}
