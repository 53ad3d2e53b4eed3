// Last line of CI: `N passed, N failed` from vitest's JSON reports, added up. Arguments: number of failed parts of .ci/run, reports.
import { readFileSync } from 'node:fs';
import path from 'node:path';

const [failedParts, ...files] = process.argv.slice(2);
const report = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] };
let missing = 0;
for (const file of files) {
  try {
    const one = JSON.parse(readFileSync(file, 'utf8'));
    for (const key of Object.keys(report)) report[key] = Array.isArray(report[key]) ? report[key].concat(one[key]) : report[key] + one[key];
  } catch {
    console.log(`the test runner left no report (${path.basename(file)})`);
    missing++;
  }
}
// A file that fails to load has no tests to count: it is one failure.
const brokenFiles = report.testResults.filter((f) => f.status === 'failed' && f.assertionResults.length === 0).length;
let failed = report.numFailedTests + brokenFiles + missing;
if (failed === 0 && Number(failedParts) > 0) failed = Number(failedParts);
const skipped = report.numPendingTests + report.numTodoTests;
console.log(`${report.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 || report.numPassedTests === 0 ? 1 : 0;
