/** Every benchmark in a process of its own: one that fails or hangs costs no other one its result. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeFlags } from '../children.js';
import { BENCHES } from './index.js';
import { markdown, type Report } from './report.js';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
/** No case begins after this many times the time that is usual; the last one may take this much longer. */
const PATIENCE = 1.2;
const LAST_CASE_SECONDS = 120;
/** From asking it to stop to killing it. */
const GRACE_MS = 5000;

export interface AllOptions {
  readonly quick: boolean;
  readonly profile: boolean;
  /** Where results are kept; undefined = in a fresh folder, named at the end. */
  readonly out: string | undefined;
  readonly cli: string;
  readonly models: string;
  readonly load: number;
  /** For everything together; infinite = as long as it takes. */
  readonly withinSeconds: number;
  /** Names of benchmarks that are left out. */
  readonly except: readonly string[];
}

/** Seconds for the next benchmark, when so many are left for it and those after it. Pure. */
export function shareOf(seconds: number, after: number, left: number): number {
  return Math.max(1, Math.ceil(seconds * Math.min(PATIENCE, left / (seconds + after))));
}

/** Resolves with the exit status; 0 when every benchmark ended by itself and said what it measured. */
export async function runAll(options: AllOptions): Promise<number> {
  const out = path.resolve(options.out ?? mkdtempSync(path.join(tmpdir(), 'musical-chair-bench-')));
  const benches = BENCHES.filter(({ name }) => !options.except.includes(name));
  const minutes = benches.reduce((sum, b) => sum + b.seconds, 0) / 60;
  console.error(
    `${benches.length} benchmarks, about ${Math.ceil(minutes)} minutes${options.quick ? ' (less with --quick)' : ''}; results in ${out}`,
  );
  const missed: string[] = [];
  const failed: string[] = [];
  const startedAt = performance.now();
  for (const [i, { name, seconds }] of benches.entries()) {
    const after = benches.slice(i + 1).reduce((sum, b) => sum + b.seconds, 0);
    const withinSeconds = shareOf(seconds, after, options.withinSeconds - (performance.now() - startedAt) / 1000);
    console.error(`\n=== ${name}: about ${seconds} s ===`);
    const own = [
      name,
      '--json',
      '--out',
      out,
      '--within',
      String(withinSeconds),
      ...(options.quick ? ['--quick'] : []),
      ...(options.profile ? ['--profile'] : []),
    ];
    const among = ['--cli', options.cli, '--models', options.models, '--load', String(options.load)];
    const status = await child([...own, ...among], (withinSeconds + LAST_CASE_SECONDS) * 1000);
    const report = status === 0 || status === 143 ? reportOf(out, name) : undefined;
    if (status !== 0) failed.push(status === 143 ? `${name} (stopped: it took too long)` : name);
    if (report === undefined) continue;
    console.log(`${markdown(report)}\n`);
    for (const f of report.figures)
      if (f.met === false) missed.push(`${name}: ${f.figure} (${f.value.toPrecision(3)}, target ${f.target})`);
    for (const trouble of report.troubles ?? []) failed.push(`${name}, ${trouble}`);
  }
  console.error(`\nResults are in ${out}. To publish them: npm run bench -- docs ${out}`);
  if (missed.length > 0) console.error(`Targets missed:\n${missed.map((line) => `  ${line}`).join('\n')}`);
  if (failed.length > 0) console.error(`Not measured:\n${failed.map((line) => `  ${line}`).join('\n')}`);
  return failed.length === 0 ? 0 : 1;
}

function child(args: readonly string[], withinMs: number): Promise<number> {
  const process_ = spawn(process.execPath, [...nodeFlags(), MAIN, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  const timers = [setTimeout(() => process_.kill('SIGTERM'), withinMs), setTimeout(() => process_.kill('SIGKILL'), withinMs + GRACE_MS)];
  const end = (): void => void process_.kill('SIGTERM');
  process.once('exit', end);
  return new Promise((resolve) => {
    process_.once('error', () => resolve(1));
    process_.once('close', (code) => {
      for (const timer of timers) clearTimeout(timer);
      process.off('exit', end);
      resolve(code ?? 1);
    });
  });
}

function reportOf(out: string, name: string): Report | undefined {
  try {
    return JSON.parse(readFileSync(path.join(out, `${name}.json`), 'utf8')) as Report;
  } catch {
    return undefined;
  }
}
