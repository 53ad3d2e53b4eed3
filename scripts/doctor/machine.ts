/** This machine: what is looked at, and what is thought of it. The judging functions are pure. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { open, rename, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, toChairError } from '../../broker/errors.js';
import { memoryLimitBytes, systemFreeBytes } from '../../node-agent/device.js';
import { bytesText } from '../table.js';
import { bad, type Finding, note, ok } from './findings.js';

const HERE = 'this machine';
const MB = 1e6;

export interface NodeFacts {
  readonly version: string;
  readonly platform: string;
  readonly arch: string;
}

export function judgeNode({ version, platform, arch }: NodeFacts): Finding {
  const text = `${version} on ${platform}, ${arch}`;
  if (arch !== 'x64' && arch !== 'arm64') {
    return bad(
      HERE,
      'node',
      `${text}: there is no inference engine for it`,
      'Use a 64-bit system: on a Raspberry Pi, Raspberry Pi OS (64-bit).',
    );
  }
  if (Number(version.replace(/^v/, '').split('.')[0]) < 20) return bad(HERE, 'node', text, 'Install Node 20 or newer.');
  return ok(HERE, 'node', text);
}

export interface MemoryFacts {
  readonly limitBytes: number;
  /** What can be had without swapping; 0 = not known. */
  readonly freeBytes: number;
  /** The kernel can limit a service's memory; undefined = not known. */
  readonly limits: boolean | undefined;
}

export function judgeMemory({ limitBytes, freeBytes, limits }: MemoryFacts): Finding {
  const text = `${bytesText(freeBytes)} free of ${bytesText(limitBytes)}`;
  if (freeBytes > 0 && freeBytes < 100 * MB) {
    return bad(
      HERE,
      'memory',
      text,
      'Stop other programs, or give the agent less (agent.memoryMb): a machine without memory stands still.',
    );
  }
  if (limits === false) {
    const todo = 'Add cgroup_enable=memory cgroup_memory=1 to the one line of /boot/firmware/cmdline.txt and restart the machine.';
    return note(HERE, 'memory', `${text}; the kernel does not keep services to their limits`, todo);
  }
  if (freeBytes > 0 && freeBytes < 300 * MB) return note(HERE, 'memory', text, 'Large models will not fit: stop other programs.');
  return ok(HERE, 'memory', text);
}

export interface DiskFacts {
  readonly directory: string;
  readonly freeBytes: number;
  readonly totalBytes: number;
  /** Why nothing can be written there; '' = it can. */
  readonly refused: string;
  /** It is forgotten at a restart. */
  readonly volatile: boolean;
}

export function judgeDisk(area: string, { directory, freeBytes, totalBytes, refused, volatile }: DiskFacts): Finding {
  const text = `${directory}: ${bytesText(freeBytes)} free of ${bytesText(totalBytes)}`;
  if (refused !== '') {
    return bad(
      area,
      'disk',
      `${directory} cannot be written: ${refused}`,
      'Run this as the user of the service, or give that user the folder (chown).',
    );
  }
  if (freeBytes < 200 * MB) return bad(area, 'disk', text, 'Free disk space: plans, slices and models cannot be written any more.');
  if (volatile)
    return note(area, 'disk', `${text}, in memory`, 'It is forgotten when the machine restarts: choose a folder on a disk (--directory).');
  if (freeBytes < 1000 * MB) return note(area, 'disk', text, 'Free disk space: models are large.');
  return ok(area, 'disk', text);
}

/** No machine that runs this is older than this program. */
const EARLIEST_MS = Date.UTC(2026, 0, 1);

export interface ClockFacts {
  readonly nowMs: number;
  /** The system says that it follows a time server; undefined = it says nothing. */
  readonly follows: boolean | undefined;
  /** How far this clock is ahead of the gateway's, ms, and how well that is known; undefined = not asked. */
  readonly ahead: { readonly ms: number; readonly errorMs: number } | undefined;
}

/** Beyond this, times in logs of two machines cannot be compared; beyond the other, certificates are taken for expired or not valid yet. */
const SKEW_NOTED_MS = 2000;
export const SKEW_BAD_MS = 5 * 60_000;

export function aheadText(ms: number): string {
  const s = Math.abs(ms) / 1000;
  const size =
    s < 10 ? `${s.toFixed(2)} s` : s < 600 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
  return `${size} ${ms < 0 ? 'behind' : 'ahead of'} the gateway's`;
}

export function judgeClock({ nowMs, follows, ahead }: ClockFacts): Finding {
  const now = new Date(nowMs).toISOString().slice(0, 19).replace('T', ' ');
  const todo = 'Switch a time server on: sudo timedatectl set-ntp true.';
  if (nowMs < EARLIEST_MS) return bad(HERE, 'clock', `it says ${now} UTC, which is long ago`, todo);
  const said = ahead === undefined ? '' : `, ${aheadText(ahead.ms)} (within ${(ahead.errorMs / 1000).toFixed(2)} s)`;
  if (ahead !== undefined && Math.abs(ahead.ms) > SKEW_BAD_MS + ahead.errorMs)
    return bad(HERE, 'clock', `${now} UTC${said}`, `${todo} Else certificates seem expired, or not valid yet.`);
  if (follows === false) return note(HERE, 'clock', `${now} UTC${said}; it follows no time server`, todo);
  if (ahead !== undefined && Math.abs(ahead.ms) > SKEW_NOTED_MS + ahead.errorMs) return note(HERE, 'clock', `${now} UTC${said}`, todo);
  return ok(HERE, 'clock', `${now} UTC${said}`);
}

