// Optimal padding: a network runs once over a whole picture, and windows are cut from its maps.
"use strict";

// Begin the pass; `progress()` does a strip and returns the share that is done. `reach` is what
// the library's coverage says of the network: window, stride, and of each layer its name, stride,
// height, width (cells of a window) and touched: [left, right, top, bottom].
function newPass(network, reach, picture) {
  let maps = newMaps(network, picture.height, picture.width);
  writePixels(network, maps[0], picture, 0, 0);
  const steps = strips(network, maps, "zeros");
  const pass = { reach, layers: {}, finished: false };
  pass.progress = () => {
    const { value, done } = steps.next();
    if (!done) return value;
    network.layers.forEach(({ name }, index) => {
      if (name && maps) pass.layers[name] = maps[index + 1];
    });
    maps = null; // the others are not needed any more
    pass.finished = true;
    return 1;
  };
  return pass;
}

// The features of a window under optimal padding. A window off the grid, or one of whose cells
// padding at the picture's border could touch, is refused.
function surrounded(pass, name, top, left) {
  const layer = pass.reach.layers.find((one) => one.name === name), map = pass.layers[name];
  const [before, after, above, below] = layer.touched;
  const y = top / layer.stride, x = left / layer.stride;
  const whole = Number.isInteger(y) && Number.isInteger(x);
  const rows = y >= above && y + layer.height + below <= map.height;
  const columns = x >= before && x + layer.width + after <= map.width;
  if (!whole || !rows || !columns) {
    throw new RangeError(`no optimal features of ${name} for a window at ${top}, ${left}`);
  }
  return cutOut(map, y, x, layer.height, layer.width);
}

// Where windows may lie in a picture: first rows and first columns, px.
function places(reach, height, width) {
  const along = (side, before, after) => {
    const found = [], { stride, window } = reach, whole = side - (side % stride);
    for (let i = Math.ceil(before / stride) * stride; i <= whole - after - window; i += stride) {
      found.push(i);
    }
    return found;
  };
  const [left, right, top, bottom] = reach.margin;
  return { tops: along(height, top, bottom), lefts: along(width, left, right) };
}
