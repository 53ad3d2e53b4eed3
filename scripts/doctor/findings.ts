/** What doctor found: one line each, and what to do about it. Pure. */
import { wrapText } from '../table.js';

/** `note`: it works, but somebody should know. */
export type Grade = 'ok' | 'note' | 'bad';

export interface Finding {
  /** `this machine`, `gateway`, `agent pi-1`, `lanes`, ... */
  readonly area: string;
  /** In a word: `disk`. */
  readonly check: string;
  readonly grade: Grade;
  readonly text: string;
  /** What to do; '' when there is nothing to be done. */
  readonly todo: string;
}

export function ok(area: string, check: string, text: string): Finding {
  return { area, check, grade: 'ok', text, todo: '' };
}

export function note(area: string, check: string, text: string, todo: string): Finding {
  return { area, check, grade: 'note', text, todo };
}

export function bad(area: string, check: string, text: string, todo: string): Finding {
  return { area, check, grade: 'bad', text, todo };
}

const SIGN: Readonly<Record<Grade, string>> = { ok: 'ok  ', note: 'note', bad: 'BAD ' };

/** By area, in the order in which areas came; at the end how many of each grade. */
export function findingsText(findings: readonly Finding[], width = 80): string {
  const areas = [...new Set(findings.map(({ area }) => area))];
  const checkWidth = Math.max(0, ...findings.map(({ check }) => check.length));
  const lines = areas.flatMap((area) => [
    area,
    ...findings.filter((finding) => finding.area === area).flatMap((finding) => findingLines(finding, checkWidth, width)),
    '',
  ]);
  const count = (grade: Grade): number => findings.filter((finding) => finding.grade === grade).length;
  const [bads, notes] = [count('bad'), count('note')];
  const sum = bads === 0 && notes === 0 ? 'All is well.' : `${bads} bad, ${notes} to note, ${count('ok')} ok.`;
  return [...lines, sum].join('\n');
}

function findingLines({ check, grade, text, todo }: Finding, checkWidth: number, width: number): string[] {
  const head = `  ${SIGN[grade]}  ${check.padEnd(checkWidth)}  `;
  const indent = ' '.repeat(8);
  const wrapped = (words: string, room: number): string[] => wrapText(words, room, '').map((line) => line.trim());
  const [first = '', ...more] = wrapped(text, Math.max(30, width - head.length));
  return [
    `${head}${first}`.trimEnd(),
    ...more.map((line) => `${' '.repeat(head.length)}${line}`),
    ...(todo === ''
      ? []
      : wrapped(todo, Math.max(30, width - indent.length - 3)).map((line, i) => `${indent}${i === 0 ? '-> ' : '   '}${line}`)),
  ];
}
