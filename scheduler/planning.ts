/**
 * From a request and the agents that are there to the planner's problem, and to its answer. No effects.
 * Long, because each figure of a device is told here from what agents say, what was profiled and what was learned, in that order; the planners and the plan's slices are elsewhere.
 */
import { ChairError } from '../broker/errors.js';
import type { DeployRequest, Hello } from '../broker/messages.js';
import { type HostShare, hostShares } from './hosts.js';
import type { ManualCut } from './model-source.js';
import { agentsNamed, areShares, hasParity, parsePlanFile, SHARES_EXPECTED, stagesOf } from './plan-file.js';
import {
  AROUND_RUN_MS,
  COLD_MESSAGE_MS,
  ENGINE_BYTES,
  NODE_OVERHEAD_MS,
  RUN_OVERHEAD_MS,
  SERIALISE_BYTES_PER_SECOND,
  SMALL_RUN_MS,
  SMALL_RUN_NOISE,
} from './planners/cost.js';
import { explained, type Solve } from './planners/explained.js';
import { filed } from './planners/filed.js';
import { manual as manualPlanner } from './planners/manual.js';
import { PLANNERS } from './planners/planners.js';
import {
  type AccessLink,
  type Correction,
  type Device,
  isRefusal,
  type Links,
  type ModelFacts,
  type Objective,
  type PlanDraft,
  type Planner,
  type PlanProblem,
  type ProfileTable,
} from './planners/problem.js';
import { profiledMs } from './planners/profile-table.js';
import type { AgentRecord } from './registry.js';

/** Of a device's memory, what its own system and everything else on it need. */
const FREE_FRACTION = 0.85;
/** Probes of equal devices differ by so much. */
const PROBE_NOISE = 1.33;
/** Agents in a message for people. */
const MOST_NAMED = 5;
const MOST_LISTED = 20;
/** For agents that could not probe themselves, when nobody could. */
const GUESSED_MACS_PER_SECOND = 5e9;

export interface PlanningInput {
  readonly request: DeployRequest;
  readonly facts: ModelFacts;
  readonly manual: ManualCut | undefined;
  readonly agents: readonly AgentRecord[];
  /** Agents that failed to prepare this deployment, and why. */
  readonly excluded: ReadonlyMap<string, string>;
  /** Bytes that other deployments hold, by agent. */
  readonly usedBytes: ReadonlyMap<string, number>;
  /** Other deployments that hold seats, by agent: they share its CPU and link. */
  readonly otherDeployments?: ReadonlyMap<string, number>;
  readonly links: Links;
  /** Of agents whose link was measured. */
  readonly access?: ReadonlyMap<string, AccessLink>;
  /** What was measured of this model on an agent's class of device; undefined = nothing, or not all of it. */
  readonly profiles?: (record: AgentRecord) => ProfileTable | undefined;
  /** How real frames ran on each agent. */
  readonly corrections?: (agent: string, basis: string) => Correction | undefined;
  /** After a loss, agents that are asked for may have been forgotten, a cut made by hand goes on with as many parts as agents are left, and a plan file waits until all its agents are back. */
  readonly fewerParts: boolean;
  /** sha256: a plan file is for one model. */
  readonly model?: string;
}

/**
 * Throws NO_AGENTS, AGENT_UNKNOWN, PLAN_NOT_POSSIBLE or PLANNER_FAILED. A planner is one synchronous function; it runs in a thread of its own, so that heartbeats
 * and frames go on (planner-thread.ts).
 */
export async function draftPlan(input: PlanningInput): Promise<PlanDraft> {
  return planFor(input.request.name, problemOf(input));
}

/** A question to one planner. */
export interface Asked {
  readonly planner: Planner;
  readonly problem: PlanProblem;
}

/** What is asked of which planner. Throws NO_AGENTS, AGENT_UNKNOWN, PLAN_INVALID. */
export function problemOf(input: PlanningInput): Asked {
  const { agents, excluded } = input;
  const away = new Map(agents.map(({ agent, state }) => [agent, excluded.get(agent) ?? state]));
  return askedOf({ ...input, devices: devicesFor(input), away });
}

