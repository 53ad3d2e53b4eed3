/** The gateway as an operator has it: it starts quickly, is backed up while it runs, comes back on another machine, is looked over by doctor. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { StatusReport } from '../../broker/messages.js';
import { buildZoo } from '../../models/zoo/index.js';
import { Child } from '../children.js';
import { main } from '../cli.js';
import { compiledPlain } from './compiled.js';
import type { CliResult } from './run-cli.js';

let folder = '';
let gateway: Child;
let agent: Child;
let url = '';
const lines: string[] = [];
const running: Child[] = [];
const file = (name: string): string => path.join(folder, name);

/** As a user would, but in this process: a new one takes a second to start. */
async function runCli(args: readonly string[]): Promise<CliResult> {
  let [stdout, stderr] = ['', ''];
  const spies = [
    vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      stdout += String(text);
      return true;
    }),
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      stderr += String(text);
      return true;
    }),
  ];
  try {
    process.exitCode = undefined;
    const status = await main(args);
    return { status, stdout, stderr };
  } finally {
    process.exitCode = undefined;
    for (const spy of spies) spy.mockRestore();
  }
}

function start(name: string, args: readonly string[], onLine?: (line: string) => void): Child {
  // Not joined: what starting takes is looked at, too.
  const child = new Child(name, args, onLine, { command: [process.execPath, path.join(compiledPlain(), 'scripts', 'cli.js')] });
  running.push(child);
  return child;
}

const gatewayArgs = (directory: string): string[] => [
  'gateway',
  '--insecure',
  '--cluster',
  'e2e',
  '--host',
  '127.0.0.1',
  '--port',
  '0',
  '--hidden',
  '--directory',
  file(directory),
];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-gateway-'));
  await buildZoo('resnet18', file('net.onnx'), { scale: 0.1, size: 32, classes: 5 });
  gateway = start('gateway', gatewayArgs('state'), (line) => lines.push(line));
  url = String((await gateway.ready).url);
  agent = start('agent', [
    'agent',
    '--insecure',
    '--cluster',
    'e2e',
    '--broker',
    url,
    '--name',
    'a',
    '--threads',
    '1',
    '--lane-host',
    '127.0.0.1',
    '--addresses',
    '127.0.0.1',
    '--directory',
    file('agent'),
  ]);
  await agent.ready;
  // Connected is not accepted yet.
  const states = async (): Promise<string[]> => {
    const { stdout } = await runCli(['status', '--json', '--cluster', 'e2e', '--insecure', '--broker', url]);
    return (JSON.parse(stdout) as StatusReport).agents.map(({ state }) => state);
  };
  await vi.waitFor(async () => expect(await states()).toEqual(['ready']), { timeout: 60_000, interval: 200 });
  const deployed = await runCli(['deploy', file('net.onnx'), '--name', 'net', '--cluster', 'e2e', '--insecure', '--broker', url]);
  expect(deployed.stderr + deployed.stdout).toContain('net');
  expect(deployed.status, deployed.stderr).toBe(0);
}, 120_000);

