import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['{broker,models,node-agent,scheduler,scripts}/**/*.test.ts'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    pool: 'forks',
    maxWorkers: 2,
  },
});
