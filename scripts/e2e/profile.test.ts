import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../models/onnx/build.js';
import { measureInChild } from '../../node-agent/profiling-child.js';
import { ChairClient } from '../../scheduler/client.js';
import { LocalCluster } from '../children.js';
import { compiledCli } from './compiled.js';
import { runCli } from './run-cli.js';

let folder = '';
let model = '';
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-profile-'));
  model = path.join(folder, 'net.onnx');
  await threeConvolutions(model);
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Few blocks: each is a process to start. */
async function threeConvolutions(file: string): Promise<void> {
  const graph = new GraphBuilder();
  let x = graph.input('x', 'float32', [1, 16, 32, 32]);
  for (let layer = 0; layer < 3; layer++) {
    const weights = Float32Array.from({ length: 16 * 16 * 9 }, (_, i) => ((i * 7919 + layer) % 101) / 101 - 0.5);
    const w = graph.weight(`w${layer}`, 'float32', [16, 16, 3, 3], weights);
    x = graph.node1('Conv', [x, w], { pads: [1, 1, 1, 1] }, { outputs: [`y${layer}`] });
  }
  graph.output(x, 'float32', [1, 16, 32, 32]);
  await graph.write(file);
}

const OPTIONS = { threads: 1, cpuLimit: 0, runs: 5, budgetMs: 200, batchMs: 0, prepack: false };
const signal = () => new AbortController().signal;

/** Processes of this one, or of another, that measure. */
function measuring(of = process.pid): number[] {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,args='], { encoding: 'utf8' }).split('\n');
  return lines.flatMap((line) => {
    const [, pid, parent] = /^\s*(\d+)\s+(\d+)\s.*profiling-(?:source|process)/.exec(line) ?? [];
    return Number(parent) === of && pid !== undefined ? [Number(pid)] : [];
  });
}

async function oneMeasuring(): Promise<number> {
  for (let tries = 0; tries < 500; tries++) {
    const [pid] = measuring();
    if (pid !== undefined) return pid;
    await delay(10);
  }
  throw new Error('no measuring process was started');
}

describe('the measuring process', { timeout: 60_000 }, () => {
  it('loads and runs a real slice, tells times and true peaks, and is gone afterwards', async () => {
    const found = await measureInChild(model, OPTIONS, signal());
    expect(found.samplesMs).toHaveLength(5);
    expect(Math.min(...found.samplesMs)).toBeGreaterThan(0);
    expect(found.loadMs).toBeGreaterThan(0);
    expect(found.emptyBytes).toBeGreaterThan(20e6);
    expect(found.loadPeakBytes).toBeGreaterThan(0);
    expect(found.runPeakBytes).toBeGreaterThan(0);
    expect(measuring()).toEqual([]);
  });

  it('passes on that the engine does not take the file', async () => {
    const broken = path.join(folder, 'broken.onnx');
    writeFileSync(broken, readFileSync(model).subarray(0, 1000));
    await expect(measureInChild(broken, OPTIONS, signal())).rejects.toMatchObject({ code: 'ENGINE_LOAD_FAILED' });
  });

  it('is out of memory when the system kills it, and this process lives on', async () => {
    const found = measureInChild(model, { ...OPTIONS, runs: 1000, budgetMs: 20_000 }, signal());
    const failed = expect(found).rejects.toMatchObject({ code: 'AGENT_OUT_OF_MEMORY' });
    process.kill(await oneMeasuring(), 'SIGKILL');
    await failed;
  });

  it('ends at once when it is given up', async () => {
    const abort = new AbortController();
    const found = measureInChild(model, { ...OPTIONS, runs: 1000, budgetMs: 20_000 }, abort.signal);
    const failed = expect(found).rejects.toThrow('enough');
    const pid = await oneMeasuring();
    abort.abort(new Error('enough'));
    await failed;
    expect(measuring()).not.toContain(pid);
  });
});

