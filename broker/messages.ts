/**
 * Every message as a TypeScript type. All are made from the `.avsc` files in `broker/schema/`, comments included (`doc`), by `schema/generate.ts`;
 * only the words that `models/` uses too are written by hand, in `plan.ts` and `tensor.ts`, and `schema/in-step.ts` compares those.
 *
 * Numbers are Avro `int`, `long` (at most 2^52 - 1) or `double`; times are durations in ms on the sender's monotonic clock unless named otherwise.
 * The types of lane records (`ActivationHeader`, `SubmitHeader`, `ResultHeader`) are without their last field, the tensor's bytes.
 */
export type { BlobRef, Encoding } from './plan.js';
export type * from './schema/messages.gen.js';
export type { Box } from './tensor.js';