export interface Asking extends Pick<PlanningInput, 'request' | 'facts' | 'manual' | 'links' | 'fewerParts' | 'model'> {
  readonly devices: readonly Device[];
  /** What is known of agents, and why those that are not among the devices cannot take part. */
  readonly away: ReadonlyMap<string, string>;
}

/** The same of devices, which need not be there. Throws AGENT_UNKNOWN, NO_AGENTS, PLAN_... */
export function askedOf(input: Asking): Asked {
  const { request, facts, links, devices } = input;
  const file = filedProblem(input);
  if (file !== undefined) return file;
  const spare = request.redundancy > 0 ? 1 : 0;
  const manual = input.fewerParts ? reduced(input.manual, Math.max(1, devices.length - spare)) : input.manual;
  const planner = PLANNERS.get(manual === undefined ? request.planner || 'auto' : 'manual');
  if (planner === undefined) throw new ChairError('PLAN_INVALID', `there is no planner '${request.planner}'`);
  const { objective, maxLatencyMs } = parseObjective(request.objective);
  const bounded = maxLatencyMs === undefined ? {} : { maxLatencyMs };
  const shares = manual === input.manual ? request.shares : [];
  const cut = manual === undefined ? {} : { manual: { ...manual, shares } };
  // After a loss frames wait: then redundancy is what can be done without.
  const redundancy = spare === 0 ? {} : ({ redundancy: { otherwise: input.fewerParts ? 'without' : 'refuse' } } as const);
  return { planner, problem: { facts, devices, links, objective, inFlight: request.inFlight, ...cut, ...bounded, ...redundancy } };
}

/** The plan of a file, as long as its agents are there. Throws PLAN_FILE_UNREADABLE, PLAN_MODEL_MISMATCH, PLAN_INVALID, AGENT_UNKNOWN, NO_AGENTS. */
function filedProblem({ request, facts, links, devices, fewerParts, model, away: known }: Asking): Asked | undefined {
  if (request.plan === '') return undefined;
  const file = parsePlanFile(request.plan);
  const named = agentsNamed(file);
  const away = named.filter((name) => !devices.some(({ agent }) => agent === name));
  // What is lost may be forgotten, too.
  if (away.length > 0 && fewerParts) return undefined;
  knowAgents(named, [...known.keys()]);
  if (away.length > 0) {
    const states = away.map((name) => `${name}: ${known.get(name)}`);
    throw new ChairError('NO_AGENTS', `agents of the plan file cannot take part in '${request.name}'`, {
      expected: `${named.length} ready agents`,
      came: someOf(states),
    });
  }
  const stages = stagesOf(file, model ?? file.model, facts);
  const inFlight = request.inFlight > 0 ? request.inFlight : file.inFlight;
  const problem = { facts, devices, links, ...parseObjective(request.objective), inFlight, seated: { by: file.planner, stages } };
  return { planner: filed, problem };
}

/** Asks a planner, in the planners' thread where there is one; what only judges a given plan is quick enough for this one. Throws PLANNER_FAILED. */
const solve: Solve = async (planner, { facts, ...question }) => {
  const name = [...PLANNERS].find(([, known]) => known === planner)?.[0];
  if (facts.elsewhere !== undefined && name !== undefined) return facts.elsewhere(name, question);
  // Lets other work go on between plans.
  await new Promise((resolve) => setImmediate(resolve));
  return planner({ ...question, facts });
};

/** The planner's answer. Throws PLAN_NOT_POSSIBLE, PLANNER_FAILED. */
export async function planFor(name: string, { planner, problem }: Asked): Promise<PlanDraft> {
  const answer = await solve(planner, problem);
  if (isRefusal(answer)) {
    const names = problem.devices.map((d) => d.agent);
    const agents = names.length > 8 ? `${names.slice(0, 3).join(', ')}, ... (${names.length} agents)` : names.join(', ');
    throw new ChairError('PLAN_NOT_POSSIBLE', `no plan for '${name}' on ${agents}: ${answer.reason}`);
  }
  return { ...answer, basis: basisOf(problem.devices) };
}

