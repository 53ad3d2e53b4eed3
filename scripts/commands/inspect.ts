/** `inspect`: what a model consists of, and how it can be cut. */
import path from 'node:path';
import type { ModelReport } from '../../models/inspect.js';
import type { CommandDefinition } from '../command.js';
import { optionList, parseShapes, SHAPE_OPTION } from '../deploy-options.js';
import { bytesText, countText, dimsText, formatTable, wrapText } from '../table.js';
import { withWorkbench } from './verify.js';

const KINDS = ['rows', 'columns', 'channels', 'inputs', 'pair'] as const;
/** Short, so that a row fits 80 columns. */
/** Where there is no room for all: what fewer models can be cut by goes first. */
const DROP = { rows: 0, columns: 3, channels: 0, inputs: 4, pair: 5 } as const;
const TITLES = { rows: 'rows', columns: 'cols', channels: 'chan', inputs: 'inp', pair: 'pair' } as const;

function reportText(r: ModelReport, width: number): string {
  const port = (t: { readonly name: string; readonly dtype: string; readonly dims: readonly number[] }): string =>
    `${t.name} ${t.dtype}${dimsText(t.dims)}`;
  const blocks = formatTable(
    [
      { title: '#', align: 'right' },
      { title: 'operators', least: 12 },
      { title: 'out', least: 14 },
      { title: 'MACs', align: 'right' },
      { title: 'weights', align: 'right', drop: 1 },
      ...KINDS.map((kind) => ({ title: TITLES[kind], align: 'right' as const, ...(DROP[kind] > 0 ? { drop: DROP[kind] } : {}) })),
    ],
    r.blocks.map((b) => [
      String(b.index),
      b.ops,
      b.out.map((t) => dimsText(t.dims)).join(' '),
      countText(b.macs),
      bytesText(b.weightBytes),
      ...KINDS.map((k) => (b.cuts[k] === 0 ? '-' : String(Math.round(b.cuts[k] * 100)))),
    ]),
    width,
  );
  // One reason for several blocks is said once.
  const refusals = new Map<string, string[]>();
  for (const b of r.blocks) {
    for (const k of ['rows', 'channels'] as const) {
      const why = b.refusals[k];
      if (why !== undefined && b.macs > 0) refusals.set(why, [...(refusals.get(why) ?? []), `block ${b.index} by ${k}`]);
    }
  }
  return [
    `${r.path}`,
    `  sha256 ${r.sha256}`,
    ...wrapText(`${r.inputs.map(port).join(', ')} -> ${r.outputs.map(port).join(', ')}`, width, '  '),
    ...wrapText(
      `${r.nodes} nodes, ${r.blocks.length} blocks, ${countText(r.macs)} MACs, ${countText(r.params)} parameters, ${bytesText(r.weightBytes)} of weights`,
      width,
      '  ',
    ),
    '',
    ...wrapText(
      'Blocks between cut points, and how much of the work, in %, each cut divides (cols is columns, chan channels, inp inputs):',
      width,
      '',
    ),
    blocks,
    ...(refusals.size === 0
      ? []
      : ['', 'In the way:', ...[...refusals].slice(0, 10).flatMap(([why, where]) => wrapText(`${where.join(', ')}: ${why}`, width, '  '))]),
  ].join('\n');
}

export const inspect: CommandDefinition = {
  name: 'inspect',
  summary: 'Print the blocks of a model with shapes, MACs and weights, and which cuts each allows',
  arguments: [{ syntax: '<model>', description: 'ONNX file' }],
  options: [SHAPE_OPTION],
  json: true,
  examples: [{ line: 'inspect det.onnx --shape x=1,3,640,640', text: 'where the work is, and where it can be cut' }],
  run: async ({ arguments: [model = ''], options, output }) => {
    const { loadModel } = await import('../../models/onnx/load.js');
    const { inspectModel } = await import('../../models/inspect.js');
    const report = await withWorkbench(async (engine, workDirectory) =>
      inspectModel(await loadModel(path.resolve(model), { shapes: parseShapes(optionList(options, 'shape')), workDirectory, engine })),
    );
    output.report(report, () => reportText(report, output.columns));
  },
};
