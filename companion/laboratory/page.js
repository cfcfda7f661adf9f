// The page: what is chosen, which mode is shown, and the line to the worker.
"use strict";

const MODES = { explore, play, guess, corner };

function openLaboratory(data, engine) {
  const chosen = ["picture", "network", "padding", "layer", "channel"];
  const fields = Object.fromEntries(chosen.map((name) => [name, find(name)]));
  const told = new Set(), patterns = new Map(), modes = {};
  const { picture, network, padding, layer, top, left } = data.first;
  const lab = { data, pictures: new Map(), own: [], state: { picture, network, padding, channel: -1, top, left } };
  let shown = null;
  const say = (text) => (find("said").textContent = text);

  lab.colours = { sequential: bytesOf(data.colours.viridis), diverging: bytesOf(data.colours.RdBu_r) };
  lab.layer = (name) => data.reach.layers.find((one) => one.name === name);
  lab.layerTitle = (name) => (name === "relu" ? "the stem" : name);
  lab.title = (name) => data.pictures.find((one) => one.name === name)?.caption || name;
  lab.touched = ({ influence }) => [...influence].flatMap((touched, cell) => (touched === "1" ? [cell] : []));
  lab.places = (name = lab.state.picture) => {
    const { height, width } = lab.pictures.get(name);
    return places(data.reach, height, width);
  };

  // The shipped pattern of a network under a padding in a layer, if there is one.
  lab.pattern = (...of) => {
    const key = of.join(" "), packed = data.patterns[key];
    if (packed && !patterns.has(key)) {
      const floats = (name) => new Float32Array(bytesOf(packed[name]).buffer);
      const [scales, D, O] = ["scales", "spreadD", "spreadO"].map(floats);
      const size = lab.layer(of.at(-1)).influence.length, steps = new Int8Array(bytesOf(packed.cells).buffer);
      const cells = Float32Array.from(steps, (step, i) => (step * scales[Math.floor(i / size)]) / packed.steps);
      patterns.set(key, { n: packed.n, cells, spreads: { D, A: O, O } });
    }
    return patterns.get(key);
  };

  // ---- the worker

  const worker = startWorker(engine, heard, say);
  lab.send = (message) => worker?.postMessage(message);

  function heard(message) {
    find("progress").hidden = message.kind !== "progress" || message.share >= 1;
    if (message.kind === "failed") say(`The computation failed: ${message.reason}`);
    else if (message.kind === "progress") {
      find("progress").querySelector("progress").value = message.share;
      find("progress-of").textContent = `The network runs over the whole photograph: ${lab.title(message.picture)}.`;
    } else if ((message.mode || message.kind) === shown) modes[shown].heard(message);
  }

  // Tell it of a network and of pictures, once.
  lab.prepare = async (network, names) => {
    const once = (what, message) => {
      if (!told.has(what)) lab.send(message());
      told.add(what);
    };
    once(`network ${network}`, () => {
      const { weights } = data.networks.find((one) => one.name === network);
      return { kind: "network", name: network, description: data.description, weights };
    });
    for (const name of names) {
      const shipped = data.pictures.find((one) => one.name === name);
      if (!lab.pictures.has(name)) lab.pictures.set(name, await decoded(shipped.url, name, data.reach));
      const { height, width, rgb } = lab.pictures.get(name);
      once(`picture ${name}`, () => ({ kind: "picture", picture: { name, height, width, rgb } }));
    }
  };

  // Ask for the features of a window, by default of the chosen one; the answer goes to a mode.
  lab.look = async (mode, changes = {}, place = () => ({})) => {
    const wanted = { ...lab.state, seed: 1, ...changes };
    await lab.prepare(wanted.network, [wanted.picture]);
    lab.send({ kind: "look", mode, ...wanted, ...place(lab.places(wanted.picture)) });
  };

  // ---- what is chosen

  lab.change = (changes) => {
    const names = Object.keys(changes).filter((name) => changes[name] !== lab.state[name] || name === "picture");
    Object.assign(lab.state, changes);
    if (names.includes("layer")) {
      const { outputs } = data.description.layers.find((one) => one.name === lab.state.layer);
      if (lab.state.channel >= outputs) lab.state.channel = -1;
      const channels = Array.from({ length: outputs }, (_, c) => element("option", { value: c }, `channel ${c + 1}`));
      fields.channel.replaceChildren(element("option", { value: -1 }, "mean over channels"), ...channels);
    }
    for (const [name, field] of Object.entries(fields)) field.value = lab.state[name];
    if (names.length) modes[shown]?.changed(names);
  };

  async function choosePicture(name) {
    await lab.prepare(lab.state.network, [name]);
    const { tops, lefts } = lab.places(name), middle = (all) => all[Math.floor(all.length / 2)];
    lab.change({ picture: name, top: middle(tops), left: middle(lefts) });
  }

  // A photograph of the reader's: it is decoded here and goes nowhere.
  async function take(file) {
    if (!file) return;
    const url = URL.createObjectURL(file), { name } = file;
    try {
      lab.pictures.set(name, await decoded(url, name, data.reach));
      told.delete(`picture ${name}`);
      if (!lab.own.includes(name)) {
        lab.own.push(name);
        fields.picture.append(element("option", { value: name }, name));
      }
      say(`${lab.pictures.get(name).about} It stays on this machine.`);
      await choosePicture(name);
    } catch (error) {
      say(error.message);
    }
    URL.revokeObjectURL(url);
  }

  for (const [name, field] of Object.entries(fields)) {
    field.addEventListener("change", () => {
      if (name === "picture") choosePicture(field.value);
      else lab.change({ [name]: name === "channel" ? Number(field.value) : field.value });
    });
  }
  find("file").addEventListener("change", (event) => take(event.target.files[0]));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });

  // ---- which mode is shown: the address names it

  function show(name) {
    modes[shown]?.leave?.();
    shown = name in MODES ? name : "explore";
    for (const other of Object.keys(MODES)) {
      find(other).hidden = other !== shown;
      document.querySelector(`nav a[href="#${other}"]`).ariaCurrent = other === shown ? "page" : null;
    }
    find("choices").dataset.mode = shown;
    lab.send({ kind: "stop" });
    modes[shown].changed(["mode"]);
  }
  window.addEventListener("hashchange", () => location.hash.slice(1) in MODES && show(location.hash.slice(1)));
  for (const button of document.querySelectorAll("[data-set]")) {
    button.addEventListener("click", () => {
      const { mode, begin, ...wanted } = JSON.parse(button.dataset.set);
      history.replaceState(null, "", `#${mode}`);
      show(mode);
      lab.change(wanted);
      if (begin) modes[mode].begin();
      find(mode).scrollIntoView();
    });
  }

  lab.send({ kind: "start", reach: data.reach });
  for (const [name, weights] of Object.entries(data.corner.weights)) {
    lab.send({ kind: "network", name, description: data.corner.description, weights });
  }
  for (const [name, make] of Object.entries(MODES)) modes[name] = make(lab);
  document.documentElement.classList.add("live");
  lab.change({ layer });
  modes.explore.heard(data.first);
  lab.prepare(network, [picture]).then(() => show(location.hash.slice(1)));
  return lab;
}

// A worker of the engine's own text: browsers refuse a file where the page is one.
function startWorker(text, heard, say) {
  const failed = () => say("This browser does not let the page compute: what you see was computed beforehand.");
  try {
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => heard(data);
    worker.onerror = failed;
    return worker;
  } catch {
    failed();
    return null;
  }
}

const laboratory = openLaboratory(JSON.parse(find("data").textContent), find("engine").textContent);
