/** What every engine checks before a run. */
import { ChairError } from '../../broker/errors.js';
import { checkTensor, type Tensor, type TensorInfo, tensorBytes } from '../../broker/tensor.js';

/** ENGINE_INPUT_INVALID unless names, dtypes, dims and byte counts fit what the graph declares. */
export function checkInputs(declared: readonly TensorInfo[], given: Readonly<Record<string, Tensor>>): void {
  if (areExact(declared, given)) return;
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

/** Whether all inputs are there, nothing else is, and each is of the one shape that it can have: nearly every run's are. */
function areExact(declared: readonly TensorInfo[], given: Readonly<Record<string, Tensor>>): boolean {
  let count = 0;
  for (const _ in given) count++;
  if (count !== declared.length) return false;
  for (const { name, dtype, dims } of declared) {
    const tensor = given[name];
    if (tensor === undefined || tensor.dtype !== dtype || dims.length === 0 || dims.length !== tensor.dims.length) return false;
    for (let i = 0; i < dims.length; i++) if (dims[i] !== tensor.dims[i]) return false;
    if (tensor.bytes.length !== tensorBytes(dtype, dims)) return false;
  }
  return true;
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
