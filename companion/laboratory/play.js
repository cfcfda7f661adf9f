// Play: the running mean of A - O over windows drawn at random grows into the pattern.
"use strict";

function play(lab) {
  const button = find("play-button"), alone = find("alone");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  let playing = false, seed = 1, points = [], last = null;

  async function begin() {
    const { network, padding, picture, layer } = lab.state;
    const from = alone.checked ? [picture] : [...lab.data.pictures.map(({ name }) => name), ...lab.own];
    playing = true;
    button.textContent = "Pause";
    await lab.prepare(network, from);
    if (playing) lab.send({ kind: "play", settings: { network, padding, from, seed }, layer, calm });
  }

  function pause() {
    playing = false;
    button.textContent = "Play";
    lab.send({ kind: "stop" });
  }

  function restart() {
    [points, last] = [[], null];
    pause();
    draw();
  }

  function draw() {
    const { network, padding, layer, channel } = lab.state, { height, width, influence } = lab.layer(layer);
    const shipped = lab.pattern(network, padding, layer);
    const map = (cells) => ({ height, width, channels: cells.length / influence.length, cells });
    const views = {
      grown: last && shownDifference(map(last.mean), channel, 1 / last.sigma),
      floor: last && shownChannel(map(last.floor), channel, 1 / last.sigma),
      shipped: shipped && shownDifference(map(shipped.cells), channel, 1 / lab.data.sigmas[network][layer]),
    };
    for (const id of Object.keys(views)) find(id).classList.toggle("empty", !views[id]);
    const pairs = Object.entries(views).filter(([, view]) => view).map(([id, view]) => [find(id), view]);
    drawDifferences(pairs, find("pattern-scale"), channel, lab.colours);
    find("shipped-name").textContent = shipped
      ? `shipped pattern, from ${shipped.n} synthetic scenes`
      : "no pattern is shipped for this layer, network and padding";
    find("played").textContent = last ? words(shipped, influence) : "n = 0: no window yet.";
    const drawn = points.filter(({ n }) => n > 1);
    find("curves").classList.toggle("empty", drawn.length < 2);
    if (drawn.length > 1) drawCurves(find("curves"), drawn);
  }

  function words(shipped, influence) {
    const { n, pictures, mae, maeFloor } = last;
    const agreement = shipped && correlation(last.mean, shipped.cells, influence).toFixed(2);
    return (
      `n = ${n} windows of ${pictures} photograph${pictures > 1 ? "s" : ""}. MAE-PPP ${digits(mae)} σ; ` +
      `noise floor ${n > 1 ? `${digits(maeFloor)} σ` : "not known from one window"}.` +
      (shipped ? ` Correlation with the shipped pattern: ${agreement}.` : "") +
      (last.done && playing ? " These are all windows that there are." : "")
    );
  }

  button.addEventListener("click", () => (playing ? pause() : begin()));
  find("again").addEventListener("click", () => {
    seed++;
    restart();
    begin();
  });
  alone.addEventListener("change", restart);

  return {
    begin,
    leave: pause,
    changed(names) {
      if (names.some((name) => ["network", "padding", alone.checked && "picture"].includes(name))) restart();
      else if (names.includes("layer")) {
        [points, last] = [[], null];
        if (playing) begin();
        else lab.send({ kind: "state", layer: lab.state.layer });
      }
      draw();
    },
    heard(message) {
      if (message.layer !== lab.state.layer) return;
      last = lab.played = message;
      points.push(message);
      draw();
      if (message.done && playing) pause();
    },
  };
}
