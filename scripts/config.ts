/**
 * Every setting in one schema: what it means, its unit, range and default. The file, the environment, the flags and
 * `docs/configuration.md` are all read from it. Precedence: flag > environment > file > default.
 */
import { hostname, tmpdir } from 'node:os';
import path from 'node:path';
import { z } from 'zod';
import { ChairError } from '../broker/errors.js';
import { publicUrl } from '../broker/public-url.js';
import { NAME_PATTERN } from '../broker/topics.js';

/**
 * Where a gateway or an agent keeps its state when nothing else is said. Not the cache folder, which anybody may empty: keys and deployments are in it.
 * `XDG_STATE_HOME` moves it.
 */
export function stateDirectory(cluster: string, name: string): string {
  const { XDG_STATE_HOME: said, HOME: home } = process.env;
  const base = said || (home ? path.join(home, '.local', 'state') : tmpdir());
  return path.join(base, 'musical-chair', ...(cluster === 'default' ? [] : ['clusters', cluster]), name);
}

/** The broker's URL; undefined when it has to be looked for. */
export function brokerUrl({ broker }: Settings): string | undefined {
  return broker === 'auto' ? undefined : broker;
}

/** Everybody has a certificate, and talks TLS; the one place that decides it. */
export function isSecure({ insecure }: Settings): boolean {
  return !insecure;
}

/** Throws INSECURE_REFUSED for a plain broker where certificates are used. */
export function checkPlain(settings: Settings, url: string | undefined): void {
  if (!isSecure(settings) || url?.startsWith('mqtt:') !== true) return;
  throw new ChairError('INSECURE_REFUSED', `${publicUrl(url)} is plain MQTT`, {
    expected: 'mqtts://',
    todo: 'If the gateway runs with --insecure, say so here, too: then anybody on the network may listen and give orders.',
  });
}

/** Where the gateway's broker listens. */
export function brokerPort(settings: Settings): number {
  return settings.gateway.port ?? (isSecure(settings) ? 8883 : 1883);
}

const name = () => z.string().regex(NAME_PATTERN, 'letters, digits, dot, dash and underscore, at most 64');
const port = () => z.int().min(0).max(65_535);
/** A file or folder; a leading ~ becomes the home directory when settings are read. What no shell has seen is not guessed at: `~name`. */
const place = () =>
  z
    .string()
    .regex(/^(?!~[^/])\P{Cc}*$/u, "a path in one line; ~/ is this user's home directory, that of another (~name) is written in full");

/** A setting's place in the schema. `flag` is its name on the command line; `shown` replaces a default that depends on the machine. */
export interface SettingMeta {
  readonly flag: string;
  readonly argument: string;
  readonly shown?: string;
}

