import { describe, expect, it } from 'vitest';
import { clockText, pageText, Transcript, withoutSecrets } from './transcript.js';

describe('the transcript of a walk', () => {
  it('has what was typed and what came, without tokens, cut where it is long, and how long each step took', async () => {
    const [written, clock] = [[] as string[], { ms: 0 }];
    const transcript = new Transcript(
      (line) => written.push(line),
      () => clock.ms,
    );
    await transcript.step('It joins', async () => {
      transcript.typed('pi-1', 'agent --token mc1.mpT7abcdefghijkl');
      transcript.came(Array.from({ length: 30 }, (_, i) => `line ${i}`).join('\n'), 3);
      transcript.screen('A screen', 'a   \n b\n\n');
      clock.ms = 65_400;
    });
    expect(written.join('\n')).not.toContain('mpT7abcdefghijkl');
    expect(transcript.steps).toMatchObject([{ title: 'It joins', fromMs: 0, ms: 65_400, screens: [{ text: 'a\n b' }] }]);
    expect(transcript.steps[0]?.lines).toEqual(['pi-1$ agent --token mc1.mpT7a...', '  line 0', '  line 1', '  (28 more lines)']);
    const page = pageText({ intro: ['# A walk'], conditions: ['On a PC.'], result: ['In time.'], steps: transcript.steps });
    expect(page).toContain('| 1 | It joins | 0:00 | 65.4 s |');
    expect(page).toContain('```\npi-1$ agent --token mc1.mpT7a...');
  });

  it('of a step that fails says why, and gives it no time', async () => {
    const written: string[] = [];
    const transcript = new Transcript(
      (line) => written.push(line),
      () => 0,
    );
    const failing = transcript.step('It joins', () => Promise.reject(new Error('nobody is there')));
    await expect(failing).rejects.toThrow('nobody is there');
    expect(written.at(-1)).toBe('-- FAILED: nobody is there');
    expect(transcript.steps[0]?.ms).toBeUndefined();
  });

  it('writes times as people read them, and knows a token when it sees one', () => {
    expect([0, 59_400, 59_600, 605_000].map(clockText)).toEqual(['0:00', '0:59', '1:00', '10:05']);
    expect(withoutSecrets('mc1. and mc1.x')).toBe('mc1. and mc1.x');
  });
});
