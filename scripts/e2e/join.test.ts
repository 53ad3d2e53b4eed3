/** What an operator does on a fresh machine: a gateway without a word of security, tokens, agents that join with them over TLS, a model, a frame, and one that is thrown out. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readCredentials } from '../../broker/credentials/credentials.js';
import { fixedSource } from '../../broker/credentials/source.js';
import type { StatusReport } from '../../broker/messages.js';
import { trustOf } from '../../broker/trust.js';
import { randomTensor } from '../../models/random.js';
import { buildZoo } from '../../models/zoo/index.js';
import { ChairClient } from '../../scheduler/client.js';
import { Child } from '../children.js';
import { writeNpy } from '../npy.js';
import { CLI_PATH } from '../package-root.js';
import { compiled } from './compiled.js';
import { type CliResult, runCli } from './run-cli.js';

let folder = '';
let url = '';
let operator: ChairClient | undefined;
const running: Child[] = [];
const said: string[] = [];

const file = (name: string): string => path.join(folder, name);
/** As the user of the gateway's machine, whose home is `folder`. */
const mc = (...args: string[]): Promise<CliResult> =>
  runCli([...args, '--broker', url], {
    env: { XDG_CONFIG_HOME: file('config'), MUSICAL_CHAIR_CREDENTIALS: file('state/credentials/operator') },
    timeoutMs: 120_000,
  });

function start(name: string, args: readonly string[]): Child {
  const child = new Child(name, args, (line) => said.push(`${name}: ${line}`), { command: compiled(CLI_PATH) });
  running.push(child);
  return child;
}

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-join-'));
  await buildZoo('resnet18', file('net.onnx'), { scale: 0.1, size: 32, classes: 5 });
  writeFileSync(file('x.npy'), writeNpy(randomTensor({ name: 'x', dtype: 'float32', dims: [1, 3, 32, 32] }, 1)));
  const gateway = start('gateway', [
    'gateway',
    '--host',
    '127.0.0.1',
    '--port',
    '0',
    '--enrol-port',
    '0',
    '--hidden',
    '--directory',
    file('state'),
  ]);
  url = String((await gateway.ready).url);
}, 90_000);

afterAll(async () => {
  await operator?.close();
  for (const child of running.reverse()) await child.stop();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

async function join(name: string): Promise<Child> {
  const { stdout, stderr } = await mc('token', 'create', '--name', name);
  const [, where = '', token = ''] = /--gateway (\S+) --token (\S+)/.exec(stdout) ?? [];
  expect([stderr, where]).toEqual(['', expect.stringMatching(/^127\.0\.0\.1:\d+$/)]);
  const here = ['--lane-host', '127.0.0.1', '--addresses', '127.0.0.1', '--threads', '1', '--directory', file(name)];
  const agent = start(name, ['agent', '--name', name, '--broker', url, '--gateway', where, '--token', token, ...here]);
  await agent.ready;
  return agent;
}

/** Errors that it told of, and its exit status. */
function outcome({ stderr, status: code }: CliResult): readonly [string[], number | null] {
  return [stderr.split('\n').filter((line) => /^[A-Z_]+: /.test(line)), code];
}

/** As `mc status`, without a process each time. */
async function status(): Promise<StatusReport> {
  if (operator === undefined) {
    const credentials = await readCredentials(file('state/credentials/operator'));
    operator = await ChairClient.connect({ brokerUrl: url, cluster: 'default', trust: trustOf(fixedSource(credentials)) });
  }
  return operator.status();
}

async function states(): Promise<string> {
  const { agents } = await status();
  return agents.map(({ agent, state }) => `${agent} ${state}`).join(', ');
}

describe('a gateway as it comes', { timeout: 300_000 }, () => {
  it('lets agents in with a token each, over TLS, and they run a slice', async () => {
    expect(url).toMatch(/^mqtts:/);
    const agents = [await join('pi-1'), await join('pi-2')];
    await expect.poll(states, { timeout: 30_000, interval: 500 }).toBe('pi-1 ready, pi-2 ready');
    const deployed = await mc('deploy', file('net.onnx'), '--name', 'net', '--cut', 'stages:2');
    expect(outcome(deployed)).toEqual([[], 0]);
    const inferred = await mc('infer', 'net', file('x.npy'), '--json');
    expect(outcome(inferred)).toEqual([[], 0]);
    const report = await status();
    expect([report.encrypted, report.agents.map(({ encrypted }) => encrypted)]).toEqual([true, [true, true]]);
    // Nothing honest was refused on the way.
    expect([report.refusals, report.agents.flatMap(({ health }) => health?.refusals ?? [])]).toEqual([[], []]);
    expect((await mc('status')).stdout).toMatch(/^Cluster default \(encrypted\)/);

    const revoked = await mc('agents', 'revoke', 'pi-2', '--why', 'lost on the train');
    expect(outcome(revoked)).toEqual([[], 0]);
    await expect.poll(states, { timeout: 30_000, interval: 500 }).toMatch(/pi-2 (lost|stopped)/);
    await expect
      .poll(async () => (await status()).deployments[0]?.plan?.seats.map(({ agent }) => agent), { timeout: 60_000, interval: 500 })
      .not.toContain('pi-2');
    expect((await mc('infer', 'net', file('x.npy'))).status).toBe(0);
    await agents[1]?.stop();
  });

  it('refuses who has no certificate, and who would rather do without', async () => {
    const nobody = await runCli(['status', '--broker', url, '--credentials', file('nowhere')]);
    expect(nobody.stderr).toMatch(/^CREDENTIALS_MISSING: /);
    const plain = await runCli(['status', '--insecure', '--broker', url.replace('mqtts:', 'mqtt:')], { timeoutMs: 60_000 });
    expect(plain.stderr).toMatch(/^BROKER_UNREACHABLE: /);
    const careless = await runCli(['status', '--broker', url.replace('mqtts:', 'mqtt:')]);
    expect(careless.stderr).toMatch(/^INSECURE_REFUSED: /);
  });

  it('gives Mosquitto an access list of those who have joined and were not revoked', async () => {
    const { stdout, status: code } = await runCli(['acl', 'mosquitto', '--directory', file('state')]);
    expect(code).toBe(0);
    expect(stdout).toContain('user CN=pi-1,OU=agent,O=default\n');
    expect(stdout).toContain('user CN=gateway,OU=gateway,O=default\n');
    expect(stdout).not.toContain('pi-2,OU');
    expect((await runCli(['acl', 'rabbitmq', '--directory', file('state')])).stderr).toMatch(/^BROKER_REFUSED: /);
  });
});
