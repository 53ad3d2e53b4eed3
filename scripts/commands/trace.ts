/** `trace`: what agents did for each of some frames, as a file for Perfetto. */
import { writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { DeploymentStatus, TraceReport } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { CommandDefinition } from '../command.js';
import { CLIENT_SETTINGS } from '../config.js';
import { unknownDeployment, withClient } from '../connection.js';
import { checkName, optionText } from '../deploy-options.js';
import { type Output, wholeNumber } from '../output.js';
import { formatTable, wrapText } from '../table.js';
import { inOrder, traceFile, wholeFrames } from '../trace-file.js';

const DEFAULT_FRAMES = 100;
const DEFAULT_SECONDS = 60;
const LOOK_MS = 300;
/** When nothing runs for so long, frames are made here. */
const IDLE_MS = 2000;

export const trace: CommandDefinition = {
  name: 'trace',
  summary: 'Note what every agent does for some frames, as a file for Perfetto or chrome://tracing',
  description:
    'For each agent and frame: receive, wait, compute, serialise, send; at the gateway the frame from taken to answered. Times of all agents are on the clock of the gateway: what their clocks say against it is measured over MQTT, before and after, and how far off that may be stands beside each name. Frames that clients send are noted; when there are none for two seconds, random inputs are sent, unless --watch-only.',
  arguments: [{ syntax: '[deployment]', description: 'default: the only one there is' }],
  options: [
    { flags: '--frames <count>', description: 'so many frames, 1 to 2000', default: String(DEFAULT_FRAMES) },
    { flags: '--out <file>', description: 'where the trace goes', default: 'trace.json' },
    { flags: '--seconds <count>', description: 'end after so long, with what there is, 1 to 600', default: String(DEFAULT_SECONDS) },
    { flags: '--watch-only', description: 'send nothing: note only what clients send' },
  ],
  settings: CLIENT_SETTINGS,
  json: true,
  examples: [
    {
      line: 'trace --frames 100 --out trace.json',
      text: 'open trace.json at https://ui.perfetto.dev (nothing is uploaded) or in chrome://tracing',
    },
    { line: 'trace det --watch-only', text: "100 frames of det's own clients" },
  ],
  run: async ({ arguments: [name = ''], options, settings, output }) => {
    if (name !== '') checkName(name, 'the deployment');
    const frames = wholeNumber(optionText(options, 'frames', String(DEFAULT_FRAMES)), '--frames', 1, 2000);
    const forMs = 1000 * wholeNumber(optionText(options, 'seconds', String(DEFAULT_SECONDS)), '--seconds', 1, 600);
    const file = optionText(options, 'out', 'trace.json');
    await withClient(settings, async (client) => {
      const deployment = await chosen(client, name);
      const report = await traced(client, deployment, { frames, forMs, send: options.watchOnly !== true }, output);
      const whole = wholeFrames(report, frames);
      if (whole.size === 0) {
        throw new ChairError('REQUEST_TIMEOUT', `no frame of ${deployment.name} was answered within ${forMs / 1000} s`, {
          todo: options.watchOnly === true ? 'Leave out --watch-only, and random inputs are sent.' : 'See `musical-chair status`.',
        });
      }
      const made = traceFile(report, whole);
      await writeFile(file, `${JSON.stringify(made)}\n`).catch((cause: unknown) => {
        throw new ChairError('FILE_NOT_FOUND', `${file} cannot be written`, {
          came: cause instanceof Error ? cause.message : String(cause),
          cause,
        });
      });
      const rows = summary(report, whole);
      const frameMs = meanMs(report, whole);
      output.report({ file, frames: whole.size, frameMs, agents: rows }, () =>
        summaryText(file, whole.size, frameMs, rows, output.columns),
      );
    });
  },
};

/** Throws DEPLOYMENT_UNKNOWN, USAGE when there are several and none is named. */
async function chosen(client: ChairClient, name: string): Promise<DeploymentStatus> {
  const { deployments } = await client.status(name);
  const [first, second] = deployments;
  if (first === undefined) throw await unknownDeployment(client, name || '(none is named)');
  if (second !== undefined) {
    throw new ChairError('USAGE', 'there are several deployments', { expected: `one of ${deployments.map((one) => one.name).join(', ')}` });
  }
  return first;
}

interface Wish {
  readonly frames: number;
  readonly forMs: number;
  /** Make frames when there are none. */
  readonly send: boolean;
}

async function traced(
  client: ChairClient,
  { name, inputs }: DeploymentStatus,
  { frames, forMs, send }: Wish,
  output: Output,
): Promise<TraceReport> {
  const request = { deployment: name, frames, forMs };
  const before = await client.trace({ ...request, collect: false });
  for (const { agent, why } of before.agents) if (why !== '' && agent !== DISPATCHER) output.note(`${agent} cannot be traced: ${why}`);
  const startedMs = performance.now();
  const stop = new AbortController();
  let sending: Promise<void> | undefined;
  let [sinceMs, doneBefore] = [startedMs, (await one(client, name)).completed];
  const begun = doneBefore;
  try {
    while (performance.now() - startedMs < forMs) {
      await delay(LOOK_MS);
      const { completed } = await one(client, name);
      output.progress(`${Math.min(frames, completed - begun)} of ${frames} frames`);
      if (completed - begun >= frames) break;
      if (completed > doneBefore) [sinceMs, doneBefore] = [performance.now(), completed];
      if (!send || sending !== undefined || performance.now() - sinceMs < IDLE_MS) continue;
      output.note('No client sends frames: random inputs are sent.');
      sending = sendRandom(client, name, inputs, frames + 1, stop.signal);
      // Looked at below; until then a failure is not unhandled.
      sending.catch(() => undefined);
    }
  } finally {
    stop.abort();
  }
  await sending;
  return client.trace({ ...request, collect: true });
}

async function one(client: ChairClient, name: string): Promise<DeploymentStatus> {
  const found = (await client.status(name)).deployments.find((deployment) => deployment.name === name);
  if (found === undefined) throw new ChairError('DEPLOYMENT_REMOVED', `deployment '${name}' was removed meanwhile`);
  return found;
}

/** A few at once, as a client with a camera would; ends when `signal` says so. */
async function sendRandom(
  client: ChairClient,
  name: string,
  inputs: DeploymentStatus['inputs'],
  count: number,
  signal: AbortSignal,
): Promise<void> {
  const { randomTensor } = await import('../../models/random.js');
  const running = new Set<Promise<unknown>>();
  for (let i = 0; i < count && !signal.aborted; i++) {
    const frame = Object.fromEntries(inputs.map((info, at) => [info.name, randomTensor(info, 1000 * i + at)]));
    const result: Promise<unknown> = client.infer(name, frame).finally(() => running.delete(result));
    running.add(result);
    if (running.size >= AT_ONCE) await Promise.race(running);
  }
  await Promise.all(running);
}
const AT_ONCE = 4;

interface SummaryRow {
  readonly agent: string;
  /** Of a frame, mean; all of the agent's seats together. */
  readonly receiveMs: number;
  readonly waitMs: number;
  readonly computeMs: number;
  readonly serialiseMs: number;
  readonly sendMs: number;
  readonly clockErrorMs: number;
  readonly why: string;
}

function summary({ agents }: TraceReport, frames: ReadonlySet<number>): SummaryRow[] {
  return inOrder(agents)
    .filter(({ agent }) => agent !== DISPATCHER)
    .map(({ agent, spans, errorUs, why }) => {
      const mine = spans.filter(({ frame }) => frames.has(frame));
      const perFrame = (kind: string): number =>
        mine.reduce((sum, span) => sum + (span.kind === kind ? span.durationUs : 0), 0) / 1000 / frames.size;
      return {
        agent,
        receiveMs: perFrame('receive'),
        waitMs: perFrame('wait'),
        computeMs: perFrame('compute'),
        serialiseMs: perFrame('serialise'),
        sendMs: perFrame('send'),
        clockErrorMs: errorUs / 1000,
        why,
      };
    });
}

const EXPLAINED =
  'receive: from the first box to the last; wait: for the engine; send: until the socket took it. Seats and agents work at the same time, so the sums may be longer than a frame.';

/** From taken to answered at the gateway. */
function meanMs({ agents }: TraceReport, frames: ReadonlySet<number>): number {
  const whole = agents.flatMap(({ agent, spans }) =>
    agent === DISPATCHER ? spans.filter(({ kind, frame }) => kind === 'frame' && frames.has(frame)) : [],
  );
  return whole.reduce((sum, { durationUs }) => sum + durationUs, 0) / 1000 / Math.max(1, whole.length);
}

function summaryText(file: string, frames: number, frameMs: number, rows: readonly SummaryRow[], width: number): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const table = formatTable(
    [{ title: 'agent' }, right('receive'), right('wait'), right('compute'), right('serialise'), right('send'), right('clock +-')],
    rows.map((row) => [
      row.agent,
      ...[row.receiveMs, row.waitMs, row.computeMs, row.serialiseMs, row.sendMs, row.clockErrorMs].map((ms) => ms.toFixed(2)),
    ]),
    width,
  );
  return [
    ...wrapText(
      `${file}: ${frames} frames, ${frameMs.toFixed(1)} ms each from taken to answered. An agent's seats together, ms a frame:`,
      width,
      '',
    ),
    table,
    ...rows.flatMap(({ agent, why }) => (why === '' ? [] : [`  ${agent}: ${why}`])),
    ...wrapText(EXPLAINED, width, ''),
    ...wrapText('Open it at https://ui.perfetto.dev (the file stays on your machine) or in chrome://tracing.', width, ''),
  ].join('\n');
}
