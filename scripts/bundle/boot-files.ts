/** What goes into the boot partition of a card, see docs/flashing.md; and the line with which a first-boot writer calls it. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { ChairError } from '../../broker/errors.js';
import type { Architecture } from './manifest.js';
import { type Bundle, readBundle } from './read.js';

/** In the boot partition. */
export const BOOT_FOLDER = 'musical-chair';
const TOKEN = /^[\x21-\x7e]{1,4096}$/;

/**
 * For `bootcmd` or `firstrun.sh`, as root, at every boot for as long as `start.sh` is there. Exit status 0: done, or nothing to do; 75: again at the next
 * boot. A line of POSIX sh without single quotes.
 */
export const FIRST_BOOT_COMMAND = `for d in /boot/firmware /boot; do if [ -f "$d/${BOOT_FOLDER}/start.sh" ]; then sh "$d/${BOOT_FOLDER}/start.sh" || exit 75; break; fi; done`;

export interface BootFile {
  /** In BOOT_FOLDER. */
  readonly name: string;
  readonly content: Uint8Array | { readonly file: string; readonly sizeBytes: number };
}

export interface BootFilesOptions {
  /** Path of the bundle. */
  readonly bundle: string;
  readonly arch: Architecture;
  /** Text of agent.yaml, see `agentSettings`. */
  readonly settings: string;
  /** Left out: a cluster without trust, or somebody brings it later. */
  readonly token?: string;
}

/** Checks the bundle whole. Throws FILE_NOT_FOUND, BUNDLE_DAMAGED, BUNDLE_WRONG_ARCH, USAGE (a token that is none). */
export async function bootFiles({ bundle, arch, settings, token }: BootFilesOptions): Promise<readonly BootFile[]> {
  return bootFilesOf(bundle, await readBundle(bundle, { arch }), settings, token);
}

/** The same of a bundle that was checked before: one check for a fleet. */
export async function bootFilesOf(
  file: string,
  { sha256, sizeBytes }: Bundle,
  settings: string,
  token?: string,
): Promise<readonly BootFile[]> {
  if (token !== undefined && !TOKEN.test(token)) {
    throw new ChairError('USAGE', 'this is no join token', {
      expected: 'one line of text, as mc token create prints it',
      came: `${token.length} characters`,
    });
  }
  const start = await readFile(path.join(fileURLToPath(new URL('./device/', import.meta.url)), 'start.sh'));
  return [
    { name: 'agent.yaml', content: Buffer.from(settings) },
    { name: 'bundle.sum', content: Buffer.from(`${sha256}  bundle.tgz\n`) },
    { name: 'bundle.tgz', content: { file, sizeBytes } },
    ...(token === undefined ? [] : [{ name: 'token', content: Buffer.from(`${token}\n`) }]),
    // Last: as long as it is not there, nothing is done.
    { name: 'start.sh', content: start },
  ];
}

export interface AgentSettings {
  readonly cluster: string;
  readonly name: string;
  /** Host of the gateway; default: it is looked for on the local network (mDNS). */
  readonly gateway?: string;
  /** Plain MQTT: everybody on the network may listen and join. */
  readonly insecure?: boolean;
  /** Ports, when they are not the usual ones. */
  readonly brokerPort?: number;
  readonly enrolmentPort?: number;
}

/** Text of agent.yaml: a settings file of the command line. */
export function agentSettings({ cluster, name, gateway, insecure = false, brokerPort, enrolmentPort }: AgentSettings): string {
  const scheme = insecure ? 'mqtt' : 'mqtts';
  const port = brokerPort ?? (insecure ? 1883 : 8883);
  const host = gateway?.includes(':') === true ? `[${gateway.replace(/^\[|\]$/g, '')}]` : gateway;
  return `# Settings of this agent; see docs/configuration.md. Restart musical-chair-agent after a change.\n${stringify({
    cluster,
    ...(insecure ? { insecure } : {}),
    ...(host === undefined ? {} : { broker: `${scheme}://${host}:${port}` }),
    agent: {
      name,
      directory: '/var/lib/musical-chair',
      ...(host === undefined || enrolmentPort === undefined ? {} : { gateway: `${host}:${enrolmentPort}` }),
    },
  })}`;
}
