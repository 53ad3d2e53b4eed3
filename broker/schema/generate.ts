/**
 * TypeScript from the `.avsc` files, for one purpose: `in-step.ts` compares it with the hand-written types of `messages.ts` and `plan.ts`, which have the
 * comments. Run `npx tsx broker/schema/generate.ts` after changing a schema; a test fails until it was run.
 */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import type { AvroEnum, AvroRecord, AvroSchema } from './bounds.js';
import { readSchemaFiles } from './set.js';

/** Records whose last field is the tensor's bytes: their TypeScript type is the header without it. */
export const LANE_RECORDS: ReadonlySet<string> = new Set(['Activation', 'Submit', 'Result']);

export const GENERATED = new URL('./messages.gen.ts', import.meta.url);

function typeOf(schema: AvroSchema): string {
  if (typeof schema === 'string') {
    const primitives: Record<string, string> = { int: 'number', long: 'number', double: 'number', bytes: 'Uint8Array' };
    return primitives[schema] ?? schema;
  }
  if (!('type' in schema)) return `${typeOf(schema[1])} | null`;
  switch (schema.type) {
    case 'array': {
      const items = typeOf(schema.items);
      return `readonly ${items.includes(' ') ? `(${items})` : items}[]`;
    }
    case 'int':
    case 'long':
      return 'number';
    case 'bytes':
      return 'Uint8Array';
    case 'string':
      return 'string';
    case 'record':
    case 'enum':
      throw new Error(`${schema.name} must stand in a file of its own`);
  }
}

function unionOf(record: AvroRecord): string {
  const branches = record.fields.slice(1).map(({ name, type }) => {
    const inner = typeof type === 'object' && !('type' in type) ? typeOf(type[1]) : typeOf(type);
    return `  | { readonly kind: '${name}'; readonly ${name}: ${inner} }`;
  });
  return `export type ${record.name} =\n${branches.join('\n')};\n`;
}

function declarationOf(schema: AvroRecord | AvroEnum): string {
  if (schema.type === 'enum') return `export type ${schema.name} = ${schema.symbols.map((symbol) => `'${symbol}'`).join(' | ')};\n`;
  if (schema.oneOf === true) return unionOf(schema);
  const fields = LANE_RECORDS.has(schema.name) ? schema.fields.slice(0, -1) : schema.fields;
  return `export interface ${schema.name} {\n${fields.map(({ name, type }) => `  readonly ${name}: ${typeOf(type)};\n`).join('')}}\n`;
}

export function generateTypes(schemas: readonly (AvroRecord | AvroEnum)[]): string {
  const all = schemas.map(({ name }) => `  ${name}: ${name};\n`).join('');
  return [
    '// Made by generate.ts from the .avsc files. Do not edit.\n',
    ...schemas.map(declarationOf),
    `/** Every schema by name. */\nexport interface All {\n${all}}\n`,
  ].join('\n');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) writeFileSync(GENERATED, generateTypes(readSchemaFiles()));
