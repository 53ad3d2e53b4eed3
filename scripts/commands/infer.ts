/** `infer`: frames from files through a deployment. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, type ErrorCode, toChairError } from '../../broker/errors.js';
import type { DeploymentStatus, ImageInput } from '../../broker/messages.js';
import type { Tensor, TensorInfo } from '../../broker/tensor.js';
import type { InferResult } from '../../scheduler/client.js';
import type { CommandDefinition } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { unknownDeployment, withClient } from '../connection.js';
import { checkName, optionText } from '../deploy-options.js';
import { wholeNumber } from '../output.js';
import { dimsText, msText } from '../table.js';

/** A frame that came to nothing. */
interface FailedRow {
  readonly file: string;
  readonly code: ErrorCode;
  readonly message: string;
}

interface Row {
  readonly file: string;
  readonly latencyMs: number;
  readonly attempts: number;
  readonly outputs: Readonly<
    Record<string, { readonly dtype: string; readonly dims: readonly number[]; readonly file?: string; readonly range?: Range }>
  >;
}

/** One frame: an image, a tensor, or `input=file` pairs joined with commas for models of several inputs. */
async function readFrame(argument: string, deployment: DeploymentStatus): Promise<Record<string, Tensor>> {
  const parts = argument.split(',').map((part) => /^([^=/\\]+)=(.+)$/.exec(part));
  const named = parts.every((p) => p !== null);
  const [first] = deployment.inputs;
  if (!named && deployment.inputs.length > 1) throw wrongInputs(deployment, argument);
  const pairs = named ? parts.map((p) => [p?.[1] ?? '', p?.[2] ?? ''] as const) : [[first?.name ?? '', argument] as const];
  const inputs: Record<string, Tensor> = {};
  for (const [input, file] of pairs) {
    const info = deployment.inputs.find((i) => i.name === input);
    if (info === undefined) throw wrongInputs(deployment, argument);
    const image = deployment.images.find((i) => i.input === input);
    inputs[input] = await readInput(file, info, image);
  }
  if (deployment.inputs.some((i) => inputs[i.name] === undefined)) throw wrongInputs(deployment, argument);
  return inputs;
}

function wrongInputs({ name, inputs }: DeploymentStatus, argument: string): ChairError {
  return new ChairError('USAGE', `a frame of ${name} is not given completely`, {
    expected: inputs.length === 1 ? `FILE or ${inputs[0]?.name}=FILE` : inputs.map((i) => `${i.name}=FILE`).join(','),
    came: `"${argument}"`,
  });
}

async function readInput(file: string, info: TensorInfo, image: ImageInput | undefined): Promise<Tensor> {
  if (file.toLowerCase().endsWith('.npy')) {
    const [{ readNpy }, { readNamedFile }] = [await import('../npy.js'), await import('../image.js')];
    return fitting(readNpy(await readNamedFile(file), file), file, info, image);
  }
  const { frameOf, readPicture } = await import('../image.js');
  const picture = await readPicture(file);
  if (image === undefined) {
    throw new ChairError('FRAME_INVALID', `${file} is an image, but the deployment takes tensors`, {
      expected: `a .npy file of ${info.dtype}${dimsText(info.dims)}`,
      todo: `Or undeploy it, and deploy the model with --image input=${info.name},size=HEIGHTxWIDTH: then it takes images of any size.`,
    });
  }
  return frameOf(picture, image.height, image.width);
}

/** The tensor, when it is what the deployment takes. Throws FRAME_INVALID before anything is sent. */
function fitting(tensor: Tensor, file: string, info: TensorInfo, image: ImageInput | undefined): Tensor {
  if (tensor.dtype === info.dtype && tensor.dims.join() === info.dims.join()) return tensor;
  const asType = `numpy.load("${file}").astype("${info.dtype}")`;
  const shape = image === undefined ? {} : { todo: 'An image file of any size is fitted to that; a .npy must have it already.' };
  throw new ChairError('FRAME_INVALID', `${file} is not what input '${info.name}' takes`, {
    expected: `${info.dtype}${dimsText(info.dims)}`,
    came: `${tensor.dtype}${dimsText(tensor.dims)}`,
    ...(tensor.dims.join() === info.dims.join() ? { todo: `Convert it, in Python: ${asType}` } : shape),
  });
}

