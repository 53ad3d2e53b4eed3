/**
 * `npm run verify:all`: every kind of cut of every model of the matrix, with 2 to 7 parts, even and uneven, against the original model.
 * Prints a Markdown table; exit status 1 when anything fails. Tens of minutes for all of it; see --help.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { Engine } from '../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../models/engine/onnxruntime.js';
import { type Oracle, openOracle, verifyOnOracle } from '../models/slicing/verify.js';
import { brokenBound, type MatrixCase, type MatrixModel, type MatrixResult, matrixCases, matrixModels } from './verify-matrix.js';

const HELP = `Usage: npm run verify:all -- [options]
  --only TEXT[,TEXT]  only models whose name contains a text, for example det,vgg16
  --cuts KIND[,KIND]  only these kinds of cut
  --parts N[,N]       numbers of parts; default 2,3,4,5,6,7
  --sample            narrow zoo networks and 2, 3 and 7 parts: about two minutes
  --drop-one          also zero each message in turn (slow)
  --threads N         engine threads; default: all cores
  --json FILE         write all results there
  --help`;

function list(text: string | undefined): string[] | undefined {
  return text?.split(',').map((t) => t.trim());
}

async function verifyCase(oracle: Oracle, model: string, one: MatrixCase, dropOne: boolean): Promise<MatrixResult> {
  const started = performance.now();
  const done = (result: Pick<MatrixResult, 'outcome' | 'reason' | 'report'>): MatrixResult => ({
    model,
    case: one,
    ms: performance.now() - started,
    ...result,
  });
  try {
    const report = await verifyOnOracle(oracle, one.cut, { dropOne, ...(one.shares === undefined ? {} : { shares: one.shares }) });
    const broken = report.ok ? brokenBound(model, one, report) : undefined;
    if (!report.ok || broken !== undefined)
      return done({ outcome: 'failed', report, reason: report.problem ?? broken ?? 'outputs differ' });
    if (!report.inputsVary) return done({ outcome: 'failed', report, reason: 'the model gives the same output for different inputs' });
    const cut = report.stages.length > 1 || report.stages.some((stage) => stage.cut !== 'whole');
    return cut
      ? done({ outcome: 'equal', report })
      : done({ outcome: 'refused', report, reason: report.refusals[0]?.reason ?? 'nothing to cut' });
  } catch (error) {
    return done({ outcome: 'failed', reason: error instanceof Error ? error.message : String(error) });
  }
}

const COLUMNS = [
  'model',
  'cut',
  'stages',
  'slices',
  'seats',
  'covered',
  'total',
  'largest part',
  'MB moved',
  'largest rel. difference',
  'outcome',
];

function row({ model, case: one, outcome, reason, report }: MatrixResult): string {
  const cut = one.shares === undefined ? one.cut : `${one.cut} (${one.shares.join(',')})`;
  const numbers =
    report === undefined
      ? ['', '', '', '', '', '', '', '']
      : [
          String(report.stages.length),
          String(report.slices),
          String(report.seats),
          report.coveredMacsRatio.toFixed(3),
          report.totalMacsRatio.toFixed(3),
          report.maxPartMacsRatio.toFixed(3),
          (report.bytesMoved / 1e6).toFixed(2),
          report.bitEqual ? '0 (bit-equal)' : report.maxRelDiff.toExponential(1),
        ];
  return `| ${[model, cut, ...numbers, reason === undefined ? outcome : `${outcome}: ${reason}`].join(' | ')} |`;
}

async function verifyModel(engine: Engine, model: MatrixModel, cases: readonly MatrixCase[], dropOne: boolean): Promise<MatrixResult[]> {
  const directory = await mkdtemp(path.join(tmpdir(), 'chair-verify-'));
  const results: MatrixResult[] = [];
  try {
    const file = await model.file(directory);
    const oracle = await openOracle(file, { engine, directory, ...(model.shapes === undefined ? {} : { shapes: model.shapes }) });
    for (const one of cases) {
      const result = await verifyCase(oracle, model.name, one, dropOne);
      results.push(result);
      console.log(row(result));
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  return results;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      cuts: { type: 'string' },
      parts: { type: 'string' },
      sample: { type: 'boolean', default: false },
      'drop-one': { type: 'boolean', default: false },
      threads: { type: 'string' },
      json: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const only = list(values.only);
  const parts = list(values.parts)?.map(Number) ?? (values.sample ? [2, 3, 7] : [2, 3, 4, 5, 6, 7]);
  const models = matrixModels(values.sample).filter((m) => only?.some((text) => m.name.includes(text)) ?? true);
  const cases = matrixCases(parts, list(values.cuts));
  const started = performance.now();
  console.log(`| ${COLUMNS.join(' | ')} |\n|${COLUMNS.map(() => '---').join('|')}|`);
  const engine = await createOnnxRuntimeEngine(values.threads === undefined ? {} : { threads: Number(values.threads) });
  const results: MatrixResult[] = [];
  try {
    for (const model of models) results.push(...(await verifyModel(engine, model, cases, values['drop-one'])));
  } finally {
    await engine.dispose();
  }
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(results, null, 1)}\n`);
  const count = (outcome: MatrixResult['outcome']) => results.filter((r) => r.outcome === outcome).length;
  const worst = Math.max(0, ...results.map((r) => r.report?.maxRelDiff ?? 0));
  console.log(
    `\n${results.length} cuts in ${Math.round((performance.now() - started) / 1000)} s: ${count('equal')} equal, ${count('refused')} do not apply, ` +
      `${count('failed')} failed; largest relative difference ${worst.toExponential(1)}`,
  );
  return count('failed') === 0 && results.length > 0 ? 0 : 1;
}

process.exitCode = await main();
