/**
 * `npm run test:brokers -- [mosquitto] [bridged] [rabbitmq] [-- vitest arguments]`: every test that talks to a broker, with the embedded one exchanged for another.
 * Without a word all of them, one after another. Exit status 1 when a test failed or a broker is not installed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { installed } from '../../../broker/test-brokers.js';
import { readSources } from '../../check-arrows.js';
import { PACKAGE_ROOT } from '../../package-root.js';
import { testsReaching } from './files.js';
import { rabbitMqInstalled, startRabbitMq } from './rabbitmq.js';

const KINDS = ['mosquitto', 'bridged', 'rabbitmq'] as const;
type Kind = (typeof KINDS)[number];

const DEBIAN_PACKAGE: Readonly<Record<Kind, string>> = { mosquitto: 'mosquitto', bridged: 'mosquitto', rabbitmq: 'rabbitmq-server' };
/** Where a broker or a process that has one is started. */
const STARTS = ['broker/server.ts', 'scripts/children.ts', 'scripts/e2e/run-cli.ts'];
/** About the embedded broker itself: its limits, rules, counts and clock, what it answers to the letter, and whom it lets in. */
const EMBEDDED_ONLY = [
  ...[
    'broker/server.test.ts',
    'broker/clock.test.ts',
    'broker/paho.test.ts',
    'broker/server-trust.test.ts',
    'broker/expiry.test.ts',
    'broker/discovery/gateway-proof.test.ts',
    'scripts/doctor/broker.test.ts',
    'broker/lanes/lanes-trust.test.ts',
  ],
  ...['scheduler/gatehouse.test.ts', 'scripts/flash/tokens.test.ts', 'scripts/e2e/join.test.ts', 'scripts/e2e/trust.test.ts'],
];
/** In network namespaces, from where the one node on this machine's loopback cannot be reached. */
const NAMESPACES = 'scripts/testbed/testbed.ts';
/** More than any test file holds at once, for each of two workers. */
const VIRTUAL_HOSTS = 24;

interface Outcome {
  readonly kind: Kind;
  readonly version: string;
  readonly files: number;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

function isKind(word: string): word is Kind {
  return KINDS.some((kind) => kind === word);
}

async function runOn(kind: Kind, vitestArguments: readonly string[]): Promise<Outcome> {
  const sources = readSources(PACKAGE_ROOT);
  const left = kind === 'rabbitmq' ? testsReaching(sources, [NAMESPACES]) : [];
  const files = testsReaching(sources, STARTS).filter((file) => !EMBEDDED_ONLY.includes(file) && !left.includes(file));
  console.log(
    `\n== ${kind}: ${files.length} test files${left.length === 0 ? '' : `; not ${left.join(', ')}: a node on loopback is not reached from namespaces`}`,
  );
  const node = kind === 'rabbitmq' ? await startRabbitMq(VIRTUAL_HOSTS) : undefined;
  const folder = mkdtempSync(path.join(tmpdir(), 'mc-brokers-'));
  const report = path.join(folder, 'vitest.json');
  try {
    const swap = pathToFileURL(path.join(import.meta.dirname, 'swap.mjs')).href;
    const env = {
      ...process.env,
      MUSICAL_CHAIR_TEST_BROKER: kind,
      ...(node === undefined ? {} : { MUSICAL_CHAIR_TEST_RABBITMQ: JSON.stringify({ ports: node.ports, directory: node.directory }) }),
      NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import ${swap}`.trim(),
    };
    const vitest = path.join(PACKAGE_ROOT, 'node_modules/vitest/vitest.mjs');
    const config = path.join(import.meta.dirname, 'vitest.config.ts');
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
    const chosen = vitestArguments.some((word) => !word.startsWith('-')) ? [] : files;
    const child = spawn(process.execPath, [vitest, 'run', '--config', config, ...reporters, ...chosen, ...vitestArguments], {
      cwd: PACKAGE_ROOT,
      env,
      stdio: 'inherit',
    });
    await new Promise((resolve) => child.once('exit', resolve));
    return { kind, version: versionOf(kind), files: files.length, ...counts(report) };
  } finally {
    await node?.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly { readonly status: string; readonly assertionResults: readonly { readonly status: string }[] }[];
}

function counts(file: string): Pick<Outcome, 'passed' | 'failed' | 'skipped'> {
  try {
    const report: Report = JSON.parse(readFileSync(file, 'utf8'));
    // A file that does not load, or whose preparation fails, has no test that failed.
    const broken = report.testResults.filter(
      ({ status, assertionResults }) => status === 'failed' && assertionResults.every((one) => one.status !== 'failed'),
    );
    return { passed: report.numPassedTests, failed: report.numFailedTests + broken.length, skipped: report.numPendingTests };
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

function versionOf(kind: Kind): string {
  const { stdout } = spawnSync('dpkg-query', ['-W', DEBIAN_PACKAGE[kind]], { encoding: 'utf8' });
  return stdout?.split('\t')[1]?.trim() ?? 'unknown version';
}

const words = process.argv.slice(2);
const split = words.indexOf('--');
const asked = split < 0 ? words : words.slice(0, split);
const rest = split < 0 ? [] : words.slice(split + 1);
const wrong = asked.filter((word) => !isKind(word));
const kinds = asked.length === 0 ? KINDS : KINDS.filter((kind) => asked.includes(kind));
const missing = kinds.filter((kind) => (kind === 'rabbitmq' ? !rabbitMqInstalled() : !installed('mosquitto')));
if (wrong.length > 0) {
  console.error(`USAGE: expected ${KINDS.join(', ')}; got ${wrong.join(', ')}. Arguments for vitest stand behind --`);
  process.exitCode = 2;
} else if (missing.length > 0) {
  const packages = [...new Set(missing.map((kind) => DEBIAN_PACKAGE[kind]))].join(' ');
  console.error(
    `USAGE: ${missing.join(', ')} cannot be tested here: not installed. On Debian: apt-get install --no-install-recommends ${packages}`,
  );
  process.exitCode = 2;
} else {
  const outcomes: Outcome[] = [];
  for (const kind of kinds) outcomes.push(await runOn(kind, rest));
  console.log('');
  for (const { kind, version, files, passed, failed, skipped } of outcomes)
    console.log(`${kind} (${version}): ${files} files, ${passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = outcomes.every(({ passed, failed }) => failed === 0 && passed > 0) ? 0 : 1;
}
