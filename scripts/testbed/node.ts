/** A process on a device, and what can befall both: agents, the gateway, a broker of its own. */
import type { Child } from '../children.js';
import type { Device } from './device.js';

/** A process that has just been started has other things to do. */
const CLOCK_WITHIN_MS = 10_000;

export class TestbedNode {
  readonly device: Device;
  readonly #start: () => Child;
  #child: Child;

  constructor(device: Device, start: () => Child) {
    this.device = device;
    this.#start = start;
    this.#child = start();
  }

  get name(): string {
    return this.device.name;
  }

  get address(): string {
    return this.device.address;
  }

  get pid(): number {
    return this.#child.pid;
  }

  get child(): Child {
    return this.#child;
  }

  get alive(): boolean {
    const { exitCode, signalCode } = this.#child.process;
    return exitCode === null && signalCode === null;
  }

  /** SIGKILL: the power is gone. Resolves when the process is. */
  async kill(): Promise<void> {
    this.#child.process.kill('SIGKILL');
    await this.#child.ended;
  }

  /** The same device after its power came back: same disk, same name. Resolves when it has said it is ready. */
  async restart(): Promise<void> {
    await this.kill();
    this.#child = this.#start();
    await this.#child.ready;
  }

  /** SIGSTOP: it hangs, with its sockets open. */
  pause(): void {
    this.#child.process.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.process.kill('SIGCONT');
  }

  linkDown(): void {
    this.device.linkDown();
  }

  linkUp(): void {
    this.device.linkUp();
  }

  /** Bits per second in each direction. */
  setRate(rateBits: number): void {
    this.device.setRate(rateBits);
  }

  /** Cores. */
  setCpu(cpu: number): void {
    this.device.setCpu(cpu);
  }

  changeAddress(): string {
    return this.device.changeAddress();
  }

  /** Its date is off by so much from now on, 0 = right again, until its process ends. Only with `TestbedOptions.clocks`. Throws REQUEST_TIMEOUT. */
  async shiftClock(ms: number): Promise<void> {
    await this.#child.ask('clock', { argument: ms, withinMs: CLOCK_WITHIN_MS });
  }

  fillDisk(): void {
    this.device.fillDisk();
  }

  emptyDisk(): void {
    this.device.emptyDisk();
  }

  /** Orderly. */
  async stop(): Promise<void> {
    this.resume();
    await this.#child.stop();
  }
}
