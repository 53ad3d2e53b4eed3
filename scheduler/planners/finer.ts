/** The blocks of a model, with further places to cut at: covering cuts may begin stages inside of blocks. */
import { boxDims, tensorBytes } from '../../broker/tensor.js';
import { isRefusal, type ModelFacts, type PartFacts } from './problem.js';

type Block = ModelFacts['blocks'][number];

/** The same model in blocks that also end before each of these nodes. A block that cannot be told apart there stays whole. */
export function finer(facts: ModelFacts, nodes: readonly number[]): ModelFacts {
  const blocks = facts.blocks.flatMap((block) => divided(facts, block, nodes));
  return blocks.length === facts.blocks.length ? facts : { ...facts, blocks };
}

function divided(facts: ModelFacts, block: Block, nodes: readonly number[]): readonly Block[] {
  const [start, end] = block.nodes;
  const inside = [...new Set(nodes)].filter((node) => node > start && node < end).sort((a, b) => a - b);
  if (inside.length === 0) return [block];
  const ends = [...inside, end];
  const made = ends.map((to, i): Block | undefined => {
    const run = [ends[i - 1] ?? start, to] as const;
    const parts = facts.stage({ nodes: run, cut: 'whole', shares: [1] });
    const [part] = isRefusal(parts) ? [] : parts;
    if (part === undefined) return undefined;
    const { macs, weightBytes } = part;
    return { nodes: run, macs, weightBytes, outBytes: to === end ? block.outBytes : bytesOut(part) };
  });
  const whole = made.filter((one) => one !== undefined);
  return whole.length === made.length ? whole : [block];
}

function bytesOut({ outputs }: PartFacts): number {
  return outputs.reduce((sum, { dtype, box }) => sum + tensorBytes(dtype, boxDims(box)), 0);
}
