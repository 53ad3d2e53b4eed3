/** Options of an agent, checked once at the edge. The CLI fills them from its settings; unknown keys are refused. */
import { z } from 'zod';
import { ChairError } from '../broker/errors.js';
import { DISPATCHER, NAME_PATTERN } from '../broker/topics.js';

/** Instead of a broker's URL: look for the cluster's gateway on the local network. */
export const FIND_BROKER = 'auto';
const MIB = 2 ** 20;
const name = () => z.string().regex(NAME_PATTERN, 'letters, digits, dot, dash and underscore, at most 64');

export const agentConfigSchema = z.strictObject({
  name: name()
    .refine((value) => value !== DISPATCHER, `not "${DISPATCHER}": that is the lane name of the dispatcher`)
    .describe('Name of the agent, unique in its cluster.'),
  cluster: name().default('default').describe('Name of the cluster.'),
  broker: z
    .string()
    .min(1)
    .default(FIND_BROKER)
    .describe('URL of the MQTT broker, mqtt://host:port; auto = found on the local network (mDNS).'),
  directory: z.string().min(1).describe('Folder of the slice store; one agent a folder.'),
  storeLimitBytes: z
    .int()
    .min(MIB)
    .default(4000 * MIB)
    .describe('Largest size of the slice store, bytes; the blobs used longest ago go first.'),
  memoryLimitBytes: z.int().min(0).default(0).describe('Memory the agent offers, bytes; 0 = what the machine or its cgroup has.'),
  threads: z.int().min(0).max(256).default(0).describe('Intra-op threads of the engine; 0 = one per core.'),
  prepack: z
    .union([z.boolean(), z.literal('auto')])
    .default(false)
    .describe('Prepack weights when loading: more memory and load time, faster kernels for some layers; auto measures each slice once.'),
  laneHost: z
    .string()
    .default('0.0.0.0')
    .describe('Address of the listener for direct lanes; "" = none, everything comes through the broker.'),
  lanePort: z.int().min(0).max(65_535).default(0).describe('Port of the listener for direct lanes; 0 = any free one.'),
  addresses: z
    .array(z.string().min(1))
    .max(16)
    .default([])
    .describe('Addresses announced to peers; empty = those of the network interfaces.'),
  healthMs: z.int().min(50).max(60_000).default(1000).describe('Interval of health messages, ms.'),
  drainMs: z
    .int()
    .min(0)
    .max(600_000)
    .default(30_000)
    .describe('Longest time to go on serving after SIGTERM until others hold the seats, ms.'),
  orphanMs: z.int().min(0).max(3_600_000).default(60_000).describe("Time after which seats of a former scheduler's term are given up, ms."),
  earlyMs: z.int().min(0).max(60_000).default(5000).describe('How long activations of an epoch that is not prepared yet are kept, ms.'),
  earlyBytes: z
    .int()
    .min(0)
    .default(64 * MIB)
    .describe('Bytes of such activations.'),
  joinLimitBytes: z.int().min(0).default(0).describe('Bytes of frames waiting, ready or being sent; 0 = a quarter of the memory limit.'),
});

/** All fields set. */
export type AgentConfig = z.output<typeof agentConfigSchema>;
/** As given: fields with a default may be left out. */
export type AgentConfigInput = z.input<typeof agentConfigSchema>;

/** Throws CONFIG_INVALID, naming the field; AGENT_NAME_INVALID for the name. */
export function parseAgentConfig(input: AgentConfigInput): AgentConfig {
  const parsed = agentConfigSchema.safeParse(input);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  if (issue?.code === 'unrecognized_keys') {
    throw new ChairError('CONFIG_INVALID', 'agent option is not known', { expected: 'a known option', came: issue.keys.join(', ') });
  }
  const where = issue?.path.join('.') ?? '';
  const code = where === 'name' || where === 'cluster' ? 'AGENT_NAME_INVALID' : 'CONFIG_INVALID';
  throw new ChairError(code, `agent option ${where === '' ? '' : `"${where}" `}is wrong`, {
    expected: issue?.message ?? 'a valid value',
    came: shown(input, where),
  });
}

function shown(input: AgentConfigInput, where: string): string {
  const value: unknown = Object.entries(input).find(([key]) => key === where)?.[1];
  return JSON.stringify(value)?.slice(0, 100) ?? 'nothing';
}
