/** The steps of the bundle test, each a line `ok` or `FAILED`; the last line counts them. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TOLERANCE } from '../../../models/slicing/verify.js';
import type { ChairClient } from '../../../scheduler/client.js';
import { agentSettings, bootFilesOf } from '../../bundle/boot-files.js';
import { makeBundle } from '../../bundle/make.js';
import type { Architecture } from '../../bundle/manifest.js';
import { type Bundle, readBundle } from '../../bundle/read.js';
import { Child } from '../../children.js';
import { compileTo } from '../../compile.js';
import { settingsSchema } from '../../config.js';
import { withClient } from '../../connection.js';
import type { Finding } from '../../doctor/findings.js';
import { Net } from '../fixture.js';
import { type CliResult, runCli } from '../run-cli.js';
import { Machine, nodeFor } from './machines.js';

const CLUSTER = 'bundles';
/** qemu on a busy machine. */
const PATIENCE_MS = 8 * 60_000;

interface Made extends Bundle {
  readonly file: string;
}

export async function runBundleTest(args: readonly string[]): Promise<boolean> {
  const nodeArm64 = args.includes('--node-arm64') ? (args[args.indexOf('--node-arm64') + 1] ?? '') : '';
  const asked = (['x64', 'arm64'] as const).filter((arch) => args.includes(arch));
  const folder = mkdtempSync(path.join(tmpdir(), 'mc-bundle-e2e-'));
  const test = new BundleTest(folder, nodeArm64);
  try {
    await test.run(asked.length === 0 ? ['x64', 'arm64'] : asked);
  } finally {
    await test.stop();
    if (args.includes('--keep')) console.log(`kept: ${folder}`);
    else rmSync(folder, { recursive: true, force: true });
  }
  console.log(`${test.passed} passed, ${test.failed} failed`);
  return test.failed === 0;
}

class BundleTest {
  passed = 0;
  failed = 0;
  readonly #machines: Machine[] = [];
  #gateway: Child | undefined;
  #url = '';
  #enrolPort = 0;
  #net: Net | undefined;

  constructor(
    private readonly folder: string,
    private readonly nodeArm64: string,
  ) {}

  async run(architectures: readonly Architecture[]): Promise<void> {
    const dist = path.join(this.folder, 'dist');
    compileTo(dist);
    this.#net = await Net.build('resnet18', { scale: 0.125, size: 64, classes: 10, seed: 5 }, 4);
    await this.#startGateway();
    for (const arch of architectures) await this.#machineOf(arch, dist);
    if (architectures.includes('x64')) {
      await this.#watchdog();
      await this.#powerCuts(dist);
      await this.#updates(dist);
    }
  }

  async stop(): Promise<void> {
    for (const machine of this.#machines) await machine.cut();
    await this.#gateway?.stop();
    this.#net?.remove();
  }

  async #step(what: string, work: () => Promise<void>): Promise<boolean> {
    const from = performance.now();
    try {
      await work();
      this.passed++;
      console.log(`ok      ${what} (${((performance.now() - from) / 1000).toFixed(1)} s)`);
      return true;
    } catch (error) {
      this.failed++;
      console.log(`FAILED  ${what}: ${error instanceof Error ? error.message : String(error)}`);
      return false;
    }
  }

