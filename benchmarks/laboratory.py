"""Measure how fast the page's scripts are: windows a second, a whole photograph, a page's size.

python benchmarks/laboratory.py [--output FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from shared import report

from companion.laboratory import networks
from companion.laboratory.node import run
from studies.networks import PLANE_WINDOW, reach_of

# Processor time of the process, of which Node compiles in other threads at the beginning alone.
TIMED = """
const least = (work) => Math.min(...Array.from({ length: given.repeats }, () => {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}));
const picture = (height, width) =>
  ({ height, width, rgb: new Uint8Array(3 * height * width).fill(90) });
const network = newNetwork(given.description, halves(bytesOf(given.weights)));
const side = given.window, window = picture(side, side), maps = newMaps(network, side, side);
const found = {};
for (const scheme of ["zeros", "reflect", "replicate", "circular", "randn"]) {
  found[`windows a second, ${scheme}`] = 1 / least(() => {
    writePixels(network, maps[0], window, 0, 0);
    run(network, maps, scheme, normalDraws(1));
  });
}
const whole = picture(304, 448);
const passed = () => {
  const pass = newPass(network, given.reach, whole);
  while (!pass.finished) pass.progress();
  return pass;
};
found["seconds, optimal pass of 304 x 448 px"] = least(passed);
const running = newRunning(network, given.reach, "zeros", 1), pass = passed();
const add = () => running.add(pass, "one", whole, 96, 96);
found["windows a second, play, five layers"] = 1 / least(add);
return found;
"""


def main() -> None:
    """Print the figures, and write them if a file is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40, help="of each piece of work")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    model = networks.residual("zeros")
    given = {"description": networks.described(model), "weights": networks.weights(model)}
    given |= {"reach": networks.reach(reach_of("resnet")), "window": PLANE_WINDOW}
    found = run(TIMED, repeats=asked.repeats, **given)
    report({name: round(value, 3) for name, value in found.items()}, asked.output)


if __name__ == "__main__":
    main()
