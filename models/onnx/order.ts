/** Topological order of the nodes that the outputs need; the others are dead and left out. */
import { ChairError } from '../../broker/errors.js';
import type { ModelNode } from '../model.js';

/** Everything a node reads: inputs and names captured by its subgraphs. */
export function namesRead(node: ModelNode): string[] {
  return [...node.inputs.filter((name) => name !== ''), ...node.captured];
}

/**
 * Keeps the file's order as far as it is valid. A node that reads no activation (only `given` names, such as weights) stands right
 * before its first reader, so that its output is not alive across half the graph.
 * Throws MODEL_UNREADABLE when a name is read that nothing produces, or nodes depend on each other in a circle.
 */
export function sortNodes(
  nodes: readonly ModelNode[],
  given: ReadonlySet<string>,
  weights: ReadonlySet<string>,
  outputs: readonly string[],
): ModelNode[] {
  const producer = new Map<string, number>();
  for (const [index, node] of nodes.entries()) for (const name of node.outputs) if (name !== '') producer.set(name, index);
  const needed = new Set<number>();
  const pending = outputs.filter((name) => !given.has(name) && !weights.has(name));
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    const index = producer.get(name);
    const node = index === undefined ? undefined : nodes[index];
    if (index === undefined || node === undefined) throw unproduced(name);
    if (needed.has(index)) continue;
    needed.add(index);
    pending.push(...namesRead(node).filter((read) => !given.has(read) && !weights.has(read)));
  }
  const sorted: ModelNode[] = [];
  const state = new Map<number, 'open' | 'done'>();
  const place = (start: number): void => {
    // An explicit stack: graphs are thousands of nodes deep.
    const stack = [start];
    for (let index = stack.at(-1); index !== undefined; index = stack.at(-1)) {
      const node = nodes[index];
      if (node === undefined || state.get(index) === 'done') {
        stack.pop();
        continue;
      }
      const before = namesRead(node).flatMap((name) => {
        const at = given.has(name) || weights.has(name) ? undefined : producer.get(name);
        return at === undefined || state.get(at) === 'done' ? [] : [at];
      });
      if (before.length === 0) {
        state.set(index, 'done');
        sorted.push(node);
        stack.pop();
        continue;
      }
      if (before.some((at) => state.get(at) === 'open')) {
        throw new ChairError('MODEL_UNREADABLE', `node ${node.name || node.op} depends on its own output`);
      }
      state.set(index, 'open');
      stack.push(...before.reverse());
    }
  };
  const readsActivation = (node: ModelNode) => namesRead(node).some((name) => !weights.has(name));
  for (const [index, node] of nodes.entries()) if (needed.has(index) && readsActivation(node)) place(index);
  for (const index of needed) if (state.get(index) !== 'done') place(index);
  return sorted;
}

function unproduced(name: string): ChairError {
  return new ChairError('MODEL_UNREADABLE', `nothing in the model produces ${name}`, {
    expected: 'an input, a weight or the output of a node',
    todo: 'The file is damaged; export the model again.',
  });
}
