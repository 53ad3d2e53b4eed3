/** A chaos run for people: one Markdown text. Pure. */
import { bytesText, formatTable } from '../table.js';
import type { ChaosRecord, RoundRecord } from './figures.js';

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}

/** Of rounds with one fault each: what that kind costs by itself. */
function kindRows(rounds: readonly RoundRecord[]): string[][] {
  const kinds = [...new Set(rounds.flatMap((round) => round.kinds))].sort();
  return kinds.map((kind) => {
    const all = rounds.filter((round) => round.kinds.includes(kind));
    const alone = all.filter((round) => round.kinds.length === 1);
    const gaps = alone.flatMap(({ gapMs }) => Object.values(gapMs));
    const failed = alone.reduce((sum, { failures }) => sum + Object.values(failures).reduce((a, b) => a + b, 0), 0);
    const times = all.flatMap((round) => round.kinds.filter((one) => one === kind)).length;
    return [
      kind,
      String(times),
      String(alone.length),
      alone.length === 0 ? '-' : seconds(Math.max(...gaps)),
      alone.length === 0 ? '-' : String(failed),
    ];
  });
}

function countedText(counts: ChaosRecord['refusals']): string {
  const rows = Object.entries(counts).sort(([, a], [, b]) => b - a);
  return rows.length === 0 ? 'nothing' : rows.map(([code, count]) => `${count} ${code}`).join(', ');
}

export function recordText(record: ChaosRecord): string {
  const { rounds, violations, failures, conditions } = record;
  const converged = rounds.flatMap(({ convergedMs }) => (convergedMs === null ? [] : [convergedMs]));
  const failed = Object.entries(failures).map(([code, count]) => `${count} ${code}`);
  const limits = conditions.isolation === 'namespaces' ? 'with namespaces and limits' : `plain processes (${conditions.why})`;
  const lines = [
    `Seed ${record.seed}, ${record.seconds} s, ${conditions.agents.length} agents, ${limits}.`,
    '',
    `- ${rounds.length} rounds, ${record.events} events; at rest after ${seconds(quantile(converged, 0.5))} in the median, ${seconds(Math.max(0, ...converged))} at most.`,
    `- ${record.frames} frames: each has one outcome; ${failed.length === 0 ? 'none failed' : `failed: ${failed.join(', ')}`}; ${record.reissued} issued again; largest difference ${record.maxRelDiff.toExponential(1)}.`,
    `- ${record.accepted} commands obeyed, ${record.refused} refused because their term or epoch was over.`,
    `- Not acted on, counted and shown in \`status\`: ${countedText(record.refusals)}.`,
    `- Requests refused in the middle of faults: ${record.requests.length === 0 ? 'none' : record.requests.map((text) => text.split(':')[0]).join(', ')}.`,
    `- Started again by the supervisor: ${record.restarts.length === 0 ? 'nothing' : record.restarts.join(', ')}.`,
    '',
    formatTable(
      [
        { title: 'fault' },
        { title: 'times', align: 'right' },
        { title: 'alone', align: 'right' },
        { title: 'longest gap alone', align: 'right' },
        { title: 'frames failed alone', align: 'right' },
      ],
      kindRows(rounds),
    ),
    '',
    formatTable(
      [
        { title: 'process' },
        { title: 'memory', align: 'right' },
        { title: 'sockets', align: 'right' },
        { title: 'timers', align: 'right' },
        { title: 'store', align: 'right' },
      ],
      record.peaks.map((peak) => [
        peak.name,
        bytesText(peak.anonymousBytes),
        String(peak.sockets),
        String(peak.timers),
        bytesText(peak.storeBytes),
      ]),
    ),
    '',
    violations.length === 0 ? 'Everything that must hold held.' : `BROKEN, ${violations.length} times:`,
    ...violations.map(({ invariant, text }) => `- ${invariant}: ${text}`),
  ];
  return lines.join('\n');
}