/** A block of lines per frame, nothing cut; many frames in one line each, and all together at the end. */
export function framesText(rows: readonly (Row | FailedRow)[], elapsedMs: number): string {
  const blocks = rows.map((row) => {
    if ('code' in row) return `${row.file}: ${row.code}: ${row.message}`;
    const head = `${row.file}: ${msText(row.latencyMs)}${row.attempts > 1 ? `, ${row.attempts} attempts` : ''}`;
    if (rows.length > MANY_FRAMES) return head;
    const outputs = Object.entries(row.outputs).map(([name, { dtype, dims, range, file }]) => {
      const values = range === undefined ? '' : `  ${rangeText(range)}`;
      return `  ${name}  ${dtype}${dimsText(dims)}${values}${file === undefined ? '' : `\n    written to ${file}`}`;
    });
    return [head, ...outputs].join('\n');
  });
  return rows.length < 2 ? blocks.join('\n') : [...blocks, totalText(rows, elapsedMs)].join('\n');
}

/** `20 frames: 31.4 frames/s; latency p50 80.1 ms, p95 95.0 ms; 1 failed` */
function totalText(rows: readonly (Row | FailedRow)[], elapsedMs: number): string {
  const sorted = rows.flatMap((row) => ('code' in row ? [] : [row.latencyMs])).sort((a, b) => a - b);
  const at = (share: number): string => msText(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN);
  const speed = `${((1000 * sorted.length) / Math.max(1, elapsedMs)).toFixed(1)} frames/s; latency p50 ${at(0.5)}, p95 ${at(0.95)}`;
  const failed = rows.length - sorted.length;
  return `${rows.length} frames: ${speed}${failed === 0 ? '' : `; ${failed} failed`}`;
}

const MANY_FRAMES = 8;

interface Range {
  readonly min: number;
  readonly max: number;
  /** Index of the largest value in the flat tensor: the class, for a classifier. */
  readonly argmax: number;
}

/** What is in a float output: enough to see that something was computed. */
function rangeOf(tensor: Tensor): Range | undefined {
  if (tensor.dtype !== 'float32' || tensor.bytes.length === 0) return undefined;
  const values = new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.length / 4);
  let [min, max, argmax] = [Infinity, -Infinity, 0];
  values.forEach((v, i) => {
    min = Math.min(min, v);
    if (v > max) [max, argmax] = [v, i];
  });
  return { min, max, argmax };
}

function rangeText(range: Range): string {
  return `${range.min.toPrecision(3)} to ${range.max.toPrecision(3)}, largest at ${range.argmax}`;
}

