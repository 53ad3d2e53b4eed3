/** The state of a cluster as text for people, 80 columns wide: agents, what is served and where, how bytes travel, what happened last. Pure. */
import type { AgentStatus, DeploymentStatus, LossRow, PlanReport, PlanRow, StatusReport } from '../broker/messages.js';
import { durationText } from './duration.js';
import { linksText, machinesText, predictionText } from './links-text.js';
import { PROGRAM } from './package-root.js';
import { counted, planHead, progressText } from './report.js';
import { bytesText, type Column, dimsText, formatTable, msText, wrapText } from './table.js';

const LATEST_EVENTS = 5;
/** Links in a status; `links` shows all. */
const STATUS_LINKS = 12;

/** No process answers for it any more, whether it said so or not. */
const isGone = (state: string): boolean => state === 'lost' || state === 'stopped';

function agentRow(
  { agent, state, addresses, lanePort, cores, cpuLimit, memoryBytes, health }: AgentStatus,
  temperature: boolean,
): string[] {
  // What an agent that is gone said last is not what it does now.
  const now = isGone(state) ? null : health;
  return [
    agent,
    state,
    lanePort === 0 ? 'no listener' : `${addresses[0] ?? '-'}:${lanePort}`,
    // What it may use of them: a tenth of two cores is no machine of two cores.
    String(Number((cpuLimit > 0 ? Math.min(cpuLimit, cores) : cores).toPrecision(2))),
    bytesText(memoryBytes),
    now === null ? '-' : `${Math.round(now.cpu * 100)} %`,
    now === null ? '-' : bytesText(now.rssBytes),
    ...(temperature ? [now === null || now.temperature === 0 ? '-' : `${now.temperature.toFixed(0)} C`] : []),
    now === null ? '-' : now.framesPerSecond.toFixed(1),
  ];
}

/** Why an agent is not at work. */
function agentTrouble({ agent, state, why, heldMs }: AgentStatus, width: number): string[] {
  if (why === '') return [];
  return wrapText(heldMs > 0 ? `${agent} gets seats in ${durationText(heldMs)}; ${why}` : `${agent} is ${state}: ${why}`, width, '  ');
}

/** What was not acted on: messages of another epoch, cluster, schema or sender, or that make no sense. */
function refusalsText(report: StatusReport, width: number): string[] {
  const all = [
    { who: 'gateway', refusals: report.refusals },
    ...report.agents.map(({ agent, health }) => ({ who: agent, refusals: health?.refusals ?? [] })),
  ];
  const lines = all.flatMap(({ who, refusals }) => {
    const counts = refusals.map(({ code, count }) => `${count} ${code}`).join(', ');
    return counts === '' ? [] : wrapText(`${who}: ${counts}`, width, '  ');
  });
  return lines.length === 0 ? [] : ['', 'Refused messages (--json says what the latest were):', ...lines];
}

const SHORT_WIRES = 'their encoding could not carry the values';

/** Accuracy was kept and time was lost: whoever looks should know. */
function agentFallbacks({ agent, health }: AgentStatus, width: number): string[] {
  const { rawFallbacks = 0, encodedMessages = 0 } = health ?? {};
  if (rawFallbacks === 0) return [];
  return wrapText(`${agent} sent ${rawFallbacks} of ${rawFallbacks + encodedMessages} messages raw: ${SHORT_WIRES}`, width, '  ');
}

/** A disk that forgets one thing will forget another. */
function agentDamage({ agent, health }: AgentStatus, width: number): string[] {
  const damaged = health?.damaged ?? 0;
  return damaged === 0 ? [] : wrapText(`${agent} found ${counted(damaged, 'damaged file')} on its disk and did not use it`, width, '  ');
}

/** How often each consumer had to do without a part: redundancy that is being used is a device to look at. */
function recoveredLines(agents: readonly AgentStatus[], deployments: readonly DeploymentStatus[], width: number): string[] {
  const counts = [
    ...agents.map(({ agent, health }) => [agent, health?.recovered ?? 0] as const),
    ...deployments.map(({ name, recovered }) => [`the gateway for ${name}`, recovered] as const),
  ].filter(([, count]) => count > 0);
  if (counts.length === 0) return [];
  const said = counts.map(([who, count]) => `${who} ${count}`).join(', ');
  return wrapText(`runs that did without a part of a coded stage, as it was late or missing: ${said}`, width, '  ');
}

const byName =
  <T>(name: (value: T) => string) =>
  (a: T, b: T): number =>
    name(a).localeCompare(name(b), 'en', { numeric: true });

