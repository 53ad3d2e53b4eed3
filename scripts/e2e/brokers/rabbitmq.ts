/** One RabbitMQ node with its MQTT plug-in, in a folder of its own: nothing of an installed service is touched. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { listen } from '../../../broker/listen.js';

/** Debian's. The program on the path changes the user first. */
const SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server';
const START_WITHIN_MS = 180_000;

export const rabbitMqInstalled = (): boolean => existsSync(SERVER);

export interface RabbitMqNode {
  /** Of the MQTT listeners; each is a virtual host of its own. */
  readonly ports: readonly number[];
  readonly directory: string;
  /** SIGKILL; the ports stay the same for `start`. */
  kill(): Promise<void>;
  start(): Promise<void>;
  stop(): Promise<void>;
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(servers.map((server) => listen(server, '127.0.0.1', 0)));
  await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))));
  return ports;
}

/** What is imported when the node starts: a virtual host per port, and one user for all. */
function definitions(ports: readonly number[]): string {
  const vhosts = ['/', ...ports.map(String)];
  return JSON.stringify({
    users: [{ name: 'guest', password: 'guest', tags: 'administrator' }],
    vhosts: vhosts.map((name) => ({ name })),
    permissions: vhosts.map((vhost) => ({ user: 'guest', vhost, configure: '.*', write: '.*', read: '.*' })),
    global_parameters: [{ name: 'mqtt_port_to_vhost_mapping', value: Object.fromEntries(ports.map((port) => [port, String(port)])) }],
  });
}

export async function startRabbitMq(virtualHosts: number): Promise<RabbitMqNode> {
  const directory = await mkdtemp(path.join(tmpdir(), 'rabbitmq-'));
  const file = (name: string): string => path.join(directory, name);
  const [epmdPort = 0, distributionPort = 0, ...ports] = await freePorts(virtualHosts + 2);
  const config = [
    'listeners.tcp = none',
    ...ports.map((port, i) => `mqtt.listeners.tcp.${i + 1} = 127.0.0.1:${port}`),
    'mqtt.allow_anonymous = true',
    'mqtt.default_user = guest',
    'mqtt.default_pass = guest',
    'log.console = true',
    'log.file = false',
    `load_definitions = ${file('definitions.json')}`,
  ];
  await mkdir(file('home'));
  await writeFile(file('rabbitmq.conf'), `${config.join('\n')}\n`);
  await writeFile(file('plugins'), '[rabbitmq_mqtt].\n');
  await writeFile(file('definitions.json'), definitions(ports));
  await writeFile(file('home/.erlang.cookie'), randomBytes(20).toString('hex'));
  await chmod(file('home/.erlang.cookie'), 0o400);
  const env = {
    ...process.env,
    HOME: file('home'),
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_NODENAME: 'musical-chair@localhost',
    RABBITMQ_MNESIA_BASE: file('mnesia'),
    RABBITMQ_LOG_BASE: file('log'),
    RABBITMQ_CONFIG_FILE: file('rabbitmq.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: file('plugins'),
    RABBITMQ_DIST_PORT: String(distributionPort),
    // Schedulers that spin take the cores from what is tested.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+sbwt none +sbwtdcpu none +sbwtdio none',
  };
  // Else the node starts a daemon that outlives it.
  const epmd = spawn('epmd', ['-port', String(epmdPort), '-address', '127.0.0.1'], { stdio: 'ignore', env });
  let child: ChildProcess | undefined;
  let said = '';
  const start = async (): Promise<void> => {
    const started = spawn(SERVER, [], { stdio: ['ignore', 'pipe', 'pipe'], env, detached: true });
    child = started;
    for (const stream of [started.stdout, started.stderr]) stream.on('data', (chunk) => (said = (said + chunk).slice(-4_000)));
    const end = performance.now() + START_WITHIN_MS;
    for (const port of ports) {
      while (!(await accepts(port))) {
        if (started.exitCode !== null || performance.now() > end) throw new Error(`RabbitMQ did not start:\n${said}`);
        await delay(200);
      }
    }
  };
  const kill = async (): Promise<void> => {
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child?.once('exit', resolve));
    // The script and the machine under it are a group of their own.
    process.kill(-child.pid, 'SIGKILL');
    await ended;
  };
  const stop = async (): Promise<void> => {
    await kill();
    epmd.kill('SIGKILL');
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return { ports, directory, kill, start, stop };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}
