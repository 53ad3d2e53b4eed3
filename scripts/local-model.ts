/** Files that a command reads itself: models, for planning and simulations without a gateway; plans and lists of devices. */
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, type ErrorCode } from '../broker/errors.js';
import type { DeployRequest } from '../broker/messages.js';
import type { Model } from '../models/model.js';
import type { ModelFacts } from '../scheduler/planners/problem.js';
import { withWorkbench } from './commands/verify.js';
import { parseShapes } from './deploy-options.js';

/** A file, or a name of the zoo, which needs none: shapes and sizes are enough to plan. Throws MODEL_... */
export async function localModel(
  text: string,
  { shapes, images }: Pick<DeployRequest, 'shapes' | 'images'>,
): Promise<{ readonly model: Model; readonly facts: ModelFacts }> {
  const { factsOf } = await import('../scheduler/model-library.js');
  const { ZOO, drawZoo } = await import('../models/zoo/index.js');
  if (!existsSync(text) && ZOO.some((name) => name === text)) {
    const { structureOf } = await import('../models/zoo/structure.js');
    const model = structureOf(drawZoo(text));
    return { model, facts: factsOf(model) };
  }
  if (!existsSync(text) && !/[./\\]/.test(text))
    throw new ChairError('MODEL_NOT_FOUND', `there is no file ${text}, and no network of that name`, {
      expected: `an ONNX file, or one of ${ZOO.join(', ')}`,
      came: text,
    });
  const { loadModel } = await import('../models/onnx/load.js');
  const model = await withWorkbench((engine, workDirectory) =>
    loadModel(path.resolve(text), { shapes: parseShapes(shapes), images, workDirectory, engine }),
  );
  return { model, facts: factsOf(model) };
}

/** `tooLong`: the code for a file that is too long to be what it should be; nothing of it is read. Throws FILE_NOT_FOUND and that. */
export async function localText(file: string, what: string, maxBytes: number, tooLong: ErrorCode): Promise<string> {
  const missing = (came: string, cause?: unknown) =>
    new ChairError('FILE_NOT_FOUND', `${what} cannot be read`, { expected: 'the path of a file', came, cause });
  const found = await stat(file).catch((cause: unknown) => {
    throw missing(`${file}, which is not there`, cause);
  });
  // A pipe is what a shell makes of <(...).
  if (!found.isFile() && !found.isFIFO()) throw missing(`${file}, which is no file`);
  if (found.size > maxBytes)
    throw new ChairError(tooLong, `${what} is too long`, { expected: `at most ${maxBytes} bytes`, came: `${found.size}` });
  return readFile(file, 'utf8').catch((cause: unknown) => {
    throw missing(file, cause);
  });
}
