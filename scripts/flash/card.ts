/** What one card is to become: checked once, here, before anything is read or written. */
import { pbkdf2Sync } from 'node:crypto';
import { ChairError } from '../../broker/errors.js';

export interface Wifi {
  readonly ssid: string;
  /** 64 hex digits: the key, not the password it was made from. */
  readonly key: string;
  /** ISO 3166-1: the radio stays off until it knows which rules apply. */
  readonly country: string;
  readonly hidden: boolean;
}

export interface Card {
  /** Name of the agent and of the host. */
  readonly name: string;
  readonly cluster: string;
  /** Host name or address; undefined: the agent looks for the gateway on the local network (mDNS). */
  readonly gateway?: string;
  readonly wifi?: Wifi;
  /** Who may log in over ssh with `sshKeys`; nobody may when there are none. */
  readonly user: string;
  readonly sshKeys: readonly string[];
  /** `Europe/Berlin`; undefined: as the image has it. */
  readonly timezone?: string;
  /** Time servers; none: those of Debian, which need the internet. */
  readonly timeServers: readonly string[];
}

/** A label of a host name (RFC 1123). Agents' names may have dots and underscores; a machine's may not. */
const HOST_LABEL = /^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/;
const HOST = /^(?!-)[a-zA-Z0-9.-]{1,253}$|^\[?[0-9a-fA-F:]{2,39}\]?$/;
const USER = /^[a-z_][a-z0-9_-]{0,30}$/;
const TIMEZONE = /^[A-Za-z]+(\/[A-Za-z0-9_+-]+){0,2}$/;
const SSH_KEY =
  /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com) [A-Za-z0-9+/]+={0,3}( [^\r\n]*)?$/;

export function checkName(name: string): string {
  if (HOST_LABEL.test(name)) return name;
  throw usage('--name', 'letters, digits and dashes, at most 63: it becomes the host name too', name);
}

export function checkGateway(host: string): string {
  if (HOST.test(host)) return host;
  throw usage('--gateway', 'a host name or an address, without port', host);
}

export function checkUser(user: string): string {
  if (USER.test(user) && user !== 'root') return user;
  throw usage('--user', 'a name of small letters, digits, dash and underscore, not root', user);
}

export function checkTimezone(zone: string): string {
  if (TIMEZONE.test(zone)) return zone;
  throw usage('--timezone', 'a name such as Europe/Berlin or UTC', zone);
}

export function checkTimeServer(host: string): string {
  if (HOST.test(host)) return host;
  throw usage('--time-server', 'a host name or an address', host);
}

/** Public keys of a file, one a line. Throws USAGE; a private key is refused by name, so that it never lands on a card. */
export function parseSshKeys(text: string, file: string): string[] {
  if (/PRIVATE KEY/.test(text)) throw usage('--ssh-key', 'the public key (the file that ends in .pub)', `the private key in ${file}`);
  const lines = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  const wrong = lines.find((line) => !SSH_KEY.test(line));
  if (wrong !== undefined || lines.length === 0)
    throw usage(
      '--ssh-key',
      'public keys as in id_ed25519.pub, one a line',
      wrong === undefined ? `nothing in ${file}` : `"${wrong.slice(0, 40)}" in ${file}`,
    );
  return lines;
}

/**
 * The network's settings. The key is what WPA makes of password and name (IEEE 802.11i, PBKDF2 with SHA-1, 4096 rounds), so that the
 * password itself is not on the card; networks that speak WPA3 alone do not take it. Throws USAGE.
 */
export function makeWifi(o: { ssid: string; password: string; country: string; hidden: boolean }): Wifi {
  const bytes = Buffer.byteLength(o.ssid);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (bytes < 1 || bytes > 32 || /[\u0000-\u001f\u007f]/.test(o.ssid)) throw usage('--wifi', "a network's name of 1 to 32 bytes", o.ssid);
  if (!/^[A-Z]{2}$/.test(o.country))
    throw usage(
      '--wifi-country',
      'the two letters of the country the Pi stands in, such as DE or US',
      o.country === '' ? 'nothing' : o.country,
    );
  return { ssid: o.ssid, key: wifiKey(o.password, o.ssid), country: o.country, hidden: o.hidden };
}

function wifiKey(password: string, ssid: string): string {
  if (/^[0-9a-fA-F]{64}$/.test(password)) return password.toLowerCase();
  // What came is a secret: its length is all that is told.
  if (!/^[\x20-\x7e]{8,63}$/.test(password))
    throw new ChairError('USAGE', "the network's password is wrong", {
      expected: '8 to 63 printable ASCII characters, or 64 hex digits',
      came: `${password.length} characters`,
    });
  return pbkdf2Sync(password, ssid, 4_096, 32, 'sha1').toString('hex');
}

/** `pi-%d` and 3 -> pi-1, pi-2, pi-3; `%02d` pads. One name without pattern is itself. Throws USAGE. */
export function expandNames(pattern: string, count: number): string[] {
  const place = /%(0?[1-9])?d/g;
  const places = pattern.match(place)?.length ?? 0;
  if (count === 1 && places === 0) return [pattern];
  if (places !== 1) throw usage('--name', `one %d, which becomes 1 to ${count}`, pattern);
  return Array.from({ length: count }, (_, i) =>
    pattern.replace(place, (_all, width: string | undefined) => String(i + 1).padStart(Number(width ?? 0), '0')),
  );
}

function usage(flag: string, expected: string, came: string): ChairError {
  return new ChairError('USAGE', `${flag} is wrong`, { expected, came });
}
