import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { StatusReport } from '../../broker/messages.js';
import { anyText } from '../../broker/test-text.js';
import { agentOf, crowdReport, deploymentOf, homeReport, reportOf } from '../../scheduler/dashboard/fixture.js';
import { NO_HISTORY, observe } from '../../scheduler/dashboard/history.js';
import { viewOf } from '../../scheduler/dashboard/view.js';
import { Keys } from './keys.js';
import { chosenAgent, chosenDeployment, press, START, shownAgents, type Ui } from './ui.js';

const viewFor = (report: StatusReport) => viewOf(report, observe(NO_HISTORY, report, 0));
const home = viewFor(homeReport(0));

/** What these keys make of it; effects beside it. */
function pressing(keys: readonly string[], view = home, from: Ui = START): { ui: Ui; effects: unknown[] } {
  const effects: unknown[] = [];
  const ui = keys.reduce((before, key) => {
    const { ui: next, effect } = press(before, key, view, 10);
    if (effect !== undefined) effects.push(effect);
    return next;
  }, from);
  return { ui, effects };
}

describe('keys', () => {
  it('come out of the bytes of a terminal, also in pieces', () => {
    const keys = new Keys();
    expect(keys.feed('q\u001b[A\u001bOB\r\t \u007f\u0003')).toEqual(['q', 'up', 'down', 'enter', 'tab', 'space', 'backspace', 'ctrl-c']);
    expect(keys.feed('\u001b')).toEqual([]);
    expect(keys.waits).toBe(true);
    expect(keys.feed('[5')).toEqual([]);
    expect(keys.feed('~')).toEqual(['pageup']);
    expect(keys.feed('\u001b')).toEqual([]);
    expect(keys.flush()).toEqual(['escape']);
    expect(keys.feed('é')).toEqual(['é']);
    expect(keys.feed('\u001be\u001b\u001b[A')).toEqual(['escape', 'e', 'escape', 'up']);
  });

  it('are not in what is pasted, nor in what a terminal answers', () => {
    const keys = new Keys();
    expect(keys.feed('\u001b[200~dyq')).toEqual([]);
    expect(keys.flush()).toEqual([]);
    expect(keys.feed('dy\u001b[201')).toEqual([]);
    expect(keys.feed('~p')).toEqual(['p']);
    expect(keys.feed('\u001b[?62;c\u001b[24;80R\u001b[1;5Aj')).toEqual(['j']);
  });

  it('are never more than came, whatever comes', () => {
    fc.assert(
      fc.property(fc.array(anyText()), (chunks) => {
        const keys = new Keys();
        const found = [...chunks.flatMap((chunk) => keys.feed(chunk)), ...keys.flush()];
        expect(found.filter((key) => key === '')).toEqual([]);
        expect(found.length).toBeLessThanOrEqual(chunks.join('').length);
      }),
    );
  });
});

