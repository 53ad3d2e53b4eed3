/**
 * The gateway's CA: invites (tokens), signs, renews, revokes, and writes down who did what. Everything that changes its state goes through one queue, so that two who
 * come at once come one after the other, and is on the disk before anybody is told of it:
 *
 * - A token is bound to a key before that key is signed, and a signature is recorded before it leaves. Power that fails in between leaves a token that the same key
 *   may use again, and never two keys with one token.
 * - A name that joins anew is void up to that moment before its token is bound: there is never a second machine with the name.
 *
 * Long, because all of it goes through that one queue, in orders that matter; tokens, certificates, files and the audit log are files of their own.
 */
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { ChairError, toChairError } from '../errors.js';
import { Listeners } from '../listeners.js';
import { removeLeftovers } from '../sealed-file.js';
import { type AuditEntry, AuditLog, type AuditRow, printable } from './audit.js';
import { type ClockState, clockState, clockWords, isoTime } from './authority-clock.js';
import { AuthorityFiles, type CertificateAuthority } from './authority-files.js';
import { type Credentials, type Identity, identityOf, identityText, type Role } from './credentials.js';
import { canJoin, checkInvitation, type Invitation, nobody } from './invitations.js';
import { type Ledger, NONE, type RevokedRecord, SERIAL_RANDOM_BYTES, TAG_BYTES } from './ledger.js';
import { BACKDATE_MS, LIFETIME_MS } from './lifetime.js';
import { type Member, membersOf } from './members.js';
import { OwnCredentials } from './own-credentials.js';
import type { CredentialSource } from './source.js';
import { type TokenBook, type TokenRecord, unknownToken } from './token-book.js';
import { formatToken, parseToken, TOKEN_ID_BYTES, TOKEN_SECRET_BYTES } from './token-text.js';
import { fingerprintOf, validityOf, verifyPeer } from './verify.js';

export interface AuthorityOptions {
  /** `<state>/credentials` */
  readonly directory: string;
  readonly cluster: string;
  /** Host names and addresses of this machine, for the gateway's certificate. */
  readonly hosts?: readonly string[];
  /** ms since 1970. */
  readonly nowMs?: () => number;
  readonly random?: (bytes: number) => Buffer;
  readonly lifetimeMs?: number;
  readonly log?: (line: string) => void;
}

export interface JoinRequest {
  readonly token: string;
  /** PKCS#10, PEM. */
  readonly csr: string;
  /** Whom the machine takes itself for; '' = whom the token is for. */
  readonly name: string;
  readonly role: Role | '';
}

/** What a joining machine gets: its certificate, or the word that it has to wait. */
export type JoinAnswer =
  | { readonly kind: 'signed'; readonly certificate: string; readonly ca: string }
  | { readonly kind: 'held'; readonly name: string; readonly key: string };

const LOOK_MS = 60_000;
const WHY_CHARACTERS = 200;

