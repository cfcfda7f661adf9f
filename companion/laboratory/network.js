// A network: its layers in order, what they make of an input, and its answer.
"use strict";

// Bytes of a base64 text.
function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// Numbers of half precision, as float32.
function halves(bytes) {
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  return Float32Array.from(bits, (half) => {
    const exponent = (half >> 10) & 31, fraction = half & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    return half & 32768 ? -size : size;
  });
}

// Build a network of its description and its weights: of each layer kernels and bias, then of the
// classifier.
function newNetwork(description, weights) {
  let used = 0;
  const take = (count) => weights.subarray(used, (used += count));
  const layers = description.layers.map((layer) => ({
    ...layer,
    weights: take(layer.outputs * layer.inputs * layer.kernel ** 2),
    bias: take(layer.outputs),
  }));
  const { classes } = description, width = layers.at(-1).outputs;
  const network = { ...description, layers, weights: take(classes * width), bias: take(classes) };
  if (used !== weights.length) throw new RangeError(`${weights.length} weights, ${used} expected`);
  return network;
}

// The maps of all layers for an input of a size; the first is the input's. A map has the border
// that the layer that reads it pads.
function newMaps(network, height, width) {
  const pads = network.layers.map((_, index) => padOf(network, index + 1));
  const maps = [newMap(network.layers[0].inputs, height, width, padOf(network, 0))];
  network.layers.forEach(({ from, outputs, kernel, stride, pad }, index) => {
    const side = (cells) => Math.floor((cells + 2 * pad - kernel) / stride) + 1;
    maps.push(newMap(outputs, side(maps[from].height), side(maps[from].width), pads[index]));
  });
  return maps;
}

function padOf(network, index) {
  return Math.max(0, ...network.layers.filter((one) => one.from === index).map((one) => one.pad));
}

// Write a part of a picture (8-bit RGB, pixel by pixel) into the input, normalised.
function writePixels(network, input, picture, top, left) {
  const { height, width, pad, row, plane, cells } = input;
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      let from = 3 * ((top + y) * picture.width + left) + c;
      const start = c * plane + (pad + y) * row + pad;
      for (let x = 0; x < width; x++, from += 3) {
        cells[start + x] = (picture.rgb[from] / 255 - network.mean) / network.deviation;
      }
    }
  }
}

// Run a network in strips of rows; after each the share that is done is yielded.
function* strips(network, maps, scheme, draw, most = 2e7) {
  const work = ({ outputs, inputs, kernel }, map) => outputs * inputs * kernel ** 2 * map.width;
  const all = network.layers.map((layer, index) => work(layer, maps[index + 1]) * maps[index + 1].height);
  const total = all.reduce((sum, one) => sum + one);
  let done = 0;
  for (const [index, layer] of network.layers.entries()) {
    const input = maps[layer.from], output = maps[index + 1];
    const added = layer.added === undefined ? null : maps[layer.added];
    if (layer.pad) fillBorder(input, scheme, draw);
    const step = Math.max(1, Math.floor(most / work(layer, output)));
    for (let from = 0; from < output.height; from += step) {
      const to = Math.min(output.height, from + step);
      convolve(layer, input, output, added, from, to);
      done += work(layer, output) * (to - from);
      yield done / total;
    }
  }
}

function run(network, maps, scheme, draw) {
  for (const _ of strips(network, maps, scheme, draw, Infinity));
}

// The features of a named layer, without their border.
function features(network, maps, layer) {
  const map = maps[network.layers.findIndex((one) => one.name === layer) + 1];
  return cutOut(map, 0, 0, map.height, map.width);
}

function cutOut(map, top, left, height, width) {
  const cells = new Float32Array(map.channels * height * width);
  for (let c = 0, t = 0; c < map.channels; c++) {
    for (let y = 0; y < height; y++, t += width) {
      const start = c * map.plane + (map.pad + top + y) * map.row + map.pad + left;
      cells.set(map.cells.subarray(start, start + width), t);
    }
  }
  return { channels: map.channels, height, width, cells };
}

// The classifier's scores for features of the last layer, pooled over their cells.
function scores(network, { channels, height, width, cells }) {
  const size = height * width;
  const pooled = Float64Array.from({ length: channels }, (_, c) => {
    const own = cells.subarray(c * size, (c + 1) * size);
    return network.pool === "max" ? own.reduce((a, b) => Math.max(a, b)) : own.reduce((a, b) => a + b, 0) / size;
  });
  return Array.from(network.bias, (bias, k) =>
    pooled.reduce((sum, value, c) => sum + value * network.weights[k * channels + c], bias)
  );
}

function shares(values) {
  const most = Math.max(...values), powers = values.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
