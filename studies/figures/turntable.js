// Surfaces over a feature map, to be turned by pointer or keys and stepped through by choices.
(function (root) {
  "use strict";
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const canvas = root.querySelector("canvas");
  const said = root.querySelector("output");
  const top = root.querySelector(".ppp-top");
  const fields = Object.fromEntries(
    [...root.querySelectorAll("select, input")].map((field) => [field.name, field])
  );
  const view = { turn: -0.6, tilt: 0.55 };
  const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const colours = decode(data.colours);
  const colour = (share) => {
    const i = 3 * Math.max(0, Math.min(255, Math.round(255 * share)));
    return `rgb(${colours[i]},${colours[i + 1]},${colours[i + 2]})`;
  };

  function chosen() {
    const n = data.n[Number(fields.n.value)];
    return data.maps.find(
      (map) => map.layer === fields.layer.value && map.scheme === fields.scheme.value && map.n === n
    );
  }

  function highest(map) {
    if (!fields.shared.checked) return Math.max(map.highest, map.floor_highest);
    const same = data.maps.filter((other) => other.layer === map.layer);
    return Math.max(...same.map((other) => Math.max(other.highest, other.floor_highest)));
  }

  // Heights of one surface, as shares of the highest value drawn.
  function heights(text, own, most) {
    return Array.from(decode(text), (value) => (most ? (value / 255) * own / most : 0));
  }

  function draw() {
    const map = chosen();
    const [rows, columns] = [map.height, map.width];
    const most = highest(map);
    const surfaces = [
      { z: heights(map.floor, map.floor_highest, most), grey: true },
      { z: heights(map.pattern, map.highest, most), grey: false },
    ];
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.clearRect(0, 0, width, height);
    const size = Math.min(width, height * 1.4) * 0.62;
    const [sin, cos] = [Math.sin(view.turn), Math.cos(view.turn)];
    const [up, flat] = [Math.cos(view.tilt), Math.sin(view.tilt)];
    const place = (row, column, z) => {
      const x = column / (columns - 1) - 0.5, y = row / (rows - 1) - 0.5;
      const across = x * cos - y * sin, away = x * sin + y * cos;
      return [
        width / 2 + across * size,
        height * 0.68 + away * flat * size - z * up * size * 0.45,
        away * up + z * flat * 0.01,
      ];
    };
    const tiles = [];
    for (const surface of surfaces) {
      for (let row = 0; row + 1 < rows; row++) {
        for (let column = 0; column + 1 < columns; column++) {
          const at = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]];
          const z = at.map(([r, c]) => surface.z[r * columns + c]);
          const points = at.map(([r, c], i) => place(r, c, z[i]));
          const mean = (z[0] + z[1] + z[2] + z[3]) / 4;
          tiles.push({
            points,
            depth: points.reduce((sum, point) => sum + point[2], 0) + (surface.grey ? -1e-3 : 0),
            fill: surface.grey ? "rgba(150,150,150,0.75)" : colour(mean),
          });
        }
      }
    }
    tiles.sort((a, b) => a.depth - b.depth);
    pen.lineWidth = 0.6;
    for (const tile of tiles) {
      pen.beginPath();
      tile.points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.closePath();
      pen.fillStyle = pen.strokeStyle = tile.fill;
      pen.fill();
      pen.stroke();
    }
    top.textContent = most.toPrecision(2);
    said.textContent =
      `${map.layer}, ${map.scheme} padding, n = ${map.n}: at the border ${map.border.toPrecision(2)}, ` +
      `inside ${map.inside.toPrecision(2)}, noise floor ${map.floor_mean.toPrecision(2)} (${data.unit}).`;
    root.querySelector(".ppp-n").textContent = map.n;
  }

  function turn(by, over) {
    view.turn += by;
    view.tilt = Math.max(0.05, Math.min(1.55, view.tilt + over));
    draw();
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 200);
    held = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointerup", () => (held = null));
  canvas.addEventListener("pointercancel", () => (held = null));
  canvas.addEventListener("keydown", (event) => {
    const step = {
      ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1],
    }[event.key];
    if (!step) return;
    event.preventDefault();
    turn(...step);
  });
  for (const field of Object.values(fields)) field.addEventListener("input", draw);
  window.addEventListener("resize", draw);
  root.hidden = false;
  root.parentElement.querySelector(".ppp-still").hidden = true;
  draw();
})(document.currentScript.parentElement);
