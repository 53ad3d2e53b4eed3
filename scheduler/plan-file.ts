/**
 * Plans as files: exported, edited by hand, checked, deployed. YAML or JSON; see docs/planning.md, "Plan files".
 *
 *   planFileText    a draft as a file
 *   parsePlanFile   the text as data: shape and sizes only              PLAN_FILE_UNREADABLE
 *   stagesOf        the data against a model: every node in one stage   PLAN_MODEL_MISMATCH, PLAN_INVALID
 *
 * Whether its agents are there is seen when it is planned with (planning.ts); whether it fits their memory, and whether the model can be cut so, when it is drafted.
 */
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { ChairError } from '../broker/errors.js';
import type { DeployRequest, ImageInput } from '../broker/messages.js';
import { NAME_PATTERN } from '../broker/topics.js';
import { CUT_KINDS, type StageSpec } from '../models/slicing/partition.js';
import type { Estimate } from './planners/estimate.js';
import type { ModelFacts, PlanDraft, SeatedStage } from './planners/problem.js';
import { looksLikeJson, MAX_SENT_YAML, readYaml } from './read-yaml.js';
import { firstIssue } from './schema-issue.js';

/** As much as a request can carry. */
export const MAX_PLAN_FILE_BYTES = 1 << 20;
const MAX_STAGES = 10_000;
const MAX_AGENTS = 10_000;

/** Where one is a million times another, the smaller stands for nothing that a tensor could be divided into: a slip, or another unit. */
const MOST_APART = 1e6;
export const SHARES_EXPECTED = `numbers above 0, the largest at most ${MOST_APART} times the smallest`;

/** Relative sizes that can be meant: each above 0 and at most 1e12, none a million times another. */
export function areShares(shares: readonly number[]): boolean {
  const [least, most] = [Math.min(...shares), Math.max(...shares)];
  return least >= 1e-12 && most <= 1e12 && most <= MOST_APART * least;
}

const agentName = z.string().regex(NAME_PATTERN, 'the name of an agent');
const range = z.tuple([z.int().min(0), z.int().min(1)]);

const shareList = z.array(z.number().positive().max(1e12)).min(1).max(MAX_AGENTS).refine(areShares, SHARES_EXPECTED);

const stageSchema = z.strictObject({
  /** `[start, end)` in blocks as `inspect` numbers them, or in nodes where a stage begins or ends inside a block. */
  blocks: range.optional(),
  nodes: range.optional(),
  cut: z.enum(CUT_KINDS).default('whole'),
  /** Relative sizes of the parts; default: equal. */
  shares: shareList.optional(),
  /** Who holds the parts, in the order of the shares. */
  agents: z.array(agentName).min(1).max(MAX_AGENTS).optional(),
  /** Of a stage cut by channels: who holds a parity, so that any one part may be missing; of several replicas one for each. */
  parity: z.union([agentName, z.array(agentName).min(1).max(MAX_AGENTS)]).optional(),
  /** The same of several replicas. */
  replicas: z.array(z.array(agentName).min(1).max(MAX_AGENTS)).min(1).max(MAX_AGENTS).optional(),
  /** Of the frames, how many go to each replica, relative; default: as many as its speed allows. */
  weights: shareList.optional(),
  /** Replicas take frames strictly in turn, however fast they are. */
  inTurn: z.boolean().optional(),
});

const fileSchema = z.strictObject({
  version: z.literal(1),
  model: z.string().regex(/^[0-9a-f]{64}$/, 'the sha256 of the model'),
  shapes: z.array(z.string().max(1000)).max(1000).default([]),
  images: z
    .array(
      z.strictObject({
        input: z.string().max(1000),
        height: z.int().min(1).max(16_384),
        width: z.int().min(1).max(16_384),
        order: z.enum(['rgb', 'bgr']),
        mean: z.array(z.number()).length(3),
        std: z.array(z.number()).length(3),
      }),
    )
    .max(100)
    .default([]),
  objective: z.string().max(100).default('latency'),
  /** Who made it; for people. */
  planner: z.string().max(100).default('hand'),
  /** Frames in flight; 0 = as many as are useful. */
  inFlight: z.int().min(0).max(10_000).default(0),
  /** As --max-error: wires are encoded anew within it, measured where the plan is deployed. A file never says encodings: unmeasured ones would be a guess. */
  maxError: z.number().min(0).max(1).default(0),
  stages: z.array(stageSchema).min(1).max(MAX_STAGES),
});

