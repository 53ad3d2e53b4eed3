/**
 * Changes the program of one agent at a time: the order goes to it, signed; it fetches the bundle, hands its seats over and leaves; it comes back with the new program,
 * is looked at for a while, and confirmed. What does not come back well is not confirmed, and gives itself up on its own: nothing rests on this process.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../broker/errors.js';
import type { UpdateRequest } from '../broker/messages.js';
import type { UpdateFacts, UpdateOrder } from '../broker/update-order.js';
import type { Commands } from './commands.js';
import type { AgentRecord, Registry } from './registry.js';

export interface UpdatingOptions {
  readonly registry: Pick<Registry, 'get' | 'serves'>;
  readonly commands: Pick<Commands, 'send'>;
  readonly term: () => number;
  /** With the gateway's key; undefined: it has none. */
  readonly sign: ((facts: UpdateFacts) => UpdateOrder) | undefined;
  /** The bundle, which a client has sent, is served to agents until it is let go. Throws MODEL_NOT_FOUND. */
  readonly lend: (sha256: string) => Promise<() => void>;
  readonly log: (kind: string, text: string) => void;
  /** Monotonic. */
  readonly now: () => number;
  /** Since 1970. */
  readonly wallMs?: () => number;
  readonly pause?: (ms: number) => Promise<unknown>;
}

/** Fetching a bundle over the slowest link. */
const TAKE_MS = 20 * 60_000;
/** Draining, unpacking onto a card, starting; three times when it has to go back. */
const RETURN_MS = 15 * 60_000;
/** It must be well for so long before it is believed. */
const WELL_MS = 5_000;
const CONFIRM_MS = 20_000;
const LOOK_MS = 200;
/** What an agent that runs from a bundle says as its version. */
const BUNDLE_NAME = /^[0-9A-Za-z.+-]{1,64}-[0-9a-f]{16}$/;

export class Updating {
  #busy = '';
  /** Orders given since the start. */
  #orders = 0;
  #stopped = false;

  constructor(private readonly options: UpdatingOptions) {}

  /** Requests that wait end with STOPPED. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * Resolves when the agent runs the bundle and was confirmed; at once, with false, when it runs it already. Throws AGENT_UNKNOWN, UPDATE_REFUSED, BUNDLE_WRONG_ARCH,
   * MODEL_NOT_FOUND (the bundle was not sent here), UPDATE_FAILED (it runs the former one again), REQUEST_TIMEOUT, and what the agent refuses it with.
   */
  async update(request: UpdateRequest): Promise<boolean> {
    const { agent, name } = request;
    const record = this.#checked(request);
    if (record.hello.softwareVersion === name) return false;
    if (this.#busy !== '') {
      throw new ChairError('UPDATE_REFUSED', `agent ${this.#busy} is being updated`, {
        expected: 'one agent at a time',
        todo: 'Wait for it.',
      });
    }
    this.#busy = agent;
    try {
      this.options.log('update', `agent ${agent}: from ${record.hello.softwareVersion} to ${name}`);
      await this.#order(record, request);
      const back = await this.#returned(record, name);
      await this.#well(back);
      await this.options.commands.send(agent, back.nonce, this.options.term(), { kind: 'confirm', confirm: { name } }, CONFIRM_MS);
      this.options.log('updated', `agent ${agent} runs ${name}`);
      return true;
    } catch (error) {
      this.options.log('update failed', `agent ${agent}: ${error instanceof Error ? error.message : String(error)}`);
      throw error;
    } finally {
      this.#busy = '';
    }
  }

  #checked({ agent, name, arch }: UpdateRequest): AgentRecord {
    const { registry, sign } = this.options;
    const record = registry.get(agent);
    if (record === undefined || !registry.serves(agent, record.nonce)) {
      throw new ChairError('AGENT_UNKNOWN', `agent ${agent} is not here`, {
        came: record === undefined ? 'nobody of that name' : `one that is ${record.state}`,
      });
    }
    if (sign === undefined) {
      throw new ChairError('UPDATE_REFUSED', 'this gateway runs without certificates: it cannot sign updates', {
        todo: 'Use install.sh on each machine.',
      });
    }
    if (!BUNDLE_NAME.test(name)) throw new ChairError('UPDATE_REFUSED', 'a bundle is not called so', { came: name.slice(0, 100) });
    const { softwareVersion, arch: its } = record.hello;
    if (!BUNDLE_NAME.test(softwareVersion)) {
      throw new ChairError('UPDATE_REFUSED', `agent ${agent} was not installed from a bundle`, {
        came: softwareVersion,
        todo: 'Update it the way it was installed.',
      });
    }
    if (its !== arch) throw new ChairError('BUNDLE_WRONG_ARCH', `the bundle is not for agent ${agent}`, { expected: its, came: arch });
    return record;
  }

  async #order({ agent, nonce }: AgentRecord, { name, arch, sha256, sizeBytes }: UpdateRequest): Promise<void> {
    const { sign, lend, commands, term, wallMs = Date.now } = this.options;
    const update = sign?.({ agent, name, arch, sha256, sizeBytes, issuedMs: wallMs(), term: term(), number: ++this.#orders });
    if (update === undefined) return;
    const giveBack = await lend(sha256);
    try {
      await commands.send(agent, nonce, term(), { kind: 'update', update }, TAKE_MS);
    } finally {
      giveBack();
    }
  }

  /** The process that comes after the one that left, once it is ready. */
  async #returned({ agent, nonce }: AgentRecord, name: string): Promise<AgentRecord> {
    const { registry, now } = this.options;
    const untilMs = now() + RETURN_MS;
    for (;;) {
      const found = registry.get(agent);
      if (found !== undefined && found.nonce !== nonce && found.state === 'ready') {
        if (found.hello.softwareVersion === name) return found;
        throw new ChairError('UPDATE_FAILED', `agent ${agent} came back with its former program`, {
          expected: name,
          came: found.hello.softwareVersion,
          todo: `On it: journalctl -u musical-chair-agent, and /opt/musical-chair/last-update.`,
        });
      }
      if (now() > untilMs) throw new ChairError('UPDATE_FAILED', `agent ${agent} did not come back within ${RETURN_MS / 60_000} minutes`);
      await this.#pause();
    }
  }

  async #well({ agent, nonce }: AgentRecord): Promise<void> {
    const { registry, now } = this.options;
    const untilMs = now() + WELL_MS;
    while (now() < untilMs) {
      const found = registry.get(agent);
      if (found?.nonce !== nonce || !registry.serves(agent, nonce) || found.state === 'suspect') {
        throw new ChairError('UPDATE_FAILED', `agent ${agent} came back with the new program, but did not stay`, {
          came: found === undefined ? 'nothing' : `${found.state}${found.why === '' ? '' : `: ${found.why}`}`,
          todo: 'It goes back to its former program by itself.',
        });
      }
      await this.#pause();
    }
  }

  async #pause(): Promise<void> {
    const { pause = (ms: number) => delay(ms) } = this.options;
    await pause(LOOK_MS);
    if (this.#stopped) throw new ChairError('STOPPED', 'the gateway was stopped while an agent was updated');
  }
}
