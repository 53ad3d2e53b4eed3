import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isChairError } from '../broker/errors.js';
import { DTYPES, type Tensor, tensorBytes } from '../broker/tensor.js';
import { readNpy, writeNpy } from './npy.js';

function tensorOf(dtype: Tensor['dtype'], dims: readonly number[]): Tensor {
  const bytes = new Uint8Array(tensorBytes(dtype, dims)).map((_, i) => (i * 37 + 11) % 251);
  return { dtype, dims, bytes };
}

/** A file with any header text. */
function fileWith(header: string, data: Uint8Array, version = 1): Uint8Array {
  const start = version === 1 ? 10 : 12;
  const out = new Uint8Array(start + header.length + data.length);
  out.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0, header.length & 0xff, header.length >> 8]);
  out.set(Buffer.from(header, 'latin1'), start);
  out.set(data, start + header.length);
  return out;
}

describe('.npy', () => {
  it.each(DTYPES.filter((d) => d !== 'bfloat16'))('holds %s of any rank', (dtype) => {
    for (const dims of [[], [5], [0, 3], [2, 3, 4, 1]]) {
      const tensor = tensorOf(dtype, dims);
      const file = writeNpy(tensor);
      expect(readNpy(file)).toEqual(tensor);
      expect((file.length - tensor.bytes.length) % 64).toBe(0);
    }
  });

  it('is what NumPy writes, byte for byte', () => {
    // numpy.save of numpy.arange(3, dtype='<i2')
    const text = "{'descr': '<i2', 'fortran_order': False, 'shape': (3,), }";
    const file = writeNpy({ dtype: 'int16', dims: [3], bytes: Uint8Array.of(0, 0, 1, 0, 2, 0) });
    expect(Buffer.from(file.subarray(0, 10)).toString('hex')).toBe('934e554d5059010076 00'.replace(' ', ''));
    expect(Buffer.from(file.subarray(10, 10 + text.length)).toString()).toBe(text);
    expect(file[127]).toBe(0x0a);
  });

  it('is read from version 2 headers, big-endian data and harmless Fortran order', () => {
    const big = fileWith("{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }\n", Uint8Array.of(0, 1, 2, 3), 2);
    expect([...readNpy(big).bytes]).toEqual([1, 0, 3, 2]);
    const flat = fileWith("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 4), }\n", Uint8Array.of(1, 2, 3, 4));
    expect(readNpy(flat).dims).toEqual([1, 4]);
  });

  it.each([
    ['text', new TextEncoder().encode('not a tensor'), /no NumPy magic/],
    ['a file cut off in the header', writeNpy(tensorOf('uint8', [3])).subarray(0, 40), /cut off/],
    ['a file cut off in the data', writeNpy(tensorOf('uint8', [30])).subarray(0, 140), /12 bytes of data where uint8\[30\] has 30/],
    ['Fortran order', fileWith("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2), }", new Uint8Array(4)), /Fortran/],
    ['strings', fileWith("{'descr': '<U5', 'fortran_order': False, 'shape': (2,), }", new Uint8Array(40)), /type <U5/],
    ['records', fileWith("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,), }", new Uint8Array(8)), /record/],
    [
      'a size beyond all memory',
      fileWith("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", new Uint8Array(8)),
      /more than/,
    ],
  ])('is refused: %s', (_, bytes, reason) => {
    expect(() => readNpy(bytes, 'x.npy')).toThrow(
      expect.objectContaining({ code: 'NPY_UNREADABLE', message: expect.stringMatching(reason) }),
    );
  });

  it('gives a tensor or a coded error for any change of a byte', () => {
    const file = writeNpy(tensorOf('float32', [2, 3]));
    fc.assert(
      fc.property(fc.nat(file.length - 1), fc.nat(255), fc.nat(file.length), (at, value, cut) => {
        const hostile = file.slice(0, cut === 0 ? file.length : cut);
        if (at < hostile.length) hostile[at] = value;
        try {
          const tensor = readNpy(hostile);
          expect(tensor.bytes.length).toBe(tensorBytes(tensor.dtype, tensor.dims));
        } catch (error) {
          expect(isChairError(error, 'NPY_UNREADABLE')).toBe(true);
        }
      }),
    );
  });
});
