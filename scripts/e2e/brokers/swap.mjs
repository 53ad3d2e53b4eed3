// In every process that a test of this suite starts (NODE_OPTIONS): where the embedded broker would be loaded, what stands in for it is.
import { register } from 'node:module';

const hooks = `export async function resolve(specifier, context, next) {
  const found = await next(specifier, context);
  return found.url.endsWith('/broker/server.ts') ? { ...found, url: found.url.replace(/server\\.ts$/, 'test-external.ts') } : found;
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`, import.meta.url);