afterAll(async () => {
  for (const child of running.reverse()) await child.stop();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

describe('a gateway', { timeout: 120_000 }, () => {
  it('takes less than a second of computing from its first line to its last, and says where things are and how an agent joins', async () => {
    const { startedInMs } = await gateway.ready;
    expect(startedInMs).toBeGreaterThan(0);
    // Compiled, as it is installed; the package's whole start is measured by check:package.
    const { cpuMs } = (await gateway.ask('start', { withinMs: 20_000 })) as { cpuMs: number };
    expect(cpuMs).toBeGreaterThan(0);
    expect(cpuMs).toBeLessThan(1000);
    const text = lines.join('\n');
    expect(text).toContain(file('state'));
    expect(text).toMatch(/agent --name NAME --cluster e2e --broker mqtt:\/\/127\.0\.0\.1:\d+/);
  });

  it('is backed up while it runs, and goes on elsewhere with what was deployed', async () => {
    const out = file('backup.tar');
    const state = ['--cluster', 'e2e', '--directory', file('state')];
    const made = await runCli(['gateway', 'backup', out, ...state, '--json']);
    expect(made.stderr.split('\n').filter((line) => /^[A-Z_]+:/.test(line))).toEqual([]);
    expect(made.status).toBe(0);
    expect(JSON.parse(made.stdout)).toMatchObject({ deployments: ['net'], models: true, leftOut: [] });
    expect(statSync(out).mode & 0o777).toBe(0o600);
    // The one that runs is not overwritten, whoever asks.
    const refused = await runCli(['gateway', 'restore', out, ...state]);
    expect(refused.stderr).toMatch(/^CLUSTER_TAKEN: /m);
    expect(refused.status).toBe(1);
    const checked = await runCli(['gateway', 'restore', out, '--check']);
    expect(checked.stdout).toContain("cluster 'e2e'");
    const restored = await runCli(['gateway', 'restore', out, '--cluster', 'e2e', '--directory', file('elsewhere')]);
    expect(restored.stdout).toContain('net');
    expect(restored.status).toBe(0);
    const second = start('second', gatewayArgs('elsewhere'));
    const { url: other } = await second.ready;
    const status = await runCli(['status', '--json', '--cluster', 'e2e', '--insecure', '--broker', String(other)]);
    const report: StatusReport = JSON.parse(status.stdout);
    expect(report.deployments.map(({ name }) => name)).toEqual(['net']);
    expect(report.problems).toEqual([]);
    expect(report.term).toBe(2);
    await second.stop();
  });

  it('is looked over by doctor: what is well, what is not, and its exit status', async () => {
    const settings = file('doctor.yaml');
    writeFileSync(
      settings,
      `cluster: e2e\ninsecure: true\nbroker: ${url}\ngateway: {directory: ${file('state')}, host: 127.0.0.1}\nagent: {name: a, directory: ${file('agent')}}\n`,
    );
    const well = await runCli(['doctor', 'gateway', '--config', settings, '--json']);
    const report = JSON.parse(well.stdout) as {
      ok: boolean;
      findings: { area: string; check: string; grade: string; text: string; todo: string }[];
    };
    const checks = report.findings.map(({ area, check }) => `${area}: ${check}`);
    for (const check of [
      'this machine: node',
      'this machine: engine',
      'this machine: memory',
      'this machine: clock',
      'gateway: disk',
      'gateway: process',
      'network: mdns',
      'agent a: state',
      'lanes: dispatcher and a',
    ]) {
      expect(checks).toContain(check);
    }
    expect(report.findings.find(({ area, check }) => area === 'gateway' && check === 'process')?.text).toContain(String(gateway.pid));
    expect(report.ok).toBe(report.findings.every(({ grade }) => grade !== 'bad'));
    expect(well.status).toBe(report.ok ? 0 : 1);
    for (const { grade, todo } of report.findings) if (grade !== 'ok') expect(todo).not.toBe('');
    const alone = await runCli(['doctor', 'agent', '--insecure', '--broker', 'mqtt://127.0.0.1:1', '--cluster', 'e2e', '--skip-lanes']);
    expect(alone.stdout).toMatch(/BAD {3}gateway {2,}BROKER_UNREACHABLE/);
    expect(alone.status).toBe(1);
  });

  it('has its settings written and checked', async () => {
    const made = await runCli(['config', 'init', '--out', file('made.yaml')]);
    expect(made.status).toBe(0);
    expect((await runCli(['config', 'init', '--out', file('made.yaml')])).stderr).toMatch(/^FILE_EXISTS: /);
    expect((await runCli(['config', 'check', file('made.yaml')])).status).toBe(0);
    writeFileSync(file('made.yaml'), readFileSync(file('made.yaml'), 'utf8').replace('#dispatcherPort: 0', 'dispatchPort: 0'));
    const wrong = await runCli(['config', 'check', file('made.yaml')]);
    expect(wrong.stdout).toMatch(/gateway\.dispatchPort in .*, line\s+\d+,\s+is\s+not\s+a\s+setting/);
    expect(wrong.status).toBe(2);
  });

  it('is made a service only on paper when it is asked what it would do', async () => {
    const shown = await runCli(['gateway', 'install', '--dry-run', '--cluster', 'e2e', '--port', '1999']);
    expect(shown.status).toBe(0);
    expect(shown.stdout).toContain('ExecStart=');
    expect(shown.stdout).toMatch(/^ {2}port: 1999$/m);
    const early = await runCli(['gateway', '--port', '1999', 'install', '--dry-run']);
    expect(early.stderr).toMatch(/^USAGE: --port stands before install/);
    expect((await runCli(['gateway', 'instal'])).stderr).toMatch(/^USAGE: /);
  });
});
