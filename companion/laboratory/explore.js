// Explore: a window is dragged over a photograph; A, O and A - O of a layer, and both answers.
"use strict";

function explore(lab) {
  const photograph = find("photograph"), { window: side, stride } = lab.data.reach;
  let held = null, shown = lab.data.first;

  function drawPhotograph() {
    const { picture, top, left } = lab.state, { width, height, canvas } = lab.pictures.get(picture);
    const pen = photograph.getContext("2d"), small = find("window");
    Object.assign(photograph, { width, height });
    pen.drawImage(canvas, 0, 0);
    for (const [strokeStyle, lineWidth] of [["#000", 5], ["#fff", 2]]) {
      Object.assign(pen, { strokeStyle, lineWidth });
      pen.strokeRect(left, top, side, side);
    }
    Object.assign(small, { width: side, height: side });
    small.getContext("2d").drawImage(canvas, -left, -top);
    photograph.ariaLabel =
      `${lab.title(picture)}; the window is ${left} px from the left and ${top} px from the top`;
  }

  function report() {
    const { A, O, layer, network, picture, padding, answers } = shown;
    const channel = shown.D ? -1 : lab.state.channel, factor = 1 / lab.data.sigmas[network][layer];
    const [a, o] = [A, O].map((map) => shownChannel(map, channel, factor));
    const difference = shown.D || { ...A, cells: A.cells.map((value, i) => value - O.cells[i]) };
    const range = [Math.min(0, ...a.cells, ...o.cells), largest(a, o), lab.colours.sequential];
    drawMap(find("a"), a, ...range);
    drawMap(find("o"), o, ...range);
    drawScale(find("ao-scale"), ...range);
    const d = shownDifference(difference, channel, factor);
    drawDifferences([[find("d"), d]], find("d-scale"), channel, lab.colours);
    find("d-name").textContent = channel < 0 ? "mean of |A − O|" : "A − O";
    const about = lab.layer(layer), touched = lab.touched(about).length, rest = about.influence.length - touched;
    const clean = shown.clean ?? largestClean(about, A.cells, O.cells);
    find("explored").textContent =
      `Photograph: ${lab.title(picture)}. Padding: ${padding}; it can touch ${touched} of the ` +
      `${touched + rest} cells of ${lab.layerTitle(layer)}.` +
      (rest ? ` In the other ${rest}, A and O differ by ${digits(clean)} at most.` : "");
    const order = answers.O.map((_, k) => k).sort((p, q) => answers.O[q] - answers.O[p]);
    const cell = (share) => element("td", {}, element("meter", { value: share }), ` ${percent(share)}`);
    find("answers").replaceChildren(...order.map((k) =>
      element("tr", {}, element("th", { scope: "row" }, lab.data.shapes[k]), cell(answers.A[k]), cell(answers.O[k]))
    ));
  }

  function moveTo(top, left) {
    const nearestOf = (wanted, all) => all.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
    const { tops, lefts } = lab.places();
    lab.change({ top: nearestOf(top, tops), left: nearestOf(left, lefts) });
  }

  function pointed(event) {
    const box = photograph.getBoundingClientRect(), scale = photograph.width / box.width;
    return [(event.clientY - box.top) * scale, (event.clientX - box.left) * scale];
  }

  const drag = (event) => held && moveTo(...pointed(event).map((place, axis) => place - held[axis]));
  photograph.addEventListener("pointerdown", (event) => {
    const within = pointed(event).map((place, axis) => place - [lab.state.top, lab.state.left][axis]);
    held = within.every((place) => place >= 0 && place < side) ? within : [side / 2, side / 2];
    photograph.setPointerCapture(event.pointerId);
    drag(event);
  });
  photograph.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) photograph.addEventListener(end, () => (held = null));
  photograph.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    moveTo(lab.state.top + step[0] * stride, lab.state.left + step[1] * stride);
  });

  return {
    changed(names) {
      drawPhotograph();
      if (names.every((name) => name === "channel")) report();
      else lab.look("explore");
    },
    heard(message) {
      shown = message;
      report();
    },
  };
}
