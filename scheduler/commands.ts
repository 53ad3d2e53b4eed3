/** Commands to agents and their replies: request/response with id and deadline. */
import { randomUUID } from 'node:crypto';
import type { Bus } from '../broker/bus.js';
import { ChairError, isErrorCode, toChairError } from '../broker/errors.js';
import type { Command, CommandBody, Reply } from '../broker/messages.js';
import { NO_SEAL } from '../broker/seal.js';
import { NAME_PATTERN, type Topics } from '../broker/topics.js';
import { type Wait, Waitress } from '../broker/waitress.js';

/** How a command that takes long is taken back. */
export interface GiveUp {
  readonly signal: AbortSignal;
  readonly body: (id: string) => CommandBody;
}

export class Commands {
  readonly #bus: Bus;
  readonly #topics: Topics;
  readonly #scheduler: string;
  readonly #onStale: () => void;
  readonly #seal: (agent: string, command: Command) => Command;
  readonly #waitress = new Waitress<Reply>();
  /** What each process is asked: to give up on when it is lost, and to ask again when it was cut off. */
  readonly #asked = new Map<string, Set<{ readonly wait: Wait<Reply>; readonly command: Command }>>();

  /** Who was asked, by the id of the command. */
  readonly #agents = new Map<string, string>();

  /**
   * `scheduler`: which one this is, see Command.scheduler. `onStale`: an agent says that another one has reigned since. `seal` signs a command to an agent; without it they
   * go out unsigned.
   */
  constructor(
    bus: Bus,
    topics: Topics,
    scheduler: string,
    onStale: () => void = () => undefined,
    seal: (agent: string, command: Command) => Command = (_agent, command) => command,
  ) {
    this.#seal = seal;
    this.#bus = bus;
    this.#topics = topics;
    this.#scheduler = scheduler;
    this.#onStale = onStale;
  }

  /**
   * Resolves when the agent did it. Rejects with the agent's own code, REQUEST_TIMEOUT, AGENT_UNKNOWN when it is lost meanwhile, STOPPED; with the reason of `giveUp`'s
   * signal, which the agent is told by the command that `giveUp` makes of the id of this one.
   */
  async send(agent: string, nonce: string, term: number, body: CommandBody, deadlineMs: number, giveUp?: GiveUp): Promise<Reply> {
    giveUp?.signal.throwIfAborted();
    const id = randomUUID();
    const wait = this.#waitress.wait(id, deadlineMs, `'${body.kind}' from agent ${agent}`);
    const key = processKey(agent, nonce);
    const asked = this.#asked.get(key) ?? new Set();
    const command = this.#seal(agent, { id, term, scheduler: this.#scheduler, nonce, deadlineMs, body, seal: NO_SEAL });
    const entry = { wait, command };
    this.#asked.set(key, asked.add(entry));
    this.#agents.set(id, agent);
    const onGivenUp = (): void => {
      if (giveUp === undefined) return;
      wait.cancel(toChairError(giveUp.signal.reason));
      // Without a connection nobody can be told: the agent ends by the deadline.
      this.tell(agent, nonce, term, giveUp.body(id)).catch(() => undefined);
    };
    giveUp?.signal.addEventListener('abort', onGivenUp, { once: true });
    try {
      await this.#bus.publish(this.#topics.command(agent), command);
      const reply = await wait.reply;
      if (reply.code === '') return reply;
      throw new ChairError(isErrorCode(reply.code) ? reply.code : 'INTERNAL', reply.message);
    } finally {
      giveUp?.signal.removeEventListener('abort', onGivenUp);
      wait.cancel(new ChairError('STOPPED', 'the request is over'));
      asked.delete(entry);
      this.#agents.delete(id);
      if (asked.size === 0) this.#asked.delete(key);
    }
  }

  /** Without waiting for a reply: for a process that is not (or not any more) one of ours. */
  async tell(agent: string, nonce: string, term: number, body: CommandBody): Promise<void> {
    // A name that is no name is no topic either: nobody can be told.
    if (!NAME_PATTERN.test(agent)) return;
    const command = this.#seal(agent, { id: randomUUID(), term, scheduler: this.#scheduler, nonce, deadlineMs: 0, body, seal: NO_SEAL });
    await this.#bus.publish(this.#topics.command(agent), command);
  }

  /** False when it is not who was asked that answers: then it counts for nothing. */
  settle(reply: Reply): boolean {
    const asked = this.#agents.get(reply.id);
    if (asked !== undefined && asked !== reply.agent) return false;
    if (reply.code === 'TERM_STALE') this.#onStale();
    this.#waitress.settle(reply.id, reply);
    return true;
  }

  /**
   * The process has (re)connected: a command, or its reply, may have been lost with its connection or with ours. Sessions at the broker are clean,
   * so what comes while one side is away is gone; every command may come twice.
   */
  again(agent: string, nonce: string): void {
    for (const { command } of this.#asked.get(processKey(agent, nonce)) ?? []) {
      this.#bus.publish(this.#topics.command(agent), command).catch(() => {
        // Cut off again: the next hello brings us here again.
      });
    }
  }

  lost(agent: string, nonce: string, why: string): void {
    for (const { wait } of this.#asked.get(processKey(agent, nonce)) ?? []) {
      wait.cancel(new ChairError('AGENT_UNKNOWN', `agent ${agent} is gone: ${why}`));
    }
  }

  stop(): void {
    this.#waitress.cancelAll(new ChairError('STOPPED', 'the scheduler was stopped'));
  }
}

function processKey(agent: string, nonce: string): string {
  return `${agent} ${nonce}`;
}
