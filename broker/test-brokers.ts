/** For tests: real brokers to run a suite against, and a wire that can be cut. Every start registers nothing: the test stops what it started. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { listen } from './listen.js';
import { startBroker } from './server.js';

export interface TestBroker {
  readonly url: string;
  readonly port: number;
  stop(): Promise<void>;
}

export interface BrokerKind {
  readonly name: string;
  /** Why it cannot run here; '' = it can. */
  readonly missing: string;
  start(port?: number): Promise<TestBroker>;
}

/** mosquitto lives in /usr/sbin, which is not on everybody's path. */
export const MOSQUITTO_PATH = `${process.env.PATH ?? ''}:/usr/sbin:/usr/local/sbin`;

/** True when the program is installed. mosquitto lives in /usr/sbin, which is not on everybody's path. */
export function installed(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`], { env: { ...process.env, PATH: MOSQUITTO_PATH } }).status === 0;
}

export const EMBEDDED: BrokerKind = {
  name: 'embedded broker',
  missing: '',
  start: (port = 0) => startBroker({ host: '127.0.0.1', port }),
};

export const MOSQUITTO: BrokerKind = {
  name: 'mosquitto',
  missing: installed('mosquitto') ? '' : 'mosquitto is not installed',
  start: startMosquitto,
};

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server, '127.0.0.1', 0);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

async function startMosquitto(port?: number): Promise<TestBroker> {
  const chosen = port ?? (await freePort());
  const directory = await mkdtemp(join(tmpdir(), 'mosquitto-'));
  const config = join(directory, 'mosquitto.conf');
  await writeFile(config, `listener ${chosen} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nuser root\n`);
  const child = spawn('mosquitto', ['-c', config], { stdio: 'ignore', env: { ...process.env, PATH: MOSQUITTO_PATH } });
  await answering(chosen, child);
  return {
    url: `mqtt://127.0.0.1:${chosen}`,
    port: chosen,
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = new Promise((resolve) => child.once('exit', resolve));
        child.kill('SIGKILL');
        await ended;
      }
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function answering(port: number, child: ChildProcess): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    if (child.exitCode !== null) throw new Error(`mosquitto ended with ${child.exitCode}`);
    const up = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1');
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
      socket.once('connect', () => socket.destroy());
    });
    if (up) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error('mosquitto did not start');
}

/** A wire to `port` that can be cut. */
export interface Proxy {
  readonly port: number;
  readonly connections: number;
  /** Breaks every connection; with `refuse`, also those to come until `mend`. */
  cut(refuse?: boolean): void;
  mend(): void;
  stop(): Promise<void>;
}

export async function startProxy(target: number): Promise<Proxy> {
  const sockets = new Set<Socket>();
  let refusing = false;
  let connections = 0;
  const server = createServer({ noDelay: true }, (near) => {
    if (refusing) {
      near.destroy();
      return;
    }
    connections++;
    const far = connect({ port: target, host: '127.0.0.1', noDelay: true });
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  const port = await listen(server, '127.0.0.1', 0);
  const cut = (refuse = false) => {
    refusing = refuse;
    for (const socket of sockets) socket.destroy();
  };
  return {
    port,
    get connections() {
      return connections;
    },
    cut,
    mend: () => {
      refusing = false;
    },
    stop: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      cut(true);
      await closed;
    },
  };
}

export interface Crowd {
  /** Connections that the other end has not ended. */
  readonly open: number;
  stop(): void;
}

/** Why a crowd cannot come from several addresses here; '' = it can. Of Linux, all of 127.0.0.0/8 is this machine. */
export const NO_CROWD = process.platform === 'linux' ? '' : 'only Linux has more than one loopback address';

/**
 * Connections to `port` that say nothing, or what `say` says on each: `each` from so many `hosts` of this machine, 127.1.0.1 and so on; with 0 hosts, from 127.0.0.1.
 * Resolves when all have come, be they turned away.
 */
export async function crowd(port: number, hosts: number, each: number, say: (socket: Socket) => void = () => undefined): Promise<Crowd> {
  const sockets: Socket[] = [];
  const come = (localAddress: string): Promise<void> =>
    new Promise((resolve) => {
      const socket = connect({ port, host: '127.0.0.1', localAddress });
      sockets.push(socket);
      socket.on('error', () => undefined);
      socket.once('close', () => resolve());
      socket.resume().once('connect', () => {
        say(socket);
        resolve();
      });
    });
  const addresses = hosts === 0 ? ['127.0.0.1'] : Array.from({ length: hosts }, (_, i) => `127.1.${i >> 8}.${(i & 255) + 1}`);
  for (let i = 0; i < each; i++) await Promise.all(addresses.map(come));
  return {
    get open() {
      return sockets.filter(({ destroyed }) => !destroyed).length;
    },
    stop: () => {
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Waits until `check` holds; fails with `what` after `timeoutMs`. */
export async function until(what: string, check: () => boolean, timeoutMs = 5_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!check()) {
    if (performance.now() > end) throw new Error(`still waiting after ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** What keeps the process alive, sorted; compare before and after. */
export function resources(): string[] {
  return process
    .getActiveResourcesInfo()
    .filter((name) => /^(TCP|UDP|Timeout$)/.test(name))
    .sort();
}
