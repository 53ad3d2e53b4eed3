/**
 * Looks after the connections of one process on which something waits: drops what is not wanted any more, and looks a few times a second how fast the rest is
 * acknowledged. Costs nothing while nothing waits.
 */
import type { KernelQueues } from './kernel-queues.js';
import type { LaneSocket } from './lane-socket.js';

/**
 * At least so much between two looks at connections, and where one was just seen to carry what waits: what a slow link has carried between two looks counts as nothing,
 * so farther apart small messages are not seen on it.
 */
const LOOK_MS = 250;
const CLOSE_LOOK_MS = 100;

export class LaneWatch {
  readonly #lanes = new Set<LaneSocket>();
  readonly #read: () => Promise<KernelQueues>;
  #timer: NodeJS.Timeout | undefined;
  #pauseMs = LOOK_MS;

  constructor(read: () => Promise<KernelQueues>) {
    this.#read = read;
  }

  /** Something waits on this connection. */
  add(lane: LaneSocket): void {
    this.#lanes.add(lane);
    this.#again();
  }

  /** See `Lanes`. */
  purge(): void {
    for (const lane of this.#lanes) lane.purge();
  }

  stop(): void {
    this.#lanes.clear();
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #again(): void {
    this.#timer ??= setTimeout(() => void this.#look(), this.#pauseMs).unref();
  }

  async #look(): Promise<void> {
    const watched = [...this.#lanes];
    const nowMs = performance.now();
    // Where everything is answered at once there is nothing to see.
    const queues = watched.some((lane) => lane.waits(nowMs)) ? await this.#read().catch(() => undefined) : undefined;
    let carries = false;
    for (const lane of watched) {
      lane.purge();
      const unacknowledged = queues?.(lane.socket);
      carries ||= unacknowledged !== undefined && unacknowledged > 0;
      lane.look(unacknowledged, performance.now(), this.#pauseMs);
      if (lane.isIdle) this.#lanes.delete(lane);
    }
    this.#pauseMs = carries ? CLOSE_LOOK_MS : LOOK_MS;
    if (this.#timer === undefined) return;
    this.#timer = undefined;
    if (this.#lanes.size > 0) this.#again();
  }
}
