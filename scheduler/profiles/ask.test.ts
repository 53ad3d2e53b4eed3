import { describe, expect, it } from 'vitest';
import { ChairError } from '../../broker/errors.js';
import type { ProfileReport, ProfileRequest } from '../../broker/messages.js';
import { PROFILE_DEFAULTS } from '../deploy-defaults.js';
import { answeredProfile } from './ask.js';

const request: ProfileRequest = { ...PROFILE_DEFAULTS, job: 'j', model: 'm', cancel: false };

function report(more: Partial<ProfileReport>): ProfileReport {
  const none = { code: '', message: '', model: '', current: '', classes: [], rows: [], checks: [], notes: [] };
  return { job: 'j', state: 'running', ...none, done: 3, total: 10, ...more };
}

/** Asks, and is given up after the second answer. */
function asked(ask: (request: ProfileRequest) => Promise<ProfileReport>, more: Partial<ProfileRequest> = {}): Promise<ProfileReport> {
  const giveUp = new AbortController();
  let answers = 0;
  return answeredProfile(
    { ...request, ...more },
    {
      ask,
      everyMs: 5,
      silentMs: 60_000,
      signal: new AbortController().signal,
      giveUp: giveUp.signal,
      endsWithinMs: 200,
      onProgress: () => ++answers === 2 && giveUp.abort(),
    },
  );
}

describe('a profile that its user gives up', () => {
  it('is ended on the gateway before it ends here, and says what is kept', async () => {
    const cancels: boolean[] = [];
    const ended = asked(async ({ cancel }) => {
      cancels.push(cancel);
      // What runs there takes a moment to end.
      const over = cancels.filter(Boolean).length === 2;
      return over ? report({ state: 'failed', code: 'PROFILE_CANCELLED', done: 4 }) : report({});
    });
    await expect(ended).rejects.toMatchObject({
      code: 'PROFILE_CANCELLED',
      message: expect.stringMatching(
        /^stopped: 4 of 10 measurements are kept on the gateway; agents measure no more\. The same command goes on/,
      ),
    });
    expect(cancels).toEqual([false, false, true, true]);
  });

  it('does not wait for an answer that is under way', async () => {
    const giveUp = new AbortController();
    const ended = answeredProfile(request, {
      ask: ({ cancel }) =>
        cancel
          ? Promise.resolve(report({ state: 'failed', code: 'PROFILE_CANCELLED' }))
          : new Promise(() => setImmediate(() => giveUp.abort())),
      ...{ everyMs: 5, silentMs: 60_000, signal: new AbortController().signal, giveUp: giveUp.signal },
    });
    await expect(ended).rejects.toThrow(/^stopped: 3 of 10 .* agents measure no more/);
  });

  it('does not wait for an answer that does not come, and does not claim what it does not know', async () => {
    const ended = asked(({ cancel }) =>
      cancel ? Promise.reject(new ChairError('REQUEST_TIMEOUT', 'no reply')) : Promise.resolve(report({})),
    );
    await expect(ended).rejects.toThrow(/^stopped: 3 of 10 .* the gateway did not confirm it: by itself it ends the job within a minute/);
  });

  it('says that measuring all anew would begin again', async () => {
    const ended = asked(async ({ cancel }) => report(cancel ? { state: 'failed', code: 'PROFILE_CANCELLED' } : {}), { fresh: true });
    await expect(ended).rejects.toThrow('The same command without --fresh goes on there.');
  });
});
