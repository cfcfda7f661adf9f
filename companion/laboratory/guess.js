// Guess the cell: from the features of one hidden cell, where is it?
"use strict";

function guess(lab) {
  const board = find("board"), said = find("guessed"), score = {};
  const ways = [...document.querySelectorAll("input[name=way]")];
  const random = (all) => all[Math.floor(Math.random() * all.length)];
  let round = null;

  // Hide a cell: a window is drawn at random, and the worker asked for its features.
  function begin() {
    const { network, padding, layer } = lab.state, about = lab.layer(layer);
    const known = lab.pattern(network, padding, layer);
    round = { about, known, answered: true };
    find("guessing").hidden = find("next").hidden = !known;
    said.textContent = known
      ? "A cell is being hidden ..."
      : "No pattern is shipped for this network and padding: choose the padding that it was trained with.";
    if (!known) return;
    const drawn = { picture: random(lab.data.pictures).name, seed: 1 + Math.floor(Math.random() * 1e6) };
    lab.look("guess", drawn, ({ tops, lefts }) => ({ top: random(tops), left: random(lefts) }));
  }

  // What is known of a cell: A - O, or the features less their mean over the window.
  function valuesOf(cell) {
    const { A, O } = round, size = A.height * A.width, way = round.way.value;
    return Float32Array.from({ length: A.channels }, (_, c) => {
      const own = (way === "O" ? O : A).cells[c * size + cell];
      return own - (way === "D" ? O.cells[c * size + cell] : average(channelOf(O.cells, c)));
    });
  }

  const place = (cell) => [Math.floor(cell / round.about.width), cell % round.about.width];
  const named = (cell) => `row ${place(cell)[0] + 1}, column ${place(cell)[1] + 1}`;
  const channelOf = (cells, c, size = round.about.influence.length) => cells.subarray(c * size, (c + 1) * size);

  function deal() {
    const { about, known, hidden } = round;
    round.answered = false;
    round.way = ways.find((one) => one.checked);
    round.spreads = known.spreads[round.way.value];
    round.values = valuesOf(hidden);
    // The clues are the channels in which both the pattern and the cell's own value are large.
    const size = (values, c) => average(magnitude(values)) / round.spreads[c] || 0;
    const weights = Array.from(round.values, (value, c) => size(channelOf(known.cells, c), c) * size([value], c));
    const best = weights.map((_, c) => c).sort((p, q) => weights[q] - weights[p]).slice(0, 6);
    find("clues").replaceChildren(...best.map(clue));
    board.style.setProperty("--columns", about.width);
    board.replaceChildren(...Array.from(about.influence, (touched, cell) => {
      const about = { type: "button", tabIndex: cell ? -1 : 0, ariaLabel: named(cell) };
      const button = element("button", { ...about, disabled: touched === "0" });
      button.addEventListener("click", () => answer(cell));
      return button;
    }));
    said.textContent = `Where in ${about.name} is it? Six of its values stand beside their channels' patterns.`;
  }

  function clue(c) {
    const { about, known, values } = round, map = { ...about, cells: channelOf(known.cells, c) };
    const most = largest(map), colours = lab.colours.diverging;
    const [canvas, swatch] = [element("canvas"), element("canvas", { className: "swatch" })];
    drawMap(canvas, map, -most, most, colours);
    drawMap(swatch, { height: 1, width: 1, cells: [values[c]] }, -most, most, colours);
    const sigma = lab.data.sigmas[lab.state.network][about.name];
    const words = element("figcaption", {}, `channel ${c + 1}: ${digits(values[c] / sigma)} σ`);
    return element("figure", {}, canvas, swatch, words);
  }

  function answer(mine) {
    if (round.answered) return;
    const { about, known, hidden, spreads } = round, cells = about.influence.length;
    const touched = lab.touched(about);
    const decode = (cell) => nearest(valuesOf(cell), known.cells, spreads, cells);
    const off = (cell) => Math.hypot(...place(cell).map((at, axis) => at - place(hidden)[axis]));
    const key = `${round.way.dataset.name}, ${about.name}`, decoder = decode(hidden);
    const entry = (score[key] ||= { rounds: 0, hits: [0, 0], off: [0, 0], right: 0, all: 0 });
    entry.chance = 1 / touched.length;
    entry.rounds++;
    [mine, decoder].forEach((cell, who) => {
      entry.hits[who] += cell === hidden;
      entry.off[who] += off(cell);
    });
    entry.right += touched.filter((cell) => decode(cell) === cell).length;
    entry.all += touched.length;
    round.answered = true;
    for (const [name, cell] of Object.entries({ decoder, mine, hidden })) board.children[cell].classList.add(name);
    said.textContent =
      `It was at ${named(hidden)}. You said ${named(mine)}; the nearest pattern is at ${named(decoder)}.`;
    find("score").replaceChildren(...Object.entries(score).map(([name, one]) => {
      const { hits, off, rounds } = one, of = (who) => [`${hits[who]} of ${rounds}`, (off[who] / rounds).toFixed(1)];
      const numbers = [...of(0), ...of(1), percent(one.right / one.all), percent(one.chance)];
      return element("tr", {}, element("th", { scope: "row" }, name), ...numbers.map((text) => element("td", {}, text)));
    }));
    find("next").focus();
  }

  board.addEventListener("keydown", (event) => {
    const cells = [...board.children], { width } = round.about;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
    if (!step) return;
    event.preventDefault();
    let to = cells.indexOf(document.activeElement) + step;
    while (cells[to]?.disabled) to += step;
    cells[to]?.focus();
  });
  find("next").addEventListener("click", begin);
  for (const way of ways) way.addEventListener("change", () => (round.answered ? begin() : deal()));

  return {
    changed(names) {
      const { guessed } = lab.data;
      if (!guessed.includes(lab.state.layer)) lab.change({ layer: guessed.at(-1) });
      else if (!round || names.some((name) => ["network", "padding", "layer"].includes(name))) begin();
    },
    heard(message) {
      if (message.layer !== round.about.name || !round.known) return;
      Object.assign(round, { A: message.A, O: message.O, hidden: random(lab.touched(round.about)) });
      deal();
    },
  };
}
