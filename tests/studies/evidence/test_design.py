"""What the amended tests are computed from, against plain computations on few pictures."""

import numpy as np
import pytest
import torch

import ppp
from ppp.metrics import Moments, separated
from studies.evidence import design
from studies.networks import load_network, reach_of
from studies.patterns.design import NetworkState, normal
from studies.pictures.plane import SHAPES, Scene, scenes

RUN = NetworkState("resnet", "replicate", "trained", 0)
REACH = reach_of("resnet")


@pytest.fixture(scope="module")
def model():
    return load_network("plane-resnet-replicate", "trained", seed=0).model


@pytest.fixture
def photographs(monkeypatch):
    """Return scenes in the place of photographs: three of one set, six of the other."""
    drawn = {"scikit-image": scenes(3, 224, 224, seed=1), "debian": scenes(6, 224, 224, seed=9)}
    monkeypatch.setattr(design, "_reduced", drawn.get)
    monkeypatch.setattr("studies.patterns.design.PER_PHOTO", 4)
    monkeypatch.setattr(design, "MAPS", (1, 2, 4))
    return [picture for part in drawn.values() for picture in part]


def test_products_and_spreads_are_those_of_the_pictures_own_maps(model, photographs):
    tables = design.of_photographs(model, RUN)
    pictures, pairs = (tables[name].query("layer == 'layer2'") for name in ("pictures", "products"))
    assert pictures["picture"].tolist() == [picture.name for picture in photographs]
    assert pictures["set"].tolist() == ["scikit-image"] * 3 + ["debian"] * 6
    moments = {}

    def add(picture, _scheme, layer, algorithmic, optimal):
        if layer == "layer2":
            cells = moments.setdefault(picture, Moments())
            cells.update((algorithmic - optimal).double())

    for name in design.SETS:
        ppp.measure(model, design.windows(REACH, name), list(REACH), "replicate", maps=add)
    means = np.array([moments[name].mean.numpy().ravel() for name in pictures["picture"]])
    expected = means @ means.T / means.shape[1]
    found = pairs.pivot(index="first", columns="second", values="value").to_numpy()
    np.testing.assert_allclose(found[np.triu_indices(9)], expected[np.triu_indices(9)], atol=1e-7)
    np.testing.assert_allclose(pictures["mean"], means.mean(1), atol=1e-7)
    spreads = [float(moments[name].m2.mean()) for name in pictures["picture"]]
    np.testing.assert_allclose(pictures["spread"], spreads, rtol=1e-4)
    assert tables["metrics"]["groups"].unique().tolist() == [9]


def test_single_maps_are_judged_on_photographs_that_gave_no_template(model, photographs):
    rows = design.of_single_maps(model, RUN)
    tested = {picture.name for picture in photographs[3:][1::2]}
    assert set(rows["without"]) == {"", *tested}
    assert rows["area"].between(0, 1).all()
    assert set(rows["n"]) <= set(design.MAPS)


def test_distributions_are_those_of_the_library(model, monkeypatch):
    monkeypatch.setattr(design, "SCENES", (4, 12))
    monkeypatch.setattr(design, "_FIRST", {"algorithmic": 100, "optimal": 200, "control": 300})
    design._rendered.cache_clear()
    rows = design.of_scenes(model, RUN)
    design._rendered.cache_clear()
    seen = {}
    for part, first in design._FIRST.items():
        around = [
            ppp.Picture(scene.name, _eight_bits(scene), np.array([48]), np.array([48]))
            for scene in _around(first)
        ]
        kept = [Moments() for _ in REACH]

        def add(_picture, _scheme, layer, *pair, kept=kept, part=part):
            cells = torch.from_numpy(REACH[layer].influence)
            kept[list(REACH).index(layer)].update(pair[part != "algorithmic"][..., cells])

        ppp.measure(model, ppp.Windows(around, 96), list(REACH), "replicate", maps=add)
        seen[part] = kept
    last = rows[rows["n"] == 12]
    for name, other in (("separated", "algorithmic"), ("control", "control")):
        shares = [
            float(separated(a, o).double().mean()) for a, o in zip(seen[other], seen["optimal"])
        ]
        np.testing.assert_allclose(last[name], shares, atol=0.002)
    for error, a, o in zip(last["error"], seen["algorithmic"], seen["optimal"]):
        between = (o.mean - o.mean.mean()).square().mean()
        sigma = float((o.m2.mean() / 12 + between).sqrt())
        mean = float(((a.variance + o.variance) / 12).sqrt().mean())
        assert error == pytest.approx(mean / sigma, rel=1e-3)


def _around(first):
    return [Scene(first + i, SHAPES[i % len(SHAPES)], -48, -48, 192, 192) for i in range(12)]


def _eight_bits(scene):
    return normal(scene.pixels().mul(255).round().div(255))


def test_a_run_has_every_table_and_the_control_photographs_alone(model, photographs, monkeypatch):
    monkeypatch.setattr(design, "load_network", lambda *_, **__: type("N", (), {"model": model}))
    monkeypatch.setattr(design, "of_scenes", lambda *_: design.pd.DataFrame({"n": [1]}))
    tables = design.compute(RUN)
    assert set(tables) == set(design.TABLES) and all(len(table) for table in tables.values())
    control = NetworkState("resnet", "optimal", "initial", 0)
    tables = design.compute(control)
    assert tables["visibility"].empty and tables["scenes"].empty
    assert tables["metrics"]["scheme"].nunique() == 5
