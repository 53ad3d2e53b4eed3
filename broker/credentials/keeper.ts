/**
 * Keeps the credentials of a process good for as long as it runs: knows the gateway's time, renews at two thirds of their life, and again and again until it has
 * worked. What there is stays in use meanwhile: an expired certificate can still be renewed.
 */
import { X509Certificate } from 'node:crypto';
import { isChairError, toChairError } from '../errors.js';
import { Listeners } from '../listeners.js';
import { type Credentials, readCredentials, sameIdentity } from './credentials.js';
import { renew, takeTime } from './enrolment.js';
import type { EnrolmentAddress, EnrolmentLimits } from './enrolment-client.js';
import type { GatewayClock } from './gateway-clock.js';
import { isDue, LIFETIME_MS } from './lifetime.js';
import type { CredentialSource } from './source.js';
import { validityOf } from './verify.js';

export interface KeeperOptions {
  readonly directory: string;
  readonly credentials: Credentials;
  readonly clock: GatewayClock;
  /** Where the gateway may be, likeliest first; asked each time, and no further than needed. */
  readonly gateways: () => Iterable<EnrolmentAddress> | AsyncIterable<EnrolmentAddress>;
  readonly random?: () => number;
  readonly log?: (line: string) => void;
  /** Of certificates, as the gateway signs them; for tests. */
  readonly lifetimeMs?: number;
  /** How often it is looked whether renewal is due; default an hour. Clocks jump, so no timer is set for a day three weeks ahead. */
  readonly everyMs?: number;
  readonly limits?: Pick<EnrolmentLimits, 'deadlineMs'>;
}

const EVERY_MS = 3_600_000;
/** A clock that is only counted on drifts by seconds a day, and that of the gateway may have been set. */
const TIME_MS = 86_400_000;
const FIRST_RETRY_MS = 60_000;

export class CredentialKeeper implements CredentialSource {
  readonly #o: KeeperOptions;
  readonly #random: () => number;
  readonly #stopped = new AbortController();
  readonly #changes = new Listeners<[]>((error) => this.#o.log?.(`after a renewal: ${toChairError(error).message}`));
  #current: Credentials;
  /** For the life of one certificate. */
  #jitter: number;
  #failures = 0;
  #said = '';
  /** When the gateway was asked for the time, on the monotonic clock. */
  #askedMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(options: KeeperOptions) {
    this.#o = options;
    this.#random = options.random ?? Math.random;
    this.#current = options.credentials;
    this.#jitter = this.#random();
  }

  get directory(): string {
    return this.#o.directory;
  }

  get current(): Credentials {
    return this.#current;
  }

  nowMs(): number {
    return this.#o.clock.nowMs();
  }

  onChange(listener: () => void): () => void {
    return this.#changes.add(listener);
  }

  /** Looks whether renewal is due now, and from then on by itself. */
  start(): void {
    this.#plan(0);
  }

  /** Idempotent; leaves no timer and no socket. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    clearTimeout(this.#timer);
    await this.#looking;
  }

  /** Never throws: what went wrong is said, and tried again later. */
  look(): Promise<void> {
    // Many connections may find at once that the time is wrong.
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const isNew = await this.#reread();
    let failure: unknown;
    try {
      for await (const gateway of this.#o.gateways()) {
        try {
          await this.#lookAt(gateway);
          return this.#went();
        } catch (error) {
          failure = error;
          // Elsewhere there may be another gateway, but none that thinks otherwise.
          if (isChairError(error, 'CERTIFICATE_REVOKED')) break;
        }
      }
    } catch (error) {
      failure ??= error;
    }
    if (isNew) this.#went();
    else this.#failed(failure);
  }

  async #lookAt(gateway: EnrolmentAddress): Promise<void> {
    const { directory, clock, log } = this.#o;
    const limits = { ...this.#o.limits, signal: this.#stopped.signal };
    const { identity, ca } = this.#current;
    await takeTime(gateway, { ca, cluster: identity.cluster }, clock, limits);
    this.#askedMs = performance.now();
    if (!this.isDue()) return;
    const made = await renew(this.#current, { directory, gateway, clock, limits });
    if (this.#stopped.signal.aborted) return;
    log?.(`certificate renewed: good until ${new Date(made.notAfterMs).toISOString()}`);
    this.#take(made);
  }

  /** Another process may have renewed them: a command of the same person, or the gateway of this machine for its operator. */
  async #reread(): Promise<boolean> {
    const found = await readCredentials(this.#o.directory).catch(() => undefined);
    const { identity, serial, notAfterMs } = this.#current;
    if (found === undefined || found.serial === serial || found.notAfterMs < notAfterMs || !sameIdentity(found.identity, identity))
      return false;
    this.#take(found);
    return !this.isDue();
  }

  #take(made: Credentials): void {
    this.#current = made;
    this.#jitter = this.#random();
    this.#changes.emit();
  }

  /** By the gateway's time, as far as it is known. */
  isDue(): boolean {
    const [notBeforeMs, notAfterMs] = validityOf(new X509Certificate(this.#current.certificate));
    return isDue({ notBeforeMs, notAfterMs }, this.nowMs(), this.#jitter, this.#o.lifetimeMs ?? LIFETIME_MS);
  }

  #went(): void {
    this.#failures = 0;
    this.#said = '';
  }

  #failed(failure: unknown): void {
    if (this.#stopped.signal.aborted) return;
    this.#failures++;
    // That there is no gateway to ask for the time is said elsewhere.
    if (!this.isDue()) return;
    const said = failure === undefined ? 'no gateway is known to renew the certificate at' : toChairError(failure).message;
    if (said !== this.#said)
      this.#o.log?.(`certificate not renewed, good until ${new Date(this.#current.notAfterMs).toISOString()}: ${said}`);
    this.#said = said;
  }

  #plan(waitMs: number): void {
    if (this.#stopped.signal.aborted) return;
    this.#timer = setTimeout(() => void this.#tick(), waitMs).unref();
  }

  /** At its start, and once a day: by a clock that is weeks behind, a certificate that is over would seem good. Else only when something is due. */
  async #tick(): Promise<void> {
    await this.#reread();
    if (this.isDue() || performance.now() - this.#askedMs > TIME_MS) await this.look();
    const { everyMs = EVERY_MS } = this.#o;
    const retryMs = this.#failures === 0 ? everyMs : Math.min(everyMs, FIRST_RETRY_MS * 2 ** Math.min(this.#failures - 1, 10));
    this.#plan(retryMs * (0.5 + this.#random() / 2));
  }
}
