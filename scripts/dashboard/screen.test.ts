import { describe, expect, it } from 'vitest';
import type { StatusReport } from '../../broker/messages.js';
import { agentOf, crowdReport, deploymentOf, homeReport, planOf, reportOf, seatOf } from '../../scheduler/dashboard/fixture.js';
import { NO_HISTORY, observe } from '../../scheduler/dashboard/history.js';
import { type DashboardView, viewOf } from '../../scheduler/dashboard/view.js';
import { explained } from './explained.js';
import { glyphsFor } from './glyphs.js';
import { type Contact, reportLines, type Screen, screenLines, shareRows } from './screen.js';
import { ansi, lineWidth, plainText } from './text.js';
import { PAGES, START, type Ui } from './ui.js';

const ESCAPE = '\u001b';
const LIVE: Contact = { silentMs: 300, live: true, problem: '', where: 'mqtt://gateway:1883' };

function viewAfter(...reports: readonly StatusReport[]): DashboardView {
  let history = NO_HISTORY;
  for (const [i, report] of reports.entries()) history = observe(history, report, 1000 * i);
  return viewOf(reports.at(-1) ?? reportOf(), history);
}

const home = viewAfter(homeReport(0), homeReport(1), homeReport(2));

function screenOf(
  view: DashboardView | undefined,
  columns: number,
  rows: number,
  ui: Partial<Ui> = {},
  more: Partial<Screen> = {},
): Screen {
  const explain = (name: string, width: number): readonly string[] => explained(homeReport(2), name, width);
  return { view, ui: { ...START, ...ui }, contact: LIVE, columns, rows, clock: '12:44:03', glyphs: glyphsFor(true), explain, ...more };
}

function shown(view: DashboardView | undefined, columns: number, rows: number, ui: Partial<Ui> = {}, more: Partial<Screen> = {}): string {
  const lines = screenLines(screenOf(view, columns, rows, ui, more));
  expect(lines).toHaveLength(rows);
  for (const one of lines) expect(lineWidth(one)).toBe(columns);
  return plainText(lines);
}

/** Escape sequences that do more than change how text looks. */
const MOVES = new RegExp(`${ESCAPE}(?!\\[[0-9;]*m)`);

const SIZES = [
  [80, 24],
  [120, 40],
  [200, 50],
  [60, 15],
  [40, 8],
] as const;

