/**
 * The agent's part in an update of its own program: fetches the bundle that the gateway has ordered, lays it ready for root, and leaves; `launch` unpacks it before the
 * next start, which is then on trial. What is on trial and is not confirmed by the gateway in time gives itself up, and the program of before comes back.
 *
 *   <directory>/update/bundle.tgz, order.json   what root is to take up
 *   <directory>/update/confirmed, rejected      how the trial of the bundle named therein went
 */
import { existsSync } from 'node:fs';
import { link, mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../broker/errors.js';
import type { Update } from '../broker/messages.js';
import { writeWhole } from '../broker/sealed-file.js';
import { checkOrder } from '../broker/update-order.js';
import type { BlobFetcher } from './fetch.js';
import type { BlobStore } from './store.js';

/** Where the program was installed from a bundle. */
export interface Installation {
  /** /opt/musical-chair */
  readonly prefix: string;
  /** Of the bundle that runs. */
  readonly name: string;
}

/** Whose word counts, and what time it is by the gateway's clock. */
export interface Authority {
  readonly ca: string;
  readonly nowMs: number;
}

export interface UpdaterOptions {
  readonly agent: string;
  /** Of the agent's state. */
  readonly directory: string;
  readonly installation: Installation | undefined;
  /** Undefined: a cluster without trust, in which nobody can sign. */
  readonly authority: () => Authority | undefined;
  readonly store: Pick<BlobStore, 'has' | 'makeRoom' | 'path' | 'pin' | 'unpin' | 'remove'>;
  readonly fetcher: Pick<BlobFetcher, 'fetch'>;
  /** The trial is over, and nobody has confirmed it. */
  readonly onRejected: (error: ChairError) => void;
  readonly log: (line: string) => void;
  /** How long a new program is on trial; default 180,000. */
  readonly trialMs?: number;
}

const TRIAL_MS = 180_000;

export class Updater {
  private timer: NodeJS.Timeout | undefined;
  private onTrial = false;
  private taking: { readonly name: string; readonly done: Promise<number> } | undefined;

  constructor(private readonly options: UpdaterOptions) {}

  /** From now on the gateway has to confirm a program that is on trial. */
  start(): void {
    const { installation, trialMs = TRIAL_MS } = this.options;
    if (installation === undefined || !existsSync(path.join(installation.prefix, 'trial'))) return;
    this.options.log(`${installation.name} is on trial: the gateway has ${trialMs / 1000} s to confirm it`);
    this.onTrial = true;
    this.timer = setTimeout(() => void this.reject(installation.name), trialMs);
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  /**
   * Fetches the bundle and lays it ready; afterwards the agent has to leave. Gives the bytes fetched. The same update asked for again is the same. Throws
   * UPDATE_REFUSED, BUNDLE_WRONG_ARCH, CERTIFICATE_FOREIGN, CERTIFICATE_EXPIRED, AGENT_STORE_FULL, BLOB_..., REQUEST_TIMEOUT.
   */
  async take(update: Update, deadlineMs: number): Promise<number> {
    if (this.taking?.name === update.name) return this.taking.done;
    if (this.taking !== undefined) {
      throw new ChairError('UPDATE_REFUSED', `agent ${this.options.agent} takes another update already`, { came: update.name });
    }
    const done = this.fetch(update, deadlineMs);
    this.taking = { name: update.name, done };
    done.catch(() => {
      this.taking = undefined;
    });
    return done;
  }

  /** The gateway has seen that the program on trial is well. */
  async confirm(name: string): Promise<void> {
    const { installation, log } = this.options;
    if (installation?.name !== name) {
      throw new ChairError('UPDATE_REFUSED', 'another program is to be confirmed than the one that runs', {
        expected: installation?.name ?? 'nothing: it was not installed from a bundle',
        came: name,
      });
    }
    clearTimeout(this.timer);
    this.onTrial = false;
    await this.write('confirmed', `${name}\n`);
    log(`${name} is confirmed`);
  }

  private async fetch(update: Update, deadlineMs: number): Promise<number> {
    const { agent, installation, authority, store, fetcher, log } = this.options;
    if (installation === undefined) {
      throw new ChairError('UPDATE_REFUSED', `agent ${agent} was not installed from a bundle`, {
        todo: 'Update it the way it was installed.',
      });
    }
    if (this.onTrial) {
      throw new ChairError('UPDATE_REFUSED', `agent ${agent} has a program on trial`, {
        expected: 'the gateway to confirm it first',
        todo: 'Wait for it.',
      });
    }
    const known = authority();
    if (known === undefined) {
      throw new ChairError('UPDATE_REFUSED', `agent ${agent} runs without certificates: nobody can sign an update for it`, {
        todo: 'Install the bundle with install.sh, or let the agent join with a token.',
      });
    }
    checkOrder(update, { ca: known.ca, agent, arch: process.arch, nowMs: known.nowMs });
    const { sha256, sizeBytes, name } = update;
    log(`update to ${name}: fetching ${(sizeBytes / 1e6).toFixed(1)} MB`);
    const ref = { sha256, sizeBytes };
    let fetched = 0;
    store.pin(sha256);
    try {
      if (!(await store.has(ref))) {
        await store.makeRoom(sizeBytes);
        const signal = AbortSignal.timeout(deadlineMs);
        await fetcher.fetch(ref, {
          signal,
          onBytes: (bytes) => {
            fetched += bytes;
          },
        });
      }
      await this.layReady(update, store.path(sha256));
      await store.remove(sha256);
    } finally {
      store.unpin(sha256);
    }
    log(`update to ${name}: ready; handing over what is held here`);
    return fetched;
  }

  /** The order last: without it nothing is taken up. */
  private async layReady(update: Update, blob: string): Promise<void> {
    const folder = this.folder();
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const name of ['order.json', 'bundle.tgz', 'rejected']) await rm(path.join(folder, name), { force: true });
    await link(blob, path.join(folder, 'bundle.tgz'));
    await this.write('order.json', `${JSON.stringify(update)}\n`);
  }

  private async reject(name: string): Promise<void> {
    await this.write('rejected', `${name}\n`).catch((error: unknown) => this.options.log(String(error)));
    this.options.onRejected(
      new ChairError('UPDATE_FAILED', `no gateway confirmed ${name}`, {
        todo: 'The program of before is started again; see the log of this one.',
      }),
    );
  }

  private async write(name: string, text: string): Promise<void> {
    await mkdir(this.folder(), { recursive: true, mode: 0o700 });
    await writeWhole(path.join(this.folder(), name), text, { full: 'AGENT_STORE_FULL', mode: 0o600 });
  }

  private folder(): string {
    return path.join(this.options.directory, 'update');
  }
}
