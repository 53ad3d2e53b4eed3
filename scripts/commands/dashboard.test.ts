import { describe, expect, it } from 'vitest';
import { main } from '../cli.js';

async function said(...args: string[]): Promise<{ status: number; text: string }> {
  let text = '';
  const status = await main(args, {
    write: (more) => {
      text += more;
    },
  });
  return { status, text };
}

describe('the dashboard command', () => {
  it('needs a terminal, and says what scripts use instead', async () => {
    const { status, text } = await said('dashboard');
    expect(status).toBe(2);
    expect(text).toMatch(/USAGE: the dashboard needs a terminal.*--once or --json/);
  });

  it.each(['0', '61', 'often'])('does not look every %s seconds', async (every) => {
    const { status, text } = await said('dashboard', '--every', every);
    expect(status).toBe(2);
    expect(text).toContain('a whole number from 1 to 60');
  });
});
