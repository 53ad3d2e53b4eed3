/**
 * Flashing, from a checked request to written cards. What can be refused is refused in the order of what it costs to find out: outputs and
 * device, the .xz file's end, the bundle, then (unpacked, if it must be) the image itself and its room; only then tokens are made and anything is written.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, realpathSync, rmSync, statSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { agentSettings, type BootFile, bootFilesOf } from '../bundle/boot-files.js';
import { type Bundle, readBundle } from '../bundle/read.js';
import { INTERRUPTED, onAskedToEnd } from '../lifetime.js';
import { bytesText } from '../table.js';
import type { Card } from './card.js';
import { copyImage, type ImageSource, type Progress, readSource } from './copy.js';
import { checkRoom, type PlannedFile, planFiles, writeFiles } from './customise.js';
import { type DeviceFacts, type DeviceRules, describeDevice, deviceText, whyNot } from './device.js';
import { openDisk } from './disk.js';
import type { FirstBootWriter } from './first-boot.js';
import type { FlashRequest, FlashTarget } from './fleet.js';
import { type ImageFacts, inspectImage } from './image.js';
import { writeDevice } from './write-device.js';
import { chooseWriter } from './writers.js';

/** A join token for one name. */
export interface Invitation {
  readonly token: string;
  readonly expiresMs?: number;
  /** Where the gateway takes it; left out: the usual port. */
  readonly enrolmentPort?: number;
}

export interface FlashOptions {
  /** Undefined: a cluster without trust (`--insecure`), whose agents need no token. */
  readonly invite?: (name: string) => Promise<Invitation>;
  /** Of the gateway's broker, when it is not the usual one. */
  readonly brokerPort?: number;
  /** Existing files are written over. */
  readonly force?: boolean;
  /** The person has typed the device's name: true. Asked once per card, when its image is ready. */
  readonly confirm: (device: DeviceFacts, card: Card) => Promise<boolean>;
  readonly progress: (label: string) => Progress;
  readonly note: (line: string) => void;
  readonly nowMs: () => number;
  readonly rules?: DeviceRules;
}

export interface FlashedCard {
  readonly name: string;
  /** File or device. */
  readonly written: string;
  /** `2025-12-04` */
  readonly release: string;
  readonly writer: string;
  readonly tokenExpiresMs?: number;
}

/** As long as any token: while it is asked whether all has room. */
const STANDING_IN: Invitation = { token: 'x'.repeat(512), enrolmentPort: 65_535 };

/** What is the same for all cards. */
interface Run {
  readonly base: ImageSource;
  /** The base is ours: the last card takes it instead of a copy. */
  readonly temporary: boolean;
  readonly facts: ImageFacts;
  readonly writer: FirstBootWriter;
  readonly bundle: Bundle;
  readonly bundleFile: string;
}

/** An image of Raspberry Pi OS has up to 15 GB; an .xz of a few kB can claim any size. */
const MAX_IMAGE_BYTES = 64e9;

