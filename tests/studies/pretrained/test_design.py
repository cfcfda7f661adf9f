"""The study of real networks, on few pictures, against ppp.measure and plain computations."""

import numpy as np
import pandas as pd
import pytest
import torch

import ppp
from ppp.metrics import Moments
from studies.networks import load_network
from studies.pictures.photographs import Reduced
from studies.pictures.plane import scenes
from studies.pretrained import design
from studies.pretrained.design import NetworkState

RUN = NetworkState("efficientnet-lite0", "initial", 0)


@pytest.fixture(scope="module")
def pictures():
    """Scenes in the place of photographs: three layers have room in four, two in one more."""
    return [
        Reduced(s, s.height) for s in (*scenes(4, 320, 352, seed=1), *scenes(1, 288, 320, seed=7))
    ]


@pytest.fixture(scope="module")
def network():
    return load_network("efficientnet-lite0", "random", seed=1)


@pytest.fixture(scope="module")
def reach(network):
    return ppp.coverage(network.model, list(network.layers), network.window)


@pytest.fixture(scope="module")
def found(network, reach, pictures):
    return design.collect(network, network.model, reach, pictures, 2, ["zeros", "reflect"])


def test_every_layer_is_measured_on_the_pictures_that_can_serve_it(found):
    sizes = {layer: len(found.differences["zeros", layer]) for layer in found.layers}
    assert sizes == {"blocks.0": 5, "blocks.2": 5, "blocks.4": 4}


def test_metrics_are_those_of_the_library_per_influenced_cell(found, network, reach, pictures):
    cover = reach.only(found.layers)
    windows = ppp.cut_windows(
        pictures[:4], 224, cover, per_picture=2, seed=0, transform=network.prepare
    )
    measured = ppp.measure(
        network.model, windows, ["blocks.4"], ["zeros", "reflect"], coverage=cover, groups=9
    )
    rows = design.metrics(found).query("layer == 'blocks.4'").set_index("scheme")
    for scheme in ("zeros", "reflect"):
        result, row = measured[scheme, "blocks.4"], rows.loc[scheme]
        assert row["mae"] == pytest.approx(result.mae_influenced.value, rel=1e-5)
        assert row["mae_low"] == pytest.approx(result.mae_influenced.low, rel=1e-4)
        assert row["snr"] == pytest.approx(result.snr_influenced.value, rel=1e-5)
        assert row["power"] == pytest.approx(result.power.value / result.influenced, rel=1e-5)
        assert row["sigma"] == pytest.approx(result.sigma, rel=1e-5)
        assert row["share"] == pytest.approx(result.share, rel=1e-5)


def test_leaving_a_photograph_out_gives_what_the_others_give(found, network, reach, pictures):
    rows = design.without(found).query("layer == 'blocks.4'").set_index("picture")
    fewer = design.collect(network, network.model, reach, pictures[1:4], 2, ["zeros"])
    (rest,) = design.metrics(fewer).query("layer == 'blocks.4'").to_dict("records")
    left = rows.loc[pictures[0].name]
    for name in ("mae", "raw", "snr", "share"):
        assert left[name] == pytest.approx(rest[name], rel=1e-5)
    assert rows.loc["", "mae"] != pytest.approx(left["mae"], rel=1e-5)


def planted(strength: float, photographs: int = 12):
    """What a measurement leaves of a map of 4 x 4 cells, all touched, with a known pattern."""
    draw = torch.Generator().manual_seed(0)
    found = design.Collected({})
    found.touched = {"a": torch.ones(4, 4, dtype=torch.bool)}
    pattern = torch.zeros(2, 4, 4, dtype=torch.float64)
    pattern[0, 0, 1:3], pattern[0, 0, 0] = strength, 3 * strength
    for i in range(photographs):
        noise = torch.randn(3, 2, 4, 4, generator=draw, dtype=torch.float64) / 10
        true = torch.randn(3, 2, 4, 4, generator=draw, dtype=torch.float64)
        found.differences["zeros", "a"][str(i)] = Moments().update((noise + pattern).flatten(2))
        found.optimal["a"][str(i)] = Moments().update(true.flatten(2))
        scale = Moments().update(true.transpose(0, 1).flatten(1).T)
        found.scales["a"][str(i)] = scale
    return found


def test_channels_and_regions_find_a_planted_pattern():
    channels = design.channels(planted(1.0)).set_index("channel")
    assert channels.loc[0, "power"] == pytest.approx((9 + 2) / 16, rel=0.05)
    assert abs(channels.loc[1, "power"]) < 0.002
    assert channels.loc[0, "sigma"] == pytest.approx(1, rel=0.1)
    regions = design.regions(planted(1.0)).set_index("region")["power"]
    assert list(regions.index) == list(design.REGIONS)
    assert regions["top"] == pytest.approx(1 / 2, rel=0.1)
    assert regions["corner"] == pytest.approx(9 / 4 / 2, rel=0.1)
    assert regions[["bottom", "left", "right", "inside"]].abs().max() < 0.01


@pytest.mark.parametrize("strength, told", [(0.0, False), (20.0, True)])
def test_mean_features_are_distinguished_where_a_pattern_is_strong(monkeypatch, strength, told):
    monkeypatch.setattr(design, "HALVES", (3, 5))
    monkeypatch.setattr(design, "DIVISIONS", 4)
    rows = design.distinguished(planted(strength))
    assert set(rows["picture"]) == {"", *map(str, range(12))}
    excess = (rows["separated"] - rows["control"]).groupby(rows["n"]).mean()
    # Three of 32 cells carry the pattern.
    assert excess[5] == pytest.approx(3 / 32, abs=0.01) if told else excess.abs().max() < 0.05


def test_the_statistics_of_batch_norm_are_those_of_the_pictures_given(network, pictures):
    model = design.re_estimated(network, pictures[:2])
    assert not model.training
    norm, before = model.stem[2], network.model.stem[2]
    assert norm.num_batches_tracked == 2
    assert float(before.running_mean.abs().max()) == 0
    assert float(norm.running_mean.abs().max()) > 0
    torch.testing.assert_close(norm.weight, before.weight)


def test_the_same_run_gives_the_same_tables(monkeypatch, pictures):
    monkeypatch.setattr(design, "apart", lambda: pictures[:1])
    first, second = (design.compute(RUN, pictures, 2) for _ in range(2))
    assert {*first} == {*design.TABLES}
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, second[name], obj=name)
    assert first["metrics"]["layer"].nunique() == 3 and first["visibility"].empty


def test_single_maps_are_judged_in_groups_of_layers_with_the_same_pictures(network, reach):
    many = [object()] * 50
    layers = list(reach)
    full, rest = tuple(layers), tuple(layers[:4])
    assert design._alike({full: many}, layers) == [(layers, many)]
    few = [1, 2, 3, 4]
    pairs = design._alike({full: few, rest: [5]}, layers)
    assert pairs == [(layers[:4], [1, 2, 3, 4, 5]), (layers[4:], few)]


def test_the_shipped_tables_hold_the_runs_of_the_design_and_enough_photographs():
    table = design.read("metrics")
    runs = table[["network", "state", "seed"]].drop_duplicates().itertuples(index=False)
    assert [NetworkState(*run) for run in runs] == design.design()
    own = table[(table["state"] == "trained") & (table["scheme"] == "zeros")]
    for _, layers in own.groupby("network"):
        assert layers["pictures"].iloc[:4].min() >= 50
    assert np.isfinite(table.select_dtypes("number")).all(axis=None)
