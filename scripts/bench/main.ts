/** `npm run bench -- NAME [--json] [--quick]`: measures, and prints a Markdown table or one JSON object with the raw samples. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ChairError } from '../../broker/errors.js';
import { errorLine, exitStatus } from '../output.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { BENCHES } from './index.js';
import { commit, machine, QUIET_LOAD } from './machine.js';
import { markdown, type Report } from './report.js';

const HELP = `npm run bench -- NAME [--json] [--quick]

${BENCHES.map((b) => `  ${b.name.padEnd(10)} ${b.summary}`).join('\n')}

  --json    one JSON object with the raw samples instead of a table
  --quick   fewer agents and samples: to see that it works
`;

function read(argv: readonly string[]) {
  try {
    const options = { json: { type: 'boolean' }, quick: { type: 'boolean' }, help: { type: 'boolean' } } as const;
    return parseArgs({ args: [...argv], options, strict: true, allowPositionals: true });
  } catch (error) {
    const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new ChairError('USAGE', message, { todo: 'See npm run bench -- --help', cause: error });
  }
}

/** Compiles the checkout to a folder of this process; once. */
function compiler(): { readonly cli: () => Promise<string>; readonly clean: () => void } {
  const directory = path.join(PACKAGE_ROOT, '.cache', `bench-${process.pid}`);
  let done = false;
  return {
    cli: async () => {
      const cli = path.join(directory, 'scripts', 'cli.js');
      if (done) return cli;
      const build = path.join(PACKAGE_ROOT, 'scripts', 'build.ts');
      const { status, stdout } = spawnSync(process.execPath, [...process.execArgv, build, '--out', directory], { encoding: 'utf8' });
      if (status !== 0) throw new ChairError('INTERNAL', `the checkout does not compile: ${stdout.slice(0, 500)}`);
      done = true;
      return cli;
    },
    clean: () => rmSync(directory, { recursive: true, force: true }),
  };
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = read(argv);
  if (values.help === true) {
    console.log(HELP);
    return 0;
  }
  const [name = '', ...more] = positionals;
  const bench = BENCHES.find((b) => b.name === name);
  if (bench === undefined || more.length > 0) {
    const expected = `one of ${BENCHES.map((b) => b.name).join(', ')}`;
    throw new ChairError('USAGE', 'no such benchmark', { expected, came: `"${positionals.join(' ')}"` });
  }
  const before = { commit: commit(), date: new Date().toISOString().slice(0, 10), machine: machine() };
  if (!before.machine.quiet)
    console.error(`The load is ${before.machine.loadBefore.toFixed(2)}, above ${QUIET_LOAD}: these figures will not count.`);
  const { cli, clean } = compiler();
  try {
    const quick = values.quick === true;
    const { figures, conditions } = await bench.run({ quick, note: (line) => console.error(line), cli });
    const report: Report = { name, ...before, conditions: { ...conditions, quick }, figures };
    console.log(values.json === true ? JSON.stringify(report) : markdown(report));
    return 0;
  } finally {
    clean();
  }
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(errorLine(error));
  process.exitCode = exitStatus(error);
}
