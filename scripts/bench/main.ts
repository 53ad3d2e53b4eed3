/**
 * `npm run bench -- NAME`: measures, and prints a Markdown table or one JSON object with the raw samples. `all` runs every benchmark in a process of
 * its own; `docs DIRECTORY` writes docs/benchmarks.md from kept results.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { constants, loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ChairError } from '../../broker/errors.js';
import { onAskedToEnd } from '../lifetime.js';
import { errorLine, exitStatus } from '../output.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { runAll } from './all.js';
import type { Bench } from './bench.js';
import { type Collected, collect } from './context.js';
import { publish } from './docs.js';
import { BENCHES } from './index.js';
import { ownFolder, sweep } from './leftovers.js';
import { commit, machine, QUIET_LOAD } from './machine.js';
import { markdown, type Report } from './report.js';

const HELP = `npm run bench -- NAME [options]
npm run bench -- all [--out DIRECTORY] [--quick] [--profile]     every benchmark in turn, about ${Math.round(BENCHES.reduce((sum, b) => sum + b.seconds, 0) / 60)} minutes
npm run bench -- docs DIRECTORY     writes docs/benchmarks.md and its plots from the results kept there

${BENCHES.map((b) => `  ${b.name.padEnd(10)} ${b.summary} (${b.seconds} s)`).join('\n')}

  --only WORDS      only the cases whose names hold all of these words, as in --only "vgg16 4"; may be given several times
  --except NAME     of all: not this benchmark; may be given several times
  --json            one JSON object with the raw samples instead of a table
  --out DIRECTORY   also keep NAME.json and NAME.md there
  --within SECONDS  begin no case after that long; of all: each benchmark gets its part
  --profile         profile networks on the agents before they are planned; takes minutes more
  --quick           fewer agents and samples: to see that it works
`;

const OPTIONS = {
  json: { type: 'boolean', default: false },
  quick: { type: 'boolean', default: false },
  profile: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
  only: { type: 'string', multiple: true },
  except: { type: 'string', multiple: true },
  out: { type: 'string' },
  within: { type: 'string' },
  // Of one benchmark among several: what they have in common.
  cli: { type: 'string' },
  models: { type: 'string' },
  load: { type: 'string' },
} as const;

function read(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS, strict: true, allowPositionals: true });
  } catch (error) {
    const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new ChairError('USAGE', message, { todo: 'See npm run bench -- --help', cause: error });
  }
}

type Values = ReturnType<typeof read>['values'];

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0) return value;
  throw new ChairError('USAGE', '--within is wrong', { expected: 'seconds above 0', came: `"${text}"` });
}

/** Compiles the checkout to a folder of this process; once. */
function compiler(given: string | undefined): { readonly cli: () => Promise<string>; readonly clean: () => void } {
  if (given !== undefined) return { cli: async () => given, clean: () => undefined };
  const directory = path.join(PACKAGE_ROOT, '.cache', `bench-${process.pid}`);
  let done = false;
  return {
    cli: async () => {
      const cli = path.join(directory, 'scripts', 'cli.js');
      if (done) return cli;
      sweep(path.dirname(directory), 'bench-');
      const build = path.join(PACKAGE_ROOT, 'scripts', 'build.ts');
      const { status, stdout } = spawnSync(process.execPath, [...process.execArgv, build, '--out', directory], { encoding: 'utf8' });
      if (status !== 0) throw new ChairError('INTERNAL', `the checkout does not compile: ${stdout.slice(0, 500)}`);
      done = true;
      return cli;
    },
    clean: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** Each file appears whole or not at all: the process may be killed meanwhile. */
function keep(directory: string | undefined, report: Report): void {
  if (directory === undefined) return;
  mkdirSync(directory, { recursive: true });
  const write = (file: string, text: string): void => {
    const whole = path.join(directory, file);
    writeFileSync(`${whole}.part`, text);
    renameSync(`${whole}.part`, whole);
  };
  write(`${report.name}.json`, `${JSON.stringify(report)}\n`);
  write(`${report.name}.md`, `${markdown(report)}\n`);
}

/** Throws USAGE when `--only` found nothing: a typing mistake must not look like a result. */
function checkFound({ figures, troubles, names }: Collected, only: readonly string[]): void {
  if (only.length === 0 || figures.length > 0 || troubles.length > 0) return;
  throw new ChairError('USAGE', `no case has the words ${only.map((o) => `"${o}"`).join(' or ')}`, {
    expected: `words of: ${[...new Set(names)].join('; ') || 'nothing, this benchmark has no cases'}`,
  });
}

async function measure(bench: Bench, v: Values): Promise<number> {
  const before = { commit: commit(), date: new Date().toISOString().slice(0, 10), machine: await machine(loadBefore(v)) };
  const { loadBefore: load, busyBefore, quiet } = before.machine;
  if (!quiet) {
    console.error(
      `The load is ${load.toFixed(2)} (quiet: below ${QUIET_LOAD}), ${busyBefore.toFixed(2)} cores are busy: these figures will not count.`,
    );
  }
  const { cli, clean } = compiler(v.cli);
  const models = v.models ?? ownFolder(tmpdir(), 'musical-chair-bench-models-');
  const withinMs = 1000 * (v.within === undefined ? Number.POSITIVE_INFINITY : seconds(v.within));
  const { only = [] } = v;
  const startedAt = performance.now();
  const collected = collect({
    quick: v.quick,
    profile: v.profile,
    note: (line) => console.error(`${((performance.now() - startedAt) / 1000).toFixed(0).padStart(5)} s  ${line}`),
    cli,
    models,
    only,
    withinMs,
  });
  const report = (conditions: object): Report => {
    const { figures, summary, troubles } = collected;
    const took = (performance.now() - startedAt) / 1000;
    return {
      name: bench.name,
      ...before,
      conditions: { ...conditions, ...(v.quick ? { quick: true } : {}), ...(v.profile ? { profiled: true } : {}) },
      figures: [...figures, ...summary()],
      troubles,
      seconds: took,
    };
  };
  // Asked to stop (its time is over): what was measured is kept. The watchdog of its testbed removes the rest.
  onAskedToEnd((signal) => {
    collected.troubles.push('the rest: it was stopped');
    keep(v.out, report(collected.conditions));
    clean();
    if (v.models === undefined) rmSync(models, { recursive: true, force: true });
    process.exit(128 + constants.signals[signal]);
  });
  try {
    const conditions = await bench.run(collected.context);
    checkFound(collected, only);
    const whole = report(conditions);
    keep(v.out, whole);
    console.log(v.json ? JSON.stringify(whole) : markdown(whole));
    return 0;
  } finally {
    clean();
    if (v.models === undefined) rmSync(models, { recursive: true, force: true });
  }
}

const loadBefore = (v: Values): number => (v.load === undefined ? (loadavg()[0] ?? 0) : loadGiven(v.load));

function loadGiven(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && Number.isFinite(value)) return value;
  throw new ChairError('USAGE', '--load is wrong', { expected: 'a load average of at least 0', came: `"${text}"` });
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = read(argv);
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [name = '', ...more] = positionals;
  if (name === 'docs' && more.length === 1) {
    for (const file of await publish(more[0] ?? '')) console.log(path.relative(process.cwd(), file));
    return 0;
  }
  if (name === 'all' && more.length === 0) {
    const { cli, clean } = compiler(undefined);
    const models = ownFolder(tmpdir(), 'musical-chair-bench-models-');
    try {
      const load = loadBefore(values);
      const withinSeconds = values.within === undefined ? Number.POSITIVE_INFINITY : seconds(values.within);
      return await runAll({
        quick: values.quick,
        profile: values.profile,
        withinSeconds,
        except: values.except ?? [],
        out: values.out,
        cli: await cli(),
        models,
        load,
      });
    } finally {
      clean();
      rmSync(models, { recursive: true, force: true });
    }
  }
  const bench = BENCHES.find((b) => b.name === name);
  if (bench === undefined || more.length > 0) {
    const expected = `one of ${BENCHES.map((b) => b.name).join(', ')}, all, or docs DIRECTORY`;
    throw new ChairError('USAGE', 'no such benchmark', { expected, came: `"${positionals.join(' ')}"` });
  }
  return measure(bench, values);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(errorLine(error));
  process.exitCode = exitStatus(error);
}