describe('a screen', () => {
  const long = (i: number): string => `${'kitchen-window-'.repeat(4).slice(0, 57)}-${i + 1}`;
  const hostile = agentOf('a', { state: 'lost', why: '\u001b[2J\u009b1mgone\u202e' });
  const views: Readonly<Record<string, DashboardView | undefined>> = {
    'nothing yet': undefined,
    'no agents': viewAfter(reportOf()),
    home,
    'fifty agents': viewAfter(crowdReport(50, 0), crowdReport(50, 1)),
    'names of 60 letters': viewAfter(crowdReport(5, 0, long), crowdReport(5, 1, long)),
    'hostile words': viewAfter(
      reportOf({ agents: [hostile], problems: ['\u001b]0;x\u0007'], events: [{ atMs: 0, kind: '\u001b[H', text: 'x\ny' }] }),
    ),
    'six deployments': viewAfter(
      reportOf({
        agents: [agentOf('a')],
        deployments: [1, 2, 3, 4, 5, 6].map((i) =>
          deploymentOf(`model-${i}`, planOf(`model-${i}`, [seatOf(0, 0, 'a', { cut: 'whole' })], [])),
        ),
      }),
    ),
  };

  for (const [name, view] of Object.entries(views)) {
    for (const [columns, rows] of SIZES) {
      it(`of ${name} is exactly ${columns}x${rows} on every page, with and without colours, in Unicode and in ASCII`, () => {
        for (const page of [...PAGES, 'inspect', 'explain', 'help'] as const) {
          for (const unicode of [true, false]) {
            const lines = screenLines(screenOf(view, columns, rows, { page }, { glyphs: glyphsFor(unicode) }));
            expect(lines).toHaveLength(rows);
            for (const one of lines) {
              expect(lineWidth(one)).toBe(columns);
              expect(ansi(one, false)).not.toMatch(MOVES);
              if (!unicode) expect(plainText([one], false)).toMatch(/^[\x20-\x7e]*$/);
            }
          }
        }
      });
    }
  }

  it('says how large it has to be when it is too small', () => {
    expect(shown(home, 30, 5)).toContain('At least 40x8');
  });

  it('shows in 80x24 who holds what, how bytes travel, how agents feel, and what happened', () => {
    const text = shown(home, 80, 24);
    expect(text).toContain('cluster home  6 agents: 6 ready');
    expect(text).toContain('● live  12:44:03');
    expect(text).toContain('All is well.');
    expect(text).toMatch(/det +serving latency +12\.1 \(13\.9\) +82\/97 \(70\) +3 +0 +0 +7/);
    expect(text).toMatch(/stages 1-3 rows:4 +pi-1 25% +pi-2 25% +pi-3 25% +pi-4 25%/);
    expect(text).toMatch(/↓ pi-4 → pi-5 relay 3\.2 ms 3\.6 MB\/s +3 direct lanes 0\.3 ms, in all 10\.8 MB\/s/);
    expect(text).toMatch(/↕ 6 direct lanes between them/);
    expect(text).toMatch(/stage 4 whole +pi-5/);
    expect(text).toMatch(/agent +state +cpu +mem +temp +queue +fps +p50 +p95 +recon +version/);
    expect(text).toMatch(/pi-5 +ready +80% +30% +74C +1 +12\.0 +12 +19 +0 +0\.1\.0/);
    expect(text).toMatch(/12 s ago +recovered: agent pi-4/);
    expect(text).toContain('q quit  ? help');
  });

  it('shows topology and events side by side, and more columns, when it is wide', () => {
    const text = shown(home, 200, 50);
    expect(text).toMatch(/Topology of det.*Events/);
    expect(text).toMatch(/frames\/s +predicted +p50 ms +p95 ms +predicted +in flight/);
    expect(text).toMatch(/seats +cpu trend/);
    expect(text).toContain('det 3');
  });

  it('keeps agents and deployments when there is little room', () => {
    const text = shown(home, 60, 15);
    expect(text).toContain('pi-1');
    expect(text).toContain('det');
    expect(text).not.toContain('Topology');
  });

  it('shows the selected one of fifty agents, and says that there are more', () => {
    const crowd = views['fifty agents'];
    const text = shown(crowd, 80, 24, { page: 'agents', selected: 'board-37' });
    expect(text).toMatch(/^ +board-37 /m);
    expect(text).toMatch(/\d+ more: arrow keys/);
    expect(shown(crowd, 80, 24, { filter: 'board-4' })).toContain('11 of them with "board-4"');
  });

  it('tells names of 60 letters apart by their ends', () => {
    const text = shown(views['names of 60 letters'], 80, 24, { page: 'agents' });
    for (const i of [1, 2, 3, 4, 5]) expect(text).toMatch(new RegExp(`kitchen\\S*…\\S*-${i} +ready`));
    const overview = shown(views['names of 60 letters'], 120, 30);
    for (const i of [1, 2, 3, 4, 5]) expect(overview).toMatch(new RegExp(`kitchen\\S*…\\S*-${i} +20%`));
    expect(overview).toMatch(/objective .* queued/);
  });

  it('says that the gateway does not answer, and for how long', () => {
    const silent = { ...LIVE, live: false, silentMs: 12_400, problem: 'REQUEST_TIMEOUT: no reply' };
    const text = shown(home, 100, 24, {}, { contact: silent });
    expect(text).toContain('the gateway has not answered for 12 s; below is how it was; asking again');
    expect(text).not.toContain('All is well');
    expect(text).toContain('no answer  12:44:03');
    const never = shown(undefined, 100, 24, {}, { contact: silent });
    expect(never).toContain('no answer yet from mqtt://gateway:1883, asked for 12 s; asking again');
    expect(never).toContain('REQUEST_TIMEOUT: no reply');
  });

  it('says on every page that nothing is encrypted', () => {
    for (const page of PAGES) expect(shown(home, 80, 24, { page }, { contact: { ...LIVE, insecure: true } })).toContain('INSECURE');
    expect(plainText(reportLines(home, 80, glyphsFor(true), true))).toContain('INSECURE');
  });

  it('says first what is degraded', () => {
    const broken = {
      ...homeReport(0),
      agents: [...homeReport(0).agents.slice(1), agentOf('pi-1', { state: 'lost', why: 'silent for 3.6 s' })],
    };
    const text = shown(viewAfter(broken), 80, 24);
    expect(text.split('\n')[1]).toMatch(/DEGRADED: det has seats at pi-1, which is not there/);
    expect(text).toMatch(/^! pi-1 +lost/m);
    expect(text).toContain('pi-1 25% (lost)');
  });

  it('asks before it drains, and says what will happen', () => {
    const text = shown(home, 80, 24, { asking: { agent: 'pi-2', undo: false } });
    expect(text).toContain('Drain pi-2? Its 3 seats move to others.  y = yes, any other key = no');
    expect(shown(home, 80, 24, { asking: { agent: 'pi-2', undo: true } })).toContain('Give pi-2 seats again?');
  });

  it('shows one agent in words', () => {
    const text = shown(home, 100, 40, { page: 'inspect', selected: 'pi-4' });
    expect(text).toContain('det: stages 1-3, rows part 4 of 4: runs 37 ms (plan 35)');
    expect(text).toMatch(/pi-4 +pi-5 +relay +3\.2 +3\.6 MB\/s/);
    expect(text).toContain('p50 12 ms, p95 19 ms, waiting and computing; 1 wait now');
    expect(text).toMatch(/throttled +no/);
    expect(text).toContain('det: others take its seats, and have what they need (pi-6), in about 40 ms');
  });

  it('explains the plan', () => {
    const text = shown(home, 100, 60, { page: 'explain' });
    expect(text).toContain('planned for: latency');
    expect(text).toContain('the slowest stage is stage 1');
    expect(text).toMatch(/predicted: at most 13\.9 frames\/s/);
  });

  it('shows each seat and each lane on the page of the topology, and scrolls', () => {
    const text = shown(home, 120, 60, { page: 'topology' });
    expect(text).toMatch(/part 2\/4 pi-2 +25% +runs 37 ms \(plan 35\) +1\.9 MB of weights +slice 01abab/);
    expect(text).toMatch(/↓ pi-4 → pi-5 relay 3\.2 ms +3\.6 MB\/s of 5\.0 MB\/s +300 kB a frame +\(connection refused\)/);
    const first = shown(home, 120, 12, { page: 'topology' });
    const last = shown(home, 120, 12, { page: 'topology', scroll: 1000 });
    expect(first).toContain('gateway sends');
    expect(last).toContain('gateway receives');
    expect(last).toMatch(/lines \d+ to \d+ of \d+/);
  });
});