export class Authority {
  readonly #o: AuthorityOptions;
  readonly #files: AuthorityFiles;
  readonly #ca: CertificateAuthority;
  readonly #ledger: Ledger;
  readonly #own: { readonly gateway: OwnCredentials; readonly operator: OwnCredentials };
  readonly #changes = new Listeners<[]>(() => undefined);
  readonly #revocations = new Listeners<[Identity]>(() => undefined);
  readonly audit: AuditLog;
  /** For the gateway's own connections. */
  readonly source: CredentialSource;
  #book: TokenBook;
  /** Tokens that were over when it was last looked. */
  #over = new Set<string>();
  #isLearning = false;
  #clock: ClockState = 'right';
  #turn: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  /**
   * Opens the authority of a state folder, or makes it. Throws CREDENTIALS_DAMAGED, CREDENTIALS_WRONG (another cluster's), STATE_DAMAGED, GATEWAY_STORE_FULL.
   */
  static async open(options: AuthorityOptions): Promise<Authority> {
    const { directory } = options;
    for (const folder of [directory, join(directory, 'gateway'), join(directory, 'operator')]) await removeLeftovers(folder);
    const files = new AuthorityFiles(directory, (line) => options.log?.(line));
    const ca = await files.authority(options.cluster);
    const authority = new Authority(options, files, ca, await files.ledger({ opens: true }), await files.tokens());
    if (ca.isNew)
      await authority.audit.write({ event: 'authority made', detail: `cluster ${options.cluster}, CA ${authority.fingerprint}` });
    authority.#checkClock();
    await authority.#mend();
    authority.#timer = setInterval(() => void authority.look(), LOOK_MS).unref();
    return authority;
  }

  private constructor(options: AuthorityOptions, files: AuthorityFiles, ca: CertificateAuthority, ledger: Ledger, book: TokenBook) {
    this.#o = options;
    this.#files = files;
    this.#ca = ca;
    this.#ledger = ledger;
    // What a revocation could not write, or came with a later state that was taken over.
    this.#book = book.revokedWhere((token) => isPast(token, ledger.revocation(token)), this.#now());
    const { directory, nowMs, log, cluster } = options;
    this.audit = new AuditLog({ directory, ...(nowMs === undefined ? {} : { nowMs }), ...(log === undefined ? {} : { log }) });
    const own = (role: Role): OwnCredentials =>
      new OwnCredentials({
        directory: join(directory, role),
        identity: { cluster, role, name: role },
        ca: ca.certificate,
        nowMs: () => this.#now(),
        lifetimeMs: this.#lifetimeMs,
        isRevoked: (identity, serial) => this.isRevoked(identity, serial),
        sign: async (identity, key) => {
          const { publicKeyOf } = await import('./certificates.js');
          return this.#sign(identity, publicKeyOf(key), 'this gateway');
        },
      });
    this.#own = { gateway: own('gateway'), operator: own('operator') };
    const gateway = this.#own.gateway;
    this.source = {
      get current(): Credentials {
        if (gateway.current === undefined) throw new ChairError('INTERNAL', 'an authority is used before it is open');
        return gateway.current;
      },
      nowMs: () => this.#now(),
      look: () => this.#mend().catch((error: unknown) => log?.(`own certificates cannot be renewed: ${toChairError(error).message}`)),
      onChange: (listener) => this.#changes.add(listener),
    };
  }

  /** What is due: own certificates, and tokens that are over. Done each minute by itself. Never throws. */
  async look(): Promise<void> {
    this.#checkClock();
    await this.source.look();
    await this.#endTokens().catch((error: unknown) => this.#o.log?.(`tokens that are over: ${toChairError(error).message}`));
  }

  /** Idempotent. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#turn;
    await this.audit.stop();
  }

  get cluster(): string {
    return this.#o.cluster;
  }

  /** The CA's certificate, PEM. */
  get ca(): string {
    return this.#ca.certificate;
  }

  /** sha256 of the CA's certificate, hex: what a token carries. */
  get fingerprint(): string {
    return fingerprintOf(new X509Certificate(this.#ca.certificate));
  }

  /** Where the credentials for commands on this machine are. */
  get operatorDirectory(): string {
    return join(this.#o.directory, 'operator');
  }

  isRevoked(identity: Identity, serial: string): boolean {
    return this.#ledger.isRevoked(identity, serial);
  }

  /** Called for everybody whose certificates are void from now on: whoever is connected with one is to be cut off. Returns the unsubscriber. */
  onRevoked(listener: (identity: Identity) => void): () => void {
    return this.#revocations.add(listener);
  }

  /**
   * For the transport: somebody showed this certificate, and it is good. After a restore nothing is known of those who joined since the backup: so they are in the list
   * again, can be revoked by it, and their names are taken. Never throws.
   */
  seen({ role, name }: Identity, certificate: X509Certificate): void {
    if (!this.#remember({ role, name }, certificate, 'seen here, not remembered')) return;
    // Whoever had the name before may still be connected.
    const isAnew = this.#ledger.learnMark({ role, name, serial: certificate.serialNumber });
    if (isAnew) this.#revocations.emit({ cluster: this.#o.cluster, role, name });
    this.#o.log?.(`${identityText({ role, name })} has a good certificate that is not remembered here, as after a restore: it is now`);
    this.#checkClock();
    if (this.#isLearning) return;
    // A whole fleet may come back at once.
    this.#isLearning = true;
    const kept = this.#inTurn(async () => {
      this.#isLearning = false;
      await this.#files.saveRevoked(this.#ledger);
      await this.#files.saveIssued(this.#ledger);
    });
    kept.catch((error: unknown) => this.#o.log?.(`who was seen cannot be kept: ${toChairError(error).message}`));
  }

  /** For the transport: somebody was turned away. */
  refused(error: ChairError, peer: Identity | undefined, address: string): void {
    void this.audit.write({
      event: 'refused',
      about: peer === undefined ? '' : identityText(peer),
      from: address,
      code: error.code,
      detail: error.message,
    });
  }

  // ---- tokens ------------------------------------------------------------------------------------------------------------

  /** The token's text, which is nowhere else. Throws AGENT_NAME_INVALID, IDENTITY_TAKEN, USAGE (the time), QUEUE_FULL, GATEWAY_STORE_FULL. */
  createToken(invitation: Invitation, by: string): Promise<{ readonly text: string; readonly record: TokenRecord }> {
    return this.#inTurn(async () => {
      const nowMs = this.#now();
      checkInvitation(invitation, this.#ledger, nowMs);
      const { name, role, ttlMs, hold = false } = invitation;
      const [id, secret] = [this.#random(TOKEN_ID_BYTES).toString('hex'), this.#random(TOKEN_SECRET_BYTES).toString('hex')];
      const tag = this.#ledger.revocation(invitation)?.tag ?? NONE;
      const times = { createdMs: nowMs, sinceMs: nowMs, expiresMs: nowMs + ttlMs };
      const record: TokenRecord = {
        id,
        secretSha256: digest(secret),
        role,
        name,
        hold,
        state: 'open',
        key: '',
        failures: 0,
        ...times,
        tag,
      };
      await this.#keep(this.#book.created(record, nowMs));
      await this.audit.write({
        event: 'token created',
        by,
        about: identityText(record),
        detail: `${id} until ${isoTime(record.expiresMs)}${hold ? ', held' : ''}`,
      });
      return { text: formatToken({ fingerprint: this.fingerprint, cluster: this.#o.cluster, id, secret, role, name }), record };
    });
  }

  /** Without their secrets, which are not known here. */
  tokens(): TokenRecord[] {
    return this.#book.all();
  }

  /** Whether there is, or was not long ago, a token with this id. */
  hasToken(id: string): boolean {
    return this.#book.get(id) !== undefined;
  }

  /** `id`: as far as it is needed. Throws TOKEN_REFUSED when it is not one. */
  revokeToken(id: string, by: string): Promise<TokenRecord> {
    return this.#inTurn(async () => {
      const [record, book] = this.#book.revoked(id, this.#now());
      await this.#keep(book);
      await this.audit.write({ event: 'token revoked', by, about: identityText(record), detail: record.id });
      return record;
    });
  }

  // ---- joining -----------------------------------------------------------------------------------------------------------

  /** Throws TOKEN_..., JOIN_REFUSED (no proper request), GATEWAY_STORE_FULL: then nobody was let in. */
  join(request: JoinRequest, from: string): Promise<JoinAnswer> {
    return this.#inTurn(async () => {
      try {
        return await this.#join(request, from);
      } catch (thrown) {
        const { code, message } = toChairError(thrown);
        await this.audit.write({ event: 'refused', from, code, about: this.#meant(request), detail: message });
        throw thrown;
      }
    });
  }

  async #join({ token, csr, name, role }: JoinRequest, from: string): Promise<JoinAnswer> {
    const { id, secret } = parseToken(token);
    const shown = { id, secretSha256: digest(secret), name, role, key: '' };
    let publicKey: Buffer = Buffer.alloc(0);
    // What a stranger sends is not even parsed.
    if (this.#book.knows(id, shown.secretSha256)) {
      const { keyFingerprint, openRequest } = await import('./certificates.js');
      publicKey = await openRequest(csr);
      shown.key = keyFingerprint(publicKey);
    }
    const [verdict, book] = this.#book.presented(shown, this.#now());
    if (verdict.kind === 'refused') {
      this.#book = book;
      if (verdict.ended) await this.#files.saveTokens(book);
      if (verdict.locked) {
        await this.audit.write({
          event: 'token locked',
          from,
          about: verdict.record === undefined ? '' : identityText(verdict.record),
          detail: id,
        });
      }
      throw verdict.error;
    }
    const { record, first } = verdict;
    const judge = (): void => this.#judgeToken(id);
    judge();
    const identity: Identity = { cluster: this.#o.cluster, role: record.role, name: record.name };
    if (verdict.kind === 'held') {
      if (first) await this.#keep(book);
      if (first) await this.audit.write({ event: 'held', about: identityText(identity), from, detail: `key ${record.key}, token ${id}` });
      return { kind: 'held', name: record.name, key: record.key };
    }
    if (first) await this.#admit(identity, book, record);
    const certificate = await this.#sign(identity, publicKey, `token ${id}`, judge);
    const detail = `key ${shown.key}, token ${id}${first ? '' : ', again with the same key'}`;
    await this.audit.write({ event: 'joined', about: identityText(identity), from, detail });
    return { kind: 'signed', certificate, ca: this.#ca.certificate };
  }

  /** Whoever had the name before is out, in whatever role, whether he is remembered or not; and only then the token is taken. */
  async #admit(identity: Identity, book: TokenBook, record: TokenRecord): Promise<void> {
    const nowMs = this.#now();
    const { tag } = this.#void(identity, 'joined anew', false);
    await this.#files.saveRevoked(this.#ledger);
    await this.#keep(book.admitted(record, tag, nowMs));
  }

  /** Throws TOKEN_REFUSED: what says that the token ended with its name may have been lost. */
  #judgeToken(id: string): void {
    const known = this.#book.get(id);
    if (known !== undefined && isPast(known, this.#ledger.revocation(known))) throw unknownToken();
  }

  /** Whom a refused request was about: whose the token is, where its secret was right; else whom it says itself. */
  #meant({ token, name }: JoinRequest): string {
    try {
      const { id, secret } = parseToken(token);
      const record = this.#book.knows(id, digest(secret)) ? this.#book.get(id) : undefined;
      return record === undefined ? name : identityText(record);
    } catch {
      return name;
    }
  }

  /**
   * A new certificate for whoever has shown `certificate`, in date or not, in a connection that proves it has its key; never for anybody else. Throws
   * CERTIFICATE_FOREIGN, CERTIFICATE_REVOKED, JOIN_REFUSED, GATEWAY_STORE_FULL.
   */
  renew(certificate: X509Certificate, csr: string, from: string): Promise<JoinAnswer> {
    return this.#inTurn(async () => {
      let about = '';
      try {
        const { cluster } = this.#o;
        const isRevoked = (identity: Identity, serial: string): boolean => this.isRevoked(identity, serial);
        const roles = ['agent', 'operator', 'viewer'] as const;
        const judge = (): Identity => verifyPeer(certificate, { ca: this.#ca.certificate, cluster, nowMs: undefined, roles, isRevoked });
        const identity = judge();
        about = identityText(identity);
        this.seen(identity, certificate);
        const { openRequest } = await import('./certificates.js');
        const signed = await this.#sign(identity, await openRequest(csr), 'renewal', judge);
        await this.audit.write({ event: 'renewed', about, from, detail: `serial ${new X509Certificate(signed).serialNumber}` });
        return { kind: 'signed', certificate: signed, ca: this.#ca.certificate };
      } catch (thrown) {
        const { code, message } = toChairError(thrown);
        await this.audit.write({ event: 'refused', about: about === '' ? claimed(certificate) : about, from, code, detail: message });
        throw thrown;
      }
    });
  }

  // ---- who is in ---------------------------------------------------------------------------------------------------------

  /** Lets a held join go on. `key`: how the fingerprint of its key begins, as it was compared; '' = it was not. Throws IDENTITY_UNKNOWN. */
  approve(name: string, key: string, by: string): Promise<TokenRecord> {
    return this.#inTurn(async () => {
      const [record, book] = this.#book.approved(name, key.toLowerCase().replaceAll(':', ''), this.#now());
      await this.#admit({ cluster: this.#o.cluster, role: record.role, name }, book, record);
      await this.audit.write({ event: 'approved', by, about: identityText(record), detail: `key ${record.key}` });
      return record;
    });
  }

  /**
   * Ends every certificate and every invitation of this name, in every role, at once and for good. `unknown`: also when nothing is known of it here, as of who joined
   * after the backup that this gateway was restored from. Throws IDENTITY_UNKNOWN.
   */
  revoke(name: string, reason: string, by: string, { unknown = false } = {}): Promise<void> {
    // It is kept for ever, and shown in lists.
    const why = printable(reason).slice(0, WHY_CHARACTERS);
    return this.#inTurn(async () => {
      // Whoever has joined left a mark, which is there when the list of what was signed was lost.
      const member = this.members().find((known) => known.name === name) ?? this.#ledger.revocation({ name });
      if (member?.role === 'gateway' || (member === undefined && (!unknown || !canJoin(name)))) throw nobody(name, unknown);
      const role = member?.role ?? '';
      const about = role === '' ? name : identityText({ role, name });
      // Said first, as it counts at once: what it causes comes after it in the log.
      const said = this.audit.write({ event: 'revoked', by, about, detail: why });
      this.#void({ role, name }, why);
      this.#book = this.#book.nameRevoked(name, this.#now());
      try {
        // First: a name that is shown as revoked has no token left that its former key could come back with, wherever the power fails.
        await this.#files.saveTokens(this.#book);
      } finally {
        await this.#files.saveRevoked(this.#ledger);
      }
      await said;
      // Of this gateway's own operator: it was the key that was not to be used any more.
      if (name === 'operator') await this.#mendNow();
    });
  }

  /** Everybody who has joined or may, by name. */
  members(): Member[] {
    return membersOf(this.#ledger, this.#book, this.#now());
  }

  /** The latest entries of the audit log, oldest first. */
  history(count: number): Promise<AuditRow[]> {
    return this.audit.read(count);
  }

  /** For what others decide: deployments. Never throws. */
  note(entry: AuditEntry): void {
    void this.audit.write(entry);
  }

  // ---- inside ------------------------------------------------------------------------------------------------------------

  #now(): number {
    return (this.#o.nowMs ?? Date.now)();
  }

  get #lifetimeMs(): number {
    return this.#o.lifetimeMs ?? LIFETIME_MS;
  }

  #random(bytes: number): Buffer {
    return (this.#o.random ?? randomBytes)(bytes);
  }

  /** One after the other, whatever became of the one before. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work, work);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  /** True when nothing was known of this certificate. */
  #remember({ role, name }: Pick<Identity, 'role' | 'name'>, certificate: X509Certificate, by: string): boolean {
    const { serialNumber: serial } = certificate;
    if (!this.#ledger.isNews({ role, name, serial })) return false;
    const [fromMs, notAfterMs] = validityOf(certificate);
    const key = createHash('sha256')
      .update(certificate.publicKey.export({ type: 'spki', format: 'der' }))
      .digest('hex');
    this.#ledger.add({ serial, role, name, key, issuedMs: fromMs + BACKDATE_MS, notAfterMs, by });
    return true;
  }

  /** What is not on the disk has not happened. */
  async #keep(book: TokenBook): Promise<void> {
    await this.#files.saveTokens(book);
    this.#book = book;
  }

  /** Void at once, even when it cannot be written: then that is said, and it is void until this process ends. `isOut`: false = somebody else has the name from now on. */
  #void({ role: as, name }: { readonly role: Role | ''; readonly name: string }, why: string, isOut = true): RevokedRecord {
    const roles = new Set<Role>(this.#ledger.rolesOf(name));
    if (isOut) roles.add(as === '' ? 'agent' : as);
    const mark = this.#ledger.revoke({ role: as, name }, why, this.#now(), this.#random(TAG_BYTES).toString('hex'), isOut);
    // Whoever is here with that name, in whatever role, is cut off, and of an agent all others are told: nobody, when somebody joins whose name is new.
    for (const role of roles) this.#revocations.emit({ cluster: this.#o.cluster, role, name });
    return mark;
  }

  /** A token that is over stays so when the clock goes back. It has to be over twice, a minute apart: no token ends by a clock that was wrong for a moment. */
  async #endTokens(): Promise<void> {
    const over = this.#book.over(this.#now());
    const gone = over.filter((id) => this.#over.has(id));
    this.#over = new Set(over);
    if (gone.length > 0) await this.#inTurn(() => this.#keep(this.#book.expired(gone, this.#now())));
  }

  /** `judge` throws when it is not to be signed any more: who is seen in the meantime may have thrown somebody out, and the serial carries the tag of now. */
  async #sign(identity: Identity, publicKey: Buffer, by: string, judge: () => unknown = () => undefined): Promise<string> {
    const nowMs = this.#now();
    const { keyFingerprint, sign } = await import('./certificates.js');
    judge();
    const serial = this.#ledger.nextSerial(identity.name, nowMs, this.#random(SERIAL_RANDOM_BYTES).toString('hex'));
    const notAfterMs = nowMs + this.#lifetimeMs;
    const hosts = identity.role === 'gateway' && this.#o.hosts !== undefined ? { hosts: this.#o.hosts } : {};
    const { certificate: ca, key: caKey } = this.#ca;
    const made = await sign({
      ca,
      caKey,
      identity,
      publicKey,
      serial,
      notBeforeMs: Math.max(0, nowMs - BACKDATE_MS),
      notAfterMs,
      ...hosts,
    });
    const { role, name } = identity;
    this.#ledger.add({ serial, role, name, key: keyFingerprint(publicKey), issuedMs: nowMs, notAfterMs, by });
    await this.#files.saveIssued(this.#ledger);
    return made;
  }

  #mend(): Promise<void> {
    return this.#inTurn(() => this.#mendNow());
  }

