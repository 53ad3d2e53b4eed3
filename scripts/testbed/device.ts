/** A place to run programs in: namespace, link, limits and disk of one device. */
import type { ChildProcess } from 'node:child_process';
import { ChairError } from '../../broker/errors.js';
import type { Group } from './control-groups.js';
import { checkRate } from './devices.js';
import type { Disk } from './disk.js';
import type { Link } from './network.js';
import { type RunDirectory, startOf } from './run-directory.js';

/** A place to run programs in: namespace, link and limits. Without isolation it is only a name. */
export class Device {
  readonly name: string;
  readonly #link: Link | undefined;
  readonly #group: Group | undefined;
  readonly #disk: Disk | undefined;
  readonly #run: RunDirectory;

  constructor(name: string, run: RunDirectory, parts: { readonly link?: Link; readonly group?: Group; readonly disk?: Disk } = {}) {
    this.name = name;
    this.#link = parts.link;
    this.#group = parts.group;
    this.#disk = parts.disk;
    this.#run = run;
  }

  get address(): string {
    return this.#link?.address ?? '127.0.0.1';
  }

  /** Name of the namespace, for `nsenter --net=/run/netns/NAME`; '' without isolation. */
  get namespace(): string {
    return this.#link?.namespace ?? '';
  }

  /** The command line that runs `command` in here. The process keeps its pid. */
  command(command: readonly string[]): string[] {
    const inside = this.#link === undefined ? [...command] : ['nsenter', `--net=/run/netns/${this.#link.namespace}`, ...command];
    const groups = this.#group?.paths ?? [];
    if (groups.length === 0) return inside;
    const script = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"';
    return ['/bin/sh', '-c', script, 'sh', ...groups, '--', ...inside];
  }

  /** A process that nothing but this list knows must be written down. */
  own(child: ChildProcess): void {
    if (child.pid !== undefined) this.#run.record({ kind: 'process', pid: child.pid, started: startOf(child.pid) });
  }

  setCpu(cpu: number): void {
    this.#limits(this.#group).setCpu(cpu);
  }

  setRate(rateBits: number): void {
    this.#limits(this.#link).setRate(checkRate(rateBits));
  }

  linkDown(): void {
    this.#limits(this.#link).down();
  }

  linkUp(): void {
    this.#limits(this.#link).up();
  }

  changeAddress(): string {
    return this.#limits(this.#link).changeAddress();
  }

  /** Nothing more can be written until `emptyDisk`. Only where it has a disk of its own (see `TestbedOptions.diskBytes`). */
  fillDisk(): void {
    this.#limits(this.#disk).fill();
  }

  emptyDisk(): void {
    this.#limits(this.#disk).empty();
  }

  get hasDisk(): boolean {
    return this.#disk !== undefined;
  }

  /** Seconds it had to wait for its CPU quota. */
  get throttledSeconds(): number {
    return this.#group?.usage().throttledSeconds ?? 0;
  }

  #limits<T>(limit: T | undefined): T {
    if (limit !== undefined) return limit;
    throw new ChairError('TESTBED_FAILED', 'this testbed runs plain processes: it has no links, limits and disks to change', {
      todo: 'Run it as root on Linux; disks are asked for by `diskBytes`.',
    });
  }
}
