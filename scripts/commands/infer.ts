/** `infer`: frames from files through a deployment. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { DeploymentStatus, ImageInput } from '../../broker/messages.js';
import type { Tensor } from '../../broker/tensor.js';
import type { CommandDefinition } from '../command.js';
import { withClient } from '../connection.js';
import { checkName, optionText } from '../deploy-options.js';
import { wholeNumber } from '../output.js';
import { dimsText, formatTable, msText } from '../table.js';

interface Row {
  readonly file: string;
  readonly latencyMs: number;
  readonly attempts: number;
  readonly outputs: Readonly<
    Record<string, { readonly dtype: string; readonly dims: readonly number[]; readonly file?: string; readonly summary: string }>
  >;
}

/** One frame: an image, a tensor, or `input=file` pairs joined with commas for models of several inputs. */
async function readFrame(argument: string, deployment: DeploymentStatus): Promise<Record<string, Tensor>> {
  const parts = argument.split(',').map((part) => /^([^=/\\]+)=(.+)$/.exec(part));
  const named = parts.every((p) => p !== null);
  const [first] = deployment.inputs;
  if (!named && deployment.inputs.length > 1) {
    const names = deployment.inputs.map((i) => `${i.name}=FILE`).join(',');
    throw new ChairError('USAGE', `${deployment.name} has ${deployment.inputs.length} inputs`, { expected: names, came: `"${argument}"` });
  }
  const pairs = named ? parts.map((p) => [p?.[1] ?? '', p?.[2] ?? ''] as const) : [[first?.name ?? '', argument] as const];
  const inputs: Record<string, Tensor> = {};
  for (const [input, file] of pairs)
    inputs[input] = await readInput(
      file,
      deployment.images.find((i) => i.input === input),
    );
  return inputs;
}

async function readInput(file: string, image: ImageInput | undefined): Promise<Tensor> {
  if (file.toLowerCase().endsWith('.npy')) {
    const [{ readNpy }, { readNamedFile }] = [await import('../npy.js'), await import('../image.js')];
    return readNpy(await readNamedFile(file), file);
  }
  const { frameOf, readPicture } = await import('../image.js');
  const picture = await readPicture(file);
  if (image === undefined) {
    throw new ChairError('FRAME_INVALID', `${file} is an image, but the deployment takes tensors`, {
      expected: 'a .npy file',
      todo: 'Or deploy the model with --image.',
    });
  }
  return frameOf(picture, image.height, image.width);
}

/** The largest values of a small float output: enough to see that something was computed. */
function summary(tensor: Tensor): string {
  if (tensor.dtype !== 'float32') return '';
  const values = new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.length / 4);
  let [low, high, at] = [Infinity, -Infinity, 0];
  values.forEach((v, i) => {
    low = Math.min(low, v);
    if (v > high) [high, at] = [v, i];
  });
  return `${low.toPrecision(4)} to ${high.toPrecision(4)}, largest at ${at}`;
}

export const infer: CommandDefinition = {
  name: 'infer',
  summary: 'Run files through a deployment: images, or tensors as .npy',
  arguments: [
    { syntax: '<deployment>', description: 'name of the deployment' },
    { syntax: '<files...>', description: 'one frame each; input=FILE,input=FILE for models of several inputs' },
  ],
  options: [
    { flags: '--out <directory>', description: 'write each output as .npy here' },
    { flags: '--repeat <count>', description: 'send all files so many times', default: '1' },
    { flags: '--deadline <ms>', description: 'longest wait for a frame, milliseconds', default: '30000' },
  ],
  settings: ['broker', 'cluster'],
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
    const rows = await withClient(settings, async (client) => {
      const { deployments } = await client.status(name);
      const deployment = deployments.find((d) => d.name === name);
      if (deployment === undefined) {
        throw new ChairError('DEPLOYMENT_UNKNOWN', `no deployment is called ${name}`, {
          todo: 'See `musical-chair status` for the names, or deploy it.',
        });
      }
      // Every file is read before the first is sent: a bad one is found at once.
      const frames = new Map<string, Record<string, Tensor>>();
      for (const file of files) frames.set(file, await readFrame(file, deployment));
      const order = Array.from({ length: repeat }, () => files).flat();
      const results: Row[] = [];
      let next = 0;
      for await (const result of client.inferStream(
        name,
        order.map((f) => frames.get(f) ?? {}),
        { deadlineMs },
      )) {
        const file = order[next] ?? '';
        results.push({
          file,
          latencyMs: result.latencyMs,
          attempts: result.attempts,
          outputs: await keep(result.outputs, file, next++, repeat > 1, directory),
        });
        output.progress(`${results.length} of ${order.length} frames`);
      }
      return results;
    });
    output.report(rows, () =>
      formatTable(
        [{ title: 'file' }, { title: 'output' }, { title: 'shape' }, { title: 'values' }, { title: 'latency', align: 'right' }],
        rows.flatMap((r) =>
          Object.entries(r.outputs).map(([o, t]) => [r.file, t.file ?? o, `${t.dtype}${dimsText(t.dims)}`, t.summary, msText(r.latencyMs)]),
        ),
        output.columns,
      ),
    );
  },
};

async function keep(
  outputs: Readonly<Record<string, Tensor>>,
  file: string,
  index: number,
  numbered: boolean,
  directory: string,
): Promise<Row['outputs']> {
  const kept: Record<string, Row['outputs'][string]> = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    const entry = { dtype: tensor.dtype, dims: tensor.dims, summary: summary(tensor) };
    if (directory === '') {
      kept[name] = entry;
      continue;
    }
    const { writeNpy } = await import('../npy.js');
    const base = path.basename(file.split('=').at(-1) ?? file).replace(/\.[^.]*$/, '');
    const target = path.join(directory, `${base}${numbered ? `.${index}` : ''}.${name.replaceAll(/[^A-Za-z0-9._-]/g, '_')}.npy`);
    await mkdir(directory, { recursive: true });
    await writeFile(target, writeNpy(tensor));
    kept[name] = { ...entry, file: target };
  }
  return kept;
}
