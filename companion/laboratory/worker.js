// The worker: answers the page, one request at a time; a later request ends an earlier one.
"use strict";

function serve(scope) {
  const networks = new Map(), pictures = new Map(), passes = new Map();
  let reach, turn = 0, running = null;

  // Let messages that wait be heard; tell whether this request is still the last one.
  const channel = new MessageChannel(), heard = [];
  channel.port1.onmessage = () => heard.shift()();
  const still = async (mine) => {
    await new Promise((done) => {
      heard.push(done);
      channel.port2.postMessage(0);
    });
    return mine === turn;
  };

  // The optimal pass of a picture, begun or gone on with; only those of one network are kept.
  async function passOf(network, picture, mine) {
    for (const [other, pass] of passes) if (pass.network !== network) passes.delete(other);
    if (!passes.has(picture)) {
      const pass = newPass(networks.get(network), reach, pictures.get(picture));
      passes.set(picture, Object.assign(pass, { network }));
    }
    const pass = passes.get(picture);
    while (!pass.finished) {
      scope.postMessage({ kind: "progress", picture, share: pass.progress() });
      if (!(await still(mine))) return null;
    }
    return pass;
  }

  const notes = {
    start(message) {
      reach = message.reach;
    },
    network({ name, description, weights }) {
      networks.set(name, newNetwork(description, halves(bytesOf(weights))));
    },
    picture({ picture }) {
      if (pictures.has(picture.name)) running = null;
      pictures.set(picture.name, picture);
      passes.delete(picture.name);
    },
    // What was played so far, in a layer.
    state({ layer }) {
      if (running) scope.postMessage({ kind: "play", done: true, ...running.state(layer) });
    },
  };

  const requests = {
    // The features of a window and the answers, with padding (A) and with true surroundings (O).
    async look(message, mine) {
      const { network: name, picture, padding, layer, top, left, seed } = message;
      const pass = await passOf(name, picture, mine);
      if (!pass) return;
      const network = networks.get(name), maps = newMaps(network, reach.window, reach.window);
      writePixels(network, maps[0], pictures.get(picture), top, left);
      run(network, maps, padding, normalDraws(seed));
      const both = { A: (of) => features(network, maps, of), O: (of) => surrounded(pass, of, top, left) };
      const answer = (way) => shares(scores(network, both[way](reach.layers.at(-1).name)));
      const answers = { A: answer("A"), O: answer("O") };
      scope.postMessage({ ...message, A: both.A(layer), O: both.O(layer), answers });
    },

    // Windows drawn at random, until another request comes. The same settings go on.
    async play({ settings, layer, calm }, mine) {
      const { network, padding, from, seed } = settings, key = JSON.stringify(settings);
      if (!running || running.key !== key) {
        running = newRunning(networks.get(network), reach, padding, seed);
        running.key = key;
        running.windows = [...drawnWindows(reach, from.map((name) => pictures.get(name)), seed)];
      }
      for (let shown = 0, done = false; !done; ) {
        const { name, top, left } = running.windows[running.n] || {};
        if (name) {
          const pass = await passOf(network, name, mine);
          if (!pass) return;
          running.add(pass, name, pictures.get(name), top, left);
        }
        const { n } = running, now = performance.now();
        done = n === running.windows.length;
        if (done || (calm ? (n & (n - 1)) === 0 : n < 4 || now - shown > 250)) {
          shown = now;
          scope.postMessage({ kind: "play", done, ...running.state(layer) });
        }
        if (!(await still(mine))) return;
      }
    },

    // A network of full convolution on a canvas with two blocks, in every row.
    async corner({ network: name, canvas, size, block, columns, order }, mine) {
      const network = networks.get(name), maps = newMaps(network, size, size), answers = [];
      for (let row = 0; row + block <= size; row++) {
        paintBlocks(maps[0], canvas, block, columns, order, row);
        run(network, maps, "zeros");
        answers.push(shares(scores(network, maps.at(-1)))[0]);
        if (row % 4 === 3 && !(await still(mine))) return;
      }
      scope.postMessage({ kind: "corner", network: name, order, answers });
    },

    stop() {},
  };

  scope.onmessage = async ({ data }) => {
    try {
      if (notes[data.kind]) return notes[data.kind](data);
      const mine = ++turn;
      if (await still(mine)) await requests[data.kind](data, mine);
    } catch (error) {
      scope.postMessage({ kind: "failed", reason: error.message });
    }
  };
}

if (typeof WorkerGlobalScope !== "undefined") serve(self);
