/** One agent, all that is known of it. Pure. */
import type { AgentView, DashboardView } from '../../scheduler/dashboard/view.js';
import { bytesText } from '../table.js';
import { ago, millis, percent, rate } from './figures.js';
import { type Glyphs, sparkline } from './glyphs.js';
import { stateTone } from './look.js';
import { type Line, line, span, type Tone } from './text.js';
import { lanesLines } from './topology-pane.js';

const LABEL = 14;

/** Lines of `width` columns at most; the screen cuts them. */
export function inspectLines(view: DashboardView, agent: AgentView, width: number, glyphs: Glyphs): Line[] {
  const row = (label: string, text: string, tone: Tone = 'plain'): Line => [span(` ${label.padEnd(LABEL)} `, 'dim'), span(text, tone)];
  const spark = Math.max(10, Math.min(60, width - LABEL - 24));
  const lanes = view.lanes.filter(({ from, to }) => from === agent.agent || to === agent.agent);
  return [
    row('state', `${agent.state}${agent.why === '' ? '' : `: ${agent.why}`}`, stateTone(agent.state)),
    ...(agent.heldMs > 0 ? [row('', `gets seats again in ${Math.ceil(agent.heldMs / 1000)} s`, 'warn')] : []),
    row('', `up ${ago(agent.uptimeMs)}; ${agent.reconnects} reconnects to the broker; lost ${agent.losses} times`),
    row('software', agent.version),
    row(
      'lanes reach it',
      agent.lanePort === 0
        ? 'nowhere: it has no listener, all goes through the broker'
        : `${agent.addresses.join(', ')} port ${agent.lanePort}`,
    ),
    ...(agent.live ? figures(agent, row, spark, glyphs) : [row('figures', 'none: it is not here')]),
    line(''),
    line(' Seats', 'accent', { bold: true }),
    ...seatLines(view, agent),
    ...lossLines(agent),
    ...refusalLines(agent, row),
    line(''),
    line(' Lanes', 'accent', { bold: true }),
    ...lanesLines({ lanes }, width, glyphs),
  ];
}

function figures(agent: AgentView, row: (label: string, text: string, tone?: Tone) => Line, spark: number, glyphs: Glyphs): Line[] {
  const hot = [...agent.throttled, ...agent.throttledBefore.map((one) => `earlier: ${one}`)];
  const temperature = agent.temperature > 0 ? `${Math.round(agent.temperature)} degrees C` : 'not readable';
  return [
    row(
      'cpu',
      `${percent(agent.cpu).padEnd(5)} of ${agent.cores} ${agent.cores === 1 ? 'core' : 'cores'}  ${sparkline(agent.cpuSeries, spark, glyphs, 1)}`,
    ),
    row('frames/s', `${rate(agent.framesPerSecond).padEnd(5)}  ${sparkline(agent.framesSeries, spark, glyphs)}`),
    row('runs', `p50 ${millis(agent.p50Ms)} ms, p95 ${millis(agent.p95Ms)} ms, waiting and computing; ${agent.queue} wait now`),
    row('', `real runs take ${agent.correction.toFixed(2)} times what was predicted`),
    row('memory', `${bytesText(agent.memoryUsedBytes)} of ${bytesText(agent.memoryBytes)}`),
    row('temperature', temperature),
    row('throttled', hot.join('; ') || 'no', agent.throttled.length > 0 ? 'bad' : hot.length > 0 ? 'warn' : 'plain'),
  ];
}

function seatLines({ topologies }: DashboardView, { agent }: AgentView): Line[] {
  const lines = topologies.flatMap(({ deployment, flow }) =>
    flow.flatMap((one) => {
      if (one.kind !== 'stages') return [];
      const stages = one.first === one.last ? `stage ${one.first}` : `stages ${one.first}-${one.last}`;
      return one.seats.flat().flatMap((seat): Line[] => {
        if (seat.agent !== agent) return [];
        const part = seat.parity ? 'parity' : seat.parts > 1 ? `${one.cut} part ${seat.part} of ${seat.parts}` : 'whole';
        const copy = one.seats.length > 1 ? `, copy ${seat.replica + 1} of ${one.seats.length}` : '';
        const ran =
          seat.measuredMs > 0
            ? `runs ${millis(seat.measuredMs)} ms (plan ${millis(seat.predictedMs)})`
            : `plan ${millis(seat.predictedMs)} ms`;
        const slices = seat.slices.filter((slice) => slice !== '').map((slice) => slice.slice(0, 8));
        return [
          line(`  ${deployment}: ${stages}, ${part}${copy}: ${ran}, ${bytesText(seat.weightBytes)} of weights`),
          ...(slices.length === 0 ? [] : [line(`    slices ${slices.join(' ')}`, 'dim')]),
        ];
      });
    }),
  );
  return lines.length > 0 ? lines : [line('  none', 'dim')];
}

/** Outcomes as the scheduler names them, in words. */
const OUTCOMES: Readonly<Record<string, string>> = {
  'goes-on': 'frames go on without it',
  repair: 'others take its seats, and have what they need',
  fetching: 'others take its seats, once they have fetched what they lack',
  plan: 'frames wait for another plan',
  unknown: 'not worked out yet',
};

function lossLines({ ifLost }: AgentView): Line[] {
  if (ifLost.length === 0) return [];
  const lines = ifLost.map(({ deployment, outcome, takers, pauseMs, why }) => {
    const who = takers.length === 0 ? '' : ` (${takers.join(', ')})`;
    const pause = pauseMs > 0 ? `, in about ${millis(pauseMs)} ms` : '';
    const tone: Tone = outcome === 'plan' ? 'warn' : 'plain';
    return line(`  ${deployment}: ${OUTCOMES[outcome] ?? outcome}${who}${pause}${why === '' ? '' : `: ${why}`}`, tone);
  });
  return [line(''), line(' If it were lost', 'accent', { bold: true }), ...lines];
}

function refusalLines(agent: AgentView, row: (label: string, text: string, tone?: Tone) => Line): Line[] {
  const lines = [
    ...agent.refusals.map(({ code, count, latest }) => row('', `${count} ${code}, the latest: ${latest}`)),
    ...(agent.damaged > 0 ? [row('', `${agent.damaged} files on its disk were found damaged and not used`, 'warn')] : []),
    ...(agent.rawFallbacks > 0
      ? [row('', `${agent.rawFallbacks} messages were sent raw: their encoding could not carry the values`, 'warn')]
      : []),
  ];
  return lines.length === 0 ? [] : [line(''), line(' Refused and mended', 'accent', { bold: true }), ...lines];
}
