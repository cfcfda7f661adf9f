// Maps with a border, and what the padding schemes put into it.
"use strict";

// Channels of height x width cells, each with a border of `pad` cells on every side. Cell (y, x)
// of channel c lies at c * plane + (pad + y) * row + pad + x.
function newMap(channels, height, width, pad) {
  const row = width + 2 * pad;
  const plane = (height + 2 * pad) * row;
  return { channels, height, width, pad, row, plane, cells: new Float32Array(channels * plane) };
}

// Which cell of a side of n cells stands at place i beyond it.
const MIRRORS = {
  reflect: (i, n) => (i < 0 ? -i : i < n ? i : 2 * n - 2 - i),
  replicate: (i, n) => Math.max(0, Math.min(n - 1, i)),
  circular: (i, n) => (i + n) % n,
};

const PADDINGS = {
  zeros: (map) => eachStrip(map, () => 0),
  reflect: (map) => copied(map, MIRRORS.reflect),
  replicate: (map) => copied(map, MIRRORS.replicate),
  circular: (map) => copied(map, MIRRORS.circular),
  randn(map, draw) {
    const moments = Array.from({ length: map.channels }, (_, c) => spread(map, c));
    eachStrip(map, (c) => Math.fround(draw()) * moments[c].deviation + moments[c].mean);
  },
};

// Fill the border of a map; `draw` gives normal draws, for randn.
function fillBorder(map, scheme, draw) {
  const least = { reflect: map.pad + 1, circular: map.pad }[scheme] || 1;
  if (Math.min(map.height, map.width) < least) {
    throw new RangeError(`a map of ${map.height} x ${map.width} cells is too small for ${scheme}`);
  }
  if (map.pad) PADDINGS[scheme](map, draw);
}

// Give every cell of the border a value: strip by strip, above, below, left and right.
function eachStrip(map, value) {
  const { channels, height, width, pad, row, plane, cells } = map;
  const strips = [
    [0, pad, 0, row],
    [pad + height, 2 * pad + height, 0, row],
    [pad, pad + height, 0, pad],
    [pad, pad + height, pad + width, row],
  ];
  for (const [top, bottom, left, right] of strips) {
    for (let c = 0; c < channels; c++) {
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) cells[c * plane + y * row + x] = value(c);
      }
    }
  }
}

// Fill the border with cells of the map: first left and right, then whole rows above and below.
function copied(map, mirror) {
  const { channels, height, width, pad, row, plane, cells } = map;
  const beyond = (n) => [...Array(pad).keys()].flatMap((i) => [i - pad, n + i]);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const start = c * plane + (pad + y) * row + pad;
      for (const x of beyond(width)) cells[start + x] = cells[start + mirror(x, width)];
    }
    for (const y of beyond(height)) {
      const from = c * plane + (pad + mirror(y, height)) * row;
      cells.copyWithin(c * plane + (pad + y) * row, from, from + row);
    }
  }
}

// Mean and population standard deviation of a channel.
function spread(map, channel) {
  const { height, width, pad, row, plane, cells } = map;
  const sum = (term) => {
    let total = 0;
    for (let y = 0; y < height; y++) {
      const start = channel * plane + (pad + y) * row + pad;
      for (let i = start; i < start + width; i++) total += term(cells[i]);
    }
    return total / (height * width);
  };
  const mean = sum((v) => v);
  return { mean, deviation: Math.sqrt(sum((v) => (v - mean) ** 2)) };
}

// Normal draws of a seed (xorshift, Box and Muller), without an end.
function normalDraws(seed) {
  const uniform = uniformDraws(seed);
  let spare = null;
  return () => {
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

// Draws from [0, 1) of a seed, without an end.
function uniformDraws(seed) {
  let state = (seed * 2654435761 + 88172645) >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 4294967296;
  };
  for (let i = 0; i < 8; i++) next();
  return next;
}