/** Throws what its parts throw; nothing half-written is left, and no token is made for a card that cannot be. */
export async function flash(request: FlashRequest, options: FlashOptions): Promise<FlashedCard[]> {
  refuseOutputs(request, options.force === true);
  const source = readSource(request.image);
  if (source.sizeBytes > MAX_IMAGE_BYTES)
    throw new ChairError('FLASH_IMAGE_FOREIGN', `${request.image} is no image of Raspberry Pi OS`, {
      expected: `at most ${bytesText(MAX_IMAGE_BYTES)}`,
      came: bytesText(source.sizeBytes),
    });
  if (request.device !== undefined) refuseDevice(request.device, source.sizeBytes, options.rules);
  const bundle = await readBundle(request.bundle, { arch: 'arm64' });
  const folder = request.device === undefined ? undefined : await mkdtemp(path.join(workFolder(), 'musical-chair-flash-'));
  const parts = request.targets.flatMap(({ out }) => (out === undefined ? [] : [`${out}.part`]));
  const unpacked = source.streams === undefined ? undefined : `${path.resolve(folder ?? '', request.targets[0]?.out ?? 'image')}.base.part`;
  // A card whose writing was begun and not ended.
  const half = { device: '' };
  const begun = [...parts, ...(unpacked === undefined ? [] : [unpacked]), ...(folder === undefined ? [] : [folder])];
  const forget = removeWhenInterrupted(begun, () => options.note(interruptedText(half.device)));
  try {
    const run = await prepare(source, unpacked, { bundle, bundleFile: request.bundle }, options);
    await refuseFull(request.targets, run, options);
    const flashed: FlashedCard[] = [];
    for (const [i, target] of request.targets.entries()) {
      const last = i === request.targets.length - 1;
      const which = request.targets.length === 1 ? '' : ` (${i + 1} of ${request.targets.length})`;
      const where = { which, half, folder, device: request.device };
      const done = await flashOne(target, { ...run, temporary: run.temporary && last }, where, options);
      flashed.push(done);
      if (!last) options.note(`${done.name}: ${done.written}`);
    }
    return flashed;
  } finally {
    forget();
    if (unpacked !== undefined) await rm(unpacked, { force: true });
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

function refuseOutputs({ targets, image, bundle }: FlashRequest, force: boolean): void {
  for (const { out } of targets) {
    if (out === undefined || !existsSync(out)) continue;
    const inputs = [image, bundle].filter((file) => existsSync(file)).map((file) => realpathSync(file));
    if (inputs.includes(realpathSync(out)) || !statSync(out).isFile())
      throw new ChairError('FLASH_OUTPUT_UNUSABLE', `${out} cannot be written`, {
        expected: 'the path of a file that is neither the image nor the bundle',
        came: statSync(out).isFile() ? 'one of them' : 'no file',
      });
    if (!force)
      throw new ChairError('FLASH_OUTPUT_UNUSABLE', `${out} exists already`, { todo: 'Give another --out, or --force to write over it.' });
  }
}

function refuseDevice(device: string, imageBytes: number, rules: DeviceRules | undefined): DeviceFacts {
  const facts = describeDevice(device);
  const error = whyNot(facts, imageBytes, rules);
  if (error !== undefined) throw error;
  return facts;
}

async function prepare(
  source: ImageSource,
  unpacked: string | undefined,
  bundle: Pick<Run, 'bundle' | 'bundleFile'>,
  options: FlashOptions,
): Promise<Run> {
  if (unpacked !== undefined) {
    await makeRoom(unpacked);
    await copyImage(source, unpacked, options.progress('unpacking'));
  }
  const base: ImageSource = { file: unpacked ?? source.file, sizeBytes: source.sizeBytes };
  const disk = openDisk(base.file, 'r');
  try {
    const facts = await inspectImage(disk);
    const writer = chooseWriter(facts);
    options.note(`Raspberry Pi OS of ${facts.release} (${facts.system}), first boot by ${writer.name}`);
    return { base, temporary: unpacked !== undefined, facts, writer, ...bundle };
  } finally {
    disk.close();
  }
}

/** All cards, before the first is written: their files differ in a few bytes only, but then all is known. */
async function refuseFull(targets: readonly FlashTarget[], run: Run, options: FlashOptions): Promise<void> {
  const disk = openDisk(run.base.file, 'r');
  try {
    for (const { card } of targets) {
      if (card.wifi !== undefined && !run.facts.networkManager)
        throw new ChairError('FLASH_IMAGE_FOREIGN', `Wi-Fi cannot be set up in Raspberry Pi OS of ${run.facts.release}`, {
          expected: 'an image with NetworkManager: Raspberry Pi OS 12 or later',
          came: run.facts.system,
          todo: 'Use a newer image, or a cable and no --wifi.',
        });
      await checkRoom(disk, run.facts, await planCard(card, run, options.invite === undefined ? undefined : STANDING_IN, options));
    }
  } finally {
    disk.close();
  }
}

async function planCard(card: Card, run: Run, invitation: Invitation | undefined, options: FlashOptions): Promise<PlannedFile[]> {
  const settings = agentSettings({
    cluster: card.cluster,
    name: card.name,
    insecure: options.invite === undefined,
    ...(card.gateway === undefined ? {} : { gateway: card.gateway }),
    ...(options.brokerPort === undefined ? {} : { brokerPort: options.brokerPort }),
    ...(invitation?.enrolmentPort === undefined ? {} : { enrolmentPort: invitation.enrolmentPort }),
  });
  const files: readonly BootFile[] = await bootFilesOf(run.bundleFile, run.bundle, settings, invitation?.token);
  const firstBoot = run.writer.write({
    card,
    facts: run.facts,
    instanceId: `musical-chair-${card.name}-${randomBytes(6).toString('hex')}`,
    flashedAtMs: options.nowMs(),
    uuid: randomUUID(),
  });
  return planFiles(run.facts, firstBoot, files);
}

interface Where {
  /** ` (2 of 6)`; '' for one card alone. */
  readonly which: string;
  readonly half: { device: string };
  readonly folder: string | undefined;
  readonly device: string | undefined;
}

async function flashOne(
  target: FlashTarget,
  run: Run,
  { which, half, folder, device }: Where,
  options: FlashOptions,
): Promise<FlashedCard> {
  const { card, out = path.join(folder ?? '', 'card.img') } = target;
  const part = `${out}.part`;
  try {
    await makeRoom(part);
    if (!run.temporary || !(await moved(run.base.file, part)))
      await copyImage(run.base, part, options.progress(`copying for ${card.name}${which}`));
    // The token is in it until the card's first boot.
    await chmod(part, 0o600);
    const confirmed = device === undefined ? undefined : await confirmDevice(device, card, run.base.sizeBytes, options);
    const invitation = await options.invite?.(card.name);
    await writeFiles(part, run.facts, await planCard(card, run, invitation, options));
    if (confirmed === undefined) await rename(part, out);
    else {
      half.device = confirmed.path;
      await writeDevice(part, confirmed, deviceProgress(`${card.name}${which}`, confirmed, options));
      half.device = '';
    }
    return {
      name: card.name,
      written: confirmed?.path ?? out,
      release: run.facts.release,
      writer: run.writer.name,
      ...(invitation?.expiresMs === undefined ? {} : { tokenExpiresMs: invitation.expiresMs }),
    };
  } finally {
    await rm(part, { force: true });
  }
}

/** Ctrl-C leaves no gigabytes behind, and no token. */
function removeWhenInterrupted(files: readonly string[], say: () => void): () => void {
  return onAskedToEnd(() => {
    for (const file of files) rmSync(file, { recursive: true, force: true });
    say();
    process.exit(INTERRUPTED);
  });
}

function interruptedText(device: string): string {
  const left = 'Interrupted: files that were not complete are removed';
  return device === '' ? `${left}.` : `${left}. The card in ${device} is only half written and will not start: write it again.`;
}

/** The folder is there, and what an interrupted run left under this name is not. */
async function makeRoom(file: string): Promise<void> {
  try {
    await mkdir(path.dirname(path.resolve(file)), { recursive: true });
    await rm(file, { force: true });
  } catch (cause) {
    throw new ChairError('FLASH_OUTPUT_UNUSABLE', `${file} cannot be written`, {
      came: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}

/** Not to another file system: there it has to be copied. */
async function moved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch {
    return false;
  }
}

/** Images are gigabytes, and /tmp is in memory on many systems. */
function workFolder(): string {
  return process.env.TMPDIR === undefined && existsSync('/var/tmp') ? '/var/tmp' : tmpdir();
}

/** Looked at anew for each card: between two of them somebody changed it. */
async function confirmDevice(device: string, card: Card, imageBytes: number, options: FlashOptions): Promise<DeviceFacts> {
  const facts = refuseDevice(device, imageBytes, options.rules);
  // And once more after the answer: the question may have stood there for an hour.
  if (await options.confirm(facts, card)) return sameDevice(facts, refuseDevice(device, imageBytes, options.rules));
  throw new ChairError('FLASH_DEVICE_REFUSED', `${deviceText(facts)} is not written: its name was not typed again`, {
    expected: facts.name,
  });
}

function sameDevice(before: DeviceFacts, now: DeviceFacts): DeviceFacts {
  if (before.sizeBytes === now.sizeBytes && before.model === now.model && before.path === now.path) return now;
  throw new ChairError('FLASH_DEVICE_REFUSED', `${now.path} is not written: it is another device now`, {
    expected: deviceText(before),
    came: deviceText(now),
  });
}

function deviceProgress(card: string, device: DeviceFacts, options: FlashOptions): Parameters<typeof writeDevice>[2] {
  return {
    writing: options.progress(`writing ${card} to ${device.path}`),
    checking: options.progress(`reading ${card} back`),
    cached: () => options.note(`${device.path} cannot be read past the memory's cache: what is read back may come from there`),
  };
}
