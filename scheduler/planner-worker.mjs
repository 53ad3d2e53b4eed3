// Starts the planners' thread from TypeScript source in a checkout: tsx registers per thread. Not part of the compiled package.
import { register } from 'tsx/esm/api';

register();
await import('./planner-worker.ts');
