/** VGG16, configuration D (Simonyan, Zisserman 2014): 224x224 input, 138,357,544 parameters, 15.47 GMAC. */
import { LINEAR_GAIN, RELU_GAIN, type Sketch, scaled } from './sketch.js';

const BLOCKS = [
  { channels: 64, convs: 2 },
  { channels: 128, convs: 2 },
  { channels: 256, convs: 3 },
  { channels: 512, convs: 3 },
  { channels: 512, convs: 3 },
];

/** Everything before the first fully connected layer. */
export function drawVgg16Features(net: Sketch, scale: number): string {
  let x = 'image';
  for (const block of BLOCKS) {
    for (let i = 0; i < block.convs; i++) {
      x = net.relu(net.conv(x, scaled(block.channels, scale), { kernel: 3, pad: 1, gain: x === 'image' ? LINEAR_GAIN : RELU_GAIN }));
    }
    x = net.maxPool(x, 2, 2);
  }
  return x;
}

export function drawVgg16(net: Sketch, scale: number, classes: number): string {
  let x = net.flatten(drawVgg16Features(net, scale));
  x = net.relu(net.fc(x, scaled(4096, scale)));
  x = net.relu(net.fc(x, scaled(4096, scale)));
  return net.softmax(net.fc(x, classes, 2 * RELU_GAIN));
}
