"""Networks measured by name, as a plain call of the library measures them."""

import pandas as pd
from checks import refused
from PIL import Image

import ppp
from ppp.errors import ParameterError, PictureError
from studies.networks import load_network
from studies.patterns import comparison
from studies.patterns.comparison import measure_network
from studies.pictures import plane
from studies.pictures.photographs import photographs

NAME = "plane-resnet-randn"


def plainly(pictures, schemes, per_picture, network_seed=0):
    net = load_network(NAME, "trained", seed=network_seed)
    reach = ppp.coverage(net.model, ["relu", "layer1"], net.window)
    given = pictures(ppp.size_needed(net.window, reach))
    how = {"per_picture": per_picture, "seed": 3, "transform": net.prepare}
    windows = ppp.cut_windows(given, net.window, reach, **how)
    return ppp.measure(net.model, windows, list(reach), schemes, coverage=reach, seed=3).table()


def test_photographs_are_measured():
    found = measure_network(
        NAME, "trained", ["randn", "zeros"], ["relu", "layer1"], per_photo=2, seed=3
    )
    expected = plainly(lambda need: photographs(), ["randn", "zeros"], 2)
    pd.testing.assert_frame_equal(found.measurement.table(), expected)
    assert found.network.name == NAME


def test_scenes_are_measured_and_seeds_choose_the_network():
    how = {"pictures": "plane", "n": 4, "scene_seed": 77, "seed": 3}
    found = measure_network(NAME, "trained", None, ["relu", "layer1"], network_seed=2, **how)
    expected = plainly(lambda need: plane.scenes(4, *need, seed=77), None, 1, network_seed=2)
    pd.testing.assert_frame_equal(found.measurement.table(), expected)


def test_scenes_are_by_default_none_that_a_network_was_trained_on(monkeypatch):
    asked = []

    def scenes(n, *size, seed):
        asked.append((seed, n))
        return plane.scenes(n, *size, seed=seed)

    monkeypatch.setattr(comparison, "scenes", scenes)
    found = measure_network(NAME, layers=["relu"], pictures="plane", n=3)
    first, end = found.network.provenance["train_scenes"]
    ((seed, n),) = asked
    assert seed >= end or seed + n <= first


def test_without_layers_those_of_interest_or_those_found():
    own = measure_network(NAME, pictures="plane", n=2).measurement
    assert [layer for _, layer in own] == ["relu", "layer1", "layer2", "layer3", "layer4"]
    other = measure_network("squeezenet1_1", "random", pictures="plane", n=2)
    assert not other.network.layers and len(other.measurement) > 1


def test_networks_stand_below_each_other():
    found = {
        name: measure_network(name, layers=["relu"], pictures="plane", n=2)
        for name in (NAME, "plane-resnet-zeros")
    }
    table = comparison.table(found)
    assert table.columns[0] == "network" and table["network"].tolist() == list(found)


def test_unknown_pictures_and_small_photographs_are_refused(tmp_path):
    refused(measure_network, NAME, pictures="plain", error=ParameterError)
    Image.new("RGB", (50, 60)).save(tmp_path / "small.png")
    said = refused(measure_network, NAME, photos=str(tmp_path), error=PictureError)
    assert "192 x 192 px" in said and NAME in said
