// Drawing: maps as coloured cells, their scales, curves; numbers and marks as text.
"use strict";

const find = (id) => document.getElementById(id);
const digits = (value) => (value ? String(Number(value.toPrecision(2))) : "0");
const percent = (share) => `${Math.round(100 * share)} %`;

// A new element with some properties.
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Draw values, one a cell; `colours` are 256 colours, of `low` to `high`.
function drawMap(canvas, { height, width, cells }, low, high, colours) {
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  cells.forEach((value, i) => {
    const share = high > low ? (value - low) / (high - low) : 0;
    const from = 3 * Math.round(255 * Math.max(0, Math.min(1, share)));
    image.data.set([colours[from], colours[from + 1], colours[from + 2], 255], 4 * i);
  });
  pen.putImageData(image, 0, 0);
}

// A colour bar from `low` to `high`, in units of sigma.
function drawScale(place, low, high, colours) {
  const stops = [0, 51, 102, 153, 204, 255].map((i) => `rgb(${colours.slice(3 * i, 3 * i + 3)})`);
  const bar = element("span", { className: "bar" });
  bar.style.background = `linear-gradient(90deg, ${stops})`;
  place.replaceChildren(digits(low), bar, `${digits(high)} σ`);
}

// One channel of features, or for -1 the mean over channels; all values times a factor.
function shownChannel({ channels, height, width, cells }, channel, factor) {
  const size = height * width;
  const one = channel < 0 ? channelMean(cells, channels) : cells.slice(channel * size, (channel + 1) * size);
  return { height, width, cells: one.map((value) => value * factor) };
}

// Of differences one channel is shown with its sign, and of the mean over channels the magnitude.
function shownDifference(map, channel, factor) {
  return shownChannel(channel < 0 ? { ...map, cells: magnitude(map.cells) } : map, channel, factor);
}

function drawDifferences(pairs, scale, channel, { sequential, diverging }) {
  const most = largest(...pairs.map(([, map]) => map)), signed = channel >= 0;
  const range = [signed ? -most : 0, most, signed ? diverging : sequential];
  for (const [canvas, map] of pairs) drawMap(canvas, map, ...range);
  drawScale(scale, ...range);
}

function largest(...maps) {
  return Math.max(0, ...maps.flatMap(({ cells }) => Array.from(cells, Math.abs).filter(Number.isFinite)));
}

// Curves of MAE-PPP and its noise floor from 0, against the logarithm of n.
function drawCurves(svg, points) {
  const most = Math.max(...points.map((point) => point.mae)), last = Math.log2(points.at(-1).n);
  for (const key of ["mae", "maeFloor"]) {
    const places = points.map((point) => [(100 * Math.log2(point.n)) / last, 39 - (37 * point[key]) / most]);
    svg.querySelector(`.${key}`).setAttribute("points", places.join(" "));
  }
}
