/** Whether what must not be acted upon was counted, and where an operator sees it: read from one `status` after another. Pure. */
import type { RefusalRow, StatusReport } from '../../broker/messages.js';
import { OFFENCES } from './lies.js';
import type { Lie } from './schedule.js';

/** By `agent-1`, `gateway`: which process it is, and what it has counted. */
export type Counts = ReadonlyMap<string, { readonly process: string; readonly rows: readonly RefusalRow[] }>;

const GATEWAY = 'gateway';

export function countsOf({ term, refusals, agents }: StatusReport): Counts {
  return new Map([
    [GATEWAY, { process: String(term), rows: refusals }],
    ...agents.flatMap(({ agent, health }) => (health === null ? [] : [[agent, { process: health.nonce, rows: health.refusals }] as const])),
  ]);
}

/** Lies that were told between two looks and that nobody counted who should have. Who is another process now is not asked. */
export function uncounted(told: readonly { readonly lie: Lie; readonly agent: string }[], before: Counts, after: Counts): string[] {
  return told.flatMap(({ lie, agent }) =>
    OFFENCES[lie].flatMap(({ at, codes }) => {
      const who = at === 'agent' ? agent : GATEWAY;
      const [was, is] = [before.get(who), after.get(who)];
      if (was === undefined || is === undefined || was.process !== is.process) return [];
      const count = (rows: readonly RefusalRow[]): number =>
        rows.reduce((sum, row) => sum + (codes.some((code) => code === row.code) ? row.count : 0), 0);
      return count(is.rows) > count(was.rows) ? [] : [`'${lie}' about ${agent} was not counted as ${codes.join(' or ')} at ${who}`];
    }),
  );
}

/** All that was counted by all processes there were, by code. */
export class Tally {
  readonly #most = new Map<string, number>();

  see(counts: Counts): void {
    for (const [who, { process, rows }] of counts) {
      for (const { code, count } of rows) {
        const key = `${code} ${who} ${process}`;
        this.#most.set(key, Math.max(count, this.#most.get(key) ?? 0));
      }
    }
  }

  byCode(): Record<string, number> {
    const sums: Record<string, number> = {};
    for (const [key, count] of this.#most) {
      const code = key.split(' ')[0] ?? '';
      sums[code] = (sums[code] ?? 0) + count;
    }
    return sums;
  }
}
