/**
 * TypeScript from the `.avsc` files; `doc` becomes the docstring. Run `npx tsx broker/schema/generate.ts` after changing a schema; a test fails until
 * it was run. Two files: `messages.gen.ts` is what the project uses (by way of `messages.ts`). `in-step.gen.ts` has the types that are written by hand
 * all the same, for one purpose: `in-step.ts` compares the two.
 */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import type { AvroEnum, AvroRecord, AvroSchema } from './bounds.js';
import { readSchemaFiles } from './set.js';

/** Records whose last field is the tensor's bytes: their TypeScript type is the header without it, and is called so. */
export const LANE_RECORDS: ReadonlySet<string> = new Set(['Activation', 'Submit', 'Result']);

/** Types that `models/` uses too, which may not import messages: written by hand, with their comments, in these files. */
export const HAND_WRITTEN: Readonly<Record<string, readonly string[]>> = {
  '../plan.js': ['BlobRef', 'Encoding', 'PlanPart', 'PlanStage', 'Port', 'SliceRef', 'Wire'],
  '../tensor.js': ['Box', 'DType', 'TensorInfo'],
};

/** File name beside this one -> what it has to say. */
export type Generated = Readonly<Record<'messages.gen.ts' | 'in-step.gen.ts', string>>;

const LINE_WIDTH = 140;
const HEAD = '// Made by generate.ts from the .avsc files. Do not edit.\n';

function typeOf(schema: AvroSchema): string {
  if (typeof schema === 'string') {
    const primitives: Record<string, string> = { int: 'number', long: 'number', double: 'number', bytes: 'Uint8Array' };
    return primitives[schema] ?? nameOf(schema);
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

function nameOf(schema: string): string {
  return LANE_RECORDS.has(schema) ? `${schema}Header` : schema;
}

function docstring(of: { readonly name: string; readonly doc?: string }, indent = ''): string {
  if (of.doc?.includes('*/')) throw new Error(`doc of ${of.name} would end its docstring early`);
  return of.doc === undefined ? '' : `${indent}/** ${of.doc} */\n`;
}

function alternatives(name: string, branches: readonly string[]): string {
  const line = `export type ${name} = ${branches.join(' | ')};\n`;
  return line.length <= LINE_WIDTH ? line : `export type ${name} =\n${branches.map((branch) => `  | ${branch}`).join('\n')};\n`;
}

function unionOf(record: AvroRecord): string {
  const branches = record.fields.slice(1).map(({ name, type }) => {
    const inner = typeof type === 'object' && !('type' in type) ? typeOf(type[1]) : typeOf(type);
    return `{ readonly kind: '${name}'; readonly ${name}: ${inner} }`;
  });
  return alternatives(record.name, branches);
}

function bodyOf(schema: AvroRecord | AvroEnum): string {
  if (schema.type === 'enum')
    return alternatives(
      schema.name,
      schema.symbols.map((symbol) => `'${symbol}'`),
    );
  if (schema.oneOf === true) return unionOf(schema);
  const fields = LANE_RECORDS.has(schema.name) ? schema.fields.slice(0, -1) : schema.fields;
  const lines = fields.map((field) => `${docstring(field, '  ')}  readonly ${field.name}: ${typeOf(field.type)};\n`);
  return `export interface ${nameOf(schema.name)} {\n${lines.join('')}}\n`;
}

function declarationOf(schema: AvroRecord | AvroEnum): string {
  return docstring(schema) + bodyOf(schema);
}

/** Import lines for those of the types written by hand that `text` uses. */
function importsFor(text: string): string {
  const lines = Object.entries(HAND_WRITTEN).map(([file, names]) => {
    const used = names.filter((name) => new RegExp(`^  .*readonly .*\\b${name}\\b`, 'm').test(text));
    return used.length === 0 ? '' : `import type { ${used.join(', ')} } from '${file}';\n`;
  });
  return lines.join('');
}

/** `schemas` in the order of the declarations. */
export function generateTypes(schemas: readonly (AvroRecord | AvroEnum)[]): Generated {
  const byHand = new Set(Object.values(HAND_WRITTEN).flat());
  const messages = schemas.filter(({ name }) => !byHand.has(name)).map(declarationOf);
  const compared = schemas.filter(({ name }) => byHand.has(name));
  const all = compared.map(({ name }) => `  ${name}: ${name};\n`).join('');
  return {
    'messages.gen.ts': [HEAD + importsFor(messages.join('\n')), ...messages].join('\n'),
    'in-step.gen.ts': [HEAD, ...compared.map(declarationOf), `/** By name. */\nexport interface All {\n${all}}\n`].join('\n'),
  };
}

export function generatedUrl(file: keyof Generated): URL {
  return new URL(`./${file}`, import.meta.url);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { 'messages.gen.ts': messages, 'in-step.gen.ts': compared } = generateTypes(readSchemaFiles());
  writeFileSync(generatedUrl('messages.gen.ts'), messages);
  writeFileSync(generatedUrl('in-step.gen.ts'), compared);
}
