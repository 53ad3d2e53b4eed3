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

const AGENTS = 6;
const INPUTS = 6;

let folder = '';
let engine: Engine;
let cluster: LocalCluster;
let client: ChairClient;
const inputs: Record<string, Tensor>[] = [];
const expected: Record<string, Tensor>[] = [];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-loss-'));
  const model = path.join(folder, 'net.onnx');
  await buildZoo('alexnet', model, { scale: 0.125, size: 96, classes: 10, seed: 3 });
  engine = await createOnnxRuntimeEngine({ threads: 1 });
  const session = await engine.load(model);
  const [info] = session.inputs;
  if (info === undefined) throw new Error('the model has no input');
  for (let i = 0; i < INPUTS; i++) {
    const frame = { [info.name]: randomTensor(info, 100 + i) };
    inputs.push(frame);
    expected.push({ ...(await session.run(frame)).outputs });
  }
  cluster = await LocalCluster.start({ agents: AGENTS, threads: 1, directory: path.join(folder, 'state') });
  client = await ChairClient.connect({ brokerUrl: cluster.url, cluster: 'default', window: 8 });
  await untilAgentsReady(client, AGENTS);
}, 90_000);

afterAll(async () => {
  await client?.close();
  await cluster?.stop();
  await engine?.dispose();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

async function until(what: string, holds: () => Promise<boolean>, withinMs = 30_000): Promise<void> {
  for (const end = performance.now() + withinMs; performance.now() < end; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not within ${withinMs} ms: ${what}`);
}

describe('six agents, each a process of its own, with a stage each that nobody else has', () => {
  it('lose one after the other under load, and every frame has its one result, equal to the single machine', {
    timeout: 150_000,
  }, async () => {
    await client.deploy({ name: 'net', model: path.join(folder, 'net.onnx'), cut: `stages:${AGENTS}` });
    const seatsNow = async () => (await client.status('net')).deployments[0]?.plan?.seats.map(({ agent }) => agent) ?? [];
    expect(new Set(await seatsNow()).size).toBe(AGENTS);
    let on = true;
    let results = 0;
    let worst = 0;
    let lastMs = performance.now();
    let longestMs = 0;
    const codes: string[] = [];
    const strand = async (k: number): Promise<void> => {
      for (let i = k; on; i++) {
        try {
          const { outputs } = await client.infer('net', inputs[i % INPUTS] ?? {}, { deadlineMs: 60_000 });
          worst = Math.max(worst, compare(expected[i % INPUTS] ?? {}, outputs).maxRelDiff);
          longestMs = Math.max(longestMs, performance.now() - lastMs);
          lastMs = performance.now();
          results++;
        } catch (error) {
          codes.push(String(error));
        }
      }
    };
    const load = Promise.all([0, 1, 2, 3].map(strand));
    const more = async (frames: number) => {
      const goal = results + frames;
      await until(`${frames} more results`, async () => results >= goal || codes.length > 0);
    };
    try {
      await more(40);
      // All but one of them: each time another one takes the seats.
      for (const { name, process } of cluster.agents.slice(1)) {
        longestMs = 0;
        process.kill('SIGKILL');
        await more(40);
        await until(`a plan without ${name}`, async () => !(await seatsNow()).includes(name));
        console.log(`${name} was killed: at most ${Math.round(longestMs)} ms without a result`);
      }
    } finally {
      on = false;
      await load;
    }
    expect(codes).toEqual([]);
    expect(worst).toBeLessThanOrEqual(TOLERANCE);
    expect(compare(expected[0] ?? {}, expected[1] ?? {}).maxRelDiff).toBeGreaterThan(100 * TOLERANCE);
    const { deployments, events } = await client.status('net');
    expect(deployments[0]).toMatchObject({ failed: 0, completed: results });
    expect(events.filter(({ kind }) => kind === 'repair').length).toBeGreaterThan(0);
    expect(new Set(await seatsNow())).toEqual(new Set(['agent-1']));
  });
});
