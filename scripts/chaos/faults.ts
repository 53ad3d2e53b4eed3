/** What a fault does to the testbed, and how it is undone. Like a supervisor (systemd, say) it starts again what ended by itself, and says so. */
import { readdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError, isChairError, toChairError } from '../../broker/errors.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { Testbed, TestbedNode } from '../testbed/testbed.js';
import type { Violation } from './fencing.js';
import { EXTRA_DEPLOYMENT, type Fault, type FaultKind, KINDS, type Lie } from './schedule.js';
import type { Stage } from './stage.js';

const RESTART_TRIES = 15;
const RESTART_PAUSE_MS = 1000;
const UNDEPLOY_TRIES = 20;
/** An agent that leaves has 30 s to hand over its seats, and then some to end. */
const LEAVE_WITHIN_MS = 60_000;

/** Why a process may end by itself: it will be started again, as any service is. */
const SUPERVISED: ReadonlySet<string> = new Set(['AGENT_NAME_TAKEN', 'CLUSTER_TAKEN', 'BROKER_UNREACHABLE', 'AGENT_STORE_FULL']);

const NEEDS_LINKS: ReadonlySet<FaultKind> = new Set<FaultKind>(['link-down', 'slow-link', 'slow-cpu', 'new-address', 'disk-full']);

/** Kinds that this testbed can do. */
export function possibleKinds({ conditions }: Testbed): readonly FaultKind[] {
  return conditions.isolation === 'namespaces' ? KINDS : KINDS.filter((kind) => !NEEDS_LINKS.has(kind));
}

export class Faults {
  readonly #stage: Stage;
  readonly #device: DeviceSpec;
  /** Those that should run now. */
  readonly #running = new Set<string>();
  /** Being started or ended by us. */
  readonly #busy = new Set<string>();
  readonly restarts: string[] = [];
  /** Requests that failed with a code, and lies that nobody heard. */
  readonly refused: string[] = [];
  /** Lies that were told since somebody looked. */
  readonly told: { readonly lie: Lie; readonly agent: string }[] = [];
  readonly #underWay = new Set<Promise<unknown>>();
  #stopped = false;
  readonly #stuck: Violation[] = [];

  constructor(stage: Stage, device: DeviceSpec = DEFAULT_DEVICE) {
    this.#stage = stage;
    this.#device = device;
    for (const { name } of this.#nodes()) this.#running.add(name);
  }

  /** Throws what could not be done. */
  begin(fault: Fault): Promise<void> {
    return this.#keep(this.#begin(fault));
  }

  /** Throws what could not be undone. */
  undo(fault: Fault): Promise<void> {
    return this.#keep(this.#undo(fault));
  }

  async #keep(work: Promise<void>): Promise<void> {
    const kept = work.catch(() => undefined);
    this.#underWay.add(kept);
    try {
      await work;
    } finally {
      this.#underWay.delete(kept);
    }
  }

  async #begin(fault: Fault): Promise<void> {
    if (this.#stopped) return;
    const { kind, target } = fault;
    switch (kind) {
      case 'kill':
      case 'rot':
      case 'gateway-kill':
      case 'broker-kill':
        return this.#kill(this.#node(target));
      case 'hang':
      case 'gateway-hang':
        return this.#node(target).pause();
      case 'link-down':
        return this.#node(target).linkDown();
      case 'slow-link':
        return this.#node(target).setRate(fault.value);
      case 'slow-cpu':
        return this.#node(target).setCpu(Math.max(0.02, this.#device.cpu * fault.value));
      case 'new-address':
        return void this.#node(target).changeAddress();
      case 'disk-full':
        return this.#node(target).fillDisk();
      case 'join':
        return this.#join(target);
      case 'leave':
        return this.#leave(this.#node(target));
      case 'lie':
        return this.#lie(fault.lies ?? [], target);
      case 'clock':
        return this.#node(target).shiftClock(fault.value);
      case 'deploy':
        return this.#orRefused(this.#stage.inside.deploy(this.#stage.extra));
      case 'adjust':
        return this.#orRefused(this.#stage.inside.adjust(target, 'latency'));
    }
  }

