// The test files that failed, a line each. Nothing when a report is missing, or when so many failed that chance is no explanation. Arguments: the most that may be, reports.
import { failedTests, readReports } from './report.mjs';

const [most, ...reports] = process.argv.slice(2);
const { files, missing } = readReports(reports);
const failed = [...files.values()].filter((one) => failedTests(one).length > 0);
if (missing.length === 0 && failed.length <= Number(most)) for (const { file } of failed) console.log(file);
