/**
 * A resource that jobs wait for: a CPU, one direction of a link, a radio channel. Work is in ms at speed 1.
 *
 *   fifo   one job after the other
 *   fair   all at once, each at an equal part of the speed (as a scheduler of threads or TCP divide theirs)
 *
 * Jobs are urgent or not: while an urgent one is there the others pause, as a short task that wakes up takes a core from a long one.
 */
import { type Clock, Heap } from './events.js';

export type Discipline = 'fifo' | 'fair';

interface Job {
  readonly order: number;
  readonly owner: number;
  readonly done: () => void;
  readonly started: (() => void) | undefined;
  readonly work: number;
  /** Of fair classes: the virtual time at which it is done. */
  readonly endsAt: number;
}

/** One of two priorities. `virtual` is the work that each of its running jobs has had since the start. */
interface Rank {
  readonly jobs: Heap<Job>;
  readonly waiting: Job[];
  next: number;
  virtual: number;
}

export class Server {
  readonly #clock: Clock;
  readonly #discipline: Discipline;
  readonly #urgent: Rank = newRank();
  readonly #usual: Rank = newRank();
  #speed = 1;
  #sinceMs = 0;
  #busyMs = 0;
  #orders = 0;
  /** Events that were scheduled before the latest change are void. */
  #version = 0;

  /** `changed`: it has something to do now, or has nothing any more. It may set the speed. */
  constructor(
    clock: Clock,
    discipline: Discipline,
    private readonly changed?: () => void,
  ) {
    this.#clock = clock;
    this.#discipline = discipline;
  }

  get busy(): boolean {
    return this.#active() !== undefined;
  }

  /** How long it had something to do so far. */
  get busyMs(): number {
    const active = this.#active();
    return this.#busyMs + (active === undefined ? 0 : this.#clock.nowMs - this.#sinceMs);
  }

  /** `owner`: whose jobs `drop` takes away. `started` is called when the job gets its first work. */
  add(owner: number, work: number, done: () => void, started?: () => void, urgent = false): void {
    this.#settle();
    const idle = !this.busy;
    const rank = urgent ? this.#urgent : this.#usual;
    const job = { order: this.#orders++, owner, done, started, work, endsAt: rank.virtual + work };
    if (this.#discipline === 'fifo' && rank.jobs.size > 0) rank.waiting.push(job);
    else {
      rank.jobs.push(job);
      started?.();
    }
    this.#schedule();
    if (idle) this.changed?.();
  }

  /** Jobs at work are as far as they are, and go on at the new speed; 0 = they wait. */
  setSpeed(speed: number): void {
    this.#settle();
    this.#speed = speed;
    this.#schedule();
  }

  /** Its jobs are gone, unfinished; their `done` is never called. */
  drop(owner: number): void {
    this.#settle();
    for (const rank of [this.#urgent, this.#usual]) {
      rank.jobs.remove((job) => job.owner === owner);
      const waiting = rank.waiting.splice(rank.next).filter((job) => job.owner !== owner);
      rank.waiting.length = 0;
      rank.next = 0;
      rank.waiting.push(...waiting);
      if (rank.jobs.size === 0) this.#admit(rank);
    }
    this.#schedule();
    if (!this.busy) this.changed?.();
  }

  #active(): Rank | undefined {
    if (this.#urgent.jobs.size > 0) return this.#urgent;
    return this.#usual.jobs.size > 0 ? this.#usual : undefined;
  }

  /** Books the time since the last change. */
  #settle(): void {
    const now = this.#clock.nowMs;
    const active = this.#active();
    if (active !== undefined) {
      active.virtual += ((now - this.#sinceMs) * this.#speed) / active.jobs.size;
      this.#busyMs += now - this.#sinceMs;
    }
    this.#sinceMs = now;
  }

  #schedule(): void {
    const version = ++this.#version;
    const active = this.#active();
    const job = active?.jobs.peek();
    if (active === undefined || job === undefined || this.#speed <= 0) return;
    const ms = (Math.max(0, job.endsAt - active.virtual) * active.jobs.size) / this.#speed;
    this.#clock.after(ms, () => {
      if (version === this.#version) this.#finish(active);
    });
  }

  #finish(rank: Rank): void {
    this.#settle();
    const job = rank.jobs.pop();
    if (job === undefined) return;
    // Exactly, so that rounding does not add up over thousands of jobs.
    rank.virtual = job.endsAt;
    if (rank.jobs.size === 0) {
      rank.virtual = 0;
      this.#admit(rank);
    }
    this.#schedule();
    if (!this.busy) this.changed?.();
    job.done();
  }

  #admit(rank: Rank): void {
    const job = rank.waiting[rank.next++];
    if (job === undefined) {
      rank.waiting.length = 0;
      rank.next = 0;
      return;
    }
    if (rank.next > 1024) {
      rank.waiting.splice(0, rank.next);
      rank.next = 0;
    }
    rank.jobs.push({ ...job, endsAt: rank.virtual + job.work });
    job.started?.();
  }
}

function newRank(): Rank {
  return { jobs: new Heap<Job>((job) => job.endsAt), waiting: [], next: 0, virtual: 0 };
}
