/** ONNX `TensorProto.DataType` numbers and our dtype names. */
import { TensorProto_DataType as Code } from 'onnx-buf';
import type { DType } from '../../broker/tensor.js';

const CODE_OF: Readonly<Record<DType, Code>> = {
  float32: Code.FLOAT,
  float64: Code.DOUBLE,
  float16: Code.FLOAT16,
  bfloat16: Code.BFLOAT16,
  int8: Code.INT8,
  uint8: Code.UINT8,
  int16: Code.INT16,
  uint16: Code.UINT16,
  int32: Code.INT32,
  uint32: Code.UINT32,
  int64: Code.INT64,
  uint64: Code.UINT64,
  bool: Code.BOOL,
};

const DTYPE_OF = new Map<number, DType>(Object.entries(CODE_OF).map(([dtype, code]) => [code, dtype as DType]));

export function onnxCode(dtype: DType): number {
  return CODE_OF[dtype];
}

/** Undefined for types without a fixed whole-byte item (string, complex, float8, 4-bit): they cannot cross a cut. */
export function dtypeOfCode(code: number): DType | undefined {
  return DTYPE_OF.get(code);
}

/** ONNX's own name of a type number, for messages. */
export function onnxTypeName(code: number): string {
  return Code[code] ?? `type ${code}`;
}