export const infer: CommandDefinition = {
  name: 'infer',
  summary: 'Run files through a deployment: images, or tensors as .npy',
  description:
    'An image is scaled to the declared height and width without keeping its proportions. A frame that fails does not stop the others; the exit status is 1 then.',
  arguments: [
    { syntax: '<deployment>', description: 'name of the deployment' },
    { syntax: '<files...>', description: 'one frame each; input=FILE,input=FILE for models of several inputs' },
  ],
  options: [
    { flags: '--out <directory>', description: 'write each output as .npy here, for numpy.load' },
    { flags: '--repeat <count>', description: 'send all files so many times', default: '1' },
    { flags: '--deadline <ms>', description: 'longest wait for a frame, milliseconds', default: '30000' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    { line: 'infer det photo.jpg --out out', text: 'out/photo.OUTPUT.npy holds the result' },
    { line: 'infer net a=left.npy,b=right.npy', text: 'a model of two inputs' },
  ],
  run: async ({ arguments: [name = '', ...files], options, settings, output }) => {
    checkName(name, 'the deployment');
    const directory = optionText(options, 'out');
    const repeat = wholeNumber(optionText(options, 'repeat', '1'), '--repeat', 1, 1_000_000);
    const deadlineMs = wholeNumber(optionText(options, 'deadline', '30000'), '--deadline', 1, 3_600_000);
    let startedMs = performance.now();
    if (directory !== '') await makeFolder(directory);
    const rows = await withClient(settings, async (client) => {
      const { deployments } = await client.status(name);
      const deployment = deployments.find((d) => d.name === name);
      if (deployment === undefined) {
        throw await unknownDeployment(client, name);
      }
      // Every file is read before the first is sent: a bad one is found at once.
      const frames = new Map<string, Record<string, Tensor>>();
      for (const file of files) frames.set(file, await readFrame(file, deployment));
      const order = Array.from({ length: repeat }, () => files).flat();
      const results: (Row | FailedRow)[] = [];
      startedMs = performance.now();
      const take = async (result: Promise<InferResult>): Promise<void> => {
        const index = results.length;
        const file = order[index] ?? '';
        results.push(await rowOf(result, file, (outputs) => keep(outputs, file, index, repeat > 1, directory)));
        output.progress(`${results.length} of ${order.length} frames`);
      };
      const underWay: Promise<InferResult>[] = [];
      for (const file of order) {
        const result = client.infer(name, frames.get(file) ?? {}, { deadlineMs });
        // It is awaited in turn; until then a rejection is not unhandled.
        result.catch(() => undefined);
        underWay.push(result);
        const first = underWay.length >= AHEAD ? underWay.shift() : undefined;
        if (first !== undefined) await take(first);
      }
      for (const result of underWay) await take(result);
      return results;
    });
    const elapsedMs = performance.now() - startedMs;
    const failed = rows.flatMap((row) => ('code' in row ? [row] : []));
    const [first] = failed;
    // One frame alone: its error is the command's.
    if (rows.length === 1 && first !== undefined) throw new ChairError(first.code, first.message);
    output.report(rows, () => framesText(rows, elapsedMs));
    if (first !== undefined)
      throw new ChairError(first.code, `${failed.length} of ${rows.length} frames failed, the first was ${first.file}`);
  },
};

/** Frames given to the client at once; it holds back what its window does not take. */
const AHEAD = 32;

/** What a frame came to. What hinders writing its outputs hinders the next one, too: that is thrown. */
async function rowOf(
  result: Promise<InferResult>,
  file: string,
  kept: (outputs: InferResult['outputs']) => Promise<Row['outputs']>,
): Promise<Row | FailedRow> {
  let outcome: InferResult;
  try {
    outcome = await result;
  } catch (thrown) {
    const error = toChairError(thrown);
    return { file, code: error.code, message: error.message };
  }
  const { latencyMs, attempts, outputs } = outcome;
  return { file, latencyMs, attempts, outputs: await kept(outputs) };
}

/** Before the first frame is sent. Throws USAGE when it cannot be made. */
async function makeFolder(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true });
  } catch (cause) {
    const came = cause instanceof Error ? cause.message : String(cause);
    throw new ChairError('USAGE', '--out is not a folder that can be written', { expected: 'a folder', came, cause });
  }
}

async function keep(
  outputs: Readonly<Record<string, Tensor>>,
  file: string,
  index: number,
  numbered: boolean,
  directory: string,
): Promise<Row['outputs']> {
  const kept: Record<string, Row['outputs'][string]> = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    const range = rangeOf(tensor);
    const entry = { dtype: tensor.dtype, dims: tensor.dims, ...(range === undefined ? {} : { range }) };
    if (directory === '') {
      kept[name] = entry;
      continue;
    }
    const { writeNpy } = await import('../npy.js');
    const base = path.basename(file.split('=').at(-1) ?? file).replace(/\.[^.]*$/, '');
    const target = path.join(directory, `${base}${numbered ? `.${index}` : ''}.${name.replaceAll(/[^A-Za-z0-9._-]/g, '_')}.npy`);
    await writeFile(target, writeNpy(tensor));
    kept[name] = { ...entry, file: target };
  }
  return kept;
}
