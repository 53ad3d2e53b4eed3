/** What a trace file must hold for both viewers, as checks: the rules stand at the head of trace-file.ts. For tests. */
import type { TraceEvent, TraceFile } from './trace-file.js';

/** Every rule that `file` breaks, in words; empty: both viewers show all of it. */
export function brokenRules({ displayTimeUnit, traceEvents }: TraceFile): string[] {
  const broken: string[] = [];
  const say = (one: TraceEvent, what: string): number => broken.push(`${what}: ${JSON.stringify(one)}`);
  if (displayTimeUnit !== 'ms') broken.push(`displayTimeUnit ${displayTimeUnit}`);
  for (const one of traceEvents) {
    if (!isWhole(one.pid) || one.pid < 1 || !isWhole(one.tid)) say(one, 'pid and tid are whole numbers');
    if (one.ph === 'M') continue;
    if (!isWhole(one.ts)) say(one, 'ts is a whole number from 0 on');
    if (one.ph === 'X' && !(isWhole(one.dur) && one.dur > 0)) say(one, 'dur is a whole number above 0');
    if (one.name === '' || one.cat === undefined || one.cat === '') say(one, 'has a name and a category');
  }
  return [...broken, ...brokenNames(traceEvents), ...brokenRows(traceEvents), ...brokenFlows(traceEvents)];
}

function isWhole(value: number | undefined): value is number {
  return Number.isSafeInteger(value) && (value ?? -1) >= 0;
}

/** Each process and each row has one name and one place. */
function brokenNames(events: readonly TraceEvent[]): string[] {
  const given = new Map<string, number>();
  for (const { ph, name, pid, tid } of events) {
    const of = name.startsWith('process') ? `${pid}` : `${pid} ${tid}`;
    if (ph === 'M') given.set(`${name} ${of}`, (given.get(`${name} ${of}`) ?? 0) + 1);
  }
  const used = new Set(events.flatMap(({ ph, pid, tid }) => (ph === 'M' ? [] : [`process ${pid}`, `thread ${pid} ${tid}`])));
  const wanted = [...used].flatMap((one) => ['name', 'sort_index'].map((what) => one.replace(' ', `_${what} `)));
  const several = [...given].filter(([, count]) => count > 1).map(([key]) => `${key} is given twice`);
  return [...wanted.filter((key) => !given.has(key)).map((key) => `${key} is missing`), ...several];
}

/** In the order of the file, as Perfetto reads it: times do not go back, and no event of a row begins within another. */
function brokenRows(events: readonly TraceEvent[]): string[] {
  const broken: string[] = [];
  const ends = new Map<string, number>();
  let [last, timed] = [0, false];
  for (const one of events) {
    if (one.ph === 'M') {
      if (timed) broken.push('names come after events');
      continue;
    }
    timed = true;
    const { ts = 0, dur = 0, pid, tid } = one;
    if (ts < last) broken.push(`times go back to ${ts}`);
    last = ts;
    if (one.ph !== 'X') continue;
    if (ts < (ends.get(`${pid} ${tid}`) ?? 0)) broken.push(`overlaps in its row: ${JSON.stringify(one)}`);
    ends.set(`${pid} ${tid}`, ts + dur);
  }
  return broken;
}

/** Both viewers bind an arrow's end to the event of its row that has begun and not ended; its end must find its beginning. */
function brokenFlows(events: readonly TraceEvent[]): string[] {
  const broken: string[] = [];
  const open = new Map<string, TraceEvent>();
  const begun = new Map<number, TraceEvent>();
  const ended = new Set<number>();
  for (const one of events) {
    const { ph, pid, tid, ts = 0, id = 0 } = one;
    if (ph === 'X') open.set(`${pid} ${tid}`, one);
    if (ph !== 's' && ph !== 'f') continue;
    const within = open.get(`${pid} ${tid}`);
    if (within === undefined || ts >= (within.ts ?? 0) + (within.dur ?? 0)) broken.push(`not within an event: ${JSON.stringify(one)}`);
    if (!(Number.isSafeInteger(id) && id > 0)) broken.push(`id is a whole number: ${JSON.stringify(one)}`);
    if (ph === 's') {
      if (begun.has(id)) broken.push(`begins twice: ${id}`);
      begun.set(id, one);
      continue;
    }
    const from = begun.get(id);
    if (one.bp !== 'e') broken.push(`does not bind to what encloses it: ${JSON.stringify(one)}`);
    if (from === undefined || from.name !== one.name || from.cat !== one.cat)
      broken.push(`ends, but did not begin: ${JSON.stringify(one)}`);
    if (ended.has(id)) broken.push(`ends twice: ${id}`);
    ended.add(id);
  }
  return [...broken, ...[...begun.keys()].filter((id) => !ended.has(id)).map((id) => `does not end: ${id}`)];
}
