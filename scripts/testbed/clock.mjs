/**
 * Imported into a process of the testbed before anything else (`--import`): lets its date jump when its parent says so, as a board's does that learns it late. What
 * jumps is `Date`, which is all that our code and its libraries ask; timers and `performance.now()` go on, as they do on a real machine. (The date of one process
 * alone is nothing that Linux can change: time namespaces have the monotonic clocks only.)
 */
import { isMainThread } from 'node:worker_threads';

const RealDate = globalThis.Date;
let shiftMs = 0;

class ShiftedDate extends RealDate {
  constructor(...args) {
    if (args.length === 0) super(RealDate.now() + shiftMs);
    else super(...args);
  }

  static now() {
    return RealDate.now() + shiftMs;
  }
}

if (isMainThread && process.channel !== undefined && process.channel !== null) {
  globalThis.Date = ShiftedDate;
  // As in lifetime.ts: `Child.ask('clock')`. A listener alone must not keep a process alive.
  process.on('message', (message) => {
    if (message?.ask !== 'clock') return;
    shiftMs = Number(message.argument);
    process.send?.({ answered: message.id, value: Date.now() });
  });
  process.channel.unref();
}