/** A draft of a planner with what others would have done, and what this one would do with other devices and links. */
export async function explainedDraft({ planner, problem }: Asked, chosen: PlanDraft): Promise<PlanDraft> {
  const others = new Map([...PLANNERS].filter(([, other]) => other !== manualPlanner));
  return { ...chosen, explained: await explained(problem, chosen, planner, others, solve) };
}

const OBJECTIVE = /^(|latency|throughput|throughput<[1-9]\d{0,8})$/;

/** `throughput<200`: as many frames per second as possible, none later than 200 ms. */
export function parseObjective(text: string): { readonly objective: Objective; readonly maxLatencyMs?: number } {
  const [goal, limit] = text.split('<');
  const objective = goal === 'throughput' ? 'throughput' : 'latency';
  return limit === undefined ? { objective } : { objective, maxLatencyMs: Number(limit) };
}

/** The same kind of cut in fewer parts; one agent takes the model whole. */
function reduced(manual: ManualCut | undefined, agents: number): ManualCut | undefined {
  if (manual === undefined || manual.parts <= agents) return manual;
  return agents === 1 ? { kind: 'stages', parts: 1 } : { kind: manual.kind, parts: agents };
}

/** Checks what can be checked before a model is loaded. Throws PLAN_INVALID. */
export function checkRequest(request: DeployRequest): void {
  const wrong = (expected: string, came: string): ChairError =>
    new ChairError('PLAN_INVALID', `the request to deploy '${request.name}' is wrong`, { expected, came });
  if (!OBJECTIVE.test(request.objective)) throw wrong('objective latency, throughput or throughput<MILLISECONDS', request.objective);
  if (request.plan !== '') {
    const { objective } = parsePlanFile(request.plan);
    if (!OBJECTIVE.test(objective)) throw wrong('objective latency, throughput or throughput<MILLISECONDS in the plan file', objective);
    if (request.cut !== '' || request.agents.length > 0) throw wrong('a plan file, or a cut and agents', 'both');
  }
  if (request.planner !== '' && (request.planner === 'manual' || !PLANNERS.has(request.planner))) {
    throw wrong(`planner ${[...PLANNERS.keys()].filter((name) => name !== 'manual').join(', ')}`, request.planner);
  }
  if (!(request.weight > 0 && request.weight <= 1000)) throw wrong('a weight above 0, at most 1000', String(request.weight));
  if (request.redundancy > 0) checkRedundancy(request, wrong);
  if (request.shares.length > 0 && !areShares(request.shares))
    throw wrong(`shares: ${SHARES_EXPECTED}`, request.shares.join(',').slice(0, 200));
  if (!(request.maxError >= 0 && request.maxError <= 1)) throw wrong('a largest error from 0 to 1', String(request.maxError));
  if (request.calibration.length > 0 && request.maxError === 0)
    throw wrong('a largest error with calibration inputs', 'none, so nothing would be measured');
  if (request.shares.length > 0 && request.cut === '') throw wrong('a cut such as rows:3 with the shares', 'shares alone');
}

type Wrong = (expected: string, came: string) => ChairError;

/** Only what is cut by outputs can be coded, and only `auto` and a cut by hand know how. Throws PLAN_INVALID. */
function checkRedundancy({ redundancy, cut, plan, planner }: DeployRequest, wrong: Wrong): void {
  if (redundancy !== 1) throw wrong('redundancy 0 or 1', String(redundancy));
  // What a file says is the request's, too: it holds for the plans after it.
  if (plan !== '' && !hasParity(parsePlanFile(plan)))
    throw wrong('redundancy in the stages of the plan file (parity: AGENT)', 'a file without');
  if (cut !== '' && !/^channels:\d+$/.test(cut.trim())) throw wrong('redundancy with a cut by outputs such as channels:3', cut);
  if (cut === '' && planner !== '' && planner !== 'auto') throw wrong('redundancy with planner auto', planner);
}