  async #undo(fault: Fault): Promise<void> {
    const node = (): TestbedNode => this.#node(fault.target);
    switch (fault.kind) {
      case 'rot':
        await this.#rot(node());
        return this.#restart(node());
      case 'kill':
      case 'gateway-kill':
      case 'broker-kill':
        return this.#restart(node());
      case 'hang':
      case 'gateway-hang':
        return node().resume();
      case 'link-down':
        return node().linkUp();
      case 'slow-link':
        return node().setRate(this.#device.rateBits);
      case 'slow-cpu':
        return node().setCpu(this.#device.cpu);
      case 'disk-full':
        return node().emptyDisk();
      case 'clock':
        return node().shiftClock(0);
      case 'deploy':
        return this.#undeploy();
      case 'adjust':
        return this.#orRefused(this.#stage.inside.adjust(fault.target, 'throughput'));
      default:
        return;
    }
  }

  /** Starts again what ended by itself; what it had no reason for is a violation. */
  supervise(): Violation[] {
    const ended = this.#nodes().filter(({ name, alive }) => this.#running.has(name) && !this.#busy.has(name) && !alive);
    const violations = ended.flatMap(({ name, child }): Violation[] => {
      const failure = child.failure();
      this.restarts.push(`${name}: ${failure.code}`);
      if (SUPERVISED.has(failure.code)) return [];
      return [{ invariant: 'no process ends by itself', text: `${failure.code}: ${failure.message}` }];
    });
    for (const node of ended) {
      const again = this.#restart(node).catch((error: unknown) => {
        const text = `${node.name} does not start again: ${toChairError(error).message}`;
        this.#stuck.push({ invariant: 'no process ends by itself', text });
      });
      void this.#keep(again);
    }
    return [...violations, ...this.#stuck.splice(0)];
  }

  /** Nothing is started any more; resolves when what was being started has been. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.allSettled(this.#underWay);
  }

  async #kill(node: TestbedNode): Promise<void> {
    this.#busy.add(node.name);
    await node.kill();
  }

  /** Until it stays: without its broker a scheduler does not start, and a name may be taken until its former holder is given up. */
  async #restart(node: TestbedNode): Promise<void> {
    this.#busy.add(node.name);
    for (let tries = 1; ; tries++) {
      if (this.#stopped) return;
      try {
        await node.restart();
        break;
      } catch (error) {
        if (tries === RESTART_TRIES || !isChairError(error) || !SUPERVISED.has(error.code)) throw error;
        this.restarts.push(`${node.name}: ${error.code}`);
        await delay(RESTART_PAUSE_MS);
      }
    }
    this.#running.add(node.name);
    this.#busy.delete(node.name);
  }

  async #join(name: string): Promise<void> {
    const known = this.#stage.testbed.agents.find((agent) => agent.name === name);
    if (known !== undefined) return this.#restart(known);
    // Devices are numbered in the order they are made: those between have not been there yet either.
    for (;;) {
      const agent = await this.#stage.testbed.addAgent(this.#device);
      if (agent.name === name) break;
      await agent.kill();
    }
    this.#running.add(name);
  }

  async #leave(node: TestbedNode): Promise<void> {
    this.#running.delete(node.name);
    await node.child.ask('drain');
    const left = await Promise.race([node.child.ended.then(() => true), delay(LEAVE_WITHIN_MS, false, { ref: false })]);
    if (left) return;
    await node.kill();
    throw new ChairError('INTERNAL', `${node.name} was asked to leave and did not end within ${LEAVE_WITHIN_MS / 1000} s`);
  }

  /** Nobody to lie about, or the broker is away: then nobody hears it either. */
  async #lie(lies: readonly Lie[], agent: string): Promise<void> {
    for (const lie of lies) {
      const refused = this.refused.length;
      await this.#orRefused(this.#stage.inside.lie(lie, agent));
      if (this.refused.length === refused) this.told.push({ lie, agent });
    }
  }

  /** In the middle of other faults a request may fail, with a code. */
  async #orRefused(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!isChairError(error) || error.code === 'INTERNAL') throw error;
      this.refused.push(`${error.code}: ${error.message}`);
    }
  }

  /** A byte of one of its blobs changes while nobody looks. */
  async #rot({ name }: TestbedNode): Promise<void> {
    const blobs = path.join(this.#stage.testbed.directory, name, 'blobs');
    const [blob] = readdirSync(blobs).filter((file) => !file.endsWith('.part'));
    if (blob === undefined) return;
    const file = await open(path.join(blobs, blob), 'r+');
    try {
      const { size } = await file.stat();
      const byte = Buffer.alloc(1);
      await file.read(byte, 0, 1, Math.floor(size / 2));
      byte[0] = (byte[0] ?? 0) ^ 0x10;
      await file.write(byte, 0, 1, Math.floor(size / 2));
    } finally {
      await file.close();
    }
  }

  /** Also when the gateway is away for a while. It may never have been deployed. */
  async #undeploy(): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#stage.inside.undeploy(EXTRA_DEPLOYMENT);
      } catch (error) {
        if (isChairError(error, 'DEPLOYMENT_UNKNOWN')) return;
        if (tries === UNDEPLOY_TRIES) throw error;
        await delay(RESTART_PAUSE_MS);
      }
    }
  }

  #nodes(): TestbedNode[] {
    const { agents, gateway, broker } = this.#stage.testbed;
    return [...agents, gateway, ...(broker === undefined ? [] : [broker])];
  }

  #node(name: string): TestbedNode {
    const node = this.#nodes().find((one) => one.name === name);
    if (node === undefined) throw new Error(`no process is called ${name}`);
    return node;
  }
}
