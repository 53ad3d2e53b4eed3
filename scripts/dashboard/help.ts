/** The page behind `?`: keys, and what the words mean. */
import { wrapSpans } from './table.js';
import { type Line, line, span } from './text.js';

const KEYS: readonly (readonly [keys: string, what: string])[] = [
  ['1 2 3 4 5', 'overview, topology, agents, lanes, events'],
  ['arrows, PgUp PgDn', 'choose an agent; on long pages: scroll'],
  ['Enter', 'inspect the chosen agent'],
  ['Tab', 'the next deployment'],
  ['e', "explain the deployment's plan: who computes what, and why so"],
  ['s  r', 'sort agents by the next column; turn the order round'],
  ['/', 'show only agents whose name, state, version or deployment has this in it'],
  ['d', 'drain the chosen agent: its seats move to others (asks first); again: take it back'],
  ['p', 'pause: what is shown stays'],
  ['Esc', 'back'],
  ['Ctrl-L  Ctrl-Z', 'draw all anew; suspend'],
  ['q  Ctrl-C', 'quit: nothing in the cluster changes'],
];

const WORDS: readonly (readonly [word: string, meaning: string])[] = [
  ['stage', 'a run of layers of the network; a cut splits it into parts: rows:4 = four bands of the picture'],
  ['seat', 'one part of one stage on one agent; it computes a slice of the network'],
  ['copy', 'a second set of seats for the same stage: frames take turns'],
  [
    'lane',
    'how bytes travel: direct from agent to agent, or relay through the broker (slower). One that serves several stages stands at each of them',
  ],
  ['ms, MB/s', 'of a lane: one way without load, and what goes along it now'],
  ['(plan)', 'what was predicted; for fps at most, for ms one frame alone'],
  [
    'p50, p95',
    'half, or 95 of 100, took no longer. Of a deployment: frames from client to client; of an agent: runs, waiting and computing',
  ],
  ['fps', 'frames per second, averaged over 10 s (deployment) or since the last look (agent)'],
  ['epoch', 'which version of the plan: it grows with each change of seats'],
  ['suspect', 'silent, or out of reach for a peer; lost after 3.5 s: then its seats go to others'],
  ['trend', 'the last 120 looks: two minutes at one a second; the rightmost sign is now'],
  ['temp 81C!', 'throttled now: power supply too weak, or too hot'],
];

const LABEL = 18;

export function helpLines(width: number): Line[] {
  const rows = (pairs: readonly (readonly [string, string])[]): Line[] =>
    pairs.flatMap(([left, right]) => {
      const words = right.split(' ').map((word): Line => line(word));
      const wrapped = wrapSpans(words, width - LABEL - 4, 0, 1);
      return wrapped.map((one, i): Line => [span(`  ${(i === 0 ? left : '').padEnd(LABEL)} `, 'accent'), ...one]);
    });
  return [line(' Keys', 'plain', { bold: true }), ...rows(KEYS), line(''), line(' Words', 'plain', { bold: true }), ...rows(WORDS)];
}
