// The end of CI: each test that failed, with what it said; tests that failed once and passed when they were run again; last `N passed, N failed`.
// Arguments: number of failed parts of .ci/run, vitest's JSON reports.
import { failedTests, readReports } from './report.mjs';

const [failedParts, ...reports] = process.argv.slice(2);
const { files, first, missing } = readReports(reports);
for (const name of missing) console.log(`the test runner left no report (${name})`);

const MOST_LINES = 12;
const say = (what, { name, message }) => {
  const lines = message.split('\n').filter((line) => !/^\s+at (?:.*node_modules|new Promise \(<anonymous>\))/.test(line));
  console.log([`${what}: ${name}`, ...lines.slice(0, MOST_LINES).map((line) => `    ${line}`)].join('\n'));
};
const failures = [...files.values()].flatMap(failedTests);
const names = new Set(failures.map(({ name }) => name));
for (const one of failures) say('failed', one);
for (const one of [...first.values()].flatMap(failedTests))
  if (!names.has(one.name)) say('UNSTEADY: failed beside the other tests, passed by itself', one);

const count = (...statuses) => [...files.values()].flatMap(({ tests }) => tests).filter(({ status }) => statuses.includes(status)).length;
const passed = count('passed');
let failed = failures.length + missing.length;
if (failed === 0 && Number(failedParts) > 0) failed = Number(failedParts);
const skipped = count('skipped', 'pending', 'todo');
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
