/** What a job found, for people and programs: rows, interpolated ones among them, and the errors of what was not measured. Pure. */
import type { ProfileCheck, ProfileClass, ProfileMeasure } from '../../broker/messages.js';
import { profiledMs } from '../planners/profile-table.js';
import type { JobClass, JobRow } from './job.js';
import type { Need } from './needs.js';
import { checksOf, type Entry, medianMs, quantile, tableOf } from './table.js';

export interface Findings {
  readonly classes: readonly ProfileClass[];
  readonly rows: readonly ProfileMeasure[];
  readonly checks: readonly ProfileCheck[];
}

export function findings(classes: readonly JobClass[], rows: readonly JobRow[], between: readonly Need[]): Findings {
  const found = { classes: [] as ProfileClass[], rows: rows.map(measureOf), checks: [] as ProfileCheck[] };
  for (const device of classes) {
    const { fingerprint, text, agents, serving } = device;
    for (const threads of device.threads) {
      const entries = entriesOf(rows.filter((row) => row.class === device && row.threads === threads));
      const table = tableOf('', entries);
      if (threads === serving || device.threads.length === 1) {
        found.classes.push({ fingerprint, text, agents: [...agents], threads, runMs: table.runMs ?? 0 });
      }
      for (const need of between) {
        const ms = profiledMs(table, need, 1 / need.parts, need.macs);
        if (ms !== undefined) found.rows.push({ ...blank(need, fingerprint, threads), from: 'interpolated', ms, lowMs: ms, highMs: ms });
      }
      for (const { what, need, measuredMs, predictedMs } of checksOf(entries)) {
        found.checks.push({ fingerprint, threads, what, label: need.label, cut: need.cut, parts: need.parts, measuredMs, predictedMs });
      }
    }
  }
  return found;
}

export function entriesOf(rows: readonly JobRow[]): Entry[] {
  return rows.flatMap(({ need, measured }) => (measured === undefined ? [] : [{ need, measured }]));
}

function measureOf({ need, class: device, threads, from, measured, error }: JobRow): ProfileMeasure {
  const row = { ...blank(need, device.fingerprint, threads), from };
  if (measured === undefined) return { ...row, code: error?.code ?? 'INTERNAL', message: (error?.message ?? '').slice(0, 500) };
  const { samplesMs } = measured;
  const quartiles = { ms: medianMs(measured), lowMs: quantile(samplesMs, 0.25), highMs: quantile(samplesMs, 0.75) };
  return { ...row, ...measured, samplesMs: [...samplesMs], ...quartiles };
}

function blank(need: Need, fingerprint: string, threads: number): ProfileMeasure {
  const { what, label, nodes, cut, parts, macs, weightBytes } = need;
  return {
    ...{ fingerprint, threads, what, label, startNode: nodes[0], endNode: nodes[1], cut, parts, macs, weightBytes },
    ...{ from: '', agent: '', ms: 0, lowMs: 0, highMs: 0, samplesMs: [], loadMs: 0, loadPeakBytes: 0, runPeakBytes: 0 },
    ...{ busy: false, code: '', message: '' },
  };
}
