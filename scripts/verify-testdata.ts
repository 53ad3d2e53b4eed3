/**
 * `npm run verify:testdata -- [--list FILE] [--only TEXT]`: all models that ONNX ships (Debian: libonnx-testdata) through our import and every cut
 * that applies, with the shipped inputs; the bare engine's output, itself held against the shipped one, is the oracle. Exit status 1 when one fails.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { toChairError } from '../broker/errors.js';
import { createOnnxRuntimeEngine } from '../models/engine/onnxruntime.js';
import { hasTestdata, TESTDATA, type TestdataResult, testdataModels, verifyTestModel } from './testdata.js';

function line(r: TestdataResult): string {
  const notes = [r.engineDiffers ? 'engine differs from the shipped output' : '', r.cuts.join(' '), r.reason ?? ''].filter((n) => n !== '');
  return `${r.outcome}\t${r.model}\t${notes.join('; ')}`;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { list: { type: 'string' }, only: { type: 'string' }, verbose: { type: 'boolean', default: false } },
  });
  if (!hasTestdata()) {
    console.error(`FILE_NOT_FOUND: no test data in ${TESTDATA}. Install libonnx-testdata (Debian), or set MUSICAL_CHAIR_TESTDATA.`);
    return 1;
  }
  const models = (await testdataModels()).filter((m) => m.includes(values.only ?? ''));
  const results: TestdataResult[] = [];
  let engine = await createOnnxRuntimeEngine({ threads: 1 });
  for (const model of models) {
    if (values.verbose) console.error(model);
    let result: TestdataResult;
    try {
      result = await verifyTestModel(engine, model);
    } catch (error) {
      result = { model, ops: [], cuts: [], engineDiffers: false, outcome: 'failed', reason: toChairError(error).message };
    }
    if (result.reason?.includes('ENGINE_CLOSED') === true) {
      await engine.dispose();
      engine = await createOnnxRuntimeEngine({ threads: 1 });
    }
    results.push(result);
    if (result.outcome === 'failed') console.log(line(result));
  }
  await engine.dispose();
  if (values.list !== undefined) await writeFile(values.list, `${results.map(line).join('\n')}\n`);
  const count = (outcome: TestdataResult['outcome']) => results.filter((r) => r.outcome === outcome).length;
  const cuts = results.reduce((sum, r) => sum + r.cuts.length, 0);
  console.log(
    `${results.length} models: ${count('equal')} equal (${cuts} cuts), ${count('failed')} failed, ${count('random')} random, ${count('unsupported')} not run by the ` +
      `bare engine or without tensors at their ends; the bare engine differs from the shipped output in ${results.filter((r) => r.engineDiffers).length}`,
  );
  return count('failed') === 0 ? 0 : 1;
}

process.exitCode = await main();
