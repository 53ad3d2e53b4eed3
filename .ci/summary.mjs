// Last line of CI: `N passed, N failed` from vitest's JSON report. Arguments: report, number of failed parts of .ci/run.
import { readFileSync } from 'node:fs';

const [file, failedParts] = process.argv.slice(2);
let report = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] };
try {
  report = JSON.parse(readFileSync(file, 'utf8'));
} catch {
  console.log('the test runner left no report');
}
// A file that fails to load has no tests to count: it is one failure.
const brokenFiles = report.testResults.filter((f) => f.status === 'failed' && f.assertionResults.length === 0).length;
let failed = report.numFailedTests + brokenFiles;
if (failed === 0 && Number(failedParts) > 0) failed = Number(failedParts);
const skipped = report.numPendingTests + report.numTodoTests;
console.log(`${report.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 || report.numPassedTests === 0 ? 1 : 0;
