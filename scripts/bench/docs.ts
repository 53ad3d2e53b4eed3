/** Results that were kept (`--out`) as a page for people: docs/benchmarks.md between its marks, plots and raw samples beside it. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { BENCHES } from './index.js';
import { plotOf } from './plots.js';
import { markdown, type Report } from './report.js';

const BEGIN = '<!-- results: written by npm run bench -- docs DIRECTORY -->';
const END = '<!-- end of results -->';

export interface Page {
  readonly reports: readonly Report[];
  /** Names of benchmarks that have a plot. */
  readonly plots: ReadonlySet<string>;
}

/** `page` with what stands between its marks exchanged. Pure. Throws CONFIG_INVALID when it has no marks. */
export function withResults(page: string, { reports, plots }: Page): string {
  const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (from < 0 || to < from) {
    throw new ChairError('CONFIG_INVALID', 'docs/benchmarks.md has no marks for its results', { expected: `"${BEGIN}" ... "${END}"` });
  }
  return `${page.slice(0, from)}${BEGIN}\n\n${resultsText({ reports, plots })}\n\n${page.slice(to)}`;
}

function resultsText({ reports, plots }: Page): string {
  if (reports.length === 0) return 'None yet.';
  const targets = reports.flatMap(({ name, figures }) => figures.filter((f) => f.met !== null).map((f) => ({ name, met: f.met })));
  const met = targets.filter((t) => t.met === true).length;
  const overview = reports.map(({ name, figures }) => {
    const own = figures.filter((f) => f.met !== null);
    const missed = own.filter((f) => f.met === false).length;
    return `| [${name}](#${name}) | ${own.length - missed} of ${own.length} |`;
  });
  const sections = reports.map((report) => {
    const plot = plots.has(report.name) ? `\n\n![${report.name}](plots/bench-${report.name}.svg)` : '';
    return `${markdown(report, 3)}\n\nRaw samples: [${report.name}.json](benchmarks/${report.name}.json).${plot}`;
  });
  const head = [`Of ${targets.length} targets ${met} are met.`, '', '| benchmark | targets met |', '| --- | --- |', ...overview];
  return [head.join('\n'), ...sections].join('\n\n');
}

async function kept(directory: string): Promise<Report[]> {
  const reports: Report[] = [];
  for (const { name } of BENCHES) {
    try {
      reports.push(JSON.parse(await readFile(path.join(directory, `${name}.json`), 'utf8')) as Report);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
    }
  }
  if (reports.length === 0) {
    throw new ChairError('USAGE', `${directory} holds no results`, { todo: 'Make them: npm run bench -- all --out DIRECTORY' });
  }
  return reports;
}

/** Writes the page, plots and samples; returns the files. Throws USAGE when there are no results. */
export async function publish(directory: string, docs = path.join(PACKAGE_ROOT, 'docs')): Promise<string[]> {
  const reports = await kept(directory);
  const [plots, samples] = [path.join(docs, 'plots'), path.join(docs, 'benchmarks')];
  for (const folder of [plots, samples]) await mkdir(folder, { recursive: true });
  const written: string[] = [];
  const write = async (file: string, text: string): Promise<void> => {
    await writeFile(file, text);
    written.push(file);
  };
  const drawn = new Set<string>();
  for (const report of reports) {
    await write(path.join(samples, `${report.name}.json`), `${JSON.stringify(report, undefined, 1)}\n`);
    const svg = await plotOf(report);
    if (svg === undefined) continue;
    await write(path.join(plots, `bench-${report.name}.svg`), svg);
    drawn.add(report.name);
  }
  const page = path.join(docs, 'benchmarks.md');
  await write(page, withResults(await readFile(page, 'utf8'), { reports, plots: drawn }));
  return written;
}
