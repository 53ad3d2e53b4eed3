/** Which tests talk to a broker at all: the others cannot tell one from another. */
import path from 'node:path';
import { importsOf, type SourceFile } from '../../check-arrows.js';

/** Tests whose sources reach one of `targets`, directly or through others. Paths as in `files`. */
export function testsReaching(files: readonly SourceFile[], targets: readonly string[]): string[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const next = new Map(
    files.map((file) => [file.path, importsOf(file.text).flatMap(({ specifier }) => resolved(file.path, specifier, byPath))]),
  );
  const reaches = (start: string): boolean => {
    const seen = new Set<string>();
    const open = [start];
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      if (targets.includes(at)) return true;
      if (seen.has(at)) continue;
      seen.add(at);
      open.push(...(next.get(at) ?? []));
    }
    return false;
  };
  return files.map((file) => file.path).filter((file) => file.endsWith('.test.ts') && reaches(file));
}

function resolved(from: string, specifier: string, files: ReadonlyMap<string, SourceFile>): string[] {
  if (!specifier.startsWith('.')) return [];
  const target = path.posix.join(path.posix.dirname(from), specifier).replace(/\.js$/, '.ts');
  return files.has(target) ? [target] : [];
}
