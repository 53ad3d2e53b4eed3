// What vitest's JSON reports say together. A later report of a file replaces an earlier one: files that failed are run once more, by themselves.
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** @typedef {{ file: string, tests: { name: string, status: string, message: string }[] }} FileResult */

/** @returns {{ files: Map<string, FileResult>, first: Map<string, FileResult>, missing: string[] }} `first`: as they were where a later report replaced them. */
export function readReports(reports) {
  const [files, first, missing] = [new Map(), new Map(), []];
  for (const report of reports) {
    let results;
    try {
      results = JSON.parse(readFileSync(report, 'utf8')).testResults;
    } catch {
      missing.push(path.basename(report));
      continue;
    }
    for (const result of results) {
      const before = files.get(result.name);
      if (before !== undefined && !first.has(result.name)) first.set(result.name, before);
      files.set(result.name, fileResult(result));
    }
  }
  return { files, first, missing };
}

function fileResult({ name, status, message, assertionResults }) {
  const tests = assertionResults.map((one) => ({ name: one.fullName, status: one.status, message: one.failureMessages.join('\n') }));
  // A file that fails to load, or in a hook, has no failed test to count: it is one failure.
  if (status === 'failed' && tests.every((one) => one.status !== 'failed')) tests.push({ name: '(the file itself)', status, message });
  return { file: path.relative(process.cwd(), name), tests };
}

export const failedTests = ({ file, tests }) =>
  tests.filter(({ status }) => status === 'failed').map(({ name, message }) => ({ name: `${file} > ${name}`, message }));