/** Loads the engine and runs one convolution. */
async function lookAtEngine(): Promise<Finding> {
  try {
    const { createOnnxRuntimeEngine } = await import('../../models/engine/onnxruntime.js');
    const { probeMacsPerSecond } = await import('../../models/engine/probe.js');
    const engine = await createOnnxRuntimeEngine({ threads: 1 });
    try {
      const rate = await probeMacsPerSecond(engine, { cpuLimit: 0, threads: 1 });
      return ok(HERE, 'engine', `${engine.name} ${engine.version}: ${(rate / 1e9).toFixed(1)} GMAC/s on one core`);
    } finally {
      await engine.dispose();
    }
  } catch (error) {
    const { code, message } = toChairError(error, 'ENGINE_UNAVAILABLE');
    return bad(
      HERE,
      'engine',
      `${code}: ${message}`,
      'Install again on this machine (npm ci): the engine must be of its system and processor.',
    );
  }
}

/** A folder that is not there yet is made at the first start, by the user of the service: never here. */
async function lookAtDisk(directory: string): Promise<DiskFacts> {
  let refused = '';
  try {
    await writeProbe(directory);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) refused = toChairError(error).message;
  }
  for (let at = path.resolve(directory); ; at = path.dirname(at)) {
    const found = await statfs(at).catch(() => undefined);
    if (found === undefined && at !== path.dirname(at)) continue;
    const { bavail = 0, blocks = 0, bsize = 0, type = 0 } = found ?? {};
    // tmpfs and ramfs, statfs(2).
    return {
      directory,
      refused,
      freeBytes: bavail * bsize,
      totalBytes: blocks * bsize,
      volatile: type === 0x01021994 || type === 0x858458f6,
    };
  }
}

/** As state is written: whole, flushed, renamed. */
async function writeProbe(directory: string): Promise<void> {
  const file = path.join(directory, `doctor.${randomBytes(4).toString('hex')}.new`);
  try {
    const handle = await open(file, 'wx');
    await handle.write('doctor');
    await handle.sync();
    await handle.close();
    await rename(file, `${file}.part`);
  } finally {
    await rm(file, { force: true });
    await rm(`${file}.part`, { force: true });
  }
}

/** As timedatectl(1) says; undefined where it is not, or has nobody to ask. */
function followsTimeServer(): Promise<boolean | undefined> {
  return new Promise((resolve) => {
    execFile('timedatectl', ['show', '--property=NTPSynchronized', '--value'], { timeout: 3000 }, (error, stdout) => {
      const word = error === null ? stdout.trim() : '';
      resolve(word === 'yes' ? true : word === 'no' ? false : undefined);
    });
  });
}

/** Whether the memory controller is there, in either version of control groups; undefined on other systems. */
function memoryLimits(read = readText): boolean | undefined {
  const controllers = read('/sys/fs/cgroup/cgroup.controllers');
  if (controllers.split(/\s+/).includes('memory')) return true;
  const line = /^memory\s+\d+\s+\d+\s+(\d)/m.exec(read('/proc/cgroups'));
  if (line === null) return controllers === '' ? undefined : false;
  return line[1] === '1' && (controllers === '' || controllers.includes('memory'));
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

export interface MachineOptions {
  /** Folders of state, with whose they are. */
  readonly folders: readonly { readonly area: string; readonly directory: string }[];
  readonly ahead: ClockFacts['ahead'];
}

export async function lookAtMachine({ folders, ahead }: MachineOptions): Promise<Finding[]> {
  // In a control group less than the machine has.
  const limitBytes = memoryLimitBytes();
  const findings = [
    judgeNode({ version: process.version, platform: process.platform, arch: process.arch }),
    await lookAtEngine(),
    judgeMemory({ limitBytes, freeBytes: Math.min(systemFreeBytes(), limitBytes), limits: memoryLimits() }),
    judgeClock({ nowMs: Date.now(), follows: await followsTimeServer(), ahead }),
  ];
  for (const { area, directory } of folders) findings.push(judgeDisk(area, await lookAtDisk(directory)));
  return findings;
}

/** A finding for what was thrown. */
export function thrownAt(area: string, check: string, error: unknown): Finding {
  const { code, message, detail } = toChairError(error);
  const todo = error instanceof ChairError ? (detail.todo ?? '') : '';
  const said = todo === '' ? message : message.replace(` ${todo}`, '');
  return bad(area, check, `${code}: ${said}`, todo || 'docs/errors.md says what the code means.');
}
