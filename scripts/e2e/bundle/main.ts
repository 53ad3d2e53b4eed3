/**
 * `npm run test:bundle -- [x64] [arm64] [--node-arm64 FILE]`: bundles as machines get them: made, flashed into a boot partition, booted for the first time, joined with a
 * token, at work, cut off, booted again, updated, and gone back. Needs root and Linux; for arm64 also qemu-user-static, apt and npm (a Debian root and Node are
 * fetched, and kept in .cache/bundle-test).
 */
import { runBundleTest } from './run.js';

process.exitCode = (await runBundleTest(process.argv.slice(2))) ? 0 : 1;
