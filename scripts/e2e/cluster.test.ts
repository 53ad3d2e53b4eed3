import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Tensor } from '../../broker/tensor.js';
import type { Engine } from '../../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { randomTensor } from '../../models/random.js';
import { compare, TOLERANCE } from '../../models/slicing/verify.js';
import { buildZoo } from '../../models/zoo/index.js';
import { ChairClient } from '../../scheduler/client.js';
import { LocalCluster } from '../children.js';
import { untilAgentsReady } from '../commands/cluster.js';
import { isAlive } from './run-cli.js';

const FRAMES = 200;
/** So many different inputs: enough to tell one frame's result from another's. */
const INPUTS = 8;

let folder = '';
let engine: Engine;
let cluster: LocalCluster;
let client: ChairClient;
const inputs: Record<string, Tensor>[] = [];
const expected: Record<string, Tensor>[] = [];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-e2e-'));
  const model = path.join(folder, 'net.onnx');
  await buildZoo('resnet18', model, { scale: 0.125, size: 64, classes: 10, seed: 5 });
  engine = await createOnnxRuntimeEngine({ threads: 1 });
  const session = await engine.load(model);
  const [info] = session.inputs;
  if (info === undefined) throw new Error('the model has no input');
  for (let i = 0; i < INPUTS; i++) {
    const frame = { [info.name]: randomTensor(info, 100 + i) };
    inputs.push(frame);
    expected.push({ ...(await session.run(frame)).outputs });
  }
  cluster = await LocalCluster.start({ agents: 4, threads: 1, directory: path.join(folder, 'state') });
  client = await ChairClient.connect({ brokerUrl: cluster.url, cluster: 'default', window: 8 });
  await untilAgentsReady(client, 4);
}, 60_000);

afterAll(async () => {
  await client?.close();
  await cluster?.stop();
  await engine?.dispose();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

describe('four agents, each a process of its own', () => {
  it('give 200 results equal to the single machine, though one is killed in the middle', { timeout: 90_000 }, async () => {
    await client.deploy({ name: 'net', model: path.join(folder, 'net.onnx'), cut: 'rows:4' });
    const frames = Array.from({ length: FRAMES }, (_, i) => inputs[i % INPUTS] ?? {});
    let results = 0;
    let worst = 0;
    let reissued = 0;
    for await (const result of client.inferStream('net', frames, { deadlineMs: 60_000 })) {
      const want = expected[results % INPUTS] ?? {};
      worst = Math.max(worst, compare(want, result.outputs).maxRelDiff);
      if (result.attempts > 1) reissued++;
      results++;
      if (results === FRAMES / 4) cluster.agents[2]?.process.kill('SIGKILL');
    }
    console.log(`${results} results, largest relative difference ${worst.toExponential(2)}, ${reissued} frames issued again`);
    expect(results).toBe(FRAMES);
    expect(worst).toBeLessThanOrEqual(TOLERANCE);
    // The check could fail: results of different inputs differ by far more.
    expect(compare(expected[0] ?? {}, expected[1] ?? {}).maxRelDiff).toBeGreaterThan(100 * TOLERANCE);
    const { agents, deployments } = await client.status();
    expect(agents.find((a) => a.agent === 'agent-3')?.state).not.toBe('ready');
    const [deployment] = deployments;
    expect(deployment?.state).toBe('serving');
    expect(deployment?.failed).toBe(0);
    expect(deployment?.plan?.seats.map((s) => s.agent)).not.toContain('agent-3');
  });

  it('leave nothing behind when they are stopped', { timeout: 30_000 }, async () => {
    const pids = [cluster.gateway, ...cluster.agents].map((c) => c.pid);
    await client.close();
    await cluster.stop();
    expect(pids.filter(isAlive)).toEqual([]);
  });
});