  async #startGateway(): Promise<void> {
    const [port, enrolPort] = [await freePort(), await freePort()];
    this.#enrolPort = enrolPort;
    const state = path.join(this.folder, 'gateway');
    const args = [
      'gateway',
      '--cluster',
      CLUSTER,
      '--host',
      '127.0.0.1',
      '--port',
      `${port}`,
      '--enrol-port',
      `${enrolPort}`,
      '--directory',
      state,
      '--hidden',
    ];
    const log = path.join(this.folder, 'gateway.log');
    this.#gateway = new Child('gateway', args, (line) => writeFileSync(log, `${line}\n`, { flag: 'a' }));
    const { url } = await this.#gateway.ready;
    this.#url = String(url);
  }

  get #operator(): string {
    return path.join(this.folder, 'gateway', 'credentials', 'operator');
  }

  async #cli(...args: string[]): Promise<CliResult> {
    const all = [...args, '--cluster', CLUSTER, '--broker', this.#url, '--credentials', this.#operator];
    const result = await runCli(all, { timeoutMs: 20 * 60_000 });
    if (result.status !== 0) throw new Error(`${args.slice(0, 3).join(' ')}: ${result.stderr.trim().split('\n').at(-1)}`);
    return result;
  }

  #client<T>(use: (client: ChairClient) => Promise<T>): Promise<T> {
    return withClient(settingsSchema.parse({ cluster: CLUSTER, broker: this.#url, credentials: this.#operator }), use);
  }

  async #bundle(arch: Architecture, dist: string, name: string): Promise<Made> {
    const file = path.join(this.folder, `${name}.tgz`);
    return { ...(await makeBundle({ arch, node: nodeFor(arch, this.nodeArm64), dist, out: file })), file };
  }

  async #flashed(name: string, arch: Architecture, bundle: Made): Promise<Machine> {
    const machine = new Machine(path.join(this.folder, name), arch);
    this.#machines.push(machine);
    const token = (await this.#cli('token', 'create', '--name', name, '--bare')).stdout.trim();
    const { port } = new URL(this.#url);
    const settings = agentSettings({
      cluster: CLUSTER,
      name,
      gateway: '127.0.0.1',
      brokerPort: Number(port),
      enrolmentPort: this.#enrolPort,
    });
    const scheme = this.#url.split(':')[0] ?? 'mqtts';
    machine.insertCard(await bootFilesOf(bundle.file, bundle, settings.replace('mqtts:', `${scheme}:`), token));
    return machine;
  }

  /** Resolves with its version when the agent is ready; `not`: in another process than that one. */
  async #ready(name: string, machine: Machine, version: string): Promise<void> {
    const untilMs = performance.now() + PATIENCE_MS;
    let seen = 'nobody';
    await this.#client(async (client) => {
      for (;;) {
        const agent = (await client.status()).agents.find((row) => row.agent === name);
        seen = agent === undefined ? 'nobody' : `${agent.state} ${agent.softwareVersion}`;
        if (agent?.state === 'ready' && agent.softwareVersion === version) return;
        if (performance.now() > untilMs)
          throw new Error(`${name} is ${seen}, not ready ${version}; its console:\n${machine.lines.slice(-15).join('\n')}`);
        await delay(300);
      }
    });
  }

  async #oneIdentity(name: string): Promise<void> {
    const log: unknown = JSON.parse((await this.#cli('audit', '--count', '1000', '--json')).stdout);
    const joins = rowsOf(log).filter((row) => row.includes('"event":"joined"') && row.includes(`"about":"agent ${name}"`));
    // Asked again with the same key, it is let in again: that is the same one.
    const first = joins.filter((row) => !row.includes('again'));
    if (first.length !== 1) throw new Error(`the audit log has ${first.length} joins of ${name}: ${joins.join('\n')}`);
    if (joins.length > 1) console.log(`        asked ${joins.length} times, with one key`);
    const members: unknown = JSON.parse((await this.#cli('agents', 'list', '--json')).stdout);
    const rows = JSON.stringify(members).split(`"name":"${name}"`).length - 1;
    if (rows !== 1) throw new Error(`the gateway knows ${rows} of ${name}: ${JSON.stringify(members)}`);
  }

  async #machineOf(arch: Architecture, dist: string): Promise<void> {
    const name = `pi-${arch}`;
    let bundle: Made | undefined;
    await this.#step(`${arch}: a bundle is made`, async () => {
      bundle = await this.#bundle(arch, dist, `a-${arch}`);
      console.log(`        ${(bundle.sizeBytes / 1e6).toFixed(1)} MB, ${bundle.manifest.files.length} files, Node ${bundle.manifest.node}`);
    });
    if (bundle === undefined) return;
    const made = bundle;
    const machine = await this.#flashed(name, arch, made);
    const joined = await this.#step(`${arch}: it joins with its token at its first boot`, async () => {
      machine.on();
      await this.#ready(name, machine, made.name);
    });
    if (!joined) return;
    await this.#step(`${arch}: the token is gone from the boot partition and from the disk, credentials are there`, async () => {
      const left = machine.bootFiles();
      if (left.join() !== 'first-boot.log') throw new Error(`the boot partition holds ${left.join(', ')}`);
      if (machine.read('var/lib/musical-chair/token') !== undefined) throw new Error('the token is on the disk');
      if (machine.read('var/lib/musical-chair/credentials/cert.pem') === undefined) throw new Error('there is no certificate');
    });
    await this.#step(`${arch}: doctor looks at it from inside, with the bundle's own program`, () => this.#doctor(machine));
    await this.#step(`${arch}: it computes what one machine computes`, () => this.#computes(name));
    await this.#step(`${arch}: a second boot does not join again`, async () => {
      const before = machine.read('var/lib/musical-chair/credentials/cert.pem');
      await machine.cut();
      machine.on();
      await delay(2_000);
      await this.#ready(name, machine, made.name);
      if (machine.read('var/lib/musical-chair/credentials/cert.pem') !== before) throw new Error('it has another certificate');
      await this.#oneIdentity(name);
    });
  }

  async #doctor(machine: Machine): Promise<void> {
    const { status, stdout, stderr } = machine.inside(['/opt/musical-chair/current/bin/musical-chair', 'doctor', '--json'], PATIENCE_MS);
    const report = JSON.parse(stdout || '{}') as { ok?: boolean; findings?: Finding[] };
    const { findings = [] } = report;
    const bads = findings.filter(({ grade }) => grade === 'bad').map(({ area, check, text }) => `${area}, ${check}: ${text}`);
    if (status !== 0 || report.ok !== true) throw new Error(`doctor ended with ${status}: ${bads.join('; ') || stderr}`);
    const wanted = ['node', 'engine', 'memory', 'clock', 'disk', 'process', 'certificate', 'join port', 'mdns', 'broker'];
    const missing = wanted.filter((check) => !findings.some((finding) => finding.check === check));
    if (missing.length > 0) throw new Error(`doctor says nothing of ${missing.join(', ')}`);
    console.log(`        ${findings.length} findings; ${findings.find(({ check }) => check === 'broker')?.text}`);
  }

  async #computes(agent: string): Promise<void> {
    const net = this.#net;
    if (net === undefined) return;
    await this.#client(async (client) => {
      await client.deploy({ name: `net-${agent}`, model: await client.upload(net.model), agents: [agent] });
      let worst = 0;
      for (let i = 0; i < 4; i++) {
        const { outputs } = await client.infer(`net-${agent}`, net.input(i), { deadlineMs: 120_000 });
        worst = Math.max(worst, net.difference(i, outputs));
      }
      await client.undeploy(`net-${agent}`);
      if (!(worst <= TOLERANCE)) throw new Error(`results differ by ${worst}`);
      console.log(`        4 frames, largest relative difference ${worst.toExponential(1)}`);
    });
  }

  /** The plug is pulled again and again, a little later each time, until the machine gets through. */
  async #powerCuts(dist: string): Promise<void> {
    const name = 'pi-cut';
    await this.#step('x64: power cuts all through the first boot and the joining leave one identity', async () => {
      const bundle = await this.#bundle('x64', dist, 'a-x64');
      const machine = await this.#flashed(name, 'x64', bundle);
      let cuts = 0;
      for (let waitMs = 100; machine.read('var/lib/musical-chair/credentials/cert.pem') === undefined && cuts < 60; waitMs *= 1.15) {
        machine.on();
        await delay(waitMs);
        await machine.cut();
        cuts++;
      }
      console.log(`        ${cuts} power cuts`);
      if (cuts < 5) throw new Error('it was through before it was cut off');
      machine.on();
      await this.#ready(name, machine, bundle.name);
      await this.#oneIdentity(name);
      if (machine.bootFiles().includes('token')) throw new Error('the token is in the boot partition');
      await machine.cut();
    });
  }

  /** A real systemd runs the unit that was installed. */
  async #watchdog(): Promise<void> {
    const machine = this.#machines[0];
    if (machine === undefined) return;
    const until = async (what: string, holds: () => boolean): Promise<void> => {
      const untilMs = performance.now() + 120_000;
      while (!holds()) {
        if (performance.now() > untilMs) throw new Error(`${what}; its console:\n${machine.lines.slice(-15).join('\n')}`);
        await delay(500);
      }
    };
    await this.#step('x64: systemd runs the unit, is told that it is ready, and that it lives for longer than WatchdogSec', async () => {
      await machine.cut();
      machine.superviseBySystemd();
      await until('it did not become active', () => machine.systemd('ActiveState') === 'active');
      await until('it says nothing for people', () => machine.systemd('StatusText').includes('runs'));
      await delay(20_000);
      if (machine.systemd('NRestarts') !== '0') throw new Error(`it was started ${machine.systemd('NRestarts')} times again`);
      console.log(`        ${machine.systemd('StatusText')}`);
    });
    await this.#step('x64: an agent that stands still is killed by the watchdog, and started again', async () => {
      const before = machine.systemd('MainPID');
      const from = performance.now();
      machine.freezeService();
      await until('it was not killed', () => machine.systemd('NRestarts') === '1' && machine.systemd('ActiveState') === 'active');
      console.log(
        `        after ${((performance.now() - from) / 1000).toFixed(0)} s: process ${before} was replaced by ${machine.systemd('MainPID')}`,
      );
    });
    await machine.cut();
    machine.on();
  }

  async #updates(dist: string): Promise<void> {
    const machine = this.#machines[0];
    if (machine === undefined) return;
    const changed = (name: string, line: string): string => {
      const folder = path.join(this.folder, name);
      cpSync(dist, folder, { recursive: true });
      const entry = path.join(folder, 'scripts', 'device.js');
      const [hashbang = '', ...rest] = readFileSync(entry, 'utf8').split('\n');
      writeFileSync(entry, [hashbang, line, ...rest].join('\n'));
      return folder;
    };
    mkdirSync(path.join(this.folder, 'updates'), { recursive: true });
    const next = await this.#bundle('x64', changed('dist-next', '// the next one'), 'next');
    const bad = await this.#bundle('x64', changed('dist-bad', "if (process.argv[2] === 'agent') process.exit(3);"), 'bad');
    await this.#step('x64: an update is fetched, taken up, and confirmed', async () => {
      const { stdout } = await this.#cli('update', '--bundle', next.file, '--agents', 'pi-x64');
      if (!stdout.includes('pi-x64: updated')) throw new Error(stdout);
      await this.#ready('pi-x64', machine, next.name);
      await this.#computes('pi-x64');
    });
    await this.#step('x64: a program that does not start is given up, and the one before runs again', async () => {
      const failed = await this.#cli('update', '--bundle', bad.file, '--agents', 'pi-x64').then(
        () => '',
        (error: Error) => error.message,
      );
      if (!failed.includes('UPDATE_FAILED')) throw new Error(`said: ${failed}`);
      await this.#ready('pi-x64', machine, next.name);
      const last = machine.read('opt/musical-chair/last-update')?.trim() ?? '';
      if (!last.includes(`failed ${bad.name}`)) throw new Error(`last-update says: ${last}`);
      console.log(`        ${last}`);
    });
    await this.#step('x64: a bundle with one byte flipped is refused', async () => {
      const bytes = readFileSync(next.file);
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
      const flipped = path.join(this.folder, 'flipped.tgz');
      writeFileSync(flipped, bytes);
      const said = await this.#cli('update', '--bundle', flipped).then(
        () => '',
        (error: Error) => error.message,
      );
      if (!said.includes('BUNDLE_DAMAGED')) throw new Error(`said: ${said}`);
      await readBundle(next.file);
    });
  }
}

/** Of a report that is a list, or has one in it. */
function rowsOf(document: unknown): string[] {
  const rows: unknown[] = Array.isArray(document)
    ? document
    : Object.values(document ?? {}).flatMap((value: unknown) => (Array.isArray(value) ? value : []));
  return rows.map((row) => JSON.stringify(row));
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
