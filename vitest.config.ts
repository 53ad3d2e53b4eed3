import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const ROOT = import.meta.dirname;
const FOLDERS = ['broker', 'models', 'node-agent', 'scheduler', 'scripts'] as const;

/** Tests that take longest: whole clusters of processes. */
const LONG = [/^scripts\/chaos\/chaos\./, /^scripts\/testbed\//, /^scripts\/e2e\//, /^scripts\/chaos\//];

const TOGETHER = 'together';

/** Of those that start nothing the longest: the planner against all plans. (It reads of the environment how many.) */
const LONGEST_TOGETHER = /^scheduler\/planners\/(?:optimality|properties)\./;

/**
 * Long files begin first, so that no worker is still at one when the other has nothing left. Those that share a process come last and one after another: a process is
 * kept only for a next one of its kind.
 */
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId, project }: TestSpecification): number => {
      const file = path.relative(ROOT, moduleId);
      if (project.name === TOGETHER) return LONG.length + (LONGEST_TOGETHER.test(file) ? 1 : 2);
      const found = LONG.findIndex((one) => one.test(file));
      return found < 0 ? LONG.length : found;
    };
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b));
  }
}

/**
 * What a test file says that may leave something behind in its process, or that wants to find it fresh: processes, threads, sockets, the environment, timers that
 * are exchanged. Such files get a process each. All others share one a worker: starting it and loading what most of them load took longer than many of them run.
 */
const ALONE =
  /child_process|worker_threads|node:(?:net|tls|http|https|dgram)|createServer|createLanes|laneNode|startBroker|new Gateway|test-cluster|runCli|compiled|process\.(?:env|chdir|on|once|kill)|vi\.(?:mock|stub|useFake)|setTimeout|expect\.poll/;

function testFiles(): { readonly file: string; readonly alone: boolean }[] {
  return FOLDERS.flatMap((folder) =>
    readdirSync(path.join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.test.ts'))
      .map((name) => {
        const file = path.posix.join(folder, ...name.split(path.sep));
        return {
          file,
          alone:
            !LONGEST_TOGETHER.test(file) && (LONG.some((one) => one.test(file)) || ALONE.test(readFileSync(path.join(ROOT, file), 'utf8'))),
        };
      }),
  );
}

const FILES = testFiles();
const files = (alone: boolean): string[] => FILES.filter((one) => one.alone === alone).map(({ file }) => file);

export default defineConfig({
  test: {
    globalSetup: ['scripts/e2e/compiled.ts'],
    sequence: { sequencer: LongFirst },
    testTimeout: 30_000,
    hookTimeout: 30_000,
    pool: 'forks',
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: 'alone', include: files(true) } },
      // Nothing there waits for anything: what takes long on a machine that is busy with other work is no failure.
      { extends: true, test: { name: TOGETHER, include: files(false), isolate: false, testTimeout: 120_000 } },
    ],
  },
});
