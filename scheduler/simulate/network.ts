/**
 * Machines and what lies between them. A message takes CPU of its sender, then the sender's link up and a radio channel if there is one, and, a latency
 * later, the receiver's link down and its CPU: bytes pass through all of them at once, and through the way between the two where that is slower than their links. Times come
 * from the cost model of the planners.
 */
import { DISPATCHER } from '../../broker/topics.js';
import type { Ends } from '../planners/ends.js';
import type { Device } from '../planners/problem.js';
import type { Clock } from './events.js';
import { Rest } from './rest.js';
import { type Discipline, Server } from './server.js';

/** One machine with an agent, or the gateway. */
export interface Machine {
  readonly id: number;
  readonly name: string;
  readonly device: Device | undefined;
  readonly cpu: Server;
  readonly up: Server;
  readonly down: Server;
  /** `crashed`: its connections are closed, peers notice. `silent`: they notice nothing. */
  state: 'up' | 'crashed' | 'silent';
  /** 1 = as fast as its profile says. */
  speed: number;
  /** Of a CPU quota. */
  readonly rest: Rest | undefined;
}

export class Network {
  readonly machines = new Map<string, Machine>();
  readonly gateway: Machine;
  readonly medium: Server | undefined;
  /** By `from>to`: ways between two machines that are slower than the links of both. */
  readonly pairs: ReadonlyMap<string, Server>;
  messages = 0;
  bytes = 0;
  readonly #clock: Clock;
  readonly #ends: Ends;
  readonly #hosts = new Map<string, Machine[]>();

  constructor(clock: Clock, devices: readonly Device[], ends: Ends, links: Discipline) {
    this.#clock = clock;
    this.#ends = ends;
    this.gateway = this.#machine(DISPATCHER, undefined, links);
    for (const device of devices) this.#machine(device.agent, device, links);
    this.medium = ends.mediumMs(1) > 0 ? new Server(clock, links) : undefined;
    const slow = [...this.machines.keys()].flatMap((from) => [...ends.slowFrom(from)].map((to) => `${from}>${to}`));
    this.pairs = new Map(slow.map((pair) => [pair, new Server(clock, links)]));
  }

  machine(name: string): Machine | undefined {
    return this.machines.get(name);
  }

  latencyMs(from: Machine, to: Machine): number {
    return this.#ends.latencyMs(from.name, to.name);
  }

  /** `failed` is called when the sender learns that it could not be sent; neither is called when the message is lost. `begun`: its bytes leave now. */
  send(from: Machine, to: Machine, bytes: number, delivered: () => void, failed: () => void, begun?: () => void): void {
    this.messages++;
    this.bytes += bytes;
    const ends = this.#ends;
    from.cpu.add(from.id, ends.cpuMs(from.name, bytes), () => this.#carry(from, to, bytes, delivered, failed, begun), undefined, true);
  }

  /** Jobs of the machine are gone; what others have on the way to it will not arrive. */
  stop(machine: Machine, state: 'crashed' | 'silent'): void {
    machine.state = state;
    for (const server of [machine.cpu, machine.up, machine.down]) server.drop(machine.id);
    this.medium?.drop(machine.id);
    for (const pair of this.pairs.values()) pair.drop(machine.id);
  }

  setSpeed(machine: Machine, speed: number): void {
    machine.speed = speed;
    this.#share(machine);
  }

  #carry(from: Machine, to: Machine, bytes: number, delivered: () => void, failed: () => void, begun?: () => void): void {
    const latencyMs = this.latencyMs(from, to);
    if (to.state !== 'up') {
      if (to.state === 'crashed') this.#clock.after(latencyMs, failed);
      return;
    }
    const upMs = this.#ends.linkMs(from.name, 'up', to.name, bytes);
    const downMs = this.#ends.linkMs(to.name, 'down', from.name, bytes);
    const pair = this.pairs.get(`${from.name}>${to.name}`);
    let left = 3 + (this.medium === undefined ? 0 : 1) + (pair === undefined ? 0 : 1);
    const arrive = (): void => {
      left--;
      if (left === 0 && to.state === 'up') delivered();
    };
    // Bytes are placed while they come in.
    const place = (): void => to.cpu.add(to.id, this.#ends.cpuMs(to.name, bytes), arrive, undefined, true);
    const pass = (): void => {
      if (to.state !== 'up') return;
      to.down.add(to.id, downMs, arrive, place);
      pair?.add(from.id, this.#ends.pairMs(from.name, to.name, bytes), arrive);
    };
    from.up.add(
      from.id,
      upMs,
      () => this.#clock.after(latencyMs, arrive),
      () => {
        begun?.();
        this.#clock.after(latencyMs, pass);
      },
    );
    this.medium?.add(from.id, this.#ends.mediumMs(bytes), () => this.#clock.after(latencyMs, arrive));
  }

  #machine(name: string, device: Device | undefined, links: Discipline): Machine {
    const { host, quota } = device ?? {};
    const changed = (): void => {
      machine.rest?.set(machine.cpu.busy);
      this.#share(machine);
    };
    const machine: Machine = {
      id: this.machines.size,
      name,
      device,
      cpu: new Server(this.#clock, 'fifo', host === undefined && quota === undefined ? undefined : changed),
      up: new Server(this.#clock, links),
      down: new Server(this.#clock, links),
      state: 'up',
      speed: 1,
      rest: quota === undefined ? undefined : new Rest(this.#clock, quota, () => this.#share(machine)),
    };
    this.machines.set(name, machine);
    if (host !== undefined) this.#hosts.set(host, [...(this.#hosts.get(host) ?? []), machine]);
    return machine;
  }

  /** Machines of one host that are busy share its cores: when they want more than there is, all run slower. */
  #share(machine: Machine): void {
    const neighbours = machine.device?.host === undefined ? [machine] : (this.#hosts.get(machine.device.host) ?? [machine]);
    const wanted = neighbours.reduce((sum, one) => sum + (one.cpu.busy ? (one.device?.hostShare ?? 1) : 0), 0);
    const part = neighbours.length === 1 ? 1 : 1 / Math.max(1, wanted);
    for (const one of neighbours) one.cpu.setSpeed(one.speed * part * (one.rest?.factor ?? 1));
  }
}