  async #mendNow(): Promise<void> {
    const isNew = await this.#own.gateway.mend();
    await this.#own.operator.mend();
    // Of which nothing is known any more when the list of what was signed was lost.
    for (const { current } of [this.#own.gateway, this.#own.operator]) {
      if (current !== undefined) this.#remember(current.identity, new X509Certificate(current.certificate), 'this gateway');
    }
    if (isNew) this.#changes.emit();
  }

  #checkClock(): void {
    const [nowMs, { stamp }, before] = [this.#now(), this.#ledger, this.#clock];
    this.#clock = clockState(nowMs, stamp);
    if (this.#clock !== before && this.#clock !== 'right') this.#o.log?.(clockWords(this.#clock, nowMs, stamp));
  }
}

/** By the mark of its name: that was revoked since the token was made, or somebody else has joined since it was used. */
function isPast({ state, tag }: TokenRecord, mark: RevokedRecord | undefined): boolean {
  if (mark === undefined) return false;
  const isOther = tag !== undefined && tag !== mark.tag;
  return state === 'used' ? isOther || mark.isOut : isOther && mark.isOut;
}

/** Whom a certificate names that was not accepted; '' when nobody. */
function claimed(certificate: X509Certificate): string {
  try {
    return identityText(identityOf(certificate));
  } catch {
    return '';
  }
}

function digest(secret: string): string {
  return createHash('sha256').update(Buffer.from(secret, 'hex')).digest('hex');
}
