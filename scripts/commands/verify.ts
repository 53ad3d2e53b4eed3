/** `verify`: the proof of a cut on this machine, without a network. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { Engine } from '../../models/engine/engine.js';
import type { VerifyReport } from '../../models/slicing/verify.js';
import type { CommandDefinition } from '../command.js';
import { CUT_OPTIONS, optionList, optionText, parseShapes, parseShares, SHAPE_OPTION } from '../deploy-options.js';
import { wholeNumber } from '../output.js';
import { bytesText } from '../table.js';

/** An engine and a folder for the length of one command. */
export async function withWorkbench<T>(use: (engine: Engine, directory: string) => Promise<T>): Promise<T> {
  const { createOnnxRuntimeEngine } = await import('../../models/engine/onnxruntime.js');
  const engine = await createOnnxRuntimeEngine();
  const directory = await mkdtemp(path.join(tmpdir(), 'musical-chair-'));
  try {
    return await use(engine, directory);
  } finally {
    await engine.dispose();
    await rm(directory, { recursive: true, force: true });
  }
}

const percent = (ratio: number): string => `${(ratio * 100).toFixed(1)} %`;

function withoutText(rows: NonNullable<VerifyReport['withoutPart']>): string {
  const worst = rows.reduce((a, b) => (b.maxRelDiff > a.maxRelDiff ? b : a));
  const which = worst.part === rows.length - 1 ? 'the parity' : `part ${worst.part}`;
  return `  any part missing    each of ${rows.length} left out in turn; largest difference ${worst.maxRelDiff.toExponential(2)} (without ${which})`;
}

function reportText(r: VerifyReport): string {
  const cuts = r.stages.filter((s) => s.cut !== 'whole').length;
  const drop =
    r.dropped === undefined
      ? []
      : [
          `  messages zeroed     ${r.dropped.wires}, one by one; smallest change ${r.dropped.smallestChange.toExponential(2)}, ${r.dropped.unnoticed.length} unnoticed, ${r.dropped.masked.length} masked`,
        ];
  return [
    `${r.model}, ${r.cut}: ${r.ok ? 'ok' : 'NOT OK'}`,
    `  largest difference  ${r.maxRelDiff.toExponential(2)} of the largest output (${r.maxAbsDiff.toExponential(2)})${r.bitEqual ? ', bit for bit equal' : ''}`,
    `  covered             ${percent(r.coveredMacsRatio)} of the work, in ${cuts} cut stages of ${r.stages.length}`,
    `  total work          ${percent(r.totalMacsRatio)} of the whole model's`,
    `  busiest part        ${percent(r.maxPartMacsRatio)}`,
    `  slices, seats       ${r.slices}, ${r.seats}`,
    `  bytes moved         ${bytesText(r.bytesMoved)} per frame`,
    ...(r.withoutPart === undefined ? [] : [withoutText(r.withoutPart)]),
    ...(r.inputsVary ? [] : ['  the output does not depend on the inputs: equality shows little here']),
    ...drop,
    ...(r.refusals.length === 0
      ? []
      : ['  left whole:', ...r.refusals.slice(0, 12).map((f) => `    nodes ${f.nodes[0]} to ${f.nodes[1] - 1}: ${f.reason}`)]),
    ...(r.refusals.length > 12 ? [`    ... and ${r.refusals.length - 12} more (see --json)`] : []),
  ].join('\n');
}

export const verify: CommandDefinition = {
  name: 'verify',
  summary: 'Cut a model, run the slices one after another here, and compare with the whole model',
  description: 'Needs no network and no cluster. The exit status is 1 when the difference exceeds 1e-4 of the largest output.',
  arguments: [{ syntax: '<model>', description: 'ONNX file' }],
  options: [
    ...CUT_OPTIONS,
    SHAPE_OPTION,
    { flags: '--seed <number>', description: 'seed of the random inputs', default: '1' },
    { flags: '--samples <count>', description: 'how many random inputs', default: '1' },
    {
      flags: '--redundancy <count>',
      description:
        '1: with a parity beside every stage that can be coded, as deploy does; then each one part is left out in turn, too; needs --cut channels:N',
      default: '0',
    },
    { flags: '--drop-one', description: 'zero each message in turn: the output must change, or the check could not fail' },
  ],
  json: true,
  examples: [
    { line: 'verify det.onnx --cut rows:4 --shape x=1,3,640,640', text: 'four bands with their halos' },
    { line: 'verify alexnet.onnx --cut channels:3 --shares 3,2,1', text: 'uneven parts' },
    { line: 'verify alexnet.onnx --cut channels:3 --redundancy 1', text: 'any one of four parts may be missing' },
  ],
  run: async ({ arguments: [model = ''], options, output }) => {
    const cut = optionText(options, 'cut');
    if (cut === '')
      throw new ChairError('USAGE', 'verify needs a cut', {
        expected: '--cut rows:4, channels:3, inputs:2, pair:2, columns:2, stages:5 or auto:7',
      });
    const shares = parseShares(optionText(options, 'shares'));
    const { verifyCut } = await import('../../models/slicing/verify.js');
    const report = await withWorkbench((engine, directory) =>
      verifyCut(path.resolve(model), cut, {
        engine,
        directory,
        shapes: parseShapes(optionList(options, 'shape')),
        seed: wholeNumber(optionText(options, 'seed', '1'), '--seed', 0, 2 ** 31),
        samples: wholeNumber(optionText(options, 'samples', '1'), '--samples', 1, 1_000),
        ...(shares.length === 0 ? {} : { shares }),
        dropOne: options.dropOne === true,
        redundancy: wholeNumber(optionText(options, 'redundancy', '0'), '--redundancy', 0, 1),
      }),
    );
    // The figures first, in their documented order; then the details.
    const {
      model: file,
      slices,
      seats,
      coveredMacsRatio,
      totalMacsRatio,
      maxPartMacsRatio,
      bytesMoved,
      maxAbsDiff,
      maxRelDiff,
      ok,
      ...details
    } = report;
    const { cut: asked, ...rest } = details;
    const figures = {
      model: file,
      cut: asked,
      slices,
      seats,
      coveredMacsRatio,
      totalMacsRatio,
      maxPartMacsRatio,
      bytesMoved,
      maxAbsDiff,
      maxRelDiff,
      ok,
    };
    output.report({ ...figures, ...rest }, () => reportText(report));
    if (!ok) {
      throw new ChairError('VERIFY_FAILED', 'the cut model does not compute what the whole model computes', {
        expected: 'a difference of at most 1e-4 of the largest output',
        came: report.problem ?? maxRelDiff.toExponential(2),
      });
    }
  },
};
