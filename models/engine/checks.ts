/** What every engine checks before a run. */
import { ChairError } from '../../broker/errors.js';
import { checkTensor, type Tensor, type TensorInfo } from '../../broker/tensor.js';

/** ENGINE_INPUT_INVALID unless names, dtypes, dims and byte counts fit what the graph declares. */
export function checkInputs(declared: readonly TensorInfo[], given: Readonly<Record<string, Tensor>>): void {
  const invalid = (message: string, expected: string, came: string) => new ChairError('ENGINE_INPUT_INVALID', message, { expected, came });
  const names = declared.map((i) => i.name);
  for (const name of Object.keys(given)) {
    if (!names.includes(name)) throw invalid('an input has an unknown name', names.join(', '), name);
  }
  for (const info of declared) {
    const tensor = given[info.name];
    if (tensor === undefined) throw invalid(`input ${info.name} is missing`, names.join(', '), Object.keys(given).join(', ') || 'nothing');
    const fits =
      tensor.dtype === info.dtype &&
      // Rank 0 also stands for a graph that declares no shape.
      (info.dims.length === 0 || (tensor.dims.length === info.dims.length && info.dims.every((d, i) => d < 0 || d === tensor.dims[i])));
    if (!fits) {
      throw invalid(
        `input ${info.name} does not fit`,
        `${info.dtype}[${info.dims.map((d) => (d < 0 ? '?' : d)).join(',')}]`,
        `${tensor.dtype}[${tensor.dims.join(',')}]`,
      );
    }
    try {
      checkTensor(tensor, `input ${info.name}`);
    } catch (error) {
      throw new ChairError('ENGINE_INPUT_INVALID', error instanceof Error ? error.message : String(error), { cause: error });
    }
  }
}

/** ENGINE_INPUT_INVALID when an output is wanted that the graph does not have. */
export function checkOutputs(declared: readonly TensorInfo[], wanted: readonly string[]): void {
  const unknown = wanted.find((name) => !declared.some((o) => o.name === name));
  if (unknown === undefined) return;
  throw new ChairError('ENGINE_INPUT_INVALID', 'an output was asked for that the graph does not have', {
    expected: declared.map((o) => o.name).join(', '),
    came: unknown,
  });
}
