/** Starts the measuring process (profiling-process.ts), takes its one answer, and sees that it is gone afterwards, whatever happened. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ChairError, type ErrorCode, isChairError } from '../broker/errors.js';
import type { Measure, Measurement, MeasureOptions } from './profiling.js';

export interface MeasureRequest extends MeasureOptions {
  readonly file: string;
}

export type MeasureAnswer =
  | { readonly ok: true; readonly measurement: Measurement }
  | { readonly ok: false; readonly code: string; readonly message: string };

/** TypeScript in a checkout (tsx must be registered in the child), JavaScript when compiled. */
function processFile(): string {
  const source = import.meta.url.endsWith('.ts');
  return fileURLToPath(new URL(source ? './profiling-source.mjs' : './profiling-process.js', import.meta.url));
}

/** Throws ENGINE_..., AGENT_OUT_OF_MEMORY when the system killed the process, PROFILE_FAILED when it died otherwise. */
export const measureInChild: Measure = (file, options, signal) => {
  signal.throwIfAborted();
  // Own stderr is not shown: the engine's complaints come back as errors. No inherited flags: they are meant for this process.
  const child = fork(processFile(), [], { execArgv: [], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
  const kill = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  const request: MeasureRequest = { ...options, file };
  return answerOf(child, request, signal).finally(() => {
    signal.removeEventListener('abort', kill);
    kill();
  });
};

function answerOf(child: ChildProcess, request: MeasureRequest, signal: AbortSignal): Promise<Measurement> {
  return new Promise((resolve, reject) => {
    let answer: MeasureAnswer | undefined;
    child.on('message', (message: MeasureAnswer) => {
      answer = message;
    });
    child.once('error', (cause) =>
      reject(new ChairError('PROFILE_FAILED', `the measuring process could not be started: ${cause.message}`, { cause })),
    );
    // Only when it is gone is its memory free again.
    child.once('close', (code, killedBy) => {
      if (answer?.ok === true) resolve(answer.measurement);
      else if (answer !== undefined) reject(new ChairError(codeOf(answer.code), answer.message));
      else if (signal.aborted) reject(signal.reason);
      else reject(died(code, killedBy));
    });
    child.send(request, () => undefined);
  });
}

function died(code: number | null, killedBy: NodeJS.Signals | null): ChairError {
  if (killedBy === 'SIGKILL' || killedBy === 'SIGABRT' || code === 134) {
    return new ChairError('AGENT_OUT_OF_MEMORY', 'the measuring process was killed while it loaded or ran the slice', {
      came: killedBy ?? `status ${code}`,
      todo: 'Most likely the slice needs more memory than the device has: cut it into more parts',
    });
  }
  return new ChairError('PROFILE_FAILED', 'the measuring process died', { came: killedBy ?? `status ${code}` });
}

function codeOf(code: string): ErrorCode {
  return isChairError(Object.assign(new Error(), { code })) ? (code as ErrorCode) : 'PROFILE_FAILED';
}
