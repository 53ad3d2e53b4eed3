import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Problems } from './problems.js';
import { RETURN_MS } from './registry.js';
import { type Arrivals, PATIENCE_MS, placedAgain, placedOf, restoreStep } from './restoring.js';
import { DeploymentFiles } from './state.js';
import { deployment } from './test-deployment.js';

let directory: string;
let problems: Problems;
const open: DeploymentFiles[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-state-'));
  problems = new Problems();
});
afterEach(async () => {
  for (const files of open.splice(0)) await files.stop();
  await rm(directory, { recursive: true, force: true });
});

function filesIn(folder = join(directory, 'deployments')): DeploymentFiles {
  const files = new DeploymentFiles({ directory: folder, problems, againMs: 20 });
  open.push(files);
  return files;
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 10_000; performance.now() < end; ) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${what}`);
}

describe('deployments on disk', () => {
  it('come back as they were, but for what a plan does not need', async () => {
    const files = filesIn();
    expect(await files.load()).toEqual([]);
    const one = deployment('m.net_1');
    await files.save(one);
    await files.save(deployment('other', ['x']));
    const [saved, other] = await filesIn().load();
    if (saved === undefined) throw new Error('nothing was saved');
    expect(other?.plan.deployment).toBe('other');
    const { serving } = one;
    expect(saved.request).toEqual(one.request);
    expect(saved.plan).toEqual(serving?.plan);
    expect({ ...saved.draft, cut: undefined }).toEqual({ ...serving?.draft, cut: undefined });
    expect(saved.draft.cut.stages).toEqual(serving?.draft.cut.stages);
    expect(await readFile(join(directory, 'deployments', 'm.net_1.json'), 'utf8')).not.toContain('the whole of it');
    expect({ ...placedOf(saved), draft: undefined }).toEqual({ ...serving, draft: undefined });
    expect(problems.all()).toEqual([]);
  });

  it('are written as they were last, and go when they are removed', async () => {
    const files = filesIn();
    await files.load();
    const one = deployment('m');
    await Promise.all([files.save(one), files.save({ ...one, request: { ...one.request, weight: 9 } }), files.save(deployment('n'))]);
    expect((await filesIn().load()).map(({ request }) => [request.name, request.weight])).toEqual([
      ['m', 9],
      ['n', 2.5],
    ]);
    await Promise.all([files.save(one), files.remove('m'), files.remove('never there')]);
    expect((await filesIn().load()).map(({ request }) => request.name)).toEqual(['n']);
  });

  it('that cannot be written stay a problem until they are, and serve meanwhile', async () => {
    const folder = join(directory, 'deployments');
    const files = filesIn();
    await files.load();
    await rm(folder, { recursive: true });
    await files.save(deployment('m'));
    await files.save(deployment('n'));
    expect(problems.all()).toHaveLength(2);
    expect(problems.all()[0]).toContain("deployment 'm' is not saved");
    await mkdir(folder);
    await until('both are written', async () => (await readdir(folder)).filter((name) => name.endsWith('.json')).length === 2);
    await until('nobody needs to look', () => problems.all().length === 0);
    expect((await filesIn().load()).map(({ request }) => request.name)).toEqual(['m', 'n']);
  });

  it('with any one byte changed are put aside, and the half of one that a power cut left is no file', async () => {
    const files = filesIn();
    await files.load();
    await files.save(deployment('m'));
    const folder = join(directory, 'deployments');
    const good = await readFile(join(folder, 'm.json'));
    for (let at = 3; at < good.length; at += Math.ceil(good.length / 25)) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] ?? 0) ^ 0x10;
      await writeFile(join(folder, 'm.json'), bad);
      expect(await filesIn().load(), `byte ${at}`).toEqual([]);
    }
    expect(problems.all().join()).toContain("deployment 'm' was not restored, deploy it again");
    await writeFile(join(folder, 'm.json.0123abcd.new'), good.subarray(0, 100));
    await writeFile(join(folder, 'm.json'), good);
    expect(await filesIn().load()).toHaveLength(1);
    expect((await readdir(folder)).sort()).toEqual(['m.json', 'm.json.damaged']);
  });
});

describe('a deployment on its way back', () => {
  const placed = deployment('m', ['a', 'b', 'c']).serving;
  if (placed === undefined) throw new Error('no plan');
  const registry = (...there: string[]) => {
    return (agent: string) =>
      there.includes(agent) ? { nonce: `new ${agent}`, state: 'ready' as const } : { nonce: '', state: 'joining' as const };
  };

  it('waits for all of its agents, and is placed on the processes that are there now', () => {
    const restoring = { placed, arrivals: { present: 0, sinceMs: 0 } };
    expect(restoreStep(restoring, registry('a', 'b'), 100)).toMatchObject({ do: 'wait', why: expect.stringContaining('waits for c') });
    const step = restoreStep(restoring, registry('a', 'b', 'c'), 200);
    expect(step).toMatchObject({ do: 'place' });
    const again = placedAgain(placed, 9, 70, step.do === 'place' ? step.nonces : new Map());
    expect(again.plan).toMatchObject({ term: 9, epoch: 70, stages: placed.plan.stages, wires: placed.plan.wires });
    expect([...again.nonces]).toEqual(['a', 'b', 'c'].map((agent) => [agent, `new ${agent}`]));
    expect(new Set(again.seats.values())).toEqual(new Set(['wanted']));
    expect(placed.plan).toMatchObject({ term: 3, epoch: 7 });
  });

  it('is given up for another plan when some came and nobody else does; each one that comes buys the others time', () => {
    let arrivals: Arrivals = { present: 0, sinceMs: 0 };
    const at = (nowMs: number, ...there: string[]) => {
      const step = restoreStep({ placed, arrivals }, registry(...there), nowMs);
      if (step.do === 'wait') arrivals = step.arrivals;
      return step.do;
    };
    expect(at(PATIENCE_MS * 5)).toBe('wait');
    expect(at(PATIENCE_MS * 50)).toBe('wait');
    expect(at(PATIENCE_MS * 50 + 1, 'a')).toBe('wait');
    expect(at(PATIENCE_MS * 51, 'a')).toBe('wait');
    expect(at(PATIENCE_MS * 51 + 1, 'a', 'b')).toBe('wait');
    expect(at(PATIENCE_MS * 52, 'a', 'b')).toBe('wait');
    expect(at(PATIENCE_MS * 52 + 1, 'a', 'b')).toBe('plan');
    expect(at(PATIENCE_MS * 52 + 1, 'a', 'b', 'c')).toBe('place');
  });

  it('is given up sooner when some lived on through the restart: so would have those that are missing, and would be back', () => {
    let arrivals: Arrivals = { present: 0, sinceMs: 0 };
    const [first = ''] = placed.nonces.values();
    const joining = new Set<string>();
    const at = (nowMs: number, ...there: string[]) => {
      const step = restoreStep(
        { placed, arrivals },
        (agent) => {
          if (joining.has(agent)) return { nonce: 'x', state: 'joining' };
          return there.includes(agent) ? { nonce: agent === 'a' ? first : 'new', state: 'ready' } : undefined;
        },
        nowMs,
      );
      if (step.do === 'wait') arrivals = step.arrivals;
      return step.do;
    };
    expect(at(90_000)).toBe('wait');
    expect(at(100_000, 'a')).toBe('wait');
    // A machine that was started anew buys nobody time.
    expect(at(100_000 + RETURN_MS - 1, 'a', 'b')).toBe('wait');
    joining.add('c');
    expect(at(100_000 + RETURN_MS, 'a', 'b')).toBe('wait');
    joining.clear();
    expect(at(100_000 + RETURN_MS, 'a', 'b')).toBe('plan');
    expect(RETURN_MS).toBeLessThan(PATIENCE_MS);
  });

  it('is given up at once for another plan when all that are missing leave', () => {
    const restoring = { placed, arrivals: { present: 2, sinceMs: 0 } };
    const states = new Map<string, 'ready' | 'draining' | 'joining' | 'stopped'>([
      ['a', 'ready'],
      ['b', 'draining'],
      ['c', 'joining'],
    ]);
    const find = (agent: string) => ({ nonce: '1', state: states.get(agent) ?? ('joining' as const) });
    expect(restoreStep(restoring, find, 1).do).toBe('wait');
    states.set('c', 'ready');
    expect(restoreStep(restoring, find, 2)).toMatchObject({ do: 'plan', why: expect.stringContaining('b leaves') });
    states.set('c', 'stopped');
    expect(restoreStep(restoring, find, 2)).toMatchObject({ do: 'plan', why: expect.stringContaining('b, c leaves') });
    states.set('a', 'draining');
    expect(restoreStep(restoring, find, 2).do).toBe('wait');
  });
});
