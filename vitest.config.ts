import path from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Tests that take longest: whole clusters of processes, and the planner against all plans. */
const LONG = [
  /^scripts\/chaos\/chaos\./,
  /^scheduler\/planners\/optimality\./,
  /^scripts\/testbed\//,
  /^scripts\/e2e\//,
  /^scripts\/chaos\//,
];

/** Long files begin first, so that no worker is still at one when the other has nothing left. */
class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId, project }: TestSpecification): number => {
      const found = LONG.findIndex((one) => one.test(path.relative(project.config.root, moduleId)));
      return found < 0 ? LONG.length : found;
    };
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ['{broker,models,node-agent,scheduler,scripts}/**/*.test.ts'],
    globalSetup: ['scripts/e2e/compiled.ts'],
    sequence: { sequencer: LongFirst },
    testTimeout: 30_000,
    hookTimeout: 30_000,
    pool: 'forks',
    maxWorkers: 2,
  },
});
