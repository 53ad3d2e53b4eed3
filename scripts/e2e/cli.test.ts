import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ERROR_CODES, type ErrorCode } from '../../broker/errors.js';
import { allocTensor } from '../../broker/tensor.js';
import { GraphBuilder } from '../../models/onnx/build.js';
import { buildZoo } from '../../models/zoo/index.js';
import { LocalCluster } from '../children.js';
import { readNpy, writeNpy } from '../npy.js';
import { CLI_PATH, packageVersion } from '../package-root.js';
import { compiledCli } from './compiled.js';
import { type CliResult, descendants, isAlive, runCli } from './run-cli.js';

let folder = '';
let taken: Server;
let takenPort = 0;
let cluster: LocalCluster;

const file = (name: string): string => path.join(folder, name);
const onCluster = (...args: string[]): string[] => [...args, '--insecure', '--broker', cluster.url];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-cli-'));
  taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  const address = taken.address();
  takenPort = typeof address === 'object' && address !== null ? address.port : 0;
  await buildZoo('resnet18', file('net.onnx'), { scale: 0.1, size: 32, classes: 5 });
  cluster = await LocalCluster.start({ cli: compiledCli(), agents: 2, threads: 1, directory: file('state') });
}, 60_000);

afterAll(async () => {
  await cluster?.stop();
  await new Promise((resolve) => taken?.close(resolve));
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

/** One line, a code of the table, the right exit status, and no stack. */
function expectRefusal(result: CliResult, code: ErrorCode): void {
  expect(result.stderr).toMatch(new RegExp(`^${code}: .+\\n$`));
  expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(result.status).toBe(code === 'USAGE' || code === 'CONFIG_INVALID' ? 2 : 1);
  expect(ERROR_CODES[code]).toBeDefined();
}

describe('the command line', { timeout: 60_000 }, () => {
  it('prints its version, and help with an example for every command', async () => {
    expect((await runCli(['--version'])).stdout.trim()).toBe(packageVersion());
    const help = await runCli(['--help']);
    expect(help.status).toBe(0);
    const names = [...help.stdout.matchAll(/^ {2}([a-z]+) /gm)].map((m) => m[1] ?? '').filter((n) => n !== 'models');
    expect(names).toEqual(
      expect.arrayContaining(['gateway', 'agent', 'cluster', 'deploy', 'infer', 'status', 'inspect', 'verify', 'demo']),
    );
    const one = await runCli(['deploy', '--help']);
    expect(one.stdout).toContain('Examples:');
    expect(one.stdout).toContain('MUSICAL_CHAIR_BROKER');
  });

  it('refuses an unknown key of the file and of the environment, and names the one that was meant', async () => {
    const configured = file('configured.yaml');
    writeFileSync(configured, 'gateway:\n  prot: 1\n');
    const fromFile = await runCli(['gateway', '--config', configured]);
    expectRefusal(fromFile, 'CONFIG_INVALID');
    expect(fromFile.stderr).toContain('gateway.port');
    const fromEnvironment = await runCli(['gateway'], { cwd: folder, env: { MUSICAL_CHAIR_GATEWAY_PROT: '1' } });
    expectRefusal(fromEnvironment, 'CONFIG_INVALID');
  });

  it('refuses what it cannot do in one line, with a status that tells usage from failure', async () => {
    expectRefusal(await runCli(['stauts'], { cwd: folder }), 'USAGE');
    expectRefusal(await runCli(['status', '--insecure', '--broker', 'mqtt://127.0.0.1:1']), 'BROKER_UNREACHABLE');
  });

  it('shows a stack only when asked to', async () => {
    const result = await runCli(['status', '--insecure', '--broker', 'mqtt://127.0.0.1:1', '--verbose']);
    expect(result.stderr).toMatch(/^BROKER_UNREACHABLE: .*\n.*\n\s+at /);
  });

  it('ends quietly when its reader goes away', async () => {
    const child = spawn(
      '/bin/bash',
      ['-c', `"${process.execPath}" --import tsx "${CLI_PATH}" --help | head -1; echo "\${PIPESTATUS[0]}"`],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let [out, err] = ['', ''];
    child.stdout.on('data', (d) => {
      out += d;
    });
    child.stderr.on('data', (d) => {
      err += d;
    });
    await new Promise((resolve) => child.once('close', resolve));
    expect(out.trim().split('\n').at(-1)).toBe('0');
    expect(err).toBe('');
  });

  it('does not start a gateway on a port in use', async () => {
    expectRefusal(await runCli(['broker', '--insecure', '--host', '127.0.0.1', '--port', String(takenPort)]), 'PORT_IN_USE');
    const gateway = await runCli(['gateway', '--insecure', '--host', '127.0.0.1', '--port', String(takenPort), '--directory', file('g2')]);
    expect(gateway.stderr).toMatch(/^PORT_IN_USE: /m);
    expect(gateway.status).toBe(1);
  });
});

describe('the command line with a cluster', { timeout: 60_000 }, () => {
  it('says what a broken model is', async () => {
    writeFileSync(file('cut.onnx'), readFileSync(file('net.onnx')));
    truncateSync(file('cut.onnx'), 5_000);
    writeFileSync(file('text.onnx'), 'this is no model');
    for (const name of ['cut.onnx', 'text.onnx']) {
      const result = await runCli(onCluster('plan', file(name)));
      expect(result.stderr).toMatch(/^MODEL_(UNREADABLE|WEIGHTS_MISSING): .+\n$/);
      expect(result.status).toBe(1);
    }
    const odd = new GraphBuilder();
    odd.output(odd.node1('Teleport', [odd.input('x', 'float32', [1, 4])]), 'float32', [1, 4]);
    await odd.write(file('odd.onnx'));
    const unknown = await runCli(onCluster('deploy', file('odd.onnx')));
    expect(unknown.stderr).toMatch(/^MODEL_UNSUPPORTED: .*Teleport.*$/m);
    expect(unknown.status).toBe(1);
    expectRefusal(await runCli(onCluster('plan', file('nowhere.onnx'))), 'MODEL_NOT_FOUND');
    expectRefusal(await runCli(onCluster('plan', file('net.onnx'), '--shape', 'nothing=1,2')), 'MODEL_SHAPE_INVALID');
  });

  it('plans, deploys, runs tensors from files into files, and undeploys', async () => {
    const planned: unknown = JSON.parse(
      (await runCli(onCluster('plan', file('net.onnx'), '--name', 'net', '--cut', 'rows:2', '--json'))).stdout,
    );
    expect(planned).toMatchObject({ deployment: 'net' });
    const deployed = await runCli(onCluster('deploy', file('net.onnx'), '--name', 'net', '--cut', 'rows:2'));
    expect(deployed.status).toBe(0);
    expect(deployed.stdout).toContain('net is served');
    writeFileSync(file('in.npy'), writeNpy(allocTensor('float32', [1, 3, 32, 32])));
    const inferred = await runCli(onCluster('infer', 'net', file('in.npy'), '--out', file('out'), '--json'));
    expect(inferred.stderr).not.toMatch(/^[A-Z_]+: /m);
    const [row]: { outputs: Record<string, { file: string }> }[] = JSON.parse(inferred.stdout);
    const [output] = Object.values(row?.outputs ?? {});
    expect(readNpy(readFileSync(output?.file ?? '')).dims).toEqual([1, 5]);

    writeFileSync(file('text.jpg'), 'this is no image');
    expectRefusal(await runCli(onCluster('infer', 'net', file('text.jpg'))), 'IMAGE_UNREADABLE');
    writeFileSync(file('small.npy'), writeNpy(allocTensor('float32', [1, 3, 8, 8])));
    expectRefusal(await runCli(onCluster('infer', 'net', file('small.npy'))), 'FRAME_INVALID');
    writeFileSync(file('text.npy'), 'this is no tensor');
    expectRefusal(await runCli(onCluster('infer', 'net', file('text.npy'))), 'NPY_UNREADABLE');
    expectRefusal(await runCli(onCluster('infer', 'ten', file('in.npy'))), 'DEPLOYMENT_UNKNOWN');

    const status = await runCli(onCluster('status'));
    expect(status.stdout).toContain('net: serving');
    for (const line of status.stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
    expect((await runCli(onCluster('undeploy', 'net'))).status).toBe(0);
    expectRefusal(await runCli(onCluster('undeploy', 'net')), 'DEPLOYMENT_UNKNOWN');
  }, 60_000);

  it('refuses a second agent of the same name', async () => {
    const args = ['agent', '--insecure', '--name', 'agent-1', '--directory', file('twin'), '--lane-host', '127.0.0.1', '--threads', '1'];
    const result = await runCli(onCluster(...args));
    expect(result.stderr).toMatch(/^AGENT_NAME_TAKEN: /m);
    expect(result.status).toBe(1);
    const { agents } = JSON.parse((await runCli(onCluster('status', '--json'))).stdout);
    expect(agents.filter((a: { agent: string; state: string }) => a.agent === 'agent-1' && a.state === 'ready')).toHaveLength(1);
  });
});

describe.runIf(process.platform === 'linux')('a cluster whose parent is killed', { timeout: 60_000 }, () => {
  it('does not outlive it', async () => {
    const parent = spawn(process.execPath, ['--import', 'tsx', CLI_PATH, 'cluster', '--agents', '2', '--port', '0'], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    await new Promise((resolve, reject) => {
      parent.on('message', resolve);
      parent.once('close', () => reject(new Error('the cluster ended early')));
    });
    const children = descendants(parent.pid ?? 0).filter(isAlive);
    expect(children.length).toBeGreaterThanOrEqual(3);
    parent.kill('SIGKILL');
    const until = Date.now() + 12_000;
    while (children.some(isAlive) && Date.now() < until) await delay(100);
    expect(children.filter(isAlive)).toEqual([]);
  });
});