describe('profiles of a model on a cluster', { timeout: 300_000 }, () => {
  it('are measured while the cluster serves, kept, used by plans, shown and drawn', async () => {
    const cluster = await LocalCluster.start({ cli: compiledCli(), agents: 1, threads: 1, directory: path.join(folder, 'state') });
    const client = await ChairClient.connect({ brokerUrl: cluster.url, cluster: 'default' });
    try {
      // Known a moment before it may be seated.
      await expect.poll(async () => (await client.status()).agents[0]?.state, { timeout: 20_000 }).toBe('ready');
      const question = { model: await client.upload(model), cuts: ['rows'], parts: [1, 2], runs: 3, budgetMs: 20 };
      const before = await client.plan({ name: 'net', model: question.model });
      expect(before.basis).toContain('probes');

      const first = await client.profile(question);
      expect(first).toMatchObject({ state: 'done', code: '', notes: expect.anything() });
      expect(first.classes).toHaveLength(1);
      expect(first.classes[0]?.agents).toEqual(['agent-1']);
      const found = first.rows.filter(({ code }) => code === '');
      expect(found).toHaveLength(first.rows.length);
      expect(found.some(({ what }) => what === 'model')).toBe(true);
      for (const row of found) expect(row.ms).toBeGreaterThan(0);
      expect(found.every(({ busy }) => !busy)).toBe(true);

      const after = await client.plan({ name: 'net', model: question.model });
      expect(after.basis).toContain('times measured');

      // Given up, the agent stops at once: no process of it measures.
      const giveUp = new AbortController();
      const long = { ...question, runs: 1000, budgetMs: 20_000, fresh: true };
      const given = client.profile(long, ({ current }) => current.includes('on agent-1') && giveUp.abort(), giveUp.signal);
      await expect(given).rejects.toMatchObject({ code: 'PROFILE_CANCELLED', message: expect.stringContaining('agents measure no more') });
      await expect.poll(() => measuring(cluster.agents[0]?.pid), { timeout: 10_000 }).toEqual([]);

      // What is known is not measured again; nothing of it is left on the gateway but the figures.
      const second = await client.profile(question);
      expect(new Set(second.rows.map(({ from }) => from))).toEqual(new Set(['kept']));

      await client.deploy({ name: 'net', model: question.model });
      const { deployments } = await client.status('net');
      const [input] = deployments[0]?.inputs ?? [];
      if (input === undefined) throw new Error('a deployment without inputs');
      const bytes = (): Uint8Array => new Uint8Array(4 * input.dims.reduce((a, b) => a * b, 1));
      let serving = true;
      let served = 0;
      const load = (async () => {
        while (serving) {
          await client.infer('net', { [input.name]: { dtype: input.dtype, dims: input.dims, bytes: bytes() } });
          served++;
        }
      })();
      // One agent: on a second one that rests it would not be disturbed.
      const busy = await client.profile({ ...question, parts: [1], fresh: true });
      serving = false;
      await load;
      expect(served).toBeGreaterThan(10);
      expect(busy.rows.filter((row) => row.busy).length).toBeGreaterThan(busy.rows.length / 2);
    } finally {
      await client.close();
    }
    try {
      const svg = path.join(folder, 'net.svg');
      const args = [
        'profile',
        model,
        '--parts',
        '1..2',
        '--cuts',
        'rows',
        '--runs',
        '3',
        '--budget-ms',
        '20',
        '--insecure',
        '--broker',
        cluster.url,
      ];
      const shown = await runCli([...args, '--svg', svg], { timeoutMs: 100_000 });
      expect(shown.stderr).not.toMatch(/^[A-Z_]+: /m);
      expect(shown.stdout).toMatch(/ms whole/);
      expect(shown.stdout).toMatch(/The whole model: /);
      expect(readFileSync(svg, 'utf8')).toContain('</svg>');
      const wrong = await runCli([...args, '--agents', 'nobody'], { timeoutMs: 100_000 });
      expect(wrong.stderr).toMatch(/^AGENT_UNKNOWN: /);
    } finally {
      await cluster.stop();
    }
  });
});
