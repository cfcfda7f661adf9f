// Convolutions over maps whose border is filled: no kernel knows what padding is.
"use strict";

// Compute rows [from, to) of a layer's output. `layer` has kernel, stride, pad, weights (outputs x
// inputs x kernel x kernel), bias, relu; `added`, of the output's size, is a shortcut.
function convolve(layer, input, output, added, from, to) {
  const { kernel, stride, pad, weights } = layer;
  const shift = (input.pad - pad) * (input.row + 1);
  begin(layer, output, from, to);
  for (let o = 0; o < output.channels; o += 2) {
    for (let i = 0; i < input.channels; i++) {
      const first = (o * input.channels + i) * kernel * kernel;
      const second = first + input.channels * kernel * kernel;
      const start = i * input.plane + shift;
      if (kernel === 3) {
        nineTaps(weights, first, second, input, start, stride, output, o, from, to);
        continue;
      }
      for (let tap = 0; tap < kernel * kernel; tap++) {
        const place = start + Math.floor(tap / kernel) * input.row + (tap % kernel);
        oneTap(weights[first + tap], weights[second + tap], input, place, stride, output, o, from, to);
      }
    }
  }
  end(layer, output, added, from, to);
}

// Add one input channel, under two kernels of 3 x 3, to two output channels.
function nineTaps(weights, first, second, input, start, stride, output, channel, from, to) {
  const a0 = weights[first], a1 = weights[first + 1], a2 = weights[first + 2];
  const a3 = weights[first + 3], a4 = weights[first + 4], a5 = weights[first + 5];
  const a6 = weights[first + 6], a7 = weights[first + 7], a8 = weights[first + 8];
  const b0 = weights[second], b1 = weights[second + 1], b2 = weights[second + 2];
  const b3 = weights[second + 3], b4 = weights[second + 4], b5 = weights[second + 5];
  const b6 = weights[second + 6], b7 = weights[second + 7], b8 = weights[second + 8];
  const x = input.cells, out = output.cells, { width, pad, row, plane } = output;
  for (let y = from; y < to; y++) {
    let p = start + y * stride * input.row, q = p + input.row, r = q + input.row;
    let t = channel * plane + (pad + y) * row + pad;
    for (const end = t + width; t < end; t++, p += stride, q += stride, r += stride) {
      const p0 = x[p], p1 = x[p + 1], p2 = x[p + 2];
      const q0 = x[q], q1 = x[q + 1], q2 = x[q + 2];
      const r0 = x[r], r1 = x[r + 1], r2 = x[r + 2];
      out[t] += a0 * p0 + a1 * p1 + a2 * p2 + a3 * q0 + a4 * q1 + a5 * q2 + a6 * r0 + a7 * r1 + a8 * r2;
      out[t + plane] +=
        b0 * p0 + b1 * p1 + b2 * p2 + b3 * q0 + b4 * q1 + b5 * q2 + b6 * r0 + b7 * r1 + b8 * r2;
    }
  }
}

// Add one input channel, under one weight each, to two output channels.
function oneTap(a, b, input, start, stride, output, channel, from, to) {
  const x = input.cells, out = output.cells, { width, pad, row, plane } = output;
  for (let y = from; y < to; y++) {
    let p = start + y * stride * input.row;
    let t = channel * plane + (pad + y) * row + pad;
    for (const end = t + width; t < end; t++, p += stride) {
      out[t] += a * x[p];
      out[t + plane] += b * x[p];
    }
  }
}

function eachRow(map, from, to, work) {
  for (let c = 0; c < map.channels; c++) {
    for (let y = from; y < to; y++) work(c, c * map.plane + (map.pad + y) * map.row + map.pad, y);
  }
}

function begin(layer, output, from, to) {
  eachRow(output, from, to, (c, start) => output.cells.fill(layer.bias[c], start, start + output.width));
}

function end(layer, output, added, from, to) {
  const out = output.cells;
  eachRow(output, from, to, (c, start, y) => {
    if (added) {
      const other = c * added.plane + (added.pad + y) * added.row + added.pad;
      for (let x = 0; x < output.width; x++) out[start + x] += added.cells[other + x];
    }
    if (layer.relu) for (let x = 0; x < output.width; x++) if (out[start + x] < 0) out[start + x] = 0;
  });
}
