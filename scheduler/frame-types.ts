/** What goes into the frame state machine (frames.ts) and what comes out of it: plain data. */
import type { ErrorCode } from '../broker/errors.js';
import type { Network, Route } from './router.js';

export interface FrameLimits {
  /** Frames that may wait for admission, and the bytes of their inputs. */
  readonly queueFrames: number;
  readonly queueBytes: number;
  /** For frames that name none, ms. */
  readonly deadlineMs: number;
  /** Shortest time after which an attempt is given up, ms; longer when frames take longer. */
  readonly attemptFloorMs: number;
  /** How long to wait before trying a route again that just failed, ms. */
  readonly pauseMs: number;
  /** Results kept until the client acknowledges them. */
  readonly keptResults: number;
  readonly keptBytes: number;
  readonly keptMs: number;
}

/** Nobody waits longer for a frame, whatever he says: one without an end would keep its place for ever. */
export const MOST_DEADLINE_MS = 86_400_000;

export const FRAME_LIMITS: FrameLimits = {
  queueFrames: 256,
  queueBytes: 256 * 2 ** 20,
  deadlineMs: 30_000,
  attemptFloorMs: 5000,
  pauseMs: 1200,
  keptResults: 1024,
  keptBytes: 256 * 2 ** 20,
  keptMs: 120_000,
};

/** At most this often a frame is issued; the header's `attempt` is 1 to 3. */
export const ATTEMPTS = 3;

export interface FrameError {
  readonly code: ErrorCode;
  readonly message: string;
}

/** A plan in force, as the frames see it. */
export interface InForce extends Network {
  /** Attempts in flight at once. */
  readonly budget: number;
  /** Predicted latency, ms. */
  readonly expectedMs: number;
  /** Agents whose seats are not ready yet: no route through them until `agentBack`. */
  readonly absent?: Iterable<string>;
}

export interface Answer<Output> {
  readonly kind: 'answer';
  /** Number of the frame; 0 when it was never admitted. */
  readonly frame: number;
  readonly client: string;
  readonly sequence: number;
  readonly attempts: number;
  readonly latencyMs: number;
  readonly output?: Output;
  readonly error?: FrameError;
}

export interface Issue<Input> {
  readonly kind: 'issue';
  readonly frame: number;
  readonly attempt: number;
  readonly epoch: number;
  readonly route: Route;
  readonly remainingMs: number;
  readonly input: Input;
  /** Agents on the route that are gone: their parts are done without. */
  readonly without: ReadonlySet<string>;
}

export interface CancelAttempt {
  readonly kind: 'cancel';
  readonly frame: number;
  readonly attempt: number;
  readonly epoch: number;
  readonly agents: readonly string[];
}

export type FrameEffect<Input, Output> = Answer<Output> | Issue<Input> | CancelAttempt;

export interface Submission<Input> {
  readonly client: string;
  readonly sequence: number;
  readonly input: Input;
  readonly bytes: number;
  /** 0 = the deployment's default. */
  readonly deadlineMs: number;
}

export interface AttemptTrouble {
  readonly frame: number;
  readonly attempt: number;
  /** Who reported it, and the peer it could not reach ('' = its own run failed). */
  readonly agent: string;
  readonly peer: string;
  readonly code: string;
  readonly message: string;
}
