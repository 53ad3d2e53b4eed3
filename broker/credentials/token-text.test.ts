import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ROLES } from './credentials.js';
import { formatToken, parseToken } from './token-text.js';

const hex = (bytes: number) => fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((data) => Buffer.from(data).toString('hex'));
const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
const tokens = fc.record({ fingerprint: hex(32), id: hex(8), secret: hex(20), cluster: name, role: fc.constantFrom(...ROLES), name });

it('what a token says comes back from its text, which fits on a line and can be copied with blanks around it', () => {
  fc.assert(
    fc.property(tokens, (token) => {
      const text = formatToken(token);
      expect(text).toMatch(/^mc1\.[A-Za-z0-9_-]+$/);
      expect(parseToken(` ${text}\n`)).toEqual(token);
    }),
  );
  const usual = {
    fingerprint: 'ab'.repeat(32),
    id: '01'.repeat(8),
    secret: '02'.repeat(20),
    cluster: 'default',
    role: 'agent',
    name: 'pi-1',
  } as const;
  expect(formatToken(usual).length).toBeLessThan(120);
});

it('a text with one character lost, added or changed is no token, and the error does not show it', () => {
  fc.assert(
    fc.property(tokens, fc.nat(), fc.constantFrom('', 'A', 'b', '_', '-', ' ', '.'), (token, at, by) => {
      const text = formatToken(token);
      const place = at % text.length;
      const other = text.slice(0, place) + by + text.slice(place + 1);
      if (other.trim() === text) return;
      try {
        // The last character may hold bits that mean nothing: then it is the same token.
        expect(parseToken(other)).toEqual(token);
        expect(place).toBe(text.length - 1);
      } catch (error) {
        expect(error).toMatchObject({ code: 'TOKEN_INVALID' });
        expect(String(error)).not.toContain(text.slice(60, 80));
      }
    }),
  );
});

it('any text is a token or TOKEN_INVALID', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map((text) => `mc1.${text}`),
        fc.base64String().map((text) => `mc1.${text}`),
      ),
      (text) => {
        expect(() => parseToken(text)).toThrow(expect.objectContaining({ code: 'TOKEN_INVALID' }));
      },
    ),
  );
});
