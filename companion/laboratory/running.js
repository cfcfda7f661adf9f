// The running mean of A - O over windows that are drawn at random, in every layer of interest.
"use strict";

function newRunning(network, reach, scheme, seed) {
  const groups = new Map(), maps = newMaps(network, reach.window, reach.window);
  const draw = normalDraws(seed);
  const cells = ({ name }) => network.layers.find((one) => one.name === name).outputs;
  const fresh = () =>
    new Map(reach.layers.map((one) => [one.name, newMoments(cells(one) * one.height * one.width)]));
  const optimal = fresh();
  const running = { n: 0, largestClean: 0 };

  // Add the window of a picture, whose optimal pass is finished.
  running.add = (pass, name, picture, top, left) => {
    if (!groups.has(name)) groups.set(name, fresh());
    writePixels(network, maps[0], picture, top, left);
    run(network, maps, scheme, draw);
    for (const layer of reach.layers) {
      const a = features(network, maps, layer.name).cells, o = surrounded(pass, layer.name, top, left).cells;
      update(groups.get(name).get(layer.name), a, o);
      update(optimal.get(layer.name), o);
      running.largestClean = Math.max(running.largestClean, largestClean(layer, a, o));
    }
    running.n++;
  };

  // What is known of a layer: the pattern, its noise floor, and both as MAE-PPP.
  running.state = (layer, signs) => {
    const parts = [...groups.values()].map((group) => group.get(layer));
    const { mean } = merged(parts), sigma = scale(optimal.get(layer));
    const floor = running.n > 1 ? noiseFloor(parts, signs) : mean.map(() => NaN);
    const strength = (values) => average(values) / sigma;
    return {
      n: running.n, pictures: parts.length, layer, sigma, largestClean: running.largestClean,
      mean: Float32Array.from(mean), floor: Float32Array.from(floor),
      mae: strength(magnitude(mean)), maeFloor: strength(floor),
    };
  };
  return running;
}

// The largest difference in cells that padding cannot touch: the null test wants 0.
function largestClean({ influence }, a, o) {
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    if (influence[i % influence.length] === "0") largest = Math.max(largest, Math.abs(a[i] - o[i]));
  }
  return largest;
}

// All windows of some pictures in a random order, the pictures in turns.
function* drawnWindows(reach, pictures, seed) {
  const uniform = uniformDraws(seed);
  const waiting = pictures.map(({ name, height, width }) => {
    const { tops, lefts } = places(reach, height, width);
    return tops.flatMap((top) => lefts.map((left) => ({ name, top, left })));
  });
  while (waiting.some((all) => all.length)) {
    for (const all of waiting) if (all.length) yield* all.splice(Math.floor(uniform() * all.length), 1);
  }
}
