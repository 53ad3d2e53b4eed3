/** AlexNet as published (Krizhevsky, Sutskever, Hinton 2012): 227x227 input, two groups in conv2, conv4, conv5. 60,965,224 parameters. */
import { LINEAR_GAIN, RELU_GAIN, type Sketch, scaled } from './sketch.js';

/** LRN with k = 2 shrinks its input by 2^0.75: the next layer makes up for it. */
const AFTER_LRN_GAIN = RELU_GAIN * 2 ** 1.5;

/** Everything before the first fully connected layer. */
export function drawAlexNetFeatures(net: Sketch, scale: number): string {
  const conv = (x: string, channels: number, kernel: number, pad: number, groups: number, stride = 1, gain = RELU_GAIN) =>
    net.relu(net.conv(x, scaled(channels, scale), { kernel, pad, groups, stride, gain }));
  let x = conv('image', 96, 11, 0, 1, 4, LINEAR_GAIN);
  x = net.maxPool(net.lrn(x), 3, 2);
  x = conv(x, 256, 5, 2, 2, 1, AFTER_LRN_GAIN);
  x = net.maxPool(net.lrn(x), 3, 2);
  x = conv(x, 384, 3, 1, 1, 1, AFTER_LRN_GAIN);
  x = conv(x, 384, 3, 1, 2);
  x = conv(x, 256, 3, 1, 2);
  return net.maxPool(x, 3, 2);
}

export function drawAlexNet(net: Sketch, scale: number, classes: number): string {
  let x = net.flatten(drawAlexNetFeatures(net, scale));
  x = net.relu(net.fc(x, scaled(4096, scale)));
  x = net.relu(net.fc(x, scaled(4096, scale)));
  return net.softmax(net.fc(x, classes, 2 * RELU_GAIN));
}
