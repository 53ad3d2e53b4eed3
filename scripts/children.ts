/**
 * A cluster on this machine: a gateway and agents as child processes of their own, as they would be on machines of their own. Children end
 * with this process, however it ends (they watch the IPC channel to it).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { ChairError, isErrorCode } from '../broker/errors.js';
import { CLI_PATH, RUNS_FROM_SOURCE } from './package-root.js';

/** A child that is not ready by then is stuck: starting takes about a second, and many at once on a busy machine a minute. */
const READY_WITHIN_MS = 90_000;
const STOP_WITHIN_MS = 10_000;
const ASK_WITHIN_MS = 2000;
/** Last lines of a child's stderr, for the message when it fails. */
const KEPT_LINES = 20;

export interface ClusterOptions {
  readonly agents: number;
  readonly cluster?: string;
  /** Port of the broker; 0 = any free one. */
  readonly port?: number;
  /** A broker that runs elsewhere (Mosquitto, say): then the gateway process runs the scheduler only. */
  readonly brokerUrl?: string;
  /** Engine threads of each agent; 0 = one per core. Several agents on one machine share its cores. */
  readonly threads?: number;
  /** Agents are called NAME-1, NAME-2, ... */
  readonly agentName?: string;
  /** State of all processes; default: a fresh folder that is removed at the end. */
  readonly directory?: string;
  /** Entry file of the CLI for the children; default: this program's. A compiled one starts faster. */
  readonly cli?: string;
  /** Not announced on the network (mDNS), not even to this machine; default true. */
  readonly hidden?: boolean;
  /** What the children write. */
  readonly onLine?: (child: string, line: string) => void;
}

/** Node flags that make a child of a checkout understand TypeScript. */
export function nodeFlags(): string[] {
  if (!RUNS_FROM_SOURCE) return [];
  return ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href];
}

/**
 * glibc stops giving large buffers back to the system after the first one was freed, and each thread then keeps its own: 30 MiB of an idle agent, 110 of one with
 * VGG16. With a fixed threshold (the one it starts with) it goes on giving them back. Only the environment can say so. docs/devices.md says it for services.
 */
const SPARING = { MALLOC_MMAP_THRESHOLD_: '131072' } as const;

/** How a child is started, when not as a plain process of the CLI. */
export interface LaunchOptions {
  /** Program and first arguments; default: this Node with the CLI. */
  readonly command?: readonly string[];
  /** A child under a CPU quota starts slowly. */
  readonly readyWithinMs?: number;
}

