import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { drawZoo } from '../models/zoo/index.js';
import { structureOf } from '../models/zoo/structure.js';
import { factsOf } from './model-facts.js';
import { PlannerThread, type PlannerThreadOptions, type Question } from './planner-thread.js';
import { auto } from './planners/auto.js';
import { PLANNERS } from './planners/planners.js';
import { isRefusal } from './planners/problem.js';

const model = structureOf(drawZoo('alexnet'));
const question: Question = {
  devices: ['a', 'b', 'c'].map((agent, i) => ({ agent, macsPerSecond: 4e9 * (1 + i), memoryBytes: 2e9 })),
  links: { usual: { bytesPerSecond: 1e8, latencyMs: 0.5 }, between: new Map([['a>b', { bytesPerSecond: 1e7, latencyMs: 1 }]]) },
  objective: 'latency',
  inFlight: 0,
};

const threads: PlannerThread[] = [];
function thread(options: PlannerThreadOptions = {}): PlannerThread {
  const made = new PlannerThread(options);
  threads.push(made);
  return made;
}
afterEach(async () => {
  await Promise.all(threads.splice(0).map((one) => one.stop()));
});

/** A thread that runs this on each message. */
const scripted = (onMessage: string) => (): Worker =>
  new Worker(`const { parentPort } = require('node:worker_threads'); parentPort.on('message', (m) => { ${onMessage} });`, {
    eval: true,
    execArgv: [],
  });

describe('the planners thread', () => {
  it('answers what the planner answers here, while this thread goes on', async () => {
    const planners = thread();
    let turns = 0;
    const ticking = setInterval(() => turns++, 5);
    const answer = await planners.solve(model, 'auto', question);
    clearInterval(ticking);
    const here = auto({ ...question, facts: factsOf(model) });
    if (isRefusal(answer) || isRefusal(here)) throw new Error('three devices can hold AlexNet');
    expect(answer.stages).toEqual(here.stages);
    expect(answer.estimate).toEqual(here.estimate);
    expect(answer.why).toBe(here.why);
    expect('model' in answer.cut).toBe(false);
    expect(turns).toBeGreaterThan(5);
  }, 30_000);

  it('knows every planner by its name, and remembers models', async () => {
    const planners = thread();
    for (const name of PLANNERS.keys()) {
      const answer = await planners.solve(
        model,
        name,
        name === 'manual' ? { ...question, manual: { kind: 'rows', parts: 2, shares: [] } } : question,
      );
      expect(isRefusal(answer) ? answer.reason : answer.stages.length, name).toBeGreaterThan(0);
    }
  }, 30_000);

  it('starts ahead of its first question when it is told to, and only once', async () => {
    let started = 0;
    const answering = scripted(`if (m.kind === 'plan') parentPort.postMessage({ id: m.id, plan: { refused: true, reason: 'ahead' } })`);
    const planners = thread({
      start: () => {
        started++;
        return answering();
      },
    });
    planners.warm();
    planners.warm();
    expect(started).toBe(1);
    expect(await planners.solve(model, 'auto', question)).toEqual({ refused: true, reason: 'ahead' });
    expect(started).toBe(1);
    await planners.stop();
    planners.warm();
    expect(started).toBe(1);
  });

  it('ends a planner that takes longer than its budget, and asks the next question of a new thread', async () => {
    let started = 0;
    const planners = thread({
      budgetMs: 300,
      start: () => {
        started++;
        return scripted(
          started === 1
            ? "if (m.kind === 'plan') for (;;);"
            : "if (m.kind === 'plan') parentPort.postMessage({ id: m.id, plan: { refused: true, reason: 'second' } });",
        )();
      },
    });
    const first = planners.solve(model, 'auto', question);
    const second = planners.solve(model, 'auto', question);
    await expect(first).rejects.toMatchObject({ code: 'PLANNER_FAILED' });
    expect(await second).toMatchObject({ reason: 'second' });
    expect(started).toBe(2);
  });

  it('reports a crash, whether the thread throws or ends', async () => {
    for (const crash of ["throw new Error('no memory')", 'process.exit(3)']) {
      const planners = thread({ start: scripted(`if (m.kind === 'plan') { ${crash} }`) });
      await expect(planners.solve(model, 'auto', question)).rejects.toMatchObject({
        code: 'PLANNER_FAILED',
        message: expect.stringContaining('thread'),
      });
    }
  });

  it('reports an error inside a planner with its name', async () => {
    await expect(thread().solve(model, 'none', question)).rejects.toMatchObject({
      code: 'PLANNER_FAILED',
      message: expect.stringContaining("no planner 'none'"),
    });
  }, 30_000);

  it('stops while a plan is made', async () => {
    const planners = thread({ start: scripted("if (m.kind === 'plan') for (;;);") });
    const answer = planners.solve(model, 'auto', question);
    const failed = expect(answer).rejects.toMatchObject({ code: 'STOPPED' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    await planners.stop();
    await failed;
    await expect(planners.solve(model, 'auto', question)).rejects.toMatchObject({ code: 'STOPPED' });
  });
});