/** Of thousands, as many as people read. */
function someOf(names: readonly string[]): string {
  const more = names.length - MOST_LISTED;
  return more <= 0 ? names.join(', ') : `${names.slice(0, MOST_LISTED).join(', ')} and ${more} more`;
}

/** Throws AGENT_UNKNOWN. */
function knowAgents(names: readonly string[], agents: readonly string[]): void {
  const unknown = names.filter((name) => !agents.includes(name));
  if (unknown.length === 0) return;
  const known = someOf(agents) || 'none';
  throw new ChairError('AGENT_UNKNOWN', `no agent is called ${someOf(unknown)}`, { todo: `Known agents: ${known}.` });
}

function devicesFor(input: PlanningInput): Device[] {
  const { request, facts, agents, excluded, usedBytes, otherDeployments, access, corrections, profiles } = input;
  // What was lost for long, or since before a restart, is not known any more; it was when the request was made.
  if (!input.fewerParts) {
    knowAgents(
      request.agents,
      agents.map(({ agent }) => agent),
    );
  }
  const ready = agents.filter((record) => record.state === 'ready');
  const wanted = ready.filter((record) => request.agents.length === 0 || request.agents.includes(record.agent));
  const able = wanted.filter((record) => !excluded.has(record.agent));
  if (able.length === 0) {
    const reasons = [...excluded].map(([agent, why]) => `${agent}: ${why}`).join('; ');
    throw new ChairError('NO_AGENTS', `no ready agent can take part in '${request.name}'`, {
      expected: request.agents.length === 0 ? 'an agent that is ready' : `one of ${request.agents.join(', ')} ready`,
      came: reasons === '' ? `${agents.length} agents known, ${ready.length} ready${absentText(agents)}` : reasons,
      todo: 'Start agents with `musical-chair agent`, and look at `musical-chair status`.',
    });
  }
  const speeds = able.map((record) => record.hello.probeMacsPerSecond).filter((speed) => speed > 0);
  const hellos = agents.map((record) => record.hello);
  const probed = probedSpeeds(hellos);
  // Memory and code are as fast on all boards of a class: what differs is what else ran at that moment.
  const memory = medians(hellos, 'probeBytesPerSecond');
  const smallRun = leastOnMachine(hellos, medians(hellos, 'probeSmallRunMs'));
  const turns = medians(hellos, 'cpuPeriodMs');
  const usual = speeds.sort((a, b) => a - b)[Math.floor((speeds.length - 1) / 2)] ?? GUESSED_MACS_PER_SECOND;
  // Agents that are not asked for compute, too: for another deployment, or with seats that are being given back.
  const hosts = hostShares(agents.filter(({ state }) => ALIVE.has(state)).map((record) => record.hello));
  return able
    .map((record) => ({ record, profile: profiles?.(record) }))
    .map(({ record: { agent, hello }, profile }) => {
      const macsPerSecond = profiledSpeed(profile, facts) ?? (probed(hello) || usual);
      return { agent, hello, profile, macsPerSecond };
    })
    .map(({ agent, hello, profile, macsPerSecond }) => ({
      agent,
      macsPerSecond,
      ...optional('profile', profile),
      memoryBytes: hello.memoryBytes > 0 ? Math.max(1, hello.memoryBytes * FREE_FRACTION - (usedBytes.get(agent) ?? 0)) : 0,
      otherDeployments: otherDeployments?.get(agent) ?? 0,
      ...optional('memoryBytesPerSecond', memory(hello) || undefined),
      ...besidesComputing({ ...hello, probeSmallRunMs: smallRun(hello), cpuPeriodMs: turns(hello) }),
      ...onHost(hosts.get(agent)),
      ...optional('link', access?.get(agent)),
      ...optional('correction', corrections?.(agent, timesOf({ macsPerSecond, profile }))),
    }));
}

