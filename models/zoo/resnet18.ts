/** ResNet-18 (He et al. 2015, table 1; projection shortcuts where shapes change, option B). 11,689,512 parameters, 1.81 GMAC. */
import { LINEAR_GAIN, RELU_GAIN, type Sketch, scaled } from './sketch.js';

/** What differs between two images is small after a global average: the classifier enlarges it. */
const AFTER_POOL_GAIN = 30;

const LAYERS = [
  { channels: 64, stride: 1 },
  { channels: 128, stride: 2 },
  { channels: 256, stride: 2 },
  { channels: 512, stride: 2 },
];

function convNorm(net: Sketch, x: string, channels: number, kernel: number, stride: number, gamma: number, gain = RELU_GAIN): string {
  return net.batchNorm(net.conv(x, channels, { kernel, stride, pad: (kernel - 1) / 2, bias: false, gain }), gamma);
}

function basicBlock(net: Sketch, x: string, channels: number, stride: number): string {
  // Branch and shortcut are scaled so that their sum keeps its variance through the depth.
  let branch = net.relu(convNorm(net, x, channels, 3, stride, 1));
  branch = convNorm(net, branch, channels, 3, 1, 0.7);
  const changes = stride !== 1 || net.shapeOf(x)[1] !== channels;
  const shortcut = changes ? convNorm(net, x, channels, 1, stride, 0.7) : x;
  return net.relu(net.sum(branch, shortcut));
}

export function drawResNet18(net: Sketch, scale: number, classes: number): string {
  let x = net.relu(convNorm(net, 'image', scaled(64, scale), 7, 2, 1, LINEAR_GAIN));
  x = net.maxPool(x, 3, 2, 1);
  for (const { channels, stride } of LAYERS) {
    for (let i = 0; i < 2; i++) x = basicBlock(net, x, scaled(channels, scale), i === 0 ? stride : 1);
  }
  return net.softmax(net.fc(net.flatten(net.globalAveragePool(x)), classes, AFTER_POOL_GAIN));
}
