/** TensorProto keeps numbers in any of seven fields; here they become raw little-endian bytes. */
import { create } from '@bufbuild/protobuf';
import { type TensorProto, TensorProtoSchema } from 'onnx-buf';
import { ChairError } from '../../broker/errors.js';
import { type DType, elementCount, tensorBytes } from '../../broker/tensor.js';
import { dtypeOfCode, onnxCode } from './dtypes.js';

/** int32_data holds every small type, float16 as its bit pattern (onnx.proto, TensorProto.int32_data). */
const FROM_INT32: Readonly<Partial<Record<DType, (v: number[]) => ArrayBufferView>>> = {
  int32: (v) => Int32Array.from(v),
  int16: (v) => Int16Array.from(v),
  uint16: (v) => Uint16Array.from(v),
  float16: (v) => Uint16Array.from(v),
  bfloat16: (v) => Uint16Array.from(v),
  int8: (v) => Int8Array.from(v),
  uint8: (v) => Uint8Array.from(v),
  bool: (v) => Uint8Array.from(v, (x) => (x === 0 ? 0 : 1)),
};

function fromTypedField(proto: TensorProto, dtype: DType): ArrayBufferView {
  switch (dtype) {
    case 'float32':
      return Float32Array.from(proto.floatData);
    case 'float64':
      return Float64Array.from(proto.doubleData);
    case 'int64':
      return BigInt64Array.from(proto.int64Data);
    case 'uint64':
      return BigUint64Array.from(proto.uint64Data);
    case 'uint32':
      return Uint32Array.from(proto.uint64Data, Number);
    default:
      return FROM_INT32[dtype]?.(proto.int32Data) ?? new Uint8Array(0);
  }
}

export interface RawTensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  /** May be a view into the decoded file. */
  readonly bytes: Uint8Array;
}

/**
 * The bytes of an inline tensor; undefined when its type has no fixed whole-byte item (strings, 4-bit, float8).
 * Throws MODEL_UNREADABLE when bytes and dims disagree.
 */
export function rawTensor(proto: TensorProto, what: string): RawTensor | undefined {
  const dtype = dtypeOfCode(proto.dataType);
  if (dtype === undefined) return undefined;
  const dims = proto.dims.map(Number);
  let bytes: Uint8Array = proto.rawData;
  if (bytes.length === 0 && elementCount(dims) > 0) {
    const typed = fromTypedField(proto, dtype);
    bytes = new Uint8Array(typed.buffer, typed.byteOffset, typed.byteLength);
  }
  checkLength(what, dtype, dims, bytes.length);
  return { dtype, dims, bytes };
}

/** MODEL_UNREADABLE unless these are dims, and a tensor of them has so many bytes. */
export function checkLength(what: string, dtype: DType, dims: readonly number[], sizeBytes: number): void {
  const areDims = dims.every((d) => Number.isSafeInteger(d) && d >= 0);
  if (areDims && sizeBytes === tensorBytes(dtype, dims)) return;
  throw new ChairError('MODEL_UNREADABLE', `${what} contradicts itself`, {
    expected: `${tensorBytes(dtype, dims)} bytes for ${dtype}[${dims.join(',')}]`,
    came: `${sizeBytes} bytes`,
    todo: 'The file is damaged or its weights were stripped; get it again.',
  });
}

export function tensorProto(dtype: DType, dims: readonly number[], bytes: Uint8Array): TensorProto {
  return create(TensorProtoSchema, {
    dataType: onnxCode(dtype),
    dims: dims.map(BigInt),
    rawData: bytes as Uint8Array<ArrayBuffer>,
  });
}
