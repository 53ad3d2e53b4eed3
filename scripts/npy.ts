/**
 * `.npy` files: one tensor each, NumPy's own format (NEP 1, versions 1.0 to 3.0). Read in C order, little- or big-endian; written as 1.0.
 * bfloat16 has no NumPy type: it is refused when written.
 */
import { ChairError } from '../broker/errors.js';
import { checkTensor, type DType, elementCount, itemBytes, type Tensor, tensorBytes } from '../broker/tensor.js';

const MAGIC = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59);

/** NumPy's letter and size for each of our types. */
const DESCR: Readonly<Partial<Record<DType, string>>> = {
  float32: 'f4',
  float64: 'f8',
  float16: 'f2',
  int8: 'i1',
  uint8: 'u1',
  int16: 'i2',
  uint16: 'u2',
  int32: 'i4',
  uint32: 'u4',
  int64: 'i8',
  uint64: 'u8',
  bool: 'b1',
};

/** Files are read whole; more than this is no frame. */
const MAX_BYTES = 2 ** 30;

function unreadable(file: string, why: string): ChairError {
  return new ChairError('NPY_UNREADABLE', `${file} is not a .npy tensor this project can read`, {
    came: why,
    todo: 'Write it with numpy.save().',
  });
}

/** The header's dictionary, a Python literal: only the three keys that the format names. */
function parseHeader(header: string, file: string): { readonly descr: string; readonly fortran: boolean; readonly dims: number[] } {
  const descr = /['"]descr['"]\s*:\s*['"]([^'"]*)['"]/.exec(header)?.[1];
  const fortran = /['"]fortran_order['"]\s*:\s*(True|False)/.exec(header)?.[1];
  const shape = /['"]shape['"]\s*:\s*\(([\d\s,]*)\)/.exec(header)?.[1];
  if (descr === undefined || fortran === undefined || shape === undefined)
    throw unreadable(file, 'a header without descr, fortran_order and shape (a record array?)');
  const dims = shape.split(',').flatMap((d) => (d.trim() === '' ? [] : [Number(d)]));
  if (dims.length > 32) throw unreadable(file, `rank ${dims.length}`);
  return { descr, fortran: fortran === 'True', dims };
}

/** Throws NPY_UNREADABLE with the reason. `file` is for the message. */
export function readNpy(bytes: Uint8Array, file = 'the file'): Tensor {
  if (bytes.length < 10 || !MAGIC.every((b, i) => bytes[i] === b)) throw unreadable(file, 'no NumPy magic at the start');
  const major = bytes[6] ?? 0;
  if (major < 1 || major > 3) throw unreadable(file, `format version ${major}.${bytes[7]}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const start = major === 1 ? 10 : 12;
  if (bytes.length < start) throw unreadable(file, 'a header that is cut off');
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > bytes.length - start) throw unreadable(file, 'a header that is cut off');
  const { descr, fortran, dims } = parseHeader(Buffer.from(bytes.subarray(start, start + length)).toString('latin1'), file);
  const entry = Object.entries(DESCR).find(([, d]) => d === descr.slice(1));
  if (entry === undefined || !/^[<>|=]/.test(descr)) throw unreadable(file, `elements of type ${descr}`);
  const dtype = entry[0] as DType;
  // Both orders are the same thing for up to one dimension that is not 1.
  if (fortran && dims.filter((d) => d !== 1).length > 1) throw unreadable(file, 'Fortran order; use numpy.ascontiguousarray()');
  const sizeBytes = tensorBytes(dtype, dims);
  const data = bytes.subarray(start + length);
  if (!Number.isSafeInteger(elementCount(dims)) || sizeBytes > MAX_BYTES)
    throw unreadable(file, `${sizeBytes} bytes of data, more than ${MAX_BYTES}`);
  if (data.length !== sizeBytes) throw unreadable(file, `${data.length} bytes of data where ${dtype}[${dims.join(',')}] has ${sizeBytes}`);
  // A buffer of its own: aligned, and free to be handed to a worker.
  const own = Uint8Array.from(data);
  if (descr.startsWith('>')) swapBytes(own, itemBytes(dtype));
  return { dtype, dims, bytes: own };
}

function swapBytes(bytes: Uint8Array, itemSize: number): void {
  for (let i = 0; i < bytes.length; i += itemSize) bytes.subarray(i, i + itemSize).reverse();
}

/** The bytes of a version 1.0 file. Throws TENSOR_INVALID; NPY_UNREADABLE for bfloat16, which NumPy does not know. */
export function writeNpy(tensor: Tensor): Uint8Array {
  checkTensor(tensor, 'the tensor to write');
  const code = DESCR[tensor.dtype];
  if (code === undefined)
    throw new ChairError('NPY_UNREADABLE', `${tensor.dtype} has no NumPy type`, { todo: 'Convert the output to float32 in the model.' });
  const order = itemBytes(tensor.dtype) === 1 ? '|' : '<';
  const shape = tensor.dims.length === 1 ? `(${tensor.dims[0]},)` : `(${tensor.dims.join(', ')})`;
  const dictionary = `{'descr': '${order}${code}', 'fortran_order': False, 'shape': ${shape}, }`;
  // The data starts at a multiple of 64 bytes; the header ends with a line break.
  const padding = (64 - ((10 + dictionary.length + 1) % 64)) % 64;
  const header = Buffer.from(`${dictionary}${' '.repeat(padding)}\n`, 'latin1');
  const out = new Uint8Array(10 + header.length + tensor.bytes.length);
  out.set(MAGIC);
  out.set([1, 0, header.length & 0xff, header.length >> 8], 6);
  out.set(header, 10);
  out.set(tensor.bytes, 10 + header.length);
  return out;
}
