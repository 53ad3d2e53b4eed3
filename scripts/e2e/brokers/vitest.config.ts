/** The tests as ever, but that `broker/server.ts` is what stands in for it. Called by main.ts. */
import path from 'node:path';
import { mergeConfig } from 'vitest/config';
import base from '../../../vitest.config.js';

const root = path.resolve(import.meta.dirname, '../../..');

export default mergeConfig(base, {
  root,
  plugins: [
    {
      name: 'a broker of another make',
      enforce: 'pre',
      async resolveId(
        this: { resolve: (id: string, from?: string, options?: object) => Promise<{ id: string } | null> },
        id: string,
        from?: string,
      ) {
        const found = id.endsWith('/server.js') ? await this.resolve(id, from, { skipSelf: true }) : null;
        return found?.id === path.join(root, 'broker/server.ts') ? path.join(root, 'broker/test-external.ts') : null;
      },
    },
  ],
  // A broker takes longer to start than a function.
  test: { testTimeout: 60_000, hookTimeout: 120_000 },
});