/** Those that are not ready, as many as fit into a line, and why. */
function absentText(agents: readonly AgentRecord[]): string {
  const absent = agents.filter(({ state }) => state !== 'ready');
  const some = absent.slice(0, MOST_NAMED).map(({ agent, state, why }) => {
    const because = why === '' && state === 'joining' ? 'its first health message has not come' : why;
    return `${agent} ${state}${because === '' ? '' : ` (${because})`}`;
  });
  const more = absent.length > MOST_NAMED ? ', ...' : '';
  return some.length === 0 ? '' : `: ${some.join(', ')}${more}`;
}

/**
 * Agents that a request could use in a moment: they have just come, and only their first health message is missing. Who is held back is not waited for.
 */
export function arriving({ plan, agents: asked }: Pick<DeployRequest, 'plan' | 'agents'>, agents: readonly AgentRecord[]): string[] {
  const named = plan === '' ? asked : agentsNamed(parsePlanFile(plan));
  return agents.flatMap(({ agent, state, why }) => {
    const isComing = state === 'joining' && why === '';
    return isComing && (named.length === 0 || named.includes(agent)) ? [agent] : [];
  });
}

type Figure = 'probeMacsPerSecond' | 'probeBytesPerSecond' | 'probeSmallRunMs' | 'cpuPeriodMs';

/** Of each class of device (equal fingerprints and threads) the median of what its agents' probes found; 0 = nobody of its class could probe. */
function medians(hellos: readonly Hello[], figure: Figure): (hello: Hello) => number {
  const classOf = ({ fingerprint, engineThreads }: Hello): string => `${fingerprint} ${engineThreads}`;
  const found = new Map<string, number[]>();
  for (const hello of hellos) {
    if (hello[figure] > 0) found.set(classOf(hello), [...(found.get(classOf(hello)) ?? []), hello[figure]]);
  }
  for (const values of found.values()) values.sort((a, b) => a - b);
  return (hello) => {
    const sorted = found.get(classOf(hello)) ?? [];
    return hello.fingerprint === '' ? hello[figure] : (sorted[Math.floor((sorted.length - 1) / 2)] ?? 0);
  };
}

/**
 * Agents of one machine have one processor: of what they found of it the least was disturbed least (three of 0.18 core said 0.093 to 0.099 ms, one of 0.09 that started beside
 * them 0.146). Others', and 0 = unknown, as they are.
 */
export function leastOnMachine<T extends { readonly host: string }>(all: readonly T[], figure: (one: T) => number): (one: T) => number {
  const least = new Map<string, number>();
  for (const one of all) {
    const found = figure(one);
    if (one.host !== '' && found > 0) least.set(one.host, Math.min(found, least.get(one.host) ?? found));
  }
  return (one) => (figure(one) > 0 ? (least.get(one.host) ?? figure(one)) : 0);
}

/** Equal boards are equally fast, and a probe of less than a second has noise. One that is further off is believed: it is hot, or not what it seems. */
function probedSpeeds(hellos: readonly Hello[]): (hello: Hello) => number {
  const usual = medians(hellos, 'probeMacsPerSecond');
  return (hello) => {
    const middle = usual(hello);
    const own = hello.probeMacsPerSecond;
    return own > middle * PROBE_NOISE || own * PROBE_NOISE < middle ? own || middle : middle;
  };
}

/** MACs per second of this model, where it was measured: shares by speed are right at once, and what a table lacks is guessed from the same device. */
function profiledSpeed(profile: ProfileTable | undefined, { blocks }: ModelFacts): number | undefined {
  const nodes = [0, blocks.at(-1)?.nodes[1] ?? 0] as const;
  const ms = profile === undefined ? undefined : profiledMs(profile, { nodes, cut: 'whole' }, 1);
  const macs = blocks.reduce((sum, block) => sum + block.macs, 0);
  return ms !== undefined && ms > 0 && macs > 0 ? (macs / ms) * 1000 : undefined;
}

