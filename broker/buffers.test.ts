import { describe, expect, it } from 'vitest';
import { BufferPool } from './buffers.js';

const MIB = 2 ** 20;

describe('the buffer pool', () => {
  it('gives a buffer of exactly the length asked for, alone on its memory', () => {
    const pool = new BufferPool(MIB);
    const [a, b] = [pool.take(10_000), pool.take(10_000)];
    expect([a.length, a.byteOffset, b.length]).toEqual([10_000, 0, 10_000]);
    expect(a.buffer).not.toBe(b.buffer);
  });

  it('uses a buffer again for what is as large or down to half of it', () => {
    const pool = new BufferPool(MIB);
    const first = pool.take(10_000);
    const { buffer } = first;
    pool.give(first);
    const half = pool.take(5_000);
    expect([half.buffer === buffer, half.length]).toEqual([true, 5_000]);
    pool.give(half);
    expect(pool.take(10_000).buffer).toBe(buffer);
    expect(pool.made).toBe(1);
  });

  it('takes the smallest that fits, and leaves large buffers for large tensors', () => {
    const pool = new BufferPool(MIB);
    const [large, middle] = [pool.take(100_000), pool.take(30_000)];
    pool.give(large);
    pool.give(middle);
    expect(pool.take(20_000).buffer).toBe(middle.buffer);
    expect(pool.take(20_000).buffer).not.toBe(large.buffer);
  });

  it('never hands one buffer to two owners', () => {
    const pool = new BufferPool(MIB);
    for (let i = 0; i < 3; i++) pool.give(pool.take(8_192));
    const taken = Array.from({ length: 5 }, () => pool.take(8_192).buffer);
    expect(new Set(taken).size).toBe(5);
  });

  it('keeps no more than its bound, the newest', () => {
    const pool = new BufferPool(30_000);
    const buffers = [1, 2, 3, 4].map(() => pool.take(10_000));
    for (const bytes of buffers) pool.give(bytes);
    expect(pool.idleBytes).toBe(30_000);
    const again = [1, 2, 3].map(() => pool.take(10_000).buffer);
    expect(new Set(again)).toEqual(new Set(buffers.slice(1).map((b) => b.buffer)));
    expect(pool.idleBytes).toBe(0);
  });

  it('keeps neither small buffers nor ones above its bound nor shared memory', () => {
    const pool = new BufferPool(30_000);
    pool.give(pool.take(100));
    pool.give(pool.take(40_000));
    pool.give(new Uint8Array(new SharedArrayBuffer(10_000)));
    expect(pool.idleBytes).toBe(0);
  });

  it('keeps a bounded number, so that looking for one stays cheap', () => {
    const pool = new BufferPool(64 * MIB);
    const many = Array.from({ length: 400 }, () => pool.take(5_000));
    for (const bytes of many) pool.give(bytes);
    expect(pool.idleBytes).toBe(256 * 5_000);
  });

  it('keeps nothing of what was detached', () => {
    const pool = new BufferPool(MIB);
    const bytes = pool.take(10_000);
    structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] });
    pool.give(bytes);
    expect(pool.idleBytes).toBe(0);
    expect(pool.take(10_000).length).toBe(10_000);
  });
});
