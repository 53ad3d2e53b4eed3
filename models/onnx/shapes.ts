/** Fixing dynamic input dims (`--shape x=1,3,640,640`). After this every input has a fixed shape. */
import { ChairError } from '../../broker/errors.js';
import { type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import type { DeclaredInput } from './import.js';

/** Of one input: as much as one message or one ONNX tensor may have. */
const LARGEST_BYTES = 2 ** 31 - 1;

function show(dims: DeclaredInput['dims']): string {
  return dims === undefined ? 'any shape' : `[${dims.join(',')}]`;
}

/**
 * Throws MODEL_SHAPE_INVALID (no such input, other rank, a fixed dim contradicted, not a whole number >= 0, more than 2 GB) and
 * MODEL_SHAPE_UNKNOWN (a dynamic dim that `shapes` does not fix).
 */
export function fixShapes(inputs: readonly DeclaredInput[], shapes: Readonly<Record<string, readonly number[]>>): TensorInfo[] {
  const unknown = Object.keys(shapes).find((name) => !inputs.some((i) => i.name === name));
  if (unknown !== undefined) {
    throw new ChairError('MODEL_SHAPE_INVALID', 'a shape names no input of the model', {
      expected: inputs.map((i) => `${i.name} ${show(i.dims)}`).join(', '),
      came: unknown,
    });
  }
  return inputs.map((input) => {
    const given = Object.hasOwn(shapes, input.name) ? shapes[input.name] : undefined;
    return bounded({ name: input.name, dtype: input.dtype, dims: fixed(input, given) });
  });
}

/** A shape is a claim of the file's: nothing of its size is allocated before it is known to be one that a machine can hold. */
function bounded(info: TensorInfo): TensorInfo {
  const size = tensorBytes(info.dtype, info.dims);
  if (size <= LARGEST_BYTES) return info;
  throw new ChairError('MODEL_SHAPE_INVALID', `input ${info.name} is too large`, {
    expected: `at most ${LARGEST_BYTES} bytes`,
    came: `${info.dtype}[${info.dims.join(',')}], ${size} bytes`,
  });
}

function fixed(input: DeclaredInput, given: readonly number[] | undefined): number[] {
  const { name, dims } = input;
  if (given !== undefined) {
    const fits = dims === undefined || (given.length === dims.length && dims.every((d, i) => typeof d === 'string' || d === given[i]));
    if (!fits || !given.every((d) => Number.isSafeInteger(d) && d >= 0)) {
      throw new ChairError('MODEL_SHAPE_INVALID', `the shape given for input ${name} does not fit`, {
        expected: show(dims),
        came: `[${given.join(',')}]`,
      });
    }
    return [...given];
  }
  const known = dims?.filter((d) => typeof d === 'number');
  if (dims !== undefined && known !== undefined && known.length === dims.length) return known;
  const example =
    dims === undefined ? '1,3,224,224' : dims.map((d, i) => (typeof d === 'number' ? d : i === 0 ? 1 : i === 1 ? 3 : 224)).join(',');
  throw new ChairError('MODEL_SHAPE_UNKNOWN', `input ${name} has dynamic dimensions`, {
    expected: 'a fixed shape',
    came: show(dims),
    todo: `Give it: --shape ${name}=${example}`,
  });
}