export function agentsText(unsorted: readonly AgentStatus[], width = 80, encrypted = false): string {
  if (unsorted.length === 0)
    return `No agent has joined yet. How to: ${PROGRAM} ${encrypted ? 'token create --name NAME' : 'agent --insecure --name NAME'}`;
  const agents = [...unsorted].sort(byName((a) => a.agent));
  const temperature = agents.some((a) => (a.health?.temperature ?? 0) > 0);
  const columns: Column[] = [
    { title: 'agent', whole: true },
    { title: 'state', whole: true },
    { title: 'listens at', whole: true, drop: 2 },
    { title: 'cores', align: 'right', drop: 3 },
    { title: 'memory', align: 'right', drop: 1 },
    { title: 'cpu', align: 'right' },
    { title: 'rss', align: 'right', drop: 4 },
    ...(temperature ? [{ title: 'temp', align: 'right' } as const] : []),
    { title: 'runs/s', align: 'right' },
  ];
  const table = formatTable(
    columns,
    agents.map((agent) => agentRow(agent, temperature)),
    width,
  );
  return [
    table,
    ...agents.flatMap((agent) => [...agentTrouble(agent, width), ...agentDamage(agent, width), ...agentFallbacks(agent, width)]),
  ].join('\n');
}

/** Where the stages are: neighbours cut alike on the same agents in one row. */
function seatsText({ seats, redundancy }: PlanReport, gone: ReadonlyMap<string, string>, width: number): string {
  const runs: { first: number; last: number; cut: string; coded: boolean; parts: number; agents: string }[] = [];
  for (const stage of [...new Set(seats.map((seat) => seat.stage))].sort((a, b) => a - b)) {
    const mine = seats.filter((seat) => seat.stage === stage);
    const coded = redundancy?.rows.some((one) => one.stage === stage) === true;
    const row = { first: stage, last: stage, cut: mine[0]?.cut ?? '', coded, ...placesOf(mine, gone) };
    const before = runs.at(-1);
    if (before?.cut === row.cut && before.coded === row.coded && before.agents === row.agents) before.last = stage;
    else runs.push(row);
  }
  const lines = runs.map(({ first, last, cut, coded, parts, agents }) => {
    const stages = first === last ? `stage ${first + 1}` : `stages ${first + 1}-${last + 1}`;
    return [stages, cut === 'whole' ? 'whole' : `${cut}:${coded ? `${parts - 1}+1` : parts}`, agents] as const;
  });
  const [a, b] = [Math.max(...lines.map(([stages]) => stages.length)), Math.max(...lines.map(([, cut]) => cut.length))];
  return lines
    .flatMap(([stages, cut, agents]) => {
      const [first = '', ...more] = wrapText(agents, width - a - b - 6, '');
      return [`  ${stages.padEnd(a)}  ${cut.padEnd(b)}  ${first}`, ...more.map((line) => `${' '.repeat(a + b + 6)}${line}`)];
    })
    .join('\n');
}

/** The agents of a stage by part; replicas with ` | ` between. */
function placesOf(seats: readonly PlanRow[], gone: ReadonlyMap<string, string>): { parts: number; agents: string } {
  const named = (agent: string): string => (gone.has(agent) ? `${agent} (${gone.get(agent)})` : agent);
  const replicas = [...new Set(seats.map((seat) => seat.replica))].sort((x, y) => x - y);
  const rows = replicas.map((replica) => seats.filter((seat) => seat.replica === replica).sort((x, y) => x.part - y.part));
  const agents = rows.map((row) => row.map((seat) => named(seat.agent)).join(', ')).join(' | ');
  return { parts: rows[0]?.length ?? 0, agents };
}

/** Lines of a summary, of its head, and of one sentence there at most; `plan` shows all. */
const SUMMARY_LINES = 12;
const SUMMARY_HEAD = 8;
const SUMMARY_SENTENCE = 3;

/** A plan in at most 12 lines: what was decided, and who has which stages. */
export function planSummary(plan: PlanReport, width = 80): string {
  const head: string[] = [];
  for (const sentence of planHead(plan)) {
    const lines = wrapText(sentence, width - 4, '');
    const said = lines
      .slice(0, SUMMARY_SENTENCE)
      .map((line, i) => (lines.length > SUMMARY_SENTENCE && i === SUMMARY_SENTENCE - 1 ? `${line} ...` : line));
    // A sentence that breaks off in its middle says nothing.
    if (head.length + said.length <= SUMMARY_HEAD) head.push(...said);
  }
  const places = seatsText(plan, new Map(), width).split('\n');
  const rows = SUMMARY_LINES - head.length;
  const rest = places.length > rows ? [`  ... and ${counted(places.length - rows + 1, 'more row')} (--verbose)`] : [];
  return [...head, ...places.slice(0, rows - rest.length), ...rest].join('\n');
}

