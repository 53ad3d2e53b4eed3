// Made by generate.ts from the .avsc files. Do not edit.

export type DType =
  | 'float32'
  | 'float64'
  | 'float16'
  | 'bfloat16'
  | 'int8'
  | 'uint8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'uint64'
  | 'bool';

export type Encoding = 'raw' | 'float16' | 'uint8';

export interface Box {
  readonly start: readonly number[];
  readonly end: readonly number[];
}

export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
}

export interface BlobRef {
  readonly sha256: string;
  readonly sizeBytes: number;
}

export interface SliceRef {
  readonly graph: BlobRef;
  readonly blobs: readonly BlobRef[];
  readonly macs: number;
  readonly weightBytes: number;
  readonly activationBytes: number;
}

export interface Port {
  readonly name: string;
  readonly tensor: string;
  readonly dtype: DType;
  readonly box: Box;
}

export interface PlanPart {
  readonly slice: string;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

export interface PlanStage {
  readonly cut: string;
  readonly parts: readonly PlanPart[];
  readonly agents: readonly (readonly string[])[];
  readonly redundancy: number;
}

export interface Wire {
  readonly fromStage: number;
  readonly fromPart: number;
  readonly output: number;
  readonly toStage: number;
  readonly toPart: number;
  readonly input: number;
  readonly box: Box;
  readonly encoding: Encoding;
}

/** By name. */
export interface All {
  DType: DType;
  Encoding: Encoding;
  Box: Box;
  TensorInfo: TensorInfo;
  BlobRef: BlobRef;
  SliceRef: SliceRef;
  Port: Port;
  PlanPart: PlanPart;
  PlanStage: PlanStage;
  Wire: Wire;
}
