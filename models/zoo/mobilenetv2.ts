/** MobileNetV2 (Sandler et al. 2018, table 2): inverted residuals with linear bottlenecks. 3,504,872 parameters, 0.30 GMAC. */
import { LINEAR_GAIN, RELU_GAIN, type Sketch, scaled } from './sketch.js';

/** What differs between two images is small after a global average: the classifier enlarges it. */
const AFTER_POOL_GAIN = 200;

/** Rows of table 2: expansion t, channels c, repeats n, stride s of the first. */
const ROWS = [
  { t: 1, c: 16, n: 1, s: 1 },
  { t: 6, c: 24, n: 2, s: 2 },
  { t: 6, c: 32, n: 3, s: 2 },
  { t: 6, c: 64, n: 4, s: 2 },
  { t: 6, c: 96, n: 3, s: 1 },
  { t: 6, c: 160, n: 3, s: 2 },
  { t: 6, c: 320, n: 1, s: 1 },
];

interface ConvNorm {
  readonly kernel: number;
  readonly stride?: number;
  readonly groups?: number;
  readonly gain: number;
  readonly gamma?: number;
}

function convNorm(net: Sketch, x: string, channels: number, { kernel, stride = 1, groups = 1, gain, gamma = 1 }: ConvNorm): string {
  return net.batchNorm(net.conv(x, channels, { kernel, stride, groups, pad: (kernel - 1) / 2, bias: false, gain }), gamma);
}

function invertedResidual(net: Sketch, x: string, expansion: number, channels: number, stride: number): string {
  const inputs = net.shapeOf(x)[1] ?? 1;
  const wide = inputs * expansion;
  // A bottleneck's output is linear, so the expansion after it needs no factor for a ReLU.
  let branch = expansion === 1 ? x : net.relu6(convNorm(net, x, wide, { kernel: 1, gain: LINEAR_GAIN }));
  branch = net.relu6(convNorm(net, branch, wide, { kernel: 3, stride, groups: wide, gain: RELU_GAIN }));
  const residual = stride === 1 && inputs === channels;
  branch = convNorm(net, branch, channels, { kernel: 1, gain: RELU_GAIN, gamma: residual ? 0.5 : 1 });
  return residual ? net.sum(x, branch) : branch;
}

export function drawMobileNetV2(net: Sketch, scale: number, classes: number): string {
  let x = net.relu6(convNorm(net, 'image', scaled(32, scale), { kernel: 3, stride: 2, gain: LINEAR_GAIN }));
  for (const { t, c, n, s } of ROWS) {
    for (let i = 0; i < n; i++) x = invertedResidual(net, x, t, scaled(c, scale), i === 0 ? s : 1);
  }
  x = net.relu6(convNorm(net, x, scaled(1280, scale), { kernel: 1, gain: LINEAR_GAIN }));
  return net.softmax(net.fc(net.flatten(net.globalAveragePool(x)), classes, AFTER_POOL_GAIN));
}
