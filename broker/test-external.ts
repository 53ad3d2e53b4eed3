/**
 * For `npm run test:brokers`: stands in for server.ts, so that every test that starts a broker gets one of another make. MUSICAL_CHAIR_TEST_BROKER says which:
 * `mosquitto` starts one for each; `bridged` two, over which clients are spread by their names; `rabbitmq` gives a virtual host of the node that runs already.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { listen } from './listen.js';
import type { BrokerOptions, BrokerServer } from './server.js';

/** Ports of the node's MQTT listeners, one for each virtual host, and the folder where processes say which they use. */
interface RabbitNode {
  readonly ports: readonly number[];
  readonly directory: string;
}

const HERE = '127.0.0.1';
const MOSQUITTO_PATH = `${process.env.PATH ?? ''}:/usr/sbin:/usr/local/sbin`;

/** As startBroker of server.ts. Packet limits, rules and counts are the embedded broker's own. */
export async function startBroker({ host = '0.0.0.0', port }: BrokerOptions): Promise<BrokerServer> {
  switch (process.env.MUSICAL_CHAIR_TEST_BROKER) {
    case 'mosquitto': {
      const own = await takePort(host, port);
      const mosquitto = await startMosquitto(host, own);
      return served(host, own, () => mosquitto.stop());
    }
    case 'bridged': {
      const own = await takePort(host, port);
      const ports = [await takePort(HERE, 0), await takePort(HERE, 0)] as const;
      const first = await startMosquitto(HERE, ports[0]);
      const second = await startMosquitto(HERE, ports[1], ports[0]);
      await untilBridged(ports[0], ports[1]);
      const front = await startFront(host, own, (client) => ports[hash(client) % 2] ?? ports[0]);
      return served(host, front.port, async () => {
        await front.stop();
        await Promise.all([first.stop(), second.stop()]);
      });
    }
    case 'rabbitmq': {
      const node: RabbitNode = JSON.parse(process.env.MUSICAL_CHAIR_TEST_RABBITMQ ?? '');
      const own = await takePort(host, port);
      const virtual = takeVirtualHost(node);
      const front = await startFront(host, own, () => virtual.port);
      return served(host, front.port, async () => {
        await front.stop();
        virtual.release();
      });
    }
    default:
      throw new Error(`MUSICAL_CHAIR_TEST_BROKER=${process.env.MUSICAL_CHAIR_TEST_BROKER}: expected mosquitto, bridged or rabbitmq`);
  }
}

function served(host: string, port: number, end: () => Promise<void>): BrokerServer {
  let stopping: Promise<void> | undefined;
  return {
    host,
    port,
    url: `mqtt://${host === '0.0.0.0' ? HERE : host}:${port}`,
    stats: () => {
      throw new Error('only the embedded broker counts');
    },
    stop: () => {
      stopping ??= end();
      return stopping;
    },
  };
}

/** Throws PORT_IN_USE as the embedded broker does. */
async function takePort(host: string, port: number): Promise<number> {
  const server = createServer();
  const taken = await listen(server, host, port);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return taken;
}

// ---- Mosquitto -------------------------------------------------------------------------------------------------------------

interface Running {
  stop(): Promise<void>;
}

/** A bridge carries everything both ways (some tests have topics outside of mc/). Nothing is kept: no persistence. */
function mosquittoConfig(host: string, port: number, bridgeTo: number | undefined): string {
  const bridge = [
    'connection other',
    `address ${HERE}:${bridgeTo}`,
    'topic # both 1',
    'cleansession true',
    'restart_timeout 1',
    'notifications false',
  ];
  const own = [`listener ${port} ${host}`, 'allow_anonymous true', 'persistence false', 'max_queued_messages 0', 'user root'];
  return [...own, ...(bridgeTo === undefined ? [] : bridge), ''].join('\n');
}

