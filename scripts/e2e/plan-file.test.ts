import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../broker/errors.js';
import type { PlanReport } from '../../broker/messages.js';
import { allocTensor } from '../../broker/tensor.js';
import { randomTensor } from '../../models/random.js';
import { buildZoo } from '../../models/zoo/index.js';
import { LocalCluster } from '../children.js';
import { readNpy, writeNpy } from '../npy.js';
import { compiledCli } from './compiled.js';
import { type CliResult, runCli } from './run-cli.js';

let folder = '';
let cluster: LocalCluster;

const file = (name: string): string => path.join(folder, name);
const mc = (...args: string[]): Promise<CliResult> => runCli([...args, '--insecure', '--broker', cluster.url]);

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-plan-'));
  await buildZoo('resnet18', file('net.onnx'), { scale: 0.1, size: 32, classes: 5 });
  const frame = randomTensor({ name: 'image', dtype: 'float32', dims: allocTensor('float32', [1, 3, 32, 32]).dims }, 7);
  writeFileSync(file('frame.npy'), writeNpy(frame));
  cluster = await LocalCluster.start({ cli: compiledCli(), agents: 3, threads: 1, directory: file('state') });
}, 60_000);

afterAll(async () => {
  await cluster?.stop();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

function done(result: CliResult): CliResult {
  expect(result.stderr).not.toMatch(/^[A-Z_]+: /m);
  expect(result.status).toBe(0);
  return result;
}

/** What agents are told: who has which slice of which stage, and what it exchanges. */
function plan(result: CliResult) {
  const { seats, links, details }: PlanReport = JSON.parse(done(result).stdout);
  return { seats: seats.map(({ predictedMs, ...seat }) => seat), links, inFlight: details?.inFlight };
}

async function outputOf(deployment: string): Promise<Buffer> {
  done(await mc('infer', deployment, file('frame.npy'), '--out', file(`out-${deployment}`)));
  const [name = ''] = readdirSync(file(`out-${deployment}`)).filter((found) => found.endsWith('.npy'));
  return Buffer.from(readNpy(readFileSync(path.join(file(`out-${deployment}`), name)), name).bytes);
}

describe('a plan file on agents', { timeout: 120_000 }, () => {
  it('that was exported deploys as the identical plan', async () => {
    const cut = ['--cut', 'rows:3', '--shares', '3,2,1', '--objective', 'throughput', '--in-flight', '5'];
    done(await mc('plan', file('net.onnx'), ...cut, '--out', file('plan.yaml')));
    const direct = plan(await mc('deploy', file('net.onnx'), '--name', 'direct', ...cut, '--json'));
    const filed = plan(await mc('deploy', file('net.onnx'), '--name', 'filed', '--plan', file('plan.yaml'), '--json'));
    expect(filed).toEqual(direct);
    expect(filed.seats.length).toBeGreaterThan(3);
    expect(filed.inFlight).toBe(5);
    expect(await outputOf('filed')).toEqual(await outputOf('direct'));
  });

  it('that was edited by hand deploys as it was edited, and the difference that was verified is printed', async () => {
    const text = readFileSync(file('plan.yaml'), 'utf8');
    const edited = text
      .replaceAll('agent-1', 'agent-X')
      .replaceAll('agent-3', 'agent-1')
      .replaceAll('agent-X', 'agent-3')
      .replaceAll('inFlight: 5', 'inFlight: 2');
    writeFileSync(file('edited.yaml'), edited);
    done(await mc('plan', file('net.onnx'), '--check', file('edited.yaml')));
    const result = done(await mc('deploy', file('net.onnx'), '--name', 'edited', '--plan', file('edited.yaml'), '--verify'));
    expect(result.stdout).toMatch(/Verified: the slices compute what the whole model computes, (bit for bit|but for \d\.\de-\d of)/);
    const { deployments } = JSON.parse(done(await mc('status', '--json')).stdout);
    const seats = (name: string): { stage: number; part: number; agent: string }[] =>
      deployments.find((d: { name: string }) => d.name === name).plan.seats;
    const swapped = new Map([
      ['agent-1', 'agent-3'],
      ['agent-2', 'agent-2'],
      ['agent-3', 'agent-1'],
    ]);
    expect(seats('edited').map(({ agent }) => agent)).toEqual(seats('filed').map(({ agent }) => swapped.get(agent)));
  });

  it('that is wrong is refused with a code, and what was served is served on', async () => {
    const text = readFileSync(file('plan.yaml'), 'utf8');
    const refused = async (code: ErrorCode, content: string, ...more: string[]): Promise<string> => {
      writeFileSync(file('wrong.yaml'), content);
      const result = await mc('deploy', file('net.onnx'), '--name', 'wrong', '--plan', file('wrong.yaml'), ...more);
      expect(result.stderr).toMatch(new RegExp(`^${code}: `, 'm'));
      expect(result.status).not.toBe(0);
      return result.stderr;
    };
    expect(await refused('AGENT_UNKNOWN', text.replaceAll('agent-2', 'agent-9'))).toContain('agent-9');
    await refused('PLAN_MODEL_MISMATCH', text.replace(/model: "[0-9a-f]{64}"/, `model: "${'0'.repeat(64)}"`));
    await refused('PLAN_FILE_UNREADABLE', '\u0000garbage: [');
    await refused('PLAN_FILE_UNREADABLE', 'x'.repeat(10 << 20));
    await refused('PLAN_INVALID', text.replace(/blocks: \[0, (\d+)\]/, 'blocks: [1, $1]'));
    await refused('PLAN_INVALID', text.replace(/agents: \[(agent-\d), agent-\d/, 'agents: [$1, $1'));
    await refused('USAGE', text, '--cut', 'rows:2');
    const missing = await mc('deploy', file('net.onnx'), '--name', 'wrong', '--plan', file('missing.yaml'));
    expect(missing.stderr).toMatch(/^FILE_NOT_FOUND: /);
    expect(await outputOf('filed')).toEqual(await outputOf('direct'));
    const { deployments } = JSON.parse(done(await mc('status', '--json')).stdout);
    expect(deployments.map(({ name, state }: { name: string; state: string }) => `${name} ${state}`).sort()).toEqual([
      'direct serving',
      'edited serving',
      'filed serving',
    ]);
  });

  it('is explained on the running cluster, in lines of at most 100 columns', async () => {
    const { stdout } = done(await mc('plan', file('net.onnx'), '--explain'));
    expect(stdout).toContain('Next best: ');
    expect(stdout).toMatch(/What would help most: |Nothing that was tried/);
    for (const planner of ['single', 'replicas', 'pipeline', 'musical-chair-2018']) expect(stdout).toContain(planner);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });
});
