import { describe, expect, it } from 'vitest';
import { encodeActivation } from '../broker/activation.js';
import { BufferPool } from '../broker/buffers.js';
import type { ActivationHeader } from '../broker/messages.js';
import { Refusals } from '../broker/refusals.js';
import { Repetition } from '../broker/repetition.js';
import { holdFor, Memory } from '../broker/segments.js';
import { EarlyBuffer } from './early.js';
import type { Epoch, EpochKey, Epochs } from './epochs.js';
import { Inbox } from './inbox.js';
import { FrameBudget, JoinTable } from './join.js';
import { SeatTable } from './seats.js';
import { rowsBox, toyPlan } from './test-world.js';

const PIECE = 8192;
const WHOLE = rowsBox(0, 8);

/** Agent `b` holds stage 1 of a plan, its epoch 2; a message comes as a lane reads it, into a piece of memory of the pool. */
function agent(budgetBytes = 1e6) {
  const plan = toyPlan('d', 2, [
    { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['a']] },
    { parts: [{ reads: [0, 8], writes: [0, 8] }], agents: [['b']] },
  ]);
  const seats = new SeatTable('b', plan.prepare);
  const buffers = new BufferPool(1e6);
  const joins = new JoinTable(seats, new FrameBudget(budgetBytes), () => 0, buffers);
  const epoch: Epoch = {
    ...{ term: 1, deployment: 'd', epoch: 2, seats, joins, committed: true, released: false },
    stats: [],
    sessions: new Map(),
  };
  const codes: string[] = [];
  const clock = { nowMs: 0 };
  const inbox = new Inbox({
    epochs: {
      find: (key: EpochKey) => (key.epoch === 2 ? epoch : undefined),
      isStale: ({ epoch: n }: EpochKey) => n < 2,
    } as unknown as Epochs,
    ...{ buffers, early: new EarlyBuffer(PIECE, 10), nowMs: () => clock.nowMs, onReady: () => undefined, onUnwanted: () => undefined },
    onTrouble: (_key, _frame, error) => codes.push((error as { code: string }).code),
    ...{ repetition: new Repetition(() => undefined), refusals: new Refusals() },
  });
  /** Takes what is in the pool first, so that what comes back is seen. */
  const receive = (header: Partial<ActivationHeader>, from = 'a', cutBytes = 0): void => {
    const wire = seats.wires.findIndex(({ wire: { toStage } }) => toStage === 1);
    const usual = { deployment: 'd', term: 1, epoch: 2, frame: 1, attempt: 1, route: [0, 0], wire, lowWater: 0, remainingMs: 1000 };
    const shape = { dtype: 'float32', dims: [8, 4], encoding: 'raw', scale: 1, zero: 0 } as const;
    const message = Buffer.concat(encodeActivation({ ...usual, ...shape, ...header }, new Uint8Array(128), WHOLE, WHOLE));
    const memory = new Memory(buffers.take(PIECE), buffers);
    memory.bytes.set(message);
    const payload = [memory.bytes.subarray(0, message.length - cutBytes)];
    memory.look();
    memory.close();
    holdFor(payload, [memory]);
    inbox.activation({ topic: 't', payload, payloadBytes: message.length, from, relayed: false });
  };
  return { inbox, receive, buffers, codes, clock };
}

describe('the memory that a message was read into', () => {
  it.each<[string, (to: ReturnType<typeof agent>) => void]>([
    ['came a second time', ({ receive }) => [receive({}), receive({})]],
    ['is of a frame that is finished', ({ receive }) => [receive({ frame: 9, lowWater: 5 }), receive({ frame: 2 })]],
    ['is of an epoch that is over', ({ receive }) => receive({ epoch: 1 })],
    ['comes from somebody else', ({ receive }) => receive({}, 'c')],
    ['claims what no frame can be', ({ receive }) => receive({ frame: 1, lowWater: 5 })],
    ['cannot be read', ({ receive }) => receive({}, 'a', 1)],
    ['finds no room among waiting frames', ({ receive }) => [receive({}), receive({ frame: 2 })]],
    [
      'waited for an epoch that was not prepared',
      ({ receive, inbox, clock }) => {
        receive({ epoch: 3 });
        clock.nowMs += 10;
        inbox.expireEarly();
      },
    ],
    [
      'is early, when no more can wait',
      ({ receive, inbox, clock }) => {
        for (let i = 0; i < PIECE / 128; i++) receive({ epoch: 3 });
        clock.nowMs += 10;
        inbox.expireEarly();
      },
    ],
  ])('goes back when it %s', (_what, happen) => {
    const to = agent(128);
    happen(to);
    // Of what waits at the same time, each has its own; nothing else was made, and all of it is there again.
    const { made } = to.buffers;
    for (let i = 0; i < 5; i++) happen(to);
    expect(to.buffers.made).toBe(made);
    expect(to.buffers.idleBytes).toBeGreaterThanOrEqual(PIECE);
  });
});