export const settingsSchema = z.strictObject({
  cluster: name()
    .default('default')
    .describe('Name of the cluster. Clusters of different names on one broker or one network do not see each other.')
    .meta({ flag: 'cluster', argument: 'name' }),
  broker: z
    .string()
    .regex(/^(auto|mqtts?:\/\/[^/\s]+)$/, 'auto, or a URL such as mqtts://gateway:8883')
    .default('auto')
    .describe(
      "The MQTT broker that agents, clients and a separate scheduler connect to. auto: the cluster's gateway is looked for on the local network (mDNS).",
    )
    .meta({ flag: 'broker', argument: 'url' }),
  credentials: place()
    .default('')
    .describe(
      "Folder with this process's certificate and key (ca.pem, cert.pem, key.pem). Of a command: an operator's or viewer's; of an agent: its own.",
    )
    .meta({
      flag: 'credentials',
      argument: 'path',
      shown: '~/.config/musical-chair/CLUSTER, else those of the gateway on this machine; of an agent: credentials in its folder',
    }),
  insecure: z
    .boolean()
    .default(false)
    .describe(
      'No certificates and no encryption: anybody who reaches the broker can listen, join and give orders. Gateway, agents and commands must agree.',
    )
    .meta({ flag: 'insecure', argument: '' }),
  gateway: z
    .strictObject({
      host: z
        .string()
        .min(1)
        .default('0.0.0.0')
        .describe('Address the broker and the dispatcher listen on; 127.0.0.1 keeps them on this machine.')
        .meta({ flag: 'host', argument: 'address' }),
      port: port()
        .optional()
        .describe("Port of the gateway's MQTT broker; 0 takes any free one.")
        .meta({ flag: 'port', argument: 'port', shown: '8883; 1883 with --insecure' }),
      enrolPort: port()
        .default(8884)
        .describe('Port on which machines join with a token and renew their certificates; 0 takes any free one.')
        .meta({ flag: 'enrol-port', argument: 'port' }),
      dispatcherPort: port()
        .default(0)
        .describe('Port on which the dispatcher takes frames; 0 takes any free one (clients learn it from the scheduler).')
        .meta({ flag: 'dispatcher-port', argument: 'port' }),
      directory: place()
        .default('')
        .describe('Folder of all that the gateway keeps: deployments, models, slices, profiles, keys. Each cluster has its own.')
        .meta({ flag: 'directory', argument: 'path', shown: '~/.local/state/musical-chair/gateway' }),
      hidden: z
        .boolean()
        .default(false)
        .describe(
          'Do not announce the gateway on the local network (mDNS): it is found by who joined with --gateway; others need --broker.',
        )
        .meta({ flag: 'hidden', argument: '' }),
      uploadMb: z
        .int()
        .min(1)
        .max(1_000_000)
        .default(4_000)
        .describe('Largest size of the models that clients have sent, megabytes together; what is not deployed goes first.')
        .meta({ flag: 'upload-mb', argument: 'megabytes' }),
      linkMbit: z
        .number()
        .positive()
        .max(8_000_000)
        .default(880)
        .describe('Speed that plans assume of a link until it is measured, Mbit/s of payload.')
        .meta({ flag: 'link-mbit', argument: 'mbit' }),
      sharedMbit: z
        .number()
        .min(0)
        .max(8_000_000)
        .default(0)
        .describe(
          'All machines share one medium of this speed, such as Wi-Fi, Mbit/s of payload; 0 = each has a link of its own to a switch.',
        )
        .meta({ flag: 'shared-mbit', argument: 'mbit' }),
      assumeLinks: z
        .boolean()
        .default(false)
        .describe(
          'Never measure links: plans assume link-mbit for all of them. Else those that a plan would use are measured first, a few MB each.',
        )
        .meta({ flag: 'assume-links', argument: '' }),
      missedHealth: z
        .number()
        .min(1)
        .max(60)
        .default(3)
        .describe('An agent is lost when so many of its health messages in a row did not come.')
        .meta({ flag: 'missed-health', argument: 'count' }),
      holdDownMs: z
        .int()
        .min(0)
        .max(120_000)
        .default(2_000)
        .describe(
          'An agent that is lost a second time in a row gets no seats for so long after it came back, ms; doubles with each further loss, to 120,000; 0 = never.',
        )
        .meta({ flag: 'hold-down-ms', argument: 'ms' }),
      holdPlans: z
        .boolean()
        .default(false)
        .describe(
          'Keep every plan until an agent is lost or leaves, or until adjust asks for another; else a plan that pays for the move is taken up.',
        )
        .meta({ flag: 'hold-plans', argument: '' }),
      standbyMb: z
        .int()
        .min(0)
        .max(1_000_000)
        .default(1024)
        .describe("Of each agent's disk, for slices that it would need if another agent were lost, MB; 0 = nothing stands by.")
        .meta({ flag: 'standby-mb', argument: 'MB' }),
    })
    .prefault({}),
  agent: z
    .strictObject({
      name: name()
        .default(
          () =>
            hostname()
              .replaceAll(/[^A-Za-z0-9._-]/g, '-')
              .slice(0, 64) || 'agent',
        )
        .describe('Name of the agent, unique in its cluster.')
        .meta({ flag: 'name', argument: 'name', shown: "the machine's host name" }),
      directory: place()
        .default('')
        .describe("Folder of the agent's slice store; each agent has its own.")
        .meta({ flag: 'directory', argument: 'path', shown: '~/.local/state/musical-chair/agent-NAME' }),
      token: z
        .string()
        .default('')
        .describe(
          'Token to join with, from `token create` on the gateway; used once. Others on this machine can see it on the command line: better a file.',
        )
        .meta({ flag: 'token', argument: 'text', shown: 'none' }),
      tokenFile: place()
        .default('')
        .describe('File with such a token; removed when the agent has joined. It need not be there any more.')
        .meta({ flag: 'token-file', argument: 'path', shown: 'none' }),
      gateway: z
        .string()
        .default('')
        .describe('Where to join and renew, HOST or HOST:PORT; port 8884 when none is given.')
        .meta({ flag: 'gateway', argument: 'address', shown: 'where the broker is' }),
      storeMb: z
        .int()
        .min(1)
        .max(1_000_000)
        .default(4_000)
        .describe('Largest size of the slice store, megabytes; the slices used longest ago go first.')
        .meta({ flag: 'store-mb', argument: 'megabytes' }),
      memoryMb: z
        .int()
        .min(0)
        .max(10_000_000)
        .default(0)
        .describe('Memory the agent offers, megabytes; 0 = what the machine or its cgroup has.')
        .meta({ flag: 'memory-mb', argument: 'megabytes' }),
      threads: z
        .int()
        .min(0)
        .max(256)
        .default(0)
        .describe('Threads of the inference engine; 0 = one per core.')
        .meta({ flag: 'threads', argument: 'count' }),
      host: z
        .string()
        .min(1)
        .default('0.0.0.0')
        .describe("Address of the agent's own listener for direct lanes.")
        .meta({ flag: 'lane-host', argument: 'address' }),
      lanePort: port()
        .default(0)
        .describe("Port of the agent's own listener for direct lanes; 0 takes any free one.")
        .meta({ flag: 'lane-port', argument: 'port' }),
      addresses: z
        .string()
        .default('')
        .describe('Addresses announced to peers, joined with commas; empty = those of the network interfaces.')
        .meta({ flag: 'addresses', argument: 'list' }),
      relayOnly: z
        .boolean()
        .default(false)
        .describe('Open no listener: peers reach this agent on the connections it makes to theirs, else through the broker.')
        .meta({ flag: 'relay-only', argument: '' }),
      healthMs: z
        .int()
        .min(50)
        .max(60_000)
        .default(1_000)
        .describe('The agent tells its health this often, ms; silence is counted in such intervals.')
        .meta({ flag: 'health-ms', argument: 'ms' }),
    })
    .prefault({}),
});

