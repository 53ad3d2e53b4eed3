/** `models build` and `models list`: the zoo of networks that are built in code. */
import { ChairError } from '../../broker/errors.js';
import type { CommandDefinition } from '../command.js';
import { optionText } from '../deploy-options.js';
import { wholeNumber } from '../output.js';
import { nearest } from '../settings.js';
import { bytesText, countText, formatTable } from '../table.js';

export const modelsList: CommandDefinition = {
  name: 'models list',
  summary: 'List the networks that can be built here',
  json: true,
  examples: [{ line: 'models list', text: 'names, parameters and work of each' }],
  run: async ({ output }) => {
    const { ZOO, drawZoo } = await import('../../models/zoo/index.js');
    const rows = ZOO.map((name) => {
      const sketch = drawZoo(name);
      return { name, parameters: sketch.params, macs: sketch.macs };
    });
    output.report(rows, () =>
      formatTable(
        [{ title: 'name' }, { title: 'parameters', align: 'right' }, { title: 'MACs', align: 'right' }],
        rows.map((r) => [r.name, countText(r.parameters), countText(r.macs)]),
      ),
    );
  },
};

export const modelsBuild: CommandDefinition = {
  name: 'models build',
  summary: 'Write a network of the zoo as an ONNX file with seeded random weights',
  arguments: [{ syntax: '<name>', description: 'a name from `models list`' }],
  options: [
    { flags: '--out <file>', description: 'file to write; default: NAME.onnx here' },
    { flags: '--scale <factor>', description: 'multiply the width of every layer, above 0 to 8', default: '1' },
    { flags: '--size <pixels>', description: 'height and width of the input; default: as published' },
    { flags: '--classes <count>', description: 'neurons of the last layer', default: '1000' },
    { flags: '--seed <number>', description: 'seed of the weights', default: '1' },
  ],
  json: true,
  examples: [{ line: 'models build alexnet --scale 0.25 --out small.onnx', text: 'a quarter as wide, about 18 MB' }],
  run: async ({ arguments: [name = ''], options, output }) => {
    const { buildZoo, ZOO } = await import('../../models/zoo/index.js');
    if (!ZOO.some((known) => known === name))
      throw new ChairError('MODEL_NOT_FOUND', 'the zoo has no such network', {
        expected: `one of ${ZOO.join(', ')}`,
        came: `"${name}"`,
        todo: `Did you mean ${nearest(name, ZOO)}?`,
      });
    const { stat } = await import('node:fs/promises');
    const path = await import('node:path');
    const file = path.resolve(optionText(options, 'out', `${name}.onnx`));
    const scale = Number(optionText(options, 'scale', '1'));
    if (!Number.isFinite(scale))
      throw new ChairError('USAGE', '--scale is wrong', { expected: 'a number', came: `"${optionText(options, 'scale')}"` });
    const size = optionText(options, 'size');
    await buildZoo(name, file, {
      scale,
      classes: wholeNumber(optionText(options, 'classes', '1000'), '--classes', 1, 1_000_000),
      seed: wholeNumber(optionText(options, 'seed', '1'), '--seed', 0, 2 ** 31),
      ...(size === '' ? {} : { size: wholeNumber(size, '--size', 1, 4_096) }),
    });
    const { size: sizeBytes } = await stat(file);
    output.report({ name, file, sizeBytes }, () => `${file} (${bytesText(sizeBytes)})`);
  },
};
