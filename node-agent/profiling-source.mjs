// Starts the measuring process from TypeScript source in a checkout. Not part of the compiled package.
import { register } from 'tsx/esm/api';

register();
await import('./profiling-process.ts');