export type Settings = z.output<typeof settingsSchema>;

/** `gateway.port`: a setting's path in the schema. */
export type SettingKey =
  | Exclude<keyof Settings, 'gateway' | 'agent'>
  | `gateway.${keyof Settings['gateway'] & string}`
  | `agent.${keyof Settings['agent'] & string}`;

/** What every command reads that talks to a cluster. */
export const CLIENT_SETTINGS = ['broker', 'cluster', 'credentials', 'insecure'] as const satisfies readonly SettingKey[];

export interface Setting extends SettingMeta {
  readonly key: SettingKey;
  /** `MUSICAL_CHAIR_GATEWAY_PORT` */
  readonly env: string;
  readonly type: 'string' | 'integer' | 'number' | 'boolean';
  readonly description: string;
  /** `0 to 65535`, or a pattern's sentence; '' when anything goes. */
  readonly range: string;
  /** The default, for people. */
  readonly defaultText: string;
  readonly defaultValue: unknown;
}

interface JsonLeaf {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly pattern?: string;
  readonly flag?: string;
  readonly argument?: string;
  readonly shown?: string;
  readonly properties?: Readonly<Record<string, JsonLeaf>>;
}

/** `lanePort` -> `LANE_PORT` */
function shout(word: string): string {
  return word.replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2').toUpperCase();
}

function settingOf(keys: readonly string[], leaf: JsonLeaf): Setting {
  const key = keys.join('.') as SettingKey;
  if (leaf.flag === undefined || leaf.argument === undefined || leaf.description === undefined)
    throw new TypeError(`setting ${key} lacks flag or description`);
  const type = leaf.type === 'integer' || leaf.type === 'number' || leaf.type === 'boolean' ? leaf.type : 'string';
  return {
    key,
    env: `MUSICAL_CHAIR_${keys.map(shout).join('_')}`,
    flag: leaf.flag,
    argument: leaf.argument,
    type,
    description: leaf.description,
    range: leaf.minimum === undefined ? '' : `${leaf.minimum} to ${leaf.maximum}`,
    defaultText: leaf.shown ?? String(leaf.default),
    defaultValue: leaf.default,
    ...(leaf.shown === undefined ? {} : { shown: leaf.shown }),
  };
}

/** Every setting, in the schema's order. */
export function listSettings(): Setting[] {
  const json = z.toJSONSchema(settingsSchema, { io: 'input' }) as JsonLeaf;
  const settings: Setting[] = [];
  const walk = (keys: readonly string[], leaf: JsonLeaf): void => {
    if (leaf.properties === undefined) settings.push(settingOf(keys, leaf));
    else for (const [name, child] of Object.entries(leaf.properties)) walk([...keys, name], child);
  };
  walk([], json);
  return settings;
}
