import { describe, expect, it } from 'vitest';
import { ERROR_CODES } from '../broker/errors.js';
import { COMMANDS } from './commands/index.js';
import { generatedDocuments, staleDocuments } from './docs.js';

describe('documents made from the code', () => {
  it('are in step with it (else: npm run docs)', () => {
    expect(staleDocuments()).toEqual([]);
  });

  it('name every error code and every command', () => {
    const documents = generatedDocuments();
    for (const code of Object.keys(ERROR_CODES)) expect(documents['errors.md']).toContain(`\`${code}\``);
    for (const command of COMMANDS) expect(documents['commands.md']).toContain(`## ${command.name}\n`);
  });

  it('are found out of step where they are missing', () => {
    expect(staleDocuments('/nowhere')).toEqual(Object.keys(generatedDocuments()));
  });
});