/** One child: its process, its readiness, its end. */
export class Child {
  readonly name: string;
  readonly process: ChildProcess;
  /** What it announced; rejects when it ends before. */
  readonly ready: Promise<Readonly<Record<string, unknown>>>;
  /** Resolves when it has ended. */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: string | null }>;
  readonly #lines: string[] = [];
  #questions = 0;

  constructor(name: string, args: readonly string[], onLine?: (line: string) => void, launch: LaunchOptions = {}) {
    this.name = name;
    const [program = process.execPath, ...first] = launch.command ?? [process.execPath, ...nodeFlags(), CLI_PATH];
    // Advanced serialization: tensors may travel between the two.
    this.process = spawn(program, [...first, ...args], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'advanced',
      env: { ...SPARING, ...process.env },
    });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream?.setEncoding('utf8');
      let rest = '';
      stream?.on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) {
          this.#lines.push(line);
          if (this.#lines.length > KEPT_LINES) this.#lines.shift();
          onLine?.(line);
        }
      });
    }
    this.ended = new Promise((resolve) => {
      this.process.once('close', (code, signal) => resolve({ code, signal }));
    });
    this.ready = this.#whenReady(launch.readyWithinMs ?? READY_WITHIN_MS);
    // Whoever waits for it sees the failure; nobody else must.
    this.ready.catch(() => undefined);
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  #whenReady(withinMs: number): Promise<Readonly<Record<string, unknown>>> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new ChairError('REQUEST_TIMEOUT', `${this.name} was not ready within ${withinMs} ms`)),
        withinMs,
      );
      this.process.on('message', (message) => {
        if (typeof message !== 'object' || message === null || !('ready' in message)) return;
        clearTimeout(timer);
        resolve({ ...message });
      });
      this.process.once('error', (error) =>
        reject(new ChairError('INTERNAL', `${this.name} could not be started: ${error.message}`, { cause: error })),
      );
      void this.ended.then(() => {
        clearTimeout(timer);
        reject(this.failure());
      });
    });
  }

  /**
   * A question that the child answers over IPC (`onAsked` in lifetime.ts). Throws what the child threw, with its code; REQUEST_TIMEOUT when it does not answer,
   * also when it hangs or is gone.
   */
  ask(
    question: string,
    { argument, withinMs = ASK_WITHIN_MS }: { readonly argument?: unknown; readonly withinMs?: number } = {},
  ): Promise<unknown> {
    const id = ++this.#questions;
    return new Promise((resolve, reject) => {
      const done = (settle: () => void): void => {
        clearTimeout(timer);
        this.process.off('message', onMessage);
        settle();
      };
      const fail = (): void =>
        done(() => reject(new ChairError('REQUEST_TIMEOUT', `${this.name} did not answer '${question}' within ${withinMs} ms`)));
      const onMessage = (message: unknown): void => {
        if (typeof message !== 'object' || message === null || !('answered' in message) || message.answered !== id) return;
        done(() => {
          if ('error' in message) reject(told(message.error));
          else resolve('value' in message ? message.value : undefined);
        });
      };
      const timer = setTimeout(fail, withinMs);
      this.process.on('message', onMessage);
      if (!this.process.connected) fail();
      else this.process.send({ ask: question, id, argument }, (error) => error !== null && fail());
    });
  }

  /** The error the child itself reported (its last line with a code), with its code. */
  failure(): ChairError {
    const line = [...this.#lines].reverse().find((l) => /^[A-Z_]+: /.test(l));
    // Without a code it is nothing that anybody expected: then all that it said at last.
    const [, code = '', text = this.#lines.join('\n') || 'it said nothing'] = /^([A-Z_]+): (.*)$/.exec(line ?? '') ?? [];
    return new ChairError(isErrorCode(code) ? code : 'INTERNAL', `${this.name}: ${text}`);
  }

  /** SIGTERM, then SIGKILL when it does not go. Idempotent. */
  async stop(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill('SIGTERM');
    const timer = setTimeout(() => this.process.kill('SIGKILL'), STOP_WITHIN_MS);
    await this.ended;
    clearTimeout(timer);
  }
}

export class LocalCluster {
  readonly url: string;
  readonly gateway: Child;
  readonly agents: readonly Child[];
  readonly #directory: string;
  readonly #ownsDirectory: boolean;

  private constructor(url: string, gateway: Child, agents: readonly Child[], directory: string, ownsDirectory: boolean) {
    this.url = url;
    this.gateway = gateway;
    this.agents = agents;
    this.#directory = directory;
    this.#ownsDirectory = ownsDirectory;
  }

  /** Resolves when the gateway listens and all agents have started. Throws what a child reported; then none is left. */
  static async start(options: ClusterOptions): Promise<LocalCluster> {
    const ownsDirectory = options.directory === undefined;
    const directory = options.directory ?? (await mkdtemp(path.join(tmpdir(), 'musical-chair-')));
    const { cluster = 'default', threads = 0, agentName = 'agent' } = options;
    const launch = options.cli === undefined ? {} : { command: [process.execPath, options.cli] };
    const start = (name: string, args: readonly string[]): Child => new Child(name, args, (line) => options.onLine?.(name, line), launch);
    // Plain, since nothing listens outside this machine.
    const decides =
      options.brokerUrl === undefined ? ['gateway', '--port', String(options.port ?? 0)] : ['scheduler', '--broker', options.brokerUrl];
    const gatewayArgs = [
      ...decides,
      '--insecure',
      '--cluster',
      cluster,
      '--host',
      '127.0.0.1',
      ...(options.hidden === false ? [] : ['--hidden']),
    ];
    const gateway = start('gateway', [...gatewayArgs, '--directory', path.join(directory, 'gateway')]);
    const agents: Child[] = [];
    try {
      const { url } = await gateway.ready;
      for (let i = 1; i <= options.agents; i++) {
        const name = `${agentName}-${i}`;
        const where = ['--lane-host', '127.0.0.1', '--addresses', '127.0.0.1', '--directory', path.join(directory, name)];
        agents.push(
          start(name, [
            'agent',
            '--insecure',
            '--cluster',
            cluster,
            '--broker',
            String(url),
            '--name',
            name,
            '--threads',
            String(threads),
            ...where,
          ]),
        );
      }
      await Promise.all(agents.map((a) => a.ready));
      return new LocalCluster(String(url), gateway, agents, directory, ownsDirectory);
    } catch (error) {
      await Promise.all([gateway, ...agents].map((c) => c.stop()));
      if (ownsDirectory) await rm(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Stops agents, then the gateway; removes the folder when it was made here. Idempotent. */
  async stop(): Promise<void> {
    await Promise.all(this.agents.map((a) => a.stop()));
    await this.gateway.stop();
    if (this.#ownsDirectory) await rm(this.#directory, { recursive: true, force: true });
  }
}

/** An error as it came over IPC. */
function told(error: unknown): ChairError {
  const { code = '', message = '' } = typeof error === 'object' && error !== null ? (error as { code?: string; message?: string }) : {};
  return new ChairError(isErrorCode(code) ? code : 'INTERNAL', message);
}
