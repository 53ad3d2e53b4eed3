import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { ChairError } from '../../broker/errors.js';
import { homeReport } from '../../scheduler/dashboard/fixture.js';
import { glyphsFor } from './glyphs.js';
import { type Canvas, Session, type Source } from './session.js';
import { type Line, plainText } from './text.js';

class FakeCanvas implements Canvas {
  columns = 100;
  rows = 30;
  text = '';
  log: string[] = [];
  enter(): void {
    this.log.push('enter');
  }
  leave(): void {
    this.log.push('leave');
  }
  redraw(): void {
    this.log.push('redraw');
  }
  draw(lines: readonly Line[]): boolean {
    this.text = plainText(lines);
    return true;
  }
}

/** A gateway that answers, or does not. */
class FakeGateway {
  up = true;
  asked = 0;
  drains: unknown[] = [];
  closed = 0;
  drainFails: ChairError | undefined;
  readonly #source: Source = {
    status: async () => {
      if (!this.up) throw new ChairError('REQUEST_TIMEOUT', "no 'status' from the scheduler");
      return homeReport(this.asked++);
    },
    drain: async (agent, options) => {
      this.drains.push([agent, options.undo]);
      if (this.drainFails !== undefined) throw this.drainFails;
    },
    close: async () => {
      this.closed++;
    },
  };
  readonly connect = async (): Promise<Source> => {
    if (!this.up) throw new ChairError('BROKER_UNREACHABLE', 'nobody listens at mqtt://gateway:1883');
    return this.#source;
  };
}

const open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

function start(gateway = new FakeGateway()) {
  const canvas = new FakeCanvas();
  let skippedMs = 0;
  const session = new Session({
    ...{ canvas, glyphs: glyphsFor(true), where: 'mqtt://gateway:1883', everyMs: 20, connect: gateway.connect },
    nowMs: () => performance.now() + skippedMs,
    clock: () => '12:00:00',
    suspend: () => canvas.log.push('suspend'),
  });
  const ended = session.run();
  open.push(async () => {
    session.stop();
    await ended;
  });
  const skip = (ms: number): void => {
    skippedMs += ms;
  };
  return { gateway, canvas, session, ended, skip };
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 15_000; performance.now() < end; ) {
    if (holds()) return;
    await delay(5);
  }
  throw new Error(`never: ${what}`);
}

describe('the running dashboard', () => {
  it('shows what the gateway answers, again and again, and ends with q', async () => {
    const { canvas, session, ended, gateway } = start();
    await until('agents', () => canvas.text.includes('6 agents: 6 ready'));
    await until('rates of several looks', () => /frames|12\.0/.test(canvas.text) && gateway.asked > 3);
    session.key('q');
    await ended;
    expect(canvas.log).toEqual(['enter', 'leave']);
    expect(gateway.closed).toBe(1);
  });

  it('says that the gateway is gone, and since when; and goes on when it is back', async () => {
    const { canvas, session, gateway, skip } = start();
    await until('agents', () => canvas.text.includes('6 agents'));
    gateway.up = false;
    const asked = gateway.asked;
    skip(14_000);
    session.draw();
    expect(canvas.text).toMatch(/the gateway has not answered for 14 s; below is how it was/);
    expect(canvas.text).toContain('pi-3');
    await until('why', () => canvas.text.includes('REQUEST_TIMEOUT'));
    gateway.up = true;
    await until('it is back', () => gateway.asked > asked && canvas.text.includes('● live'));
    expect(canvas.text).not.toContain('has not answered');
  });

  it('waits for a gateway that is not there yet, and says where it looks', async () => {
    const gateway = new FakeGateway();
    gateway.up = false;
    const { canvas } = start(gateway);
    await until('it says so', () => canvas.text.includes('no answer yet from mqtt://gateway:1883'));
    await until('why', () => canvas.text.includes('BROKER_UNREACHABLE'));
    gateway.up = true;
    await until('agents', () => canvas.text.includes('6 agents: 6 ready'));
  });

  it('ends with an error that asking again does not mend', async () => {
    const gateway = new FakeGateway();
    const connect = async (): Promise<Source> => {
      throw new ChairError('CREDENTIALS_MISSING', 'this user has no certificate of the cluster');
    };
    const { canvas, ended } = start(Object.assign(gateway, { connect }));
    await expect(ended).rejects.toMatchObject({ code: 'CREDENTIALS_MISSING' });
    expect(canvas.log).toEqual(['enter', 'leave']);
    open.splice(0);
  });

  it('drains only after y, and shows what came of it', async () => {
    const { canvas, session, gateway } = start();
    await until('agents', () => canvas.text.includes('6 agents'));
    session.key('d');
    expect(canvas.text).toContain('Drain pi-1?');
    session.key('n');
    expect(gateway.drains).toEqual([]);
    session.key('d');
    session.key('y');
    await until('done', () => canvas.text.includes('pi-1 holds no seats any more'));
    expect(gateway.drains).toEqual([['pi-1', false]]);
    gateway.drainFails = new ChairError('REQUEST_TIMEOUT', 'agent pi-1 still holds seats\u001b[2J after 60 s');
    session.key('d');
    session.key('y');
    await until('refused', () => canvas.text.includes('REQUEST_TIMEOUT: agent pi-1 still holds seats?[2J'));
  });

  it('holds still while it is paused', async () => {
    const { canvas, session, gateway } = start();
    await until('rates', () => gateway.asked > 3 && canvas.text.includes('12.0'));
    session.key('p');
    const asked = gateway.asked;
    const before = canvas.text;
    await until('asked on', () => gateway.asked > asked + 3);
    expect(canvas.text.replace(/\d+ s ago/g, '')).toBe(before.replace(/\d+ s ago/g, ''));
    expect(canvas.text).toContain('PAUSED');
    session.key('p');
    await until('it goes on', () => !canvas.text.includes('PAUSED'));
  });

  it('gives the terminal back while it is suspended', async () => {
    const { canvas, session } = start();
    await until('agents', () => canvas.text.includes('6 agents'));
    session.key('ctrl-z');
    expect(canvas.log).toEqual(['enter', 'leave', 'suspend', 'enter']);
  });
});