describe('the report without a screen', () => {
  it('has every agent and is as wide as it is told', () => {
    const lines = reportLines(viewAfter(crowdReport(50, 0), crowdReport(50, 1)), 80, glyphsFor(false));
    const text = plainText(lines);
    for (const i of [1, 25, 50]) expect(text).toContain(`board-${i} `);
    expect(text).not.toContain('more: arrow keys');
    for (const one of lines) expect(lineWidth(one)).toBe(80);
    expect(lines.flat().some(({ reverse }) => reverse)).toBe(false);
  });
});

describe('rows', () => {
  it('are shared out: the least first, then in turns, and the last named parts fall away', () => {
    expect(
      shareRows(20, [
        { least: 4, want: 8 },
        { least: 3, want: 3 },
        { least: 3, want: 30 },
      ]),
    ).toEqual([8, 3, 9]);
    expect(
      shareRows(8, [
        { least: 4, want: 8 },
        { least: 3, want: 3 },
        { least: 3, want: 30 },
      ]),
    ).toEqual([5, 3, 0]);
    expect(shareRows(3, [{ least: 4, want: 8 }])).toEqual([0]);
    expect(shareRows(100, [{ least: 4, want: 8 }])).toEqual([8]);
    expect(
      shareRows(15, [
        { least: 3, want: 30, last: true },
        { least: 4, want: 8 },
      ]),
    ).toEqual([7, 8]);
  });
});