/** For people: which figures a plan stands on. */
export function basisOf(devices: readonly Pick<Device, 'agent' | 'profile'>[]): string {
  const measured = devices.filter(({ profile }) => profile !== undefined);
  const probed = devices.filter(({ profile }) => profile === undefined).map(({ agent }) => agent);
  const classes = [...new Set(measured.map(({ profile }) => profile?.name ?? ''))];
  const probes = "the agents' start-up probes; `musical-chair profile` measures this model on them";
  if (measured.length === 0) return `times guessed from ${probes}`;
  const said = `times measured: profile ${classes.join('; profile ')}`;
  return probed.length === 0 ? said : `${said}; of ${probed.join(', ')} guessed from ${probes}`;
}

/** What the times of one device stand on; other figures are another basis. */
export function timesOf({
  macsPerSecond,
  profile,
}: {
  readonly macsPerSecond: number;
  readonly profile?: ProfileTable | undefined;
}): string {
  return profile === undefined ? `probe ${macsPerSecond}` : `profile ${profile.name} ${profile.rows.length}`;
}

const ALIVE: ReadonlySet<string> = new Set(['ready', 'suspect', 'draining']);

/**
 * What an agent does besides computing, as constants of cost.ts say of the machine that they were measured on: as much longer as this processor takes for a small run, and
 * as a quota below one core leaves less of its time. Speeds that were probed know that by themselves.
 */
export function besidesComputing({
  cpuLimit,
  cpuPeriodMs,
  engineThreads,
  probeSmallRunMs,
}: Pick<Hello, 'cpuLimit' | 'cpuPeriodMs' | 'engineThreads' | 'probeSmallRunMs'>): Partial<Device> {
  const threads = Math.max(1, engineThreads);
  const quota =
    cpuLimit > 0 && cpuLimit < threads && cpuPeriodMs > 0 ? { quota: { periodMs: cpuPeriodMs, fullSpeed: cpuLimit / threads } } : {};
  const slower = besidesReference(probeSmallRunMs) / (cpuLimit > 0 && cpuLimit < 1 ? cpuLimit : 1);
  return {
    ...quota,
    aroundMs: AROUND_RUN_MS * slower,
    copyBytesPerSecond: SERIALISE_BYTES_PER_SECOND / slower,
    messageMs: COLD_MESSAGE_MS * slower,
    runMs: RUN_OVERHEAD_MS * slower,
    nodeMs: NODE_OVERHEAD_MS * slower,
  };
}

/**
 * How much longer than on the machine that constants were measured on. Between noise and no noise it grows steadily, in logarithms (firm shrinkage: Gao and Bruce 1997): two
 * boards of one kind, or one that is started twice, are not three times apart by a hair.
 */
function besidesReference(smallRunMs: number): number {
  if (smallRunMs <= 0) return 1;
  const { within, beyond } = SMALL_RUN_NOISE;
  const log = Math.log(smallRunMs / SMALL_RUN_MS);
  const counts = (Math.abs(log) - Math.log(within)) / Math.log(beyond / within);
  return Math.exp(log * Math.min(1, Math.max(0, counts)));
}

function onHost(share: HostShare | undefined): Pick<Device, 'host' | 'hostShare'> {
  return share === undefined ? {} : { host: share.host, hostShare: share.share };
}

function optional<K extends string, T>(key: K, value: T | undefined): { readonly [P in K]?: T } {
  return value === undefined ? {} : ({ [key]: value } as { readonly [P in K]: T });
}

/** What drafts hold on each agent; the engine's constant is there once per agent, whoever comes first. */
export function memoryOf(drafts: Iterable<PlanDraft>): Map<string, number> {
  const used = new Map<string, number>();
  for (const { estimate } of drafts) {
    for (const { agent, needBytes } of estimate.memory) used.set(agent, (used.get(agent) ?? 0) + needBytes - ENGINE_BYTES);
  }
  return used;
}

/** How many of these drafts hold seats on each agent. */
export function deploymentsOn(drafts: Iterable<PlanDraft>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { stages } of drafts) {
    for (const agent of new Set(stages.flatMap((stage) => stage.agents.flat()))) counts.set(agent, (counts.get(agent) ?? 0) + 1);
  }
  return counts;
}
