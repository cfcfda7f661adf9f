"""The BHV corner: its images are the study's, and its networks have the study's accuracies."""

import numpy as np
import pytest

from companion.laboratory import networks
from companion.laboratory.node import run
from studies.bhv import design
from studies.bhv.redgreen import PUBLISHED_SEED, PUBLISHED_SHIFT, RedGreen

CONDITIONS = {"black": "published", "grey": "canvas-0.5"}
SEED = 4  # of the networks that are shipped
SIZE, BLOCK = 32, 4


def test_a_painted_image_is_the_study_s():
    """Of class 0 and of class 1, on the columns and in the row that both blocks share there."""
    data = RedGreen(0.5, jitter=1)
    images, labels = data.images(40, seed=3)
    places = data.places(40, seed=3)
    level = np.flatnonzero(places[:, 1] == places[:, 3])
    cases = [
        {"order": int(labels[i]), "columns": places[i, [0, 2]].tolist(), "row": int(places[i, 1])}
        for i in level
    ]
    assert {case["order"] for case in cases} == {0, 1}
    body = """
    return given.cases.map(({ order, columns, row }) => {
      const map = newMap(3, 32, 32, 2);
      paintBlocks(map, 0.5, 4, columns, order, row);
      return cutOut(map, 0, 0, 32, 32).cells;
    });
    """
    for painted, i in zip(run(body, cases=cases), level, strict=True):
        assert np.array_equal(painted.reshape(3, SIZE, SIZE), images[i].numpy())


@pytest.mark.parametrize("canvas", networks.CANVASES)
def test_the_shipped_networks_have_the_accuracies_of_the_study(canvas):
    table = design.accuracies().query(
        f"variant == 'F-zero' and condition == '{CONDITIONS[canvas]}' and seed == {SEED}"
        " and split == 'leaked' and epochs == 50"
    )
    expected = table.set_index("shift")["accuracy"]
    model, data = networks.full_convolution(canvas), RedGreen(networks.CANVASES[canvas])
    for shift in (0, PUBLISHED_SHIFT):
        images, labels = data.images(1000, PUBLISHED_SEED, shift)
        found = 100 * float((model(images).argmax(1) == labels).double().mean())
        assert found == pytest.approx(expected[shift], abs=0.2), shift


def test_full_convolution_fails_on_grey_where_it_was_not_trained():
    """What the page shows, by the engine: both orders in every row."""
    body = """
    return Object.values(given.networks).map(([description, weights, canvas]) => {
      const network = newNetwork(description, halves(bytesOf(weights)));
      const maps = newMaps(network, 32, 32), rows = [...Array(29).keys()];
      return [0, 1].map((order) => rows.map((row) => {
        paintBlocks(maps[0], canvas, 4, [8, 20], order, row);
        run(network, maps, "zeros");
        const [first, second] = scores(network, maps.at(-1));
        return Number(first >= second === (order === 0));
      }));
    });
    """
    given = {}
    for name, canvas in networks.CANVASES.items():
        model = networks.full_convolution(name)
        given[name] = (networks.described(model), networks.weights(model), canvas)
    black, grey = run(body, networks=given)
    assert sum(map(sum, black)) == 58
    upper, lower = slice(3, 11), slice(19, 27)  # rows of the two classes in training
    assert sum(grey[0][upper]) == sum(grey[1][lower]) == 8
    assert sum(grey[0][lower]) < 8 and sum(grey[1][upper]) < 8