export type PlanFile = z.infer<typeof fileSchema>;
export type PlanFileStage = z.infer<typeof stageSchema>;

function unreadable(expected: string, came: string | undefined, cause?: unknown): ChairError {
  return new ChairError('PLAN_FILE_UNREADABLE', 'this is no plan file', {
    expected,
    ...(came === undefined ? {} : { came }),
    todo: 'Make one with `musical-chair plan MODEL --out plan.yaml`, and edit that.',
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Throws PLAN_FILE_UNREADABLE. */
export function parsePlanFile(text: string): PlanFile {
  if (text.length > MAX_PLAN_FILE_BYTES) throw unreadable(`at most ${MAX_PLAN_FILE_BYTES} characters`, `${text.length}`);
  let tree: unknown;
  try {
    tree = readYaml(text);
  } catch (cause) {
    throw unreadable('YAML or JSON', cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause), cause);
  }
  const result = fileSchema.safeParse(tree);
  if (result.success) return result.data;
  const { where, expected, came } = firstIssue(result.error, fileSchema, tree);
  throw unreadable(`${where === '' ? '' : `at ${where}: `}${expected}`, came);
}

/** What comes over the network is read while heartbeats wait. Throws PLAN_FILE_UNREADABLE. */
export function checkSent(text: string): void {
  if (text.length > MAX_SENT_YAML && !looksLikeJson(text)) {
    throw unreadable(`JSON, or at most ${MAX_SENT_YAML} characters of YAML, in a request`, `${text.length} characters of YAML`);
  }
}

/** The stages of a file for this model. Throws PLAN_MODEL_MISMATCH and PLAN_INVALID. */
export function stagesOf(file: PlanFile, model: string, facts: ModelFacts): SeatedStage[] {
  if (file.model !== model) {
    throw new ChairError('PLAN_MODEL_MISMATCH', 'the plan file is for another model', {
      expected: `sha256 ${model.slice(0, 12)}..., which is the model's`,
      came: `${file.model.slice(0, 12)}...`,
      todo: 'Make a plan for this model with `musical-chair plan`.',
    });
  }
  const stages = file.stages.map((stage, s) => seatedStage(stage, s, facts));
  let end = 0;
  const last = facts.blocks.at(-1)?.nodes[1] ?? 0;
  for (const [s, { spec }] of stages.entries()) {
    const [from, to] = spec.nodes;
    if (from > end)
      throw invalid(
        `${nodesText(end, from)} ${from - end === 1 ? 'is' : 'are'} in no stage`,
        s,
        'begins where the one before ends',
        `node ${from}`,
      );
    if (from < end)
      throw invalid(`${nodesText(from, Math.min(end, to))} would be in two stages`, s, `begins at node ${end}`, `node ${from}`);
    end = to;
  }
  if (end < last) throw invalid(`${nodesText(end, last)} would be in no stage`, stages.length - 1, `ends at node ${last}`, `node ${end}`);
  return stages;
}

function seatedStage(stage: PlanFileStage, s: number, facts: ModelFacts): SeatedStage {
  if ((stage.agents === undefined) === (stage.replicas === undefined)) {
    throw invalid(
      'who computes it is not clear',
      s,
      'has agents, or replicas with a list of agents each',
      stage.agents === undefined ? 'neither' : 'both',
    );
  }
  const holders = stage.replicas ?? [stage.agents ?? []];
  const parts = stage.shares?.length ?? holders[0]?.length ?? 1;
  for (const [r, replica] of holders.entries()) {
    if (replica.length !== parts)
      throw invalid('shares and agents do not match', s, `has ${parts} agents in replica ${r + 1}`, `${replica.length}`);
  }
  const parities = parityOf(stage, s, holders.length);
  const agents = holders.map((replica, r) => [...replica, ...(parities[r] ?? [])]);
  const seen = new Set<string>();
  for (const agent of agents.flat()) {
    if (seen.has(agent)) throw invalid('an agent can hold one seat of a stage', s, 'names each agent once', `${agent} twice`);
    seen.add(agent);
  }
  if (stage.cut === 'whole' && parts > 1) throw invalid('a whole stage is not divided', s, 'has one agent (in each replica)', `${parts}`);
  const spec = { nodes: nodesOf(stage, s, facts), cut: stage.cut, shares: stage.shares ?? new Array<number>(parts).fill(1) };
  return { spec: stage.parity === undefined ? spec : { ...spec, redundancy: 1 }, agents, ...dividedAs(stage, s, agents.length) };
}

/** Which replica takes how many frames, where the file says so. */
function dividedAs({ weights, inTurn }: PlanFileStage, s: number, replicas: number): Pick<SeatedStage, 'weights' | 'inTurn'> {
  if (weights !== undefined && inTurn === true)
    throw invalid('who takes how many frames is not clear', s, 'has weights, or replicas in turn', 'both');
  if (weights !== undefined && weights.length !== replicas)
    throw invalid('weights and replicas do not match', s, `has ${replicas} weights`, `${weights.length}`);
  return { ...(weights === undefined ? {} : { weights }), ...(inTurn === true ? { inTurn } : {}) };
}

/** Of each replica who holds the parity; nobody where there is none. */
function parityOf({ parity, cut }: PlanFileStage, s: number, replicas: number): readonly (readonly string[])[] {
  if (parity === undefined) return [];
  if (cut !== 'channels') throw invalid('only what is cut by outputs can have a parity', s, 'is cut by channels', cut);
  const parities = typeof parity === 'string' ? [parity] : parity;
  if (parities.length !== replicas)
    throw invalid('parities and replicas do not match', s, `has ${replicas} parities`, `${parities.length}`);
  return parities.map((agent) => [agent]);
}

function nodesOf({ blocks, nodes }: PlanFileStage, s: number, facts: ModelFacts): readonly [number, number] {
  if ((blocks === undefined) === (nodes === undefined)) {
    throw invalid(
      'what it computes is not clear',
      s,
      'has blocks: [start, end] or nodes: [start, end]',
      blocks === undefined ? 'neither' : 'both',
    );
  }
  const [start, end] = blocks ?? nodes ?? [0, 0];
  const count = blocks === undefined ? (facts.blocks.at(-1)?.nodes[1] ?? 0) : facts.blocks.length;
  const what = blocks === undefined ? 'nodes' : 'blocks';
  if (start >= end || end > count)
    throw invalid(`there are no such ${what}`, s, `has ${what} [start, end], start < end <= ${count}`, `[${start}, ${end}]`);
  if (blocks === undefined) return [start, end];
  return [facts.blocks[start]?.nodes[0] ?? 0, facts.blocks[end - 1]?.nodes[1] ?? 0];
}

function invalid(what: string, stage: number, expected: string, came: string): ChairError {
  return new ChairError('PLAN_INVALID', `stage ${stage + 1} of the plan file is wrong: ${what}`, {
    expected: `a stage that ${expected}`,
    came,
  });
}

function nodesText(from: number, end: number): string {
  return end - from === 1 ? `node ${from}` : `nodes ${from} to ${end - 1}`;
}

/** What the file says of the model's inputs and of the objective stands in the request's place, unless the request says it itself. Throws PLAN_FILE_UNREADABLE. */
export function withPlanFile(request: DeployRequest): DeployRequest {
  if (request.plan === '') return request;
  const file = parsePlanFile(request.plan);
  const { objective, shapes, images, maxError } = file;
  return {
    ...request,
    // It is read again for every plan: JSON is read quickly.
    plan: JSON.stringify(file),
    objective,
    shapes: request.shapes.length > 0 ? request.shapes : shapes,
    images: request.images.length > 0 ? request.images : images,
    maxError: request.maxError > 0 ? request.maxError : maxError,
    // After a loss another plan is made, which is to be as safe.
    redundancy: hasParity(file) ? 1 : request.redundancy,
  };
}

/** Whether any of its stages is coded. */
export function hasParity({ stages }: PlanFile): boolean {
  return stages.some(({ parity }) => parity !== undefined);
}

/** All agents that the file names, each once. */
export function agentsNamed(file: PlanFile): string[] {
  return [
    ...new Set(file.stages.flatMap(({ replicas, agents, parity }) => [...(replicas?.flat() ?? agents ?? []), ...[parity ?? []].flat()])),
  ];
}

/** What a file says besides its stages. */
export interface PlanFileHead {
  readonly deployment: string;
  readonly model: string;
  readonly shapes: readonly string[];
  readonly images: readonly ImageInput[];
  readonly objective: string;
  readonly maxError: number;
  /** What nodes `[start, end)` are, for people; '' = nothing is known. */
  readonly describe?: (start: number, end: number) => string;
}

/** As the report of the plan says it, and the slowest way besides where replicas differ much. */
function predictedText({ latencyMs, usualLatencyMs = latencyMs, fps }: Estimate): string {
  const slowest = latencyMs > 1.1 * usualLatencyMs ? ` (${latencyMs.toPrecision(4)} ms on the slowest way)` : '';
  return `${usualLatencyMs.toPrecision(4)} ms per frame${slowest}, ${fps.toPrecision(4)} frames/s`;
}

/** '' where the plan is too large for a file. */
export function planFileText(head: PlanFileHead, draft: PlanDraft, facts: ModelFacts): string {
  const { estimate, inFlight, planner } = draft;
  const described = (start: number, end: number): string => {
    const text = head.describe?.(start, end) ?? '';
    return text === '' ? '' : `  # ${comment(text)}`;
  };
  const stages = draft.stages.flatMap(({ spec, agents, weights, inTurn }) => {
    const [start, end] = spec.nodes;
    const [from, to] = [facts.blocks.findIndex(({ nodes }) => nodes[0] === start), facts.blocks.findIndex(({ nodes }) => nodes[1] === end)];
    const range = from >= 0 && to >= 0 ? `blocks: [${from}, ${to + 1}]` : `nodes: [${start}, ${end}]`;
    return [`  - ${range}${described(start, end)}`, ...cutLines(spec), ...holderLines(spec, agents), ...turnLines({ weights, inTurn })];
  });
  const text = [
    `# A plan of ${comment(head.deployment)}, to be edited, checked (plan MODEL --check FILE) and deployed (deploy MODEL --plan FILE).`,
    `# Predicted: ${predictedText(estimate)}.`,
    'version: 1',
    `model: "${head.model}"`,
    ...(head.shapes.length === 0 ? [] : [`shapes: ${JSON.stringify(head.shapes)}`]),
    ...(head.images.length === 0 ? [] : [`images: ${JSON.stringify(head.images)}`]),
    `objective: ${JSON.stringify(head.objective)}`,
    `planner: ${JSON.stringify(planner)}  # who made it`,
    `inFlight: ${inFlight}  # frames in flight; 0: as many as are useful`,
    ...(head.maxError > 0
      ? [`maxError: ${head.maxError}  # of outputs, relative; how wires are encoded is measured when it is deployed`]
      : []),
    '# Ranges are [start, end): blocks as `inspect` numbers them, or nodes. Each stage begins where the one before ends.',
    `# There are ${facts.blocks.length} blocks, of ${facts.blocks.at(-1)?.nodes[1] ?? 0} nodes.`,
    'stages:',
    ...stages,
    '',
  ].join('\n');
  return Buffer.byteLength(text) <= MAX_PLAN_FILE_BYTES ? text : '';
}

function holderLines({ shares, redundancy = 0 }: StageSpec, agents: SeatedStage['agents']): string[] {
  const parts = agents.map((replica) => replica.slice(0, shares.length));
  const parities =
    redundancy === 0 ? [] : [`    parity: ${names(agents.map((replica) => replica[shares.length] ?? ''))}  # any one part may be missing`];
  if (parts.length === 1) return [`    agents: ${names(parts[0] ?? [])}`, ...parities];
  return ['    replicas:', ...parts.map((replica) => `      - ${names(replica)}`), ...parities];
}

function turnLines({ weights, inTurn }: { readonly weights: SeatedStage['weights']; readonly inTurn: SeatedStage['inTurn'] }): string[] {
  if (inTurn === true) return ['    inTurn: true  # a frame to each, however fast it is'];
  return weights === undefined ? [] : [`    weights: [${weights.join(', ')}]  # frames for each, relative`];
}

function cutLines({ cut, shares }: StageSpec): string[] {
  if (cut === 'whole') return [];
  return [`    cut: ${cut}`, `    shares: [${shares.join(', ')}]`];
}

function names(agents: readonly string[]): string {
  return `[${agents.map((agent) => (/^[A-Za-z_][A-Za-z0-9_-]*$/.test(agent) && parseYaml(agent) === agent ? agent : JSON.stringify(agent))).join(', ')}]`;
}

/** Names of models and nodes may hold anything. */
function comment(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]+/g, ' ').slice(0, 120);
}
