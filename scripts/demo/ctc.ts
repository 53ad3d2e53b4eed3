/** Greedy decoding of a CTC output (Graves et al. 2006): the best class per step, repeats merged, blanks dropped. */

/** Class 0 is the blank, class i the dictionary's line i, and one more class at the end the space. */
export function readDictionary(text: string): string[] {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === '') lines.pop();
  return ['', ...lines, ' '];
}

export interface Reading {
  readonly text: string;
  /** Mean probability of the characters, 0 when there are none. */
  readonly confidence: number;
}

/** `probabilities` is `[steps, classes]`, row-major. Classes beyond the dictionary read as nothing. */
export function decodeCtc(probabilities: Float32Array, classes: number, dictionary: readonly string[]): Reading {
  let text = '';
  let sum = 0;
  let characters = 0;
  let last = 0;
  for (let step = 0; step + classes <= probabilities.length; step += classes) {
    let best = 0;
    for (let c = 1; c < classes; c++) {
      if ((probabilities[step + c] ?? 0) > (probabilities[step + best] ?? 0)) best = c;
    }
    if (best !== 0 && best !== last) {
      text += dictionary[best] ?? '';
      sum += probabilities[step + best] ?? 0;
      characters++;
    }
    last = best;
  }
  return { text, confidence: characters === 0 ? 0 : sum / characters };
}
