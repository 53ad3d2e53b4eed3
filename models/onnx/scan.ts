/**
 * Reads an ONNX file front to back without ever holding its weights: the raw data of large initializers is hashed as it passes and left
 * where it is, the rest is gathered. So importing a model costs kilobytes, whatever its size.
 *
 * Only three fields of onnx.proto are walked into: ModelProto.graph, GraphProto.initializer and TensorProto.raw_data.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { ChairError } from '../../broker/errors.js';
import { fieldHead, GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_RAW_DATA } from './encode.js';

/** Where the raw data of an initializer is in the file. */
export interface RawRange {
  readonly offset: number;
  readonly length: number;
  readonly sha256: string;
}

export interface ScannedFile {
  /** sha256 of the whole file. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** The ModelProto without the raw data that was left in the file. */
  readonly model: Uint8Array;
  /** For each initializer, in order: its raw data when it was left in the file. */
  readonly raw: readonly (RawRange | undefined)[];
}

/** What is wrong with a file's bytes; `importGraph` makes MODEL_UNREADABLE of it. */
export class MalformedFile extends Error {}

const WINDOW_BYTES = 1 << 20;

/** Raw data of at least `threshold` bytes stays in the file. Throws MODEL_NOT_FOUND, MalformedFile. */
export async function scanModel(path: string, threshold: number): Promise<ScannedFile> {
  const file = await openModel(path);
  try {
    const { size } = await file.stat();
    const reader = new Reader(file, size);
    const raw: (RawRange | undefined)[] = [];
    const model = await gather(reader, size, MODEL_GRAPH, (graphEnd) =>
      gather(reader, graphEnd, GRAPH_INITIALIZER, async (tensorEnd) => {
        raw.push(undefined);
        return gather(reader, tensorEnd, TENSOR_RAW_DATA, async (rawEnd) => {
          const length = rawEnd - reader.position;
          if (length < threshold) return [await reader.take(length)];
          raw[raw.length - 1] = await reader.skip(length);
          return undefined;
        });
      }),
    );
    return { sha256: reader.digest(), sizeBytes: size, model: new Uint8Array(Buffer.concat(model)), raw };
  } finally {
    await file.close();
  }
}

async function openModel(path: string): Promise<FileHandle> {
  const failed = (came: string, cause?: unknown) =>
    new ChairError('MODEL_NOT_FOUND', `the model file ${path} cannot be read`, {
      expected: 'an ONNX file',
      came,
      todo: 'Check the path.',
      cause,
    });
  try {
    // Opening a pipe would wait for its other end.
    if ((await stat(path)).isFile()) return await open(path, 'r');
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    const why = { ENOENT: 'no file of that name', EACCES: 'a file you may not read' }[code];
    throw failed(why ?? (error instanceof Error ? error.message : String(error)), error);
  }
  throw failed('a folder or a device');
}

/**
 * The bytes of a message up to `end`, field by field. Field `special` (a length-delimited one) is given to `inside` with its own end;
 * what that returns stands for its content, undefined drops the field.
 */
async function gather(
  reader: Reader,
  end: number,
  special: number,
  inside: (end: number) => Promise<Uint8Array[] | undefined>,
): Promise<Uint8Array[]> {
  const out: Uint8Array[] = [];
  while (reader.position < end) {
    const key = await reader.varint(end);
    const field = Math.floor(key / 8);
    if (field === 0) throw new MalformedFile('a field number of 0');
    switch (key % 8) {
      case 0:
        out.push(varintField(key, await reader.varintBytes(end)));
        break;
      case 1:
        out.push(varintField(key, await reader.takeWithin(8, end)));
        break;
      case 5:
        out.push(varintField(key, await reader.takeWithin(4, end)));
        break;
      case 2: {
        const length = await reader.varint(end);
        if (length > end - reader.position) {
          throw new MalformedFile(`a field of ${length} bytes where only ${end - reader.position} are left: the file may be cut short`);
        }
        const content = field === special ? await inside(reader.position + length) : [await reader.take(length)];
        if (content === undefined) break;
        out.push(
          fieldHead(
            field,
            content.reduce((sum, part) => sum + part.length, 0),
          ),
          ...content,
        );
        break;
      }
      default:
        throw new MalformedFile(`wire type ${key % 8}, which ONNX does not use`);
    }
  }
  return out;
}

function varintField(key: number, value: Uint8Array): Uint8Array {
  // The key is written again; its wire type is in its low bits.
  const head: number[] = [];
  let rest = key;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) head.push((rest % 0x80) | 0x80);
  head.push(rest);
  return Uint8Array.from([...head, ...value]);
}

/** Sequential reading through one window; every byte is hashed once. */
class Reader {
  readonly #file: FileHandle;
  readonly #size: number;
  readonly #hash = createHash('sha256');
  readonly #window = new Uint8Array(WINDOW_BYTES);
  #start = 0;
  #end = 0;
  /** Offset in the file of the next byte to give. */
  position = 0;

  constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.#size = size;
  }

  digest(): string {
    return this.#hash.digest('hex');
  }

  /** At most `most` bytes from the window, valid until the next call. */
  async #next(most: number): Promise<Uint8Array> {
    if (this.#start === this.#end) {
      const { bytesRead } = await this.#file.read(this.#window, 0, WINDOW_BYTES, this.position);
      if (bytesRead === 0) throw new MalformedFile(`the file ends after ${this.position} bytes`);
      // The file may grow while it is read: only what was there at the start belongs to it.
      this.#start = 0;
      this.#end = Math.min(bytesRead, this.#size - this.position);
      this.#hash.update(this.#window.subarray(0, this.#end));
    }
    const part = this.#window.subarray(this.#start, Math.min(this.#end, this.#start + most));
    this.#start += part.length;
    this.position += part.length;
    return part;
  }

  async take(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const part = await this.#next(length - done);
      bytes.set(part, done);
      done += part.length;
    }
    return bytes;
  }

  takeWithin(length: number, end: number): Promise<Uint8Array> {
    if (this.position + length > end) throw new MalformedFile('a number that runs over its end');
    return this.take(length);
  }

  async skip(length: number): Promise<RawRange> {
    const hash = createHash('sha256');
    const offset = this.position;
    for (let done = 0; done < length; ) {
      const part = await this.#next(length - done);
      hash.update(part);
      done += part.length;
    }
    return { offset, length, sha256: hash.digest('hex') };
  }

  async varintBytes(end: number): Promise<Uint8Array> {
    const bytes: number[] = [];
    for (;;) {
      if (this.position >= end || bytes.length === 10) throw new MalformedFile('a number that does not end');
      const [byte = 0] = await this.#next(1);
      bytes.push(byte);
      if (byte < 0x80) return Uint8Array.from(bytes);
    }
  }

  async varint(end: number): Promise<number> {
    const bytes = await this.varintBytes(end);
    return bytes.reduceRight((value, byte) => value * 0x80 + (byte & 0x7f), 0);
  }
}
