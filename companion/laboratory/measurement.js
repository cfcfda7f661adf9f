// What many differences A - O have in common: moments, MAE-PPP, noise floor, correlation.
"use strict";

// Count, mean and summed squared deviation of each cell.
function newMoments(cells) {
  return { n: 0, mean: new Float64Array(cells), m2: new Float64Array(cells) };
}

function update(moments, sample, less) {
  const { mean, m2 } = moments, n = ++moments.n;
  for (let i = 0; i < mean.length; i++) {
    const value = Math.fround(sample[i] - (less ? less[i] : 0)), delta = value - mean[i];
    mean[i] += delta / n;
    m2[i] += delta * (value - mean[i]);
  }
}

// The moments of all parts together (Chan, Golub and LeVeque 1983).
function merged(parts) {
  const all = newMoments(parts[0].mean.length);
  for (const part of parts) {
    const n = all.n + part.n;
    for (let i = 0; part.n && i < all.mean.length; i++) {
      const delta = part.mean[i] - all.mean[i];
      all.m2[i] += part.m2[i] + (delta * delta * all.n * part.n) / n;
      all.mean[i] += (delta * part.n) / n;
    }
    all.n = n;
  }
  return all;
}

// Standard deviation over samples and cells: the scale of a layer, from moments of its cells.
function scale({ n, mean, m2 }) {
  const count = n * mean.length, centre = average(mean);
  let sum = 0;
  for (let i = 0; i < mean.length; i++) sum += m2[i] + n * (mean[i] - centre) ** 2;
  return Math.sqrt(sum / (count - 1));
}

function average(values) {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

function magnitude(values) {
  return Float32Array.from(values, Math.abs);
}

// Noise of |mean| in each cell: each group's deviation from the common mean gets a sign, half of
// them +. `signs` are the rows of signs that are averaged; without them all that there are.
function noiseFloor(groups, signs = balanced(groups.length)) {
  const all = merged(groups), floor = new Float32Array(all.mean.length);
  if (groups.length < 2) {
    return floor.map((_, i) => Math.sqrt((all.m2[i] / (all.n - 1) / all.n) * (2 / Math.PI)));
  }
  for (const row of signs) {
    const weights = groups.map((group, g) => (row[g] * group.n) / all.n);
    const kept = Math.sqrt(1 - weights.reduce((a, b) => a + b) ** 2);
    for (let i = 0; i < floor.length; i++) {
      let noise = 0;
      for (let g = 0; g < groups.length; g++) noise += weights[g] * (groups[g].mean[i] - all.mean[i]);
      floor[i] += Math.abs(noise) / kept / signs.length;
    }
  }
  return floor;
}

// Rows of signs of which half are +; of a row and its opposite only one. Up to six signs all that
// there are, and of more signs some twenty rows.
function balanced(count) {
  const half = Math.floor(count / 2), rows = [];
  for (let bits = 0; bits < 1 << (count - 1); bits++) {
    const row = Array.from({ length: count }, (_, g) => ((bits >> g) & 1 ? 1 : -1));
    const plus = row.filter((sign) => sign > 0).length;
    if (plus === half || plus === count - half) rows.push(row);
  }
  const step = Math.ceil(rows.length / 24);
  return rows.filter((_, i) => i % step === 0);
}

// Pearson's correlation over the cells that padding can touch, all channels.
function correlation(a, b, influence) {
  const size = influence.length, touched = (_, i) => influence[i % size] === "1";
  const x = Float64Array.from(a).filter(touched), y = Float64Array.from(b).filter(touched);
  const [p, q] = [average(x), average(y)];
  let xy = 0, xx = 0, yy = 0;
  for (let i = 0; i < x.length; i++) {
    xy += (x[i] - p) * (y[i] - q);
    xx += (x[i] - p) ** 2;
    yy += (y[i] - q) ** 2;
  }
  return xy / Math.sqrt(xx * yy);
}

// The cell whose column of a pattern is nearest to the values of one cell, by channel in units of
// `spreads`.
function nearest(values, pattern, spreads, cells) {
  let best = 0, least = Infinity;
  for (let i = 0; i < cells; i++) {
    let sum = 0;
    for (let c = 0; c < values.length; c++) {
      if (spreads[c] > 0) sum += ((values[c] - pattern[c * cells + i]) / spreads[c]) ** 2;
    }
    if (sum < least) [best, least] = [i, sum];
  }
  return best;
}

// Means over channels, cell by cell.
function channelMean(values, channels) {
  const size = values.length / channels, mean = new Float32Array(size);
  for (let i = 0; i < values.length; i++) mean[i % size] += values[i] / channels;
  return mean;
}
