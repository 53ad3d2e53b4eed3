/**
 * A network of its own for a testbed: a switch in one namespace, every device in another with one address and one shaped link to it. Nothing is
 * connected to the machine's own network, so addresses cannot collide, and nothing can leave.
 */
import { spawnSync } from 'node:child_process';
import { ChairError } from '../../broker/errors.js';
import type { RunDirectory } from './run-directory.js';

/** The same in every testbed: namespaces do not see each other. */
const SUBNET = '10.77.0';
const PREFIX_LENGTH = 24;
const HOSTS = 250;
/** A link holds this much before it drops; a switch's buffer, roughly. */
const QUEUE_MS = 50;
/** What passes at once: at least ten packets, at most 1 ms of the link. */
const BURST_MINIMUM_BYTES = 16 * 1024;
const GSO_MAXIMUM_BYTES = 65_536;

/** Why namespaces and shaped links cannot be made here, or undefined when they can. */
export function whyNoNetwork(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.getuid?.() !== 0) return 'not root';
  for (const [program, flag] of [
    ['ip', '-V'],
    ['tc', '-V'],
    ['nsenter', '--version'],
  ] as const) {
    if (spawnSync(program, [flag], { stdio: 'ignore' }).status !== 0) return `the program ${program} is missing`;
  }
  return undefined;
}

/** Throws TESTBED_FAILED with what the program said. */
function run(program: string, line: string): void {
  const { status, stderr, error } = spawnSync(program, line.split(' '), { encoding: 'utf8' });
  if (status === 0) return;
  const came = error?.message ?? (stderr.trim() || `exit status ${status}`);
  throw new ChairError('TESTBED_FAILED', `"${program} ${line}" failed`, { came });
}

export class Network {
  readonly #run: RunDirectory;
  readonly #hub: string;
  #addresses = 0;
  #ports = 0;

  /** Throws TESTBED_FAILED. */
  constructor(directory: RunDirectory) {
    this.#run = directory;
    this.#hub = this.#namespace('hub');
    run('ip', `-n ${this.#hub} link add br0 type bridge`);
    run('ip', `-n ${this.#hub} link set br0 up`);
  }

  /** A namespace with an address and a link. Throws TESTBED_FAILED. */
  attach(name: string, rateBits: number | undefined): Link {
    const namespace = this.#namespace(name);
    const port = `port${++this.#ports}`;
    run('ip', `-n ${this.#hub} link add ${port} type veth peer name eth0 netns ${namespace}`);
    run('ip', `-n ${this.#hub} link set ${port} master br0 up`);
    const link = new Link(namespace, this.#hub, port, () => this.#nextAddress());
    if (rateBits !== undefined) link.setRate(rateBits);
    return link;
  }

  #nextAddress(): string {
    if (this.#addresses === HOSTS) throw new ChairError('TESTBED_FAILED', `a testbed has ${HOSTS} addresses, and all are used`);
    return `${SUBNET}.${++this.#addresses}`;
  }

  #namespace(name: string): string {
    const full = `musical-chair-${this.#run.id}-${name}`;
    this.#run.record({ kind: 'namespace', name: full });
    run('ip', `netns add ${full}`);
    run('ip', `-n ${full} link set lo up`);
    return full;
  }
}

/** A device's link to the switch. Faults are made on the switch's side, as when a cable is pulled there. */
export class Link {
  readonly namespace: string;
  readonly #hub: string;
  readonly #port: string;
  readonly #nextAddress: () => string;
  #address: string;

  constructor(namespace: string, hub: string, port: string, nextAddress: () => string) {
    this.namespace = namespace;
    this.#hub = hub;
    this.#port = port;
    this.#nextAddress = nextAddress;
    this.#address = nextAddress();
    run('ip', `-n ${namespace} address add ${this.#address}/${PREFIX_LENGTH} dev eth0`);
    run('ip', `-n ${namespace} link set eth0 up`);
  }

  get address(): string {
    return this.#address;
  }

  /** In each direction: out of the device, and out of the switch towards it. */
  setRate(rateBits: number): void {
    const burst = Math.max(BURST_MINIMUM_BYTES, Math.round(rateBits / 8 / 1000));
    // A packet of the kernel's own offloading must fit the burst; smaller ones also keep a slow link's packets apart.
    const gso = Math.min(GSO_MAXIMUM_BYTES, burst);
    for (const [namespace, device] of [
      [this.namespace, 'eth0'],
      [this.#hub, this.#port],
    ] as const) {
      run('ip', `-n ${namespace} link set ${device} gso_max_size ${gso}`);
      run(
        'tc',
        `-n ${namespace} qdisc replace dev ${device} root tbf rate ${Math.round(rateBits)}bit burst ${burst} latency ${QUEUE_MS}ms`,
      );
    }
  }

  down(): void {
    run('ip', `-n ${this.#hub} link set ${this.#port} down`);
  }

  up(): void {
    run('ip', `-n ${this.#hub} link set ${this.#port} up`);
  }

  /** As after a new lease: the old address is gone at once. Returns the new one. */
  changeAddress(): string {
    const next = this.#nextAddress();
    // In this order: the kernel removes a second address of a subnet together with the first one.
    run('ip', `-n ${this.namespace} address delete ${this.#address}/${PREFIX_LENGTH} dev eth0`);
    run('ip', `-n ${this.namespace} address add ${next}/${PREFIX_LENGTH} dev eth0`);
    this.#address = next;
    return next;
  }
}