export function deploymentText(d: DeploymentStatus, width = 80, gone: ReadonlyMap<string, string> = new Map()): string {
  const tensors = (infos: DeploymentStatus['inputs']): string => infos.map((i) => `${i.name} ${i.dtype}${dimsText(i.dims)}`).join(', ');
  const image = d.images.length === 0 ? '' : ' (images: height, width, RGB)';
  const speed =
    d.completed === 0 ? [] : [`  ${d.framesPerSecond.toFixed(1)} frames/s; latency p50 ${msText(d.p50Ms)}, p95 ${msText(d.p95Ms)}`];
  const frames = [
    `${d.completed} done`,
    `${d.failed} failed`,
    `${d.inFlight} in flight`,
    `${d.queued} queued`,
    ...(d.reissued === 0 ? [] : [`${d.reissued} sent again`]),
    ...(d.rawFallbacks === 0 ? [] : [`${d.rawFallbacks} boxes of inputs sent raw, as ${SHORT_WIRES}`]),
  ];
  return [
    `${d.name}: ${d.state}, ${d.epoch === 0 ? 'no plan in force yet' : `plan epoch ${d.epoch}`}, model ${d.model.slice(0, 12)}`,
    ...(d.why === '' ? [] : wrapText(d.why, width, '  ')),
    ...(d.inputs.length === 0 ? [] : wrapText(`takes ${tensors(d.inputs)}${image}`, width, '  ')),
    ...(d.outputs.length === 0 ? [] : wrapText(`gives ${tensors(d.outputs)}`, width, '  ')),
    ...(d.plan === null ? [] : [seatsText(d.plan, gone, width)]),
    `  frames: ${frames.join(', ')}`,
    ...speed,
    ...predictionText(d, width),
    ...(d.outlook === '' ? [] : wrapText(`looked for a better plan: ${d.outlook}`, width, '  ')),
    ...(d.plan?.redundancy == null
      ? []
      : d.plan.redundancy.why.split('\n').flatMap((line) => wrapText(`redundancy: ${line}`, width, '  '))),
    ...lossesText(d.losses, width),
    ...(d.plan?.precision == null ? [] : wrapText(`wire precision: ${d.plan.precision.why}`, width, '  ')),
    ...(d.state === 'serving' ? [] : d.progress.map((p) => `  ${progressText(p)}`)),
  ].join('\n');
}

/** Of one outcome so many agents are named; --json has them all. */
const NAMED_LOSSES = 8;

const LOSSES: readonly { readonly outcome: string; readonly title: string; readonly text: (row: LossRow) => string }[] = [
  { outcome: 'goes-on', title: 'frames go on', text: ({ agent }) => agent },
  {
    outcome: 'repair',
    title: 'repair at hand',
    text: ({ agent, takers, pauseMs }) => `${agent} by ${takers.join('+')} ${pauseText(pauseMs)}`,
  },
  {
    outcome: 'fetching',
    title: 'being fetched',
    text: ({ agent, takers, missingBytes }) => `${agent} by ${takers.join('+')}, ${bytesText(missingBytes)} to go`,
  },
  { outcome: 'plan', title: 'another plan', text: ({ agent, why }) => `${agent} (${why.replace(/^repair: /, '')})` },
  { outcome: 'unknown', title: 'not known', text: ({ agent, why }) => `${agent} (${why})` },
];

function pauseText(pauseMs: number): string {
  return pauseMs < 50 ? 'at once' : `in about ${(pauseMs / 1000).toFixed(1)} s`;
}

/** What the loss of each one agent would mean: whoever goes to sleep wants to know. */
export function lossesText(rows: readonly LossRow[], width = 80): string[] {
  if (rows.length === 0) return [];
  const pad = Math.max(...LOSSES.map(({ title }) => title.length));
  const lines = LOSSES.flatMap(({ outcome, title, text }) => {
    const mine = rows.filter((row) => row.outcome === outcome).sort(byName((row) => row.agent));
    if (mine.length === 0) return [];
    // One reason for all is said once.
    const [{ why = '' } = {}] = mine;
    const shared = mine.length > 1 && why !== '' && mine.every((row) => row.why === why);
    const named = mine.slice(0, NAMED_LOSSES).map((row) => (shared ? row.agent : text(row)));
    const rest = mine.length > NAMED_LOSSES ? [`and ${mine.length - NAMED_LOSSES} more`] : [];
    const [first = '', ...more] = wrapText(`${[...named, ...rest].join(', ')}${shared ? ` (${why})` : ''}`, width - pad - 6, '');
    return [`    ${title.padEnd(pad)}  ${first}`, ...more.map((line) => `${' '.repeat(pad + 6)}${line.trimStart()}`)];
  });
  return ['  when one agent is lost:', ...lines];
}

