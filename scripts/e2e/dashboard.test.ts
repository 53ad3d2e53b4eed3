/** The dashboard in a real terminal (tmux) on a real cluster: an agent is killed, another joins, the gateway stops answering and comes back, the window changes. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Tensor } from '../../broker/tensor.js';
import { randomTensor } from '../../models/random.js';
import { buildZoo } from '../../models/zoo/index.js';
import { ChairClient } from '../../scheduler/client.js';
import { Child, LocalCluster } from '../children.js';
import { untilAgentsReady } from '../commands/cluster.js';
import { CLI_PATH } from '../package-root.js';
import { brokenRules } from '../test-trace-rules.js';
import type { TraceFile } from '../trace-file.js';
import { compiled, compiledCli } from './compiled.js';
import { runCli } from './run-cli.js';
import { hasTmux, Tmux } from './tmux.js';

const tmuxIsThere = hasTmux();
if (!tmuxIsThere && process.env.CI === 'true') throw new Error('tmux is not installed: .ci/run installs it');

let folder = '';
let cluster: LocalCluster;
let client: ChairClient;
let joined: Child | undefined;
let terminal: Tmux | undefined;
let sending = true;
let frames: Promise<void> = Promise.resolve();

async function sendFrames(): Promise<void> {
  const [info] = (await client.status('net')).deployments[0]?.inputs ?? [];
  if (info === undefined) throw new Error('the deployment has no input');
  const frame: Record<string, Tensor> = { [info.name]: randomTensor(info, 1) };
  while (sending) {
    await client.infer('net', frame, { deadlineMs: 60_000 });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

beforeAll(async () => {
  if (!tmuxIsThere) return;
  folder = mkdtempSync(path.join(tmpdir(), 'mc-dashboard-'));
  const model = path.join(folder, 'net.onnx');
  await buildZoo('alexnet', model, { scale: 0.125, size: 96, classes: 10, seed: 3 });
  cluster = await LocalCluster.start({ cli: compiledCli(), agents: 3, threads: 1, directory: path.join(folder, 'state') });
  client = await ChairClient.connect({ brokerUrl: cluster.url, cluster: 'default' });
  await untilAgentsReady(client, 3);
  await client.deploy({ name: 'net', model, cut: 'rows:3' });
  frames = sendFrames();
}, 90_000);

afterAll(async () => {
  sending = false;
  terminal?.close();
  await frames.catch(() => undefined);
  await client?.close();
  await joined?.stop();
  await cluster?.stop();
  if (folder !== '') rmSync(folder, { recursive: true, force: true });
}, 60_000);

const dashboardCommand = () => [...compiled(CLI_PATH), 'dashboard', '--insecure', '--broker', cluster.url];

describe.skipIf(!tmuxIsThere)('the dashboard in a terminal (needs tmux)', () => {
  it('shows who is lost and who joins, through resizes and keys, and leaves the terminal as it was', { timeout: 120_000 }, async () => {
    const term = new Tmux(80, 24, dashboardCommand());
    terminal = term;
    const first = await term.until(
      'three agents with rates',
      (screen) => /3 agents: 3 ready/.test(screen) && /direct lanes [^\n]*, in all [1-9]/.test(screen),
    );
    expect(first).toMatch(/net +serving/);
    expect(first).toMatch(/rows:3 +(agent-[123] \d+% *){3}/);
    expect(first).toMatch(/direct lanes/);
    expect(term.screen('-e')).toContain('\u001b[');

    cluster.agents[1]?.process.kill('SIGKILL');
    const lost = await term.until('agent-2 is lost', (screen) => /! agent-2 +lost/.test(screen) && screen.includes('DEGRADED'));
    expect(lost).toMatch(/ago +\S/);
    await term.until('what was done about it', (screen) => /(re-planning|serving): net/.test(screen));
    const where = ['--lane-host', '127.0.0.1', '--addresses', '127.0.0.1', '--directory', path.join(folder, 'state', 'agent-4')];
    const args = ['agent', '--insecure', '--broker', cluster.url, '--name', 'agent-4', '--threads', '1', ...where];
    joined = new Child('agent-4', args, undefined, { command: compiled(CLI_PATH) });
    await term.until('agent-4 has joined', (screen) => /agent-4 +ready/.test(screen));

    term.resize(130, 40);
    await term.until(
      'the wide screen',
      (screen) => /Topology of net.*Events/.test(screen) && screen.split('\n').some((row) => row.length > 120),
    );
    term.resize(60, 15);
    await term.until('the small screen', (screen) => screen.includes('agent-1') && !screen.includes('Topology'));
    term.resize(100, 30);

    term.keys('3');
    term.keys('/', '4', 'Enter');
    await term.until('one agent', (screen) => screen.includes('1 of them with "4"') && !/agent-1 +ready/.test(screen));
    term.keys('Enter');
    await term.until('its page', (screen) => /Agent agent-4/.test(screen) && screen.includes('lanes reach it'));
    term.keys('Escape');
    term.keys('d');
    await term.until('the question', (screen) => screen.includes('Drain agent-4?'));
    term.keys('y');
    await term.until('it is drained', (screen) => /agent-4 +draining/.test(screen) && screen.includes('holds no seats any more'));
    term.keys('e');
    await term.until('the plan', (screen) => screen.includes('Plan of net') && screen.includes('planned for'));

    cluster.gateway.process.kill('SIGSTOP');
    try {
      await term.until('the silence', (screen) => /the gateway has not answered for \d+ s/.test(screen));
    } finally {
      cluster.gateway.process.kill('SIGCONT');
    }
    await term.until('it is back', (screen) => screen.includes('live') && !screen.includes('has not answered'));

    term.keys('q');
    const end = await term.until('the end', (screen) => screen.includes('ended with 0'));
    expect(end).not.toContain('Topology');
  });

  it('looks once for scripts: text or JSON, and exit status 3 while an agent is lost', { timeout: 60_000 }, async () => {
    cluster.agents[1]?.process.kill('SIGKILL');
    for (const end = performance.now() + 30_000; performance.now() < end; ) {
      if ((await client.status()).agents.find(({ agent }) => agent === 'agent-2')?.state === 'lost') break;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const [text, json] = await Promise.all(
      ['--once', '--json'].map((flag) => runCli(['dashboard', flag, '--insecure', '--broker', cluster.url], { timeoutMs: 40_000 })),
    );
    expect(text?.stdout).toContain('DEGRADED: agent-2 is lost');
    expect(text?.stdout).not.toContain('\u001b');
    expect(text?.status).toBe(3);
    expect(JSON.parse(json?.stdout ?? '')).toMatchObject({
      verdict: { state: 'degraded' },
      deployments: [{ name: 'net', state: 'serving' }],
    });
    expect(json?.status).toBe(3);
  });

  it('traces frames of every agent on one clock, with its error', { timeout: 60_000 }, async () => {
    const file = path.join(folder, 'trace.json');
    const { status, stdout, stderr } = await runCli(['trace', '--frames', '20', '--out', file, '--insecure', '--broker', cluster.url], {
      timeoutMs: 40_000,
    });
    expect(stderr).not.toContain('Error');
    expect(status).toBe(0);
    expect(stdout).toMatch(/20 frames/);
    const written = JSON.parse(readFileSync(file, 'utf8')) as TraceFile;
    expect(brokenRules(written)).toEqual([]);
    const { traceEvents } = written;
    expect(traceEvents.filter(({ ph }) => ph === 'f').length).toBeGreaterThan(20);
    const kinds = new Set(traceEvents.flatMap(({ cat, ph }) => (ph === 'X' && cat !== undefined ? [cat] : [])));
    expect([...kinds].sort()).toEqual(['compute', 'frame', 'receive', 'send', 'serialise', 'wait']);
    // On one clock: what agents compute lies within the frame, as the gateway saw it, but for what the clocks may be off.
    const whole = new Map(traceEvents.flatMap((one) => (one.cat === 'frame' ? [[one.args?.frame, one] as const] : [])));
    const slackUs = 20_000;
    for (const one of traceEvents.filter(({ cat }) => cat === 'compute')) {
      const frame = whole.get(one.args?.frame);
      expect((one.ts ?? 0) + slackUs).toBeGreaterThanOrEqual(frame?.ts ?? 0);
      expect((one.ts ?? 0) + (one.dur ?? 0) - slackUs).toBeLessThanOrEqual((frame?.ts ?? 0) + (frame?.dur ?? 0));
    }
  });
});
