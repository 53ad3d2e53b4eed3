import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { ownFolder, sweep } from './leftovers.js';

it('what a benchmark left that was killed is removed by the next one, what belongs to one that runs or to nobody stays', () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'musical-chair-leftovers-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const gone = spawnSync(process.execPath, ['--version']).pid;
  for (const name of [`models-${gone}-abc`, `models-${process.ppid}-x`, 'models-1-init', 'models-later', `other-${gone}`, 'models-'])
    mkdirSync(path.join(directory, name));
  writeFileSync(path.join(directory, `models-${gone}-abc`, 'vgg16.onnx'), 'weights');
  const own = ownFolder(directory, 'models-');
  const left = readdirSync(directory).toSorted();
  expect(left).toEqual(
    [path.basename(own), `models-${process.ppid}-x`, 'models-1-init', 'models-later', `other-${gone}`, 'models-'].toSorted(),
  );
  expect(path.basename(own)).toContain(`models-${process.pid}-`);
  // There may be no such folder yet.
  sweep(path.join(directory, 'nothing'), 'models-');
});
