import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PlanReport } from '../../broker/messages.js';
import type { Engine } from '../../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { randomTensor } from '../../models/random.js';
import { compare } from '../../models/slicing/compare.js';
import { buildZoo } from '../../models/zoo/index.js';
import { writeNpy } from '../npy.js';
import { CLI_PATH } from '../package-root.js';
import type { TestbedClient } from '../testbed/client.js';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import { startTestbed, type Testbed, whyPlainProcesses } from '../testbed/testbed.js';
import { compiled, compiledCli } from './compiled.js';

/** A frame of 49 kB takes 0.1 s of it, and computing next to nothing: the link is what limits every plan. */
const RATE_BITS = 4e6;
const why = whyPlainProcesses();

let folder = '';
let file = '';
let engine: Engine;
let testbed: Testbed;
let client: TestbedClient;

describe.skipIf(why !== '')(`a cluster on links of 4 Mbit/s${why === '' ? '' : ` (not here: ${why})`}`, () => {
  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'mc-short-wires-'));
    file = path.join(folder, 'net.onnx');
    await buildZoo('resnet18', file, { scale: 0.125, size: 64, classes: 10, seed: 5 });
    engine = await createOnnxRuntimeEngine({ threads: 1 });
    testbed = await startTestbed({
      threads: 1,
      cli: compiledCli(),
      agents: [1, 2, 3].map(() => ({ ...DEFAULT_DEVICE, cpu: 0.5, rateBits: RATE_BITS })),
    });
    client = await testbed.client();
    await client.untilReady(3);
  }, 120_000);

  afterAll(async () => {
    await testbed?.stop();
    await engine?.dispose();
    rmSync(folder, { recursive: true, force: true });
  }, 60_000);

  /** The CLI beside the gateway. */
  async function cli(...args: string[]): Promise<string> {
    const where = ['--insecure', '--broker', testbed.gateway.url, '--cluster', testbed.cluster];
    const [program = '', ...rest] = testbed.gateway.device.command([...compiled(CLI_PATH), ...args, ...where]);
    const { stdout } = await promisify(execFile)(program, rest, { maxBuffer: 1e8 });
    return stdout;
  }

  function inputFile(seed: number): string {
    const at = path.join(folder, `input-${seed}.npy`);
    writeFileSync(at, writeNpy(randomTensor({ name: 'input', dtype: 'float32', dims: [1, 3, 64, 64] }, seed)));
    return at;
  }

  const deploy = ['deploy', 'net.onnx', '--name', 'net', '--cut', 'stages:2', '--objective', 'throughput', '--json'];
  const deployed = (...more: string[]) => cli(...deploy.with(1, file), ...more).then((text): PlanReport => JSON.parse(text));

  it('serves with short wires within the allowed error, measured on the inputs that were given', { timeout: 180_000 }, async () => {
    const calibrate = [3, 4, 5].flatMap((seed) => ['--calibrate', inputFile(seed)]);
    const { precision } = await deployed('--max-error', '0.02', ...calibrate);
    try {
      expect(precision).toMatchObject({ maxError: 0.02, inputs: 3, random: false });
      expect(precision?.error).toBeGreaterThan(0);
      expect(precision?.error).toBeLessThanOrEqual(0.02);
      const [first] = precision?.rows ?? [];
      expect(first?.fromStage).toBe(-1);
      expect(first?.encoding).not.toBe('raw');
      // The cluster computes what was measured: on one of the inputs the error is at most the measured one.
      const session = await engine.load(file);
      const [info] = session.inputs;
      const input = { [info?.name ?? '']: randomTensor({ name: 'input', dtype: 'float32', dims: [1, 3, 64, 64] }, 3) };
      const { outputs } = await client.infer('net', input);
      const error = compare((await session.run(input)).outputs, outputs).maxRelDiff;
      expect(error).toBeGreaterThan(1e-5);
      expect(error).toBeLessThanOrEqual((precision?.error ?? 0) * 1.001 + 1e-4);
      expect(await cli('status')).toContain('wire precision: ');
    } finally {
      await client.undeploy('net');
    }
  });

  it('stays exact, and says so, under a budget that no encoding meets', { timeout: 120_000 }, async () => {
    const { precision } = await deployed('--max-error', '0.0000001');
    try {
      expect(precision?.error).toBe(0);
      expect(precision?.random).toBe(true);
      expect(precision?.rows.every((row) => row.encoding === 'raw')).toBe(true);
      expect(precision?.why).toMatch(/all wires are raw: .*gives/);
    } finally {
      await client.undeploy('net');
    }
  });

  it('serves on exact wires at once after a loss, and measures short ones then', { timeout: 180_000 }, async () => {
    const { precision } = await cli(...deploy.with(1, file).with(5, 'stages:3'), '--max-error', '0.03').then(
      (text): PlanReport => JSON.parse(text),
    );
    expect(precision?.error).toBeGreaterThan(0);
    await testbed.agents[2]?.kill();
    const events = async () => (await client.status()).events.map(({ kind, text }) => `${kind}: ${text}`);
    const next = async () => (await client.status()).deployments[0];
    await expect.poll(async () => (await events()).join('\n'), { timeout: 60_000 }).toContain('wire precision is measured now');
    const first = (await events()).filter((event) => event.startsWith('planned')).length;
    await expect.poll(async () => (await next())?.plan?.precision?.error, { timeout: 60_000 }).toBeGreaterThan(0);
    const { plan } = (await next()) ?? {};
    expect(plan?.seats.map((seat) => seat.agent)).not.toContain('agent-3');
    expect(plan?.precision?.error).toBeLessThanOrEqual(0.03);
    // It settles: no plan follows the measured one.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect((await events()).filter((event) => event.startsWith('planned')).length).toBeLessThanOrEqual(first + 1);
    await client.undeploy('net');
  });

  it('refuses calibration inputs that the model does not take', { timeout: 60_000 }, async () => {
    const wrong = path.join(folder, 'wrong.npy');
    writeFileSync(wrong, writeNpy(randomTensor({ name: 'input', dtype: 'float32', dims: [1, 3, 32, 32] }, 1)));
    await expect(deployed('--max-error', '0.02', '--calibrate', wrong)).rejects.toMatchObject({
      stdout: expect.stringContaining('FRAME_INVALID'),
    });
  });
});