async function startMosquitto(host: string, port: number, bridgeTo?: number): Promise<Running> {
  const directory = await mkdtemp(path.join(tmpdir(), 'mosquitto-'));
  const config = path.join(directory, 'mosquitto.conf');
  await writeFile(config, mosquittoConfig(host, port, bridgeTo));
  // It ends with this process, however that ends.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'mosquitto', '-c', config], {
    stdio: 'ignore',
    env: { ...process.env, PATH: MOSQUITTO_PATH },
  });
  await answering(port, child);
  // A folder of a process that is killed stays behind: the file was read.
  await rm(directory, { recursive: true, force: true });
  return {
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function answering(port: number, child: ChildProcess): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt++) {
    if (child.exitCode !== null) throw new Error(`mosquitto ended with ${child.exitCode}`);
    if (await accepts(port)) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error('mosquitto did not start');
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, HERE);
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** A message published at one comes out of the other. */
async function untilBridged(from: number, to: number): Promise<void> {
  const { connectBus } = await import('./mqtt-bus.js');
  const [a, b] = [await connectBus({ url: `mqtt://${HERE}:${from}`, id: 'a' }), await connectBus({ url: `mqtt://${HERE}:${to}`, id: 'b' })];
  try {
    const ways = { there: false, back: false };
    await b.subscribeBytes('mc/bridged/there', () => {
      ways.there = true;
    });
    await a.subscribeBytes('mc/bridged/back', () => {
      ways.back = true;
    });
    for (let attempt = 0; attempt < 200 && !(ways.there && ways.back); attempt++) {
      await a.publishBytes('mc/bridged/there', new Uint8Array(1));
      await b.publishBytes('mc/bridged/back', new Uint8Array(1));
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    if (!(ways.there && ways.back)) throw new Error('the bridge did not come up');
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
}

// ---- one address in front of several ---------------------------------------------------------------------------------------

/** Passes each connection on to the port that `choose` gives for the name of its client. */
async function startFront(host: string, port: number, choose: (client: string) => number): Promise<Running & { readonly port: number }> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (near) => {
    sockets.add(near);
    near.on('error', () => undefined);
    near.once('close', () => sockets.delete(near));
    const first: Buffer[] = [];
    const look = (chunk: Buffer): void => {
      first.push(chunk);
      const client = clientOf(Buffer.concat(first));
      if (client === undefined) return;
      near.off('data', look);
      near.pause();
      const far = connect({ port: choose(client), host: HERE, noDelay: true });
      far.on('error', () => near.destroy());
      far.once('close', () => near.destroy());
      near.once('close', () => far.destroy());
      far.write(Buffer.concat(first));
      near.pipe(far);
      far.pipe(near);
    };
    near.on('data', look);
  });
  const own = await listen(server, host, port);
  return {
    port: own,
    stop: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** The name in a CONNECT packet (MQTT 3.1.1, 3.1), without the nonce behind it; '' for anything else, undefined when more has to come. */
function clientOf(bytes: Buffer): string | undefined {
  if (bytes.length > 0 && bytes[0] !== 0x10) return '';
  let at = 1;
  while (at < bytes.length && ((bytes[at] ?? 0) & 0x80) !== 0) at++;
  // Remaining length, "MQTT" with its length, level, flags, keep-alive.
  at += 1 + 6 + 1 + 1 + 2;
  if (bytes.length < at + 2) return undefined;
  const end = at + 2 + bytes.readUInt16BE(at);
  return bytes.length < end ? undefined : (bytes.toString('utf8', at + 2, end).split('~')[0] ?? '');
}

function hash(text: string): number {
  let value = 0;
  for (const char of text) value = (value * 31 + (char.codePointAt(0) ?? 0)) >>> 0;
  return value;
}

// ---- RabbitMQ ----------------------------------------------------------------------------------------------------------------

/** A virtual host that no living process uses: clusters of several tests must not meet. */
function takeVirtualHost({ ports, directory }: RabbitNode): { readonly port: number; release(): void } {
  for (const port of ports) {
    const lock = path.join(directory, `used-${port}`);
    try {
      mkdirSync(lock);
    } catch {
      if (isUsed(path.join(lock, 'pid'))) continue;
    }
    writeFileSync(path.join(lock, 'pid'), String(process.pid));
    return { port, release: () => rmSync(lock, { recursive: true, force: true }) };
  }
  throw new Error(`all ${ports.length} virtual hosts are in use`);
}

function isUsed(file: string): boolean {
  try {
    const pid = Number(readFileSync(file, 'utf8'));
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
