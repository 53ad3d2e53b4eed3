/** Links, machines and predicted against measured times, as text for people. Pure. */
import type { DeploymentStatus, LinkStatus, StatusReport } from '../broker/messages.js';
import { hostLines } from '../scheduler/hosts.js';
import { mbps } from '../scheduler/links/table.js';
import { durationText } from './duration.js';
import { counted } from './report.js';
import { formatTable, msText, wrapText } from './table.js';

/** Seats in a status; `--json` has all. */
const SHOWN_SEATS = 8;

const byName = (a: LinkStatus, b: LinkStatus): number => `${a.from} ${a.to}`.localeCompare(`${b.from} ${b.to}`, 'en', { numeric: true });

/** What was measured, how long ago, and what else is known; pairs that are not listed are assumed. `most` rows, 0 = all. */
export function linksText(links: readonly LinkStatus[], width = 80, most = 0): string {
  if (links.length === 0) return 'No link was measured yet: plans assume the usual one.';
  const sorted = [...links].sort(byName);
  const shown = most > 0 ? sorted.slice(0, most) : sorted;
  const table = formatTable(
    [
      { title: 'from', whole: true },
      { title: 'to', whole: true },
      { title: 'speed', align: 'right' },
      { title: '+-', align: 'right', drop: 3 },
      { title: 'latency', align: 'right' },
      { title: 'lane', drop: 2 },
      { title: 'known from', whole: true, drop: 4 },
      { title: 'age', align: 'right', drop: 1 },
    ],
    shown.map((l) => [
      l.from,
      l.to,
      mbps(l.bytesPerSecond),
      `${Math.round(l.spread * 100)} %`,
      msText(l.latencyMs),
      l.lane,
      l.source,
      durationText(l.ageMs),
    ]),
    width,
  );
  const rest =
    shown.length === sorted.length ? [] : [`${counted(sorted.length - shown.length, 'more link')}: \`musical-chair links\` shows all`];
  const problems = sorted
    .filter(({ problem }) => problem !== '')
    .flatMap(({ from, to, problem }) => wrapText(`${from} to ${to}: ${problem}`, width, '  '));
  return [table, ...problems, ...rest].join('\n');
}

/** Which agents share a machine. */
export function machinesText({ agents, host }: Pick<StatusReport, 'agents' | 'host'>, width = 80): string {
  const here = agents.filter(({ state }) => state !== 'lost' && state !== 'stopped');
  return hostLines(here, host)
    .flatMap((line) => wrapText(line, width, '  '))
    .join('\n');
}

/** What the plan in force should do by what is known now, and how its seats run against it: those first that are furthest off. */
export function predictionText(d: Pick<DeploymentStatus, 'plan' | 'expectedFps' | 'expectedLatencyMs' | 'live'>, width = 80): string[] {
  if (d.plan === null || d.expectedLatencyMs === 0) return [];
  const { predictedFps, predictedLatencyMs } = d.plan;
  const changed =
    Math.abs(Math.log(d.expectedFps / predictedFps)) > 0.05 || Math.abs(Math.log(d.expectedLatencyMs / predictedLatencyMs)) > 0.05;
  const then = changed ? ` (when it was planned: ${predictedFps.toFixed(1)} frames/s, ${msText(predictedLatencyMs)})` : '';
  const head = `predicted: at most ${d.expectedFps.toFixed(1)} frames/s; ${msText(d.expectedLatencyMs)} for a frame alone${then}`;
  const run = d.live.filter((row) => row.frames > 0 && row.predictedMs > 0);
  const off = (row: (typeof run)[number]): number => Math.abs(Math.log(row.measuredMs / row.predictedMs));
  const worst = [...run].sort((a, b) => off(b) - off(a)).slice(0, SHOWN_SEATS);
  const seats = worst.map(
    ({ stage, agent, predictedMs, measuredMs, factor }) =>
      `${agent} stage ${stage + 1} ${msText(predictedMs)}/${msText(measuredMs)}${factor === 1 ? '' : ` (x${factor.toFixed(2)} from now on)`}`,
  );
  const more = run.length > worst.length ? [`${run.length - worst.length} more nearer`] : [];
  return [
    ...wrapText(head, width, '  '),
    ...(seats.length === 0 ? [] : wrapText(`runs, predicted/measured: ${[...seats, ...more].join(', ')}`, width, '  ')),
  ];
}
