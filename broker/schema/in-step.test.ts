import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { AvroEnum, AvroRecord } from './bounds.js';
import { type Generated, generatedUrl, generateTypes, HAND_WRITTEN, LANE_RECORDS } from './generate.js';
import { readSchemaFiles } from './set.js';

const BROKER = fileURLToPath(new URL('..', import.meta.url));
const TSC = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));

/** Line breaks are the formatter's. */
function words(text: string): string {
  return text.replace(/\s+/g, ' ').replace(/= \|/g, '=').replace(/; \}/g, ' }');
}

/** Compiles `in-step.ts` with changed files around it; '' when it compiles. */
async function compile(changes: Readonly<Record<string, (text: string) => string>>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'in-step-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  for (const file of ['plan.ts', 'tensor.ts', 'errors.ts', 'schema/in-step.ts', 'schema/in-step.gen.ts']) {
    await cp(join(BROKER, file), join(directory, file));
  }
  for (const [file, change] of Object.entries(changes)) {
    const text = await readFile(join(directory, file), 'utf8');
    await writeFile(join(directory, file), change(text));
  }
  await writeFile(join(directory, 'package.json'), '{"type":"module"}');
  const options = { strict: true, noEmit: true, target: 'es2022', module: 'nodenext', exactOptionalPropertyTypes: true, types: [] };
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['schema/in-step.ts'] }));
  try {
    await promisify(execFile)(process.execPath, [TSC, '-p', directory]);
    return '';
  } catch (error) {
    return String((error as { stdout?: unknown }).stdout);
  }
}

function withField(name: string): Generated {
  const schemas: (AvroRecord | AvroEnum)[] = readSchemaFiles().map((schema) =>
    schema.name === name && schema.type === 'record'
      ? { ...schema, fields: [...schema.fields, { name: 'added', type: 'string' }] }
      : schema,
  );
  return generateTypes(schemas);
}

describe('schemas and TypeScript types', () => {
  it.each(['messages.gen.ts', 'in-step.gen.ts'] as const)('are in step: %s is of these schemas', async (file) => {
    expect(words(await readFile(generatedUrl(file), 'utf8'))).toBe(words(generateTypes(readSchemaFiles())[file]));
  });

  it('are in step: the hand-written types are the generated ones', async () => {
    expect(await compile({})).toBe('');
  });

  it('fall out of step when a field is added to a schema only', async () => {
    expect(await compile({ 'schema/in-step.gen.ts': () => withField('Port')['in-step.gen.ts'] })).toMatch(/missing .*Port/);
  });

  it('fall out of step when a field is added to, or retyped in, a type only', async () => {
    const added = (text: string) => text.replace('readonly macs: number;', 'readonly macs: number; readonly added: string;');
    const optional = (text: string) => text.replace('readonly toPart: number;', 'readonly toPart?: number;');
    const errors = await compile({ 'plan.ts': (text) => optional(added(text)) });
    expect(errors).toMatch(/missing .*SliceRef/);
    expect(errors).toMatch(/missing .*Wire/);
  });

  it('are explained in one place: in the schema, or where a type is written by hand', () => {
    const byHand = Object.values(HAND_WRITTEN).flat();
    for (const schema of readSchemaFiles()) if (byHand.includes(schema.name)) expect(JSON.stringify(schema)).not.toContain('"doc"');
  });

  it('have the docstrings of the schema, and no doc can end its docstring early', () => {
    const commented = (doc: string): AvroRecord => ({ type: 'record', name: 'Note', doc, fields: [{ name: 'ms', type: 'double', doc }] });
    const text = '/** Of a run. */\nexport interface Note {\n  /** Of a run. */\n  readonly ms: number;\n}';
    expect(generateTypes([commented('Of a run.')])['messages.gen.ts']).toContain(text);
    expect(() => generateTypes([commented('a */ b')])).toThrow(/Note/);
  });

  it('use only what the bounds can walk: no map, data last in lane records, defaults on what may be missing', () => {
    for (const schema of readSchemaFiles()) {
      expect(JSON.stringify(schema)).not.toContain('"map"');
      if (schema.type !== 'record') continue;
      if (LANE_RECORDS.has(schema.name)) expect(schema.fields.at(-1)?.name).toBe('data');
      for (const field of schema.fields) if (Array.isArray(field.type) && schema.oneOf === true) expect(field.default).toBeNull();
    }
  });
});