/** Bytes each agent has sent to others, with the reason where they do not go directly. What is to or from agents that are gone is over. */
export function lanesText(agents: readonly AgentStatus[], width = 80): string {
  const gone = new Set(agents.filter(({ state }) => isGone(state)).map(({ agent }) => agent));
  const all = agents.flatMap(({ agent, health }) => (health?.lanes ?? []).map((lane) => ({ from: agent, ...lane })));
  const lanes = all
    .filter(({ from, peer }) => peer !== from && !gone.has(from) && !gone.has(peer))
    .sort(byName((lane) => `${lane.from} ${lane.peer}`));
  const shown = lanes.filter((lane) => lane.bytesSent > 0 || (lane.lane !== 'direct' && lane.why !== ''));
  const idle = lanes.filter((lane) => lane.lane === 'direct' && lane.bytesSent === 0).length;
  const rest = idle === 0 ? [] : [`${counted(idle, shown.length === 0 ? 'direct lane' : 'more direct lane')}, with nothing sent yet.`];
  if (shown.length === 0) return rest.join('');
  const table = formatTable(
    [
      { title: 'from', whole: true },
      { title: 'to', whole: true },
      { title: 'lane' },
      { title: 'sent', align: 'right' },
      { title: 'messages', align: 'right', drop: 1 },
    ],
    shown.map((l) => [l.from, l.peer, l.lane, bytesText(l.bytesSent), String(l.messagesSent)]),
    width,
  );
  const whys = new Map<string, string[]>();
  for (const { from, peer, lane, why } of shown) {
    if (why === '') continue;
    const reason = `to ${peer} ${lane === 'relay' ? 'through the broker' : 'not at all'}: ${why}`;
    whys.set(reason, [...(whys.get(reason) ?? []), from]);
  }
  return [table, ...[...whys].flatMap(([reason, from]) => wrapText(`${from.join(', ')} ${reason}`, width, '  ')), ...rest].join('\n');
}

/** Wherever a cluster without credentials shows itself. */
export const INSECURE_TEXT = 'INSECURE: nothing is encrypted; anybody on this network may listen, join and give orders.';

export function statusText(report: StatusReport, width = 80): string {
  const { agents, deployments, events, uptimeMs } = report;
  const head = `Cluster ${report.cluster}${report.encrypted ? ' (encrypted)' : ''}, up ${durationText(uptimeMs)}, term ${report.term}; frames enter at ${report.dispatcherAddresses[0] ?? '-'}:${report.dispatcherPort}`;
  const gone = new Map(agents.flatMap(({ agent, state }) => (isGone(state) ? [[agent, state] as const] : [])));
  const lanes = lanesText(agents, width);
  const machines = machinesText(report, width);
  const latest = events.slice(-LATEST_EVENTS).flatMap((e) => {
    return wrapText(`${`${durationText(uptimeMs - e.atMs)} ago`.padEnd(10)} ${e.kind}: ${e.text}`, width, '  ');
  });
  return [
    ...wrapText(head, width, ''),
    ...(report.encrypted ? [] : wrapText(INSECURE_TEXT, width, '  ')),
    ...(report.problems.length === 0 ? [] : ['', 'To be looked at:', ...report.problems.flatMap((text) => wrapText(text, width, '  '))]),
    '',
    agentsText(agents, width, report.encrypted),
    ...(machines === '' ? [] : [machines]),
    '',
    deployments.length === 0 ? 'No deployments.' : deployments.map((d) => deploymentText(d, width, gone)).join('\n\n'),
    ...(lanes === '' ? [] : ['', lanes]),
    ...(report.links.length === 0 ? [] : ['', 'Links:', linksText(report.links, width, STATUS_LINKS)]),
    ...recoveredLines(agents, deployments, width),
    ...refusalsText(report, width),
    ...(latest.length === 0 ? [] : ['', 'Latest events:', ...latest]),
  ].join('\n');
}