describe('the person at the keyboard', () => {
  it('quits with q and Ctrl-C, also in the middle of a question or a filter', () => {
    expect(pressing(['q']).effects).toEqual(['quit']);
    expect(pressing(['d', 'ctrl-c']).effects).toEqual(['quit']);
    expect(pressing(['/', 'ctrl-c']).effects).toEqual(['quit']);
    expect(pressing(['/', 'q']).effects).toEqual([]);
  });

  it('drains only after a question, and only with y', () => {
    const asked = pressing(['down', 'd']);
    expect(asked.ui.asking).toEqual({ agent: 'pi-2', undo: false });
    expect(asked.effects).toEqual([]);
    expect(pressing(['y'], home, asked.ui)).toMatchObject({ effects: [{ drain: 'pi-2', undo: false }], ui: { asking: undefined } });
    for (const no of ['n', 'enter', 'escape', 'd', 'space']) {
      const { ui, effects } = pressing([no], home, asked.ui);
      expect(effects).toEqual([]);
      expect(ui.note).toBe('pi-2 was left as it is.');
    }
  });

  it('takes a drain back with the same key, and is told when there is nothing to drain', () => {
    const draining = viewFor(reportOf({ agents: [agentOf('a', { state: 'draining' }), agentOf('b', { state: 'lost' })] }));
    expect(pressing(['d'], draining).ui.asking).toEqual({ agent: 'a', undo: true });
    expect(pressing(['down', 'd'], draining).ui).toMatchObject({
      asking: undefined,
      note: 'b is lost: it holds no seats that could be moved.',
    });
    expect(pressing(['d'], viewFor(reportOf())).ui.note).toBe('There is no agent to drain.');
  });

  it('keeps its agent when rows are sorted anew, and the first one when it is gone', () => {
    const { ui } = pressing(['down', 'down', 's', 's', 'r']);
    expect(ui).toMatchObject({ selected: 'pi-3', sort: 'cpu', reversed: true });
    expect(chosenAgent(home, ui)?.agent).toBe('pi-3');
    expect(chosenAgent(viewFor(reportOf({ agents: [agentOf('x')] })), ui)?.agent).toBe('x');
    expect(chosenAgent(viewFor(reportOf()), ui)).toBeUndefined();
  });

  it('moves by pages and to the ends, and never beyond', () => {
    const crowd = viewFor(crowdReport(50));
    expect(pressing(['pagedown', 'pagedown'], crowd).ui.selected).toBe('board-21');
    expect(pressing(['end', 'down'], crowd).ui.selected).toBe('board-50');
    expect(pressing(['end', 'home', 'up'], crowd).ui.selected).toBe('board-1');
    expect(pressing(['2', 'end', 'up', 'up'], crowd).ui.scroll).toBe(99_998);
    expect(pressing(['2', 'up'], crowd).ui.scroll).toBe(0);
  });

  it('sorts what needs looking at first', () => {
    const agents = [
      agentOf('a', {}, { cpu: 1, temperature: 50, queue: 0, p95Ms: 5, rssBytes: 1e8 }),
      agentOf('b', { state: 'lost' }),
      agentOf('c', {}, { cpu: 3, temperature: 80, queue: 4, p95Ms: 90, rssBytes: 9e8 }),
    ];
    const view = viewFor(reportOf({ agents }));
    const order = (sort: Ui['sort'], reversed = false) =>
      shownAgents(view.agents, { filter: '', sort, reversed })
        .map(({ agent }) => agent)
        .join('');
    expect(order('name')).toBe('abc');
    expect(order('name', true)).toBe('cba');
    expect(order('state')).toBe('bac');
    for (const sort of ['cpu', 'memory', 'temperature', 'queue', 'p95'] as const) expect(order(sort)[0]).toBe('c');
  });

  it('filters by name, state, version and deployment while typing', () => {
    const typed = pressing(['/', 'd', 'e', 't']);
    expect(typed.ui).toMatchObject({ typing: true, filter: 'det' });
    expect(shownAgents(home.agents, typed.ui).map(({ agent }) => agent)).toEqual(['pi-1', 'pi-2', 'pi-3', 'pi-4', 'pi-5']);
    expect(pressing(['backspace', 'enter'], home, typed.ui).ui).toMatchObject({ typing: false, filter: 'de' });
    expect(pressing(['escape'], home, typed.ui).ui).toMatchObject({ typing: false, filter: '' });
    expect(pressing(['/', 'p', 'i', 'enter', 'escape']).ui.filter).toBe('');
  });

  it('goes from page to page and back', () => {
    expect(pressing(['3']).ui.page).toBe('agents');
    expect(pressing(['3', 'enter']).ui).toMatchObject({ page: 'inspect', back: 'agents', selected: 'pi-1' });
    expect(pressing(['3', 'enter', '?']).ui).toMatchObject({ page: 'help', back: 'agents' });
    expect(pressing(['3', 'enter', 'escape']).ui.page).toBe('agents');
    expect(pressing(['3', 'escape']).ui.page).toBe('overview');
    expect(pressing(['e', 'e']).ui.page).toBe('overview');
    expect(pressing(['e'], viewFor(reportOf())).ui).toMatchObject({
      page: 'overview',
      note: 'Nothing is deployed, so there is no plan to explain.',
    });
  });

  it('goes round the deployments with Tab', () => {
    const two = viewFor(reportOf({ deployments: [deploymentOf('a', null), deploymentOf('b', null)] }));
    expect(chosenDeployment(two, START)).toBe('a');
    expect(pressing(['tab'], two).ui.deployment).toBe('b');
    expect(pressing(['tab', 'tab'], two).ui.deployment).toBe('a');
    expect(chosenDeployment(viewFor(reportOf()), START)).toBe('');
  });

  it('pauses, draws anew, suspends; before the first answer only what needs none', () => {
    expect(pressing(['p']).ui.paused).toBe(true);
    expect(pressing(['p', 'space']).ui.paused).toBe(false);
    expect(pressing(['ctrl-l', 'ctrl-z']).effects).toEqual(['redraw', 'suspend']);
    const none = (keys: readonly string[]) => keys.reduce((ui, key) => press(ui, key, undefined, 10).ui, START);
    expect(none(['d', 'enter', 'e', 'down', '/'])).toEqual(START);
    expect(none(['?']).page).toBe('help');
  });

  it('is never thrown out, whatever is pressed', () => {
    const key = fc.constantFrom(
      'q',
      'd',
      'y',
      'n',
      'e',
      '/',
      'enter',
      'escape',
      'up',
      'down',
      'pagedown',
      'end',
      'tab',
      's',
      'r',
      'p',
      '?',
      '1',
      '2',
      '3',
      '4',
      '5',
      '9',
      'x',
      'backspace',
    );
    fc.assert(fc.property(fc.array(key), (keys) => void pressing(keys)));
  });
});
