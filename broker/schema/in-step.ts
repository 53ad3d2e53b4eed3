/**
 * Compiles only while the types written by hand in `plan.ts` and `tensor.ts` and their `.avsc` files say the same: a field added, renamed or retyped on
 * one side is an error here that names the record. The compiler's message reads: property 'Port' is missing in type '{}'. (All other types are made
 * from the `.avsc` files.)
 */
import type * as Plan from '../plan.js';
import type * as Tensor from '../tensor.js';
import type { All } from './in-step.gen.js';

/** Our types by the name of their schema. */
interface Written {
  DType: Tensor.DType;
  Encoding: Plan.Encoding;
  Box: Tensor.Box;
  TensorInfo: Tensor.TensorInfo;
  BlobRef: Plan.BlobRef;
  SliceRef: Plan.SliceRef;
  Port: Plan.Port;
  PlanPart: Plan.PlanPart;
  PlanStage: Plan.PlanStage;
  Wire: Plan.Wire;
}

/** Exactly the same type, `readonly` and optional included (two conditional types are identical only when what they compare with is). */
type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Names of records that differ, or stand on one side only. */
type Differing = {
  [K in keyof All | keyof Written]: K extends keyof All & keyof Written ? (Equals<All[K], Written[K]> extends true ? never : K) : K;
}[keyof All | keyof Written];

export const inStep: Record<Differing, 'differs between the .avsc file and the TypeScript type'> = {};
