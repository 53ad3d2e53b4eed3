/** Control-flow nodes (If, Loop, Scan) carry graphs in attributes; those graphs may use names of the graph around them. */
import type { AttributeProto, FunctionProto, GraphProto, NodeProto } from 'onnx-buf';

function subgraphsOf(attributes: Iterable<AttributeProto>): GraphProto[] {
  const graphs: GraphProto[] = [];
  for (const attribute of attributes) {
    if (attribute.g !== undefined) graphs.push(attribute.g);
    graphs.push(...attribute.graphs);
  }
  return graphs;
}

/** Names of the outer scope that the subgraphs of a node use, each once, in order of appearance. */
export function capturedNames(attributes: Iterable<AttributeProto>): string[] {
  const captured = new Set<string>();
  for (const graph of subgraphsOf(attributes)) for (const name of freeNames(graph)) captured.add(name);
  return [...captured];
}

function freeNames(graph: GraphProto): Set<string> {
  const own = new Set<string>();
  for (const value of graph.input) own.add(value.name);
  for (const tensor of graph.initializer) own.add(tensor.name);
  for (const tensor of graph.sparseInitializer) own.add(tensor.values?.name ?? '');
  for (const node of graph.node) for (const name of node.output) own.add(name);
  const free = new Set<string>();
  const use = (name: string) => {
    if (name !== '' && !own.has(name)) free.add(name);
  };
  for (const node of graph.node) {
    node.input.forEach(use);
    capturedNames(node.attribute).forEach(use);
  }
  for (const value of graph.output) use(value.name);
  return free;
}

/** Operators that give other values on every run. Dropout is one only when told to train. */
const RANDOM = new Set(['RandomNormal', 'RandomNormalLike', 'RandomUniform', 'RandomUniformLike', 'Multinomial', 'Bernoulli']);

interface AnyNode {
  readonly op: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly attributes: Iterable<AttributeProto>;
}

function anyNode(node: NodeProto): AnyNode {
  return { op: node.opType, domain: node.domain, inputs: node.input, attributes: node.attribute };
}

/** True when a node, a graph inside it or a function it calls may give different results for the same inputs. */
export function isRandom(node: AnyNode, functions: readonly FunctionProto[]): boolean {
  if (RANDOM.has(node.op)) return true;
  if (node.op === 'Dropout' && (node.inputs[2] ?? '') !== '') return true;
  const body = functions.find((f) => f.name === node.op && f.domain === node.domain);
  if (body?.node.some((inner) => isRandom(anyNode(inner), functions)) === true) return true;
  return subgraphsOf(node.attributes).some((graph) => graph.node.some((inner) => isRandom(anyNode(inner), functions)));
}
