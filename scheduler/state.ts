/**
 * Deployments on disk: one sealed file each, so that a gateway that was killed and started again goes on where it was. What is written is the plan in force and
 * what its seats were compared with; the model is read again from where the deploy request found it.
 */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ChairError, toChairError } from '../broker/errors.js';
import type { DeployRequest, PlanReport } from '../broker/messages.js';
import type { Plan } from '../broker/plan.js';
import { flushDirectory, putAside, readSealed, removeLeftovers, writeSealed } from '../broker/sealed-file.js';
import { NAME_PATTERN } from '../broker/topics.js';
import { DEPLOY_DEFAULTS } from './deploy-defaults.js';
import type { Deployment } from './deployment.js';
import type { SeatEstimate } from './planners/estimate.js';
import type { PlanDraft } from './planners/problem.js';
import type { Problems } from './problems.js';

/** Of the file's form: grows when a plan of before cannot be used any more; a file of another one is put aside. */
const FORMAT = 1;
/** A file that could not be written is tried again this often. */
const AGAIN_MS = 5000;
const SUFFIX = '.json';

export interface SavedDeployment {
  readonly format: number;
  readonly request: DeployRequest;
  readonly verified: boolean;
  readonly maxRelDiff: number;
  /** The plan was made for what a loss had left. */
  readonly afterLoss: boolean;
  readonly plan: Plan;
  readonly draft: PlanDraft;
  readonly report: PlanReport;
  readonly alone: readonly SeatEstimate[];
  readonly bases: readonly (readonly [string, string])[];
  readonly nonces: readonly (readonly [string, string])[];
}

export interface DeploymentFilesOptions {
  readonly directory: string;
  readonly problems: Problems;
  readonly log?: (line: string) => void;
  readonly againMs?: number;
}

export class DeploymentFiles {
  readonly #o: DeploymentFilesOptions;
  /** What is still to be written: a text, or null = the file goes. */
  readonly #wanted = new Map<string, string | null>();
  #writing: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: DeploymentFilesOptions) {
    this.#o = options;
  }

  /** What was saved last. Files that cannot be used are put aside, and stay a problem that is shown. Throws what the file system says of the folder. */
  async load(): Promise<SavedDeployment[]> {
    const { directory, problems, log } = this.#o;
    await mkdir(directory, { recursive: true });
    const found: SavedDeployment[] = [];
    await removeLeftovers(directory);
    for (const file of (await readdir(directory)).sort()) {
      const path = join(directory, file);
      if (!file.endsWith(SUFFIX)) continue;
      try {
        found.push(parsed(file.slice(0, -SUFFIX.length), (await readSealed(path)) ?? ''));
      } catch (thrown) {
        await putAside(path);
        const text = `deployment '${file.slice(0, -SUFFIX.length)}' was not restored, deploy it again: ${toChairError(thrown).message}`;
        problems.set(`restore ${file}`, text);
        log?.(text);
      }
    }
    return found;
  }

  /** Resolves when it is on the disk, or was tried and is tried again until it is: until then it stays a problem that is shown. */
  save(deployment: Deployment): Promise<void> {
    const saved = savedOf(deployment);
    return saved === undefined ? Promise.resolve() : this.#want(deployment.name, textOf(saved));
  }

  /** As `save`: the deployment is not to come back. */
  remove(name: string): Promise<void> {
    return this.#want(name, null);
  }

  /** What could not be written so far is tried once more. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#flush();
  }

  #want(name: string, text: string | null): Promise<void> {
    this.#wanted.set(name, text);
    return this.#flush();
  }

  #flush(): Promise<void> {
    this.#writing = this.#writing.then(async () => {
      for (const [name, text] of [...this.#wanted]) await this.#write(name, text);
      clearTimeout(this.#timer);
      if (this.#wanted.size > 0 && !this.#stopped) this.#timer = setTimeout(() => void this.#flush(), this.#o.againMs ?? AGAIN_MS).unref();
    });
    return this.#writing;
  }

  async #write(name: string, text: string | null): Promise<void> {
    const { directory, problems, log } = this.#o;
    const path = join(directory, `${name}${SUFFIX}`);
    const key = `save ${name}`;
    try {
      if (text === null) {
        await rm(path, { force: true });
        await flushDirectory(directory);
      } else await writeSealed(path, text, 'GATEWAY_STORE_FULL');
      if (this.#wanted.get(name) === text) this.#wanted.delete(name);
      problems.clear(key);
    } catch (thrown) {
      const would = text === null ? 'is still on disk and would come back' : 'is not saved and would not come back as it is';
      const problem = `deployment '${name}' ${would} after a restart: ${toChairError(thrown).message}`;
      if (problems.set(key, problem)) log?.(problem);
    }
  }
}

/** Undefined before the first plan is in force: until then whoever deploys waits for an answer, and asks again. */
function savedOf({ request, verified, maxRelDiff, afterLoss, serving }: Deployment): SavedDeployment | undefined {
  if (serving === undefined) return undefined;
  const { plan, draft, report, alone, bases, nonces } = serving;
  const { stages, wires, inputs, outputs } = draft.cut;
  // A cut may carry the whole model with it.
  const lean = { ...draft, cut: { stages, wires, inputs, outputs } };
  const maps = { bases: [...bases], nonces: [...nonces] };
  return { format: FORMAT, request, verified, maxRelDiff, afterLoss, plan, draft: lean, report, alone, ...maps };
}

/** JSON has no word for infinity. */
function textOf(saved: SavedDeployment): string {
  return JSON.stringify(saved, (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? { $number: `${value}` } : value,
  );
}

function parsed(name: string, text: string): SavedDeployment {
  const wrong = (expected: string, came: string): ChairError =>
    new ChairError('STATE_DAMAGED', 'not a saved deployment', { expected, came });
  let value: unknown;
  try {
    value = JSON.parse(text, (_, part: unknown) => (isRecord(part) && typeof part.$number === 'string' ? Number(part.$number) : part));
  } catch (cause) {
    throw new ChairError('STATE_DAMAGED', 'not a saved deployment', { expected: 'JSON', came: text.slice(0, 40), cause });
  }
  if (!isRecord(value) || value.format !== FORMAT) {
    throw wrong(`format ${FORMAT}`, isRecord(value) ? `format ${String(value.format).slice(0, 20)}, of another version` : 'none');
  }
  // It is sealed, so it is what this version wrote; what it says of itself must be what its name says.
  const saved = value as unknown as SavedDeployment;
  const names = [saved.request?.name, saved.plan?.deployment];
  if (!NAME_PATTERN.test(name) || names.some((one) => one !== name)) throw wrong(`deployment '${name}'`, names.join(' and '));
  return { ...saved, request: { ...DEPLOY_DEFAULTS, ...saved.request } };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
