// The BHV corner: full convolution on a black and on a grey canvas, the blocks in every row.
"use strict";

function corner(lab) {
  const { size, block, rows, jitter, columns, canvases, names } = lab.data.corner;
  const answers = new Map(), order = find("order"), row = find("row");
  const asked = Object.keys(canvases).flatMap((network) => [0, 1].map((one) => [network, one]));
  row.max = size - block;

  // Ask for what is not known yet: the answers of each network to each order, row by row.
  function ask() {
    const next = asked.find((pair) => !answers.has(pair.join()));
    if (!next) return;
    const [network, one] = next;
    lab.send({ kind: "corner", network, canvas: canvases[network], size, block, columns, order: one });
  }

  function draw() {
    const chosen = Number(order.value), at = Number(row.value);
    for (const [network, value] of Object.entries(canvases)) {
      const canvas = find(`canvas-${network}`), pen = canvas.getContext("2d");
      Object.assign(canvas, { width: size, height: size });
      pen.fillStyle = `rgb(${Array(3).fill(255 * value)})`;
      pen.fillRect(0, 0, size, size);
      columns.forEach((left, i) => {
        pen.fillStyle = i === chosen ? "#f00" : "#0f0";
        pen.fillRect(left, at, block, block);
      });
    }
    for (const [network, one] of asked) {
      const known = answers.get([network, one].join());
      if (!known) continue;
      const right = known.map((share) => share >= 0.5 === (one === 0));
      const marks = right.map((good, i) => {
        const trained = i >= rows[one] - jitter && i < rows[one] + jitter, here = i === at && one === chosen;
        return element("i", { className: `${good ? "right" : ""} ${trained ? "trained" : ""} ${here ? "here" : ""}` });
      });
      find(`strip-${network}-${one}`).replaceChildren(...marks);
      find(`count-${network}-${one}`).textContent =
        `${names[one]}: right in ${right.filter(Boolean).length} of ${right.length} rows`;
      if (one !== chosen) continue;
      const says = names[right[at] ? one : 1 - one];
      find(`says-${network}`).textContent = `It says “${says}”: ${right[at] ? "right" : "wrong"}.`;
    }
  }

  order.addEventListener("change", draw);
  row.addEventListener("input", draw);
  for (const canvas of Object.keys(canvases).map((network) => find(`canvas-${network}`))) {
    const move = (event) => {
      const box = canvas.getBoundingClientRect();
      row.value = Math.round(((event.clientY - box.top) / box.height) * size - block / 2);
      draw();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      move(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && move(event));
  }

  return {
    changed() {
      draw();
      ask();
    },
    heard(message) {
      answers.set([message.network, message.order].join(), message.answers);
      draw();
      ask();
    },
  };
}
