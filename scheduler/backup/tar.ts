/** Files as a tar archive (POSIX ustar): what `tar` lists and unpacks. Only plain files; nothing of it is held in memory. */
import { ChairError } from '../../broker/errors.js';

const BLOCK = 512;
/** What eleven octal digits can say; larger sizes are written in base 256, as GNU tar does. */
const OCTAL_LIMIT = 8 ** 11;

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

/** A name of more than 100 bytes is parted at a `/`. Throws BACKUP_UNUSABLE when it cannot be. */
function partsOf(name: string): { readonly prefix: string; readonly last: string } {
  if (Buffer.byteLength(name) <= 100) return { prefix: '', last: name };
  for (let at = name.indexOf('/'); at > 0; at = name.indexOf('/', at + 1)) {
    const [prefix, last] = [name.slice(0, at), name.slice(at + 1)];
    if (Buffer.byteLength(prefix) <= 155 && Buffer.byteLength(last) <= 100) return { prefix, last };
  }
  throw new ChairError('BACKUP_UNUSABLE', 'a file name is too long for an archive', { expected: 'at most 100 bytes', came: name });
}

/** The 512 bytes before a file's content. */
export function tarHeader({ name, sizeBytes, mode, modifiedS }: TarEntry): Buffer {
  const block = Buffer.alloc(BLOCK);
  const { prefix, last } = partsOf(name);
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
  // The sum counts its own field as spaces.
  block.write('        0', 148);
  block.write('ustar\x0000', 257, 'latin1');
  block.write(prefix, 345);
  block.write(
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  return block;
}

/** Zeros after a file's content. */
export function tarPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((BLOCK - (sizeBytes % BLOCK)) % BLOCK);
}

/** What an archive ends with. */
export const TAR_END = Buffer.alloc(2 * BLOCK);

export interface TarFile extends TarEntry {
  /** To be read, or left, before the next file is asked for. */
  readonly content: AsyncIterable<Uint8Array>;
}

/** Bytes of a stream, as many as are asked for. */
class Bytes {
  readonly #source: AsyncIterator<Uint8Array>;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
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

  async exactly(count: number): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    for (let left = count; left > 0; ) {
      const chunk = await this.some(left);
      if (chunk === undefined) throw cutOff();
      chunks.push(chunk);
      left -= chunk.length;
    }
    return Buffer.concat(chunks);
  }
}

const cutOff = (): ChairError =>
  new ChairError('BACKUP_UNUSABLE', 'the archive is cut off', { todo: 'It was not written or copied to its end: take another one.' });

/** The files of an archive, in their order. Throws BACKUP_UNUSABLE. */
export async function* readTar(source: AsyncIterable<Uint8Array>): AsyncGenerator<TarFile> {
  const bytes = new Bytes(source);
  for (;;) {
    const block = await bytes.exactly(BLOCK);
    if (block.every((byte) => byte === 0)) return;
    const entry = entryOf(block);
    let left = entry.sizeBytes;
    const content = async function* (): AsyncGenerator<Uint8Array> {
      while (left > 0) {
        const chunk = await bytes.some(left);
        if (chunk === undefined) throw cutOff();
        left -= chunk.length;
        yield chunk;
      }
    };
    yield { ...entry, content: content() };
    // What nobody wanted to see.
    for await (const _ of content());
    await bytes.exactly(tarPadding(entry.sizeBytes).length);
  }
}

function entryOf(block: Buffer): TarEntry {
  const text = (at: number, length: number): string => block.toString('utf8', at, at + length).replace(/\0.*$/s, '');
  const number = (at: number, length: number): number => Number.parseInt(text(at, length).trim() || '0', 8);
  const sum = block.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0);
  if (text(257, 5) !== 'ustar' || number(148, 8) !== sum) {
    throw new ChairError('BACKUP_UNUSABLE', 'the file is no archive, or is damaged', {
      expected: 'a tar archive (ustar)',
      came: 'other bytes',
    });
  }
  const type = text(156, 1);
  const prefix = text(345, 155);
  const name = `${prefix === '' ? '' : `${prefix}/`}${text(0, 100)}`;
  if (type !== '' && type !== '0') {
    throw new ChairError('BACKUP_UNUSABLE', 'the archive holds what no backup does', {
      expected: 'plain files',
      came: `${name} of type ${type}`,
    });
  }
  const sizeBytes = block[124] === 0x80 ? Number(block.readBigUInt64BE(128)) : number(124, 12);
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
    throw new ChairError('BACKUP_UNUSABLE', `the archive says no size of ${name}`);
  }
  return { name, sizeBytes, mode: number(100, 8), modifiedS: number(136, 12) };
}
