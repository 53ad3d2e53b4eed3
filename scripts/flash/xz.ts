/**
 * Unpacks .xz as a stream; the index at its end is read first. So a file that was cut off is found before anything is unpacked, and the size
 * of what is inside is known. Source: "The .xz File Format", version 1.2 (stream header and footer, index, stream padding).
 */
import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import xz from 'xz-decompress';
import { ChairError } from '../../broker/errors.js';
import { crc32 } from './crc32.js';
import type { Disk } from './disk.js';

const HEADER_MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
/** Header and footer of a stream have this length. */
const FRAME = 12;
/** An index of blocks of 1 MB each for an image of 3 TB. */
const MAX_INDEX_BYTES = 32 * 1024 * 1024;

/** One stream of the file; `xz` makes one, joining files makes several. Offsets `[start, end)`. */
export interface XzStream {
  readonly start: number;
  readonly end: number;
  readonly unpackedBytes: number;
}

export function isXz(disk: Disk): boolean {
  return disk.sizeBytes >= HEADER_MAGIC.length && disk.read(0, HEADER_MAGIC.length).equals(HEADER_MAGIC);
}

/** The streams from first to last. Throws FLASH_IMAGE_DAMAGED. */
export function readXzIndex(disk: Disk): XzStream[] {
  const streams: XzStream[] = [];
  let end = disk.sizeBytes;
  while (end > 0) {
    // Padding between streams: zeros, in fours.
    while (end >= 4 && disk.read(end - 4, 4).readUInt32LE(0) === 0) end -= 4;
    if (end < 2 * FRAME) throw truncated('it ends in the middle of a stream');
    const stream = readStream(disk, end);
    streams.unshift(stream);
    end = stream.start;
  }
  return streams;
}

function readStream(disk: Disk, end: number): XzStream {
  const footer = disk.read(end - FRAME, FRAME);
  if (footer.toString('latin1', 10) !== 'YZ' || crc32(footer.subarray(4, 10)) !== footer.readUInt32LE(0))
    throw truncated('its last bytes are not the end of an .xz file');
  const indexBytes = (footer.readUInt32LE(4) + 1) * 4;
  if (indexBytes > MAX_INDEX_BYTES || indexBytes > end - 2 * FRAME) throw truncated('its index does not fit into it');
  const index = disk.read(end - FRAME - indexBytes, indexBytes);
  if (index[0] !== 0 || crc32(index.subarray(0, indexBytes - 4)) !== index.readUInt32LE(indexBytes - 4))
    throw truncated('its index is damaged');
  const { packed, unpacked } = sumRecords(index.subarray(1, indexBytes - 4));
  const start = end - FRAME - indexBytes - packed - FRAME;
  if (start < 0) throw truncated(`${-start} bytes are missing`);
  const header = disk.read(start, FRAME);
  if (!header.subarray(0, 6).equals(HEADER_MAGIC)) throw truncated('a stream does not begin where the index says');
  return { start, end, unpackedBytes: unpacked };
}

function sumRecords(records: Buffer): { packed: number; unpacked: number } {
  let at = 0;
  const next = (): number => {
    let value = 0;
    for (let shift = 0; shift < 63; shift += 7) {
      const byte = records[at++];
      if (byte === undefined) throw truncated('its index is damaged');
      value += (byte & 0x7f) * 2 ** shift;
      if ((byte & 0x80) === 0) return value;
    }
    throw truncated('its index is damaged');
  };
  let packed = 0;
  let unpacked = 0;
  for (let left = next(); left > 0; left--) {
    packed += Math.ceil(next() / 4) * 4;
    unpacked += next();
  }
  if (!Number.isSafeInteger(packed) || !Number.isSafeInteger(unpacked)) throw truncated('its index is damaged');
  return { packed, unpacked };
}

/** What is inside, in pieces. Throws FLASH_IMAGE_DAMAGED when it does not unpack to what the index says. */
export async function* unpackXz(file: string, streams: readonly XzStream[]): AsyncGenerator<Uint8Array> {
  for (const stream of streams) {
    let count = 0;
    try {
      const packed = Readable.toWeb(createReadStream(file, { start: stream.start, end: stream.end - 1, highWaterMark: 1024 * 1024 }));
      for await (const piece of new xz.XzReadableStream(packed as ReadableStream<Uint8Array>)) {
        count += piece.byteLength;
        if (count > stream.unpackedBytes) break;
        if (piece.byteLength > 0) yield piece;
      }
    } catch (cause) {
      throw damaged(`it cannot be unpacked behind byte ${count}`, cause);
    }
    if (count !== stream.unpackedBytes) throw damaged(`it unpacks to ${count} bytes instead of ${stream.unpackedBytes}`);
  }
}

function truncated(why: string): ChairError {
  return damaged(`${why}: most likely the download was cut off`);
}

function damaged(why: string, cause?: unknown): ChairError {
  return new ChairError('FLASH_IMAGE_DAMAGED', `the .xz file is damaged: ${why}`, {
    todo: 'Download the image again and compare its checksum with the one beside it.',
    ...(cause === undefined ? {} : { cause }),
  });
}
