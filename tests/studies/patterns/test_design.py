import itertools
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch

from ppp.errors import ParameterError, PPPError
from ppp.results import LayerResult
from studies.dynamics.design import PADDINGS, SEEDS
from studies.networks import OPTIMAL, load_network, reach_of, small_resnet
from studies.patterns import design
from studies.patterns.design import Run, correlation, measure_run, read, runs
from studies.storage import tables

LAYERS = ["relu", "layer1", "layer2", "layer3", "layer4"]
ONE = Run("resnet", "randn", "trained", 0)
CONTROL = Run("resnet", OPTIMAL, "trained", 1)
INITIAL = Run("resnet", OPTIMAL, "initial", 0)


# ------------------------------------------------------------------------------ the design


def test_every_trained_network_is_a_run_and_every_initial_one_once_a_seed():
    found = runs()
    assert len(found) == len(set(found)) == len({run.stem for run in found})
    trained = {(r.family, r.padding, r.seed) for r in found if r.state == "trained"}
    paddings = (*PADDINGS, OPTIMAL)
    assert trained == {(f, p, s) for f in SEEDS for p in paddings for s in SEEDS[f]}
    assert {(r.family, r.seed) for r in found if r.state == "initial"} == {
        (f, s) for f in SEEDS for s in SEEDS[f]
    }


def test_initial_networks_of_a_seed_are_the_same_whatever_the_padding():
    first, second = (
        load_network(f"plane-resnet-{padding}", "initial", seed=2).model.state_dict()
        for padding in ("optimal", "zeros")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_runs_are_chosen():
    assert runs(["vgg"], ["zeros", "randn"], ["trained"], [1]) == [
        Run("vgg", "zeros", "trained", 1),
        Run("vgg", "randn", "trained", 1),
    ]
    assert runs(states=["initial"], seeds=[4]) == [Run("resnet", OPTIMAL, "initial", 4)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"families": ["resnt"]}, "unknown family 'resnt'; did you mean 'resnet'?"),
        ({"paddings": ["zeroes"]}, "unknown padding 'zeroes'; did you mean 'zeros'?"),
        ({"states": ["final"]}, "unknown state 'final'"),
        ({"seeds": [5]}, "seed = 5; expected a whole number, 0 to 4"),
        ({"families": ["vgg"], "seeds": [4]}, "no run of the design"),
        ({"paddings": ["zeros"], "states": ["initial"]}, "no run of the design"),
        ({"families": []}, "no run of the design"),
    ],
)
def test_what_is_no_run_is_refused(asked, words):
    with pytest.raises(ParameterError, match="^" + words.replace("?", r"\?")):
        runs(**asked)


def test_what_a_run_measures():
    assert ONE.tested == ("randn",) and CONTROL.tested == INITIAL.tested == PADDINGS
    assert ONE.sizes == INITIAL.sizes == (8, 32, 128, 512) and CONTROL.sizes == ()
    assert Run("vgg", "zeros", "trained", 0).sizes == (8, 32, 128)


def test_halves_share_no_picture():
    reach = reach_of("resnet")
    photos = [{p.name for p in design.windows_of_photographs(reach, half)} for half in (0, 1)]
    plane = [{p.name for p in design.windows_of_scenes(reach, 12, half)} for half in (0, 1)]
    assert all(map(len, photos)) and [len(names) for names in plane] == [12, 12]
    assert not photos[0] & photos[1] and not plane[0] & plane[1]
    assert {p.name for p in design.windows_of_photographs(reach)} == photos[0] | photos[1]


def test_fewer_scenes_are_the_first_of_more():
    few, more = ([*design.windows_of_scenes(reach_of("resnet"), n, 0)] for n in (2, 3))
    for one, other in zip(few, more):
        assert one.name == other.name and torch.equal(one.pixels, other.pixels)
        assert len(one.tops) == 1


# ------------------------------------------------------------------------------- measuring


def result(pattern: np.ndarray, influence: np.ndarray) -> LayerResult:
    values = dict.fromkeys(field.name for field in fields(LayerResult))
    values |= {"pattern": pattern, "deviation": pattern, "influence": influence}
    return LayerResult(**values | {"scheme": "zeros", "layer": "conv"})


def test_correlation_runs_over_channels_and_the_cells_padding_can_touch():
    draw = np.random.default_rng(0)
    a, b = draw.random((2, 3, 4, 5)).astype(np.float32)
    influence = draw.random((4, 5)) < 0.5
    inside = [
        [x[c, i, j] for c in range(3) for i, j in zip(*np.nonzero(influence))] for x in (a, b)
    ]
    expected = np.corrcoef(*inside)[0, 1]
    assert correlation(result(a, influence), result(b, influence)) == pytest.approx(expected, 1e-6)
    assert np.isnan(correlation(result(a, influence), result(np.ones_like(b), influence)))


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Make the design one that takes a second."""
    patch.setattr(design, "SIZES", {"resnet": (4, 8)})
    patch.setattr(design, "PER_PHOTO", 2)


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def measured():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        runs = (ONE, CONTROL, INITIAL)
        return {run: measure_run(small_resnet(seed=3).eval(), run) for run in runs}


def test_metrics_are_of_every_scheme_on_photographs_and_of_the_tested_ones_on_scenes(measured):
    for run, found in measured.items():
        table = found["metrics"]
        photos, plane = (table[table["data"] == d] for d in ("photographs", "plane"))
        assert set(zip(photos["scheme"], photos["layer"])) == {*itertools.product(PADDINGS, LAYERS)}
        schemes = () if run == CONTROL else run.tested
        assert set(zip(plane["scheme"], plane["layer"])) == {*itertools.product(schemes, LAYERS)}
        assert (plane["n"] == 8).all() and not table.duplicated(["data", "scheme", "layer"]).any()
        assert (photos["n"] == 2 * photos["groups"]).all() and photos["groups"].min() >= 4


def test_growth_has_both_halves_at_every_number_of_scenes(measured):
    for run in (ONE, INITIAL):
        found = measured[run]["growth"]
        key = ["scheme", "layer", "half", "n"]
        expected = {*itertools.product(run.tested, LAYERS, (0, 1), (4, 8))}
        assert {*found[key].itertuples(index=False, name=None)} == expected
        assert len(found) == len(expected)
        # the plain power is the unbiased one and V / n, scenes being independent
        bias = found["plug_in"] - found["power_windows"]
        assert np.allclose(bias, found["noise_power"] / found["n"])
        assert found["separated"].between(0, 1).all()


def test_a_control_has_photographs_only(measured):
    found = measured[CONTROL]
    assert found["growth"].empty and found["channels"].empty and found["maps"].empty
    assert set(found["halves"]["data"]) == {"photographs"}
    assert len(found["halves"]) == len(PADDINGS) * len(LAYERS)


def test_halves_agree_to_between_minus_one_and_one(measured):
    for run in (ONE, INITIAL):
        found = measured[run]["halves"]
        counts = found.groupby("data").size().div(len(run.tested) * len(LAYERS)).to_dict()
        assert counts == {"photographs": 1, "plane": 2, "photographs and plane": 1}
        assert found["r"].abs().max() <= 1
        assert set(found.loc[found["data"] == "plane", "n"]) == {4, 8}


def test_maps_average_to_the_metric(measured):
    found, table = measured[ONE]["maps"], measured[ONE]["metrics"]
    assert set(found["scheme"]) == {"randn"} and measured[INITIAL]["maps"].empty
    own = table[(table["data"] == "photographs") & (table["scheme"] == "randn")]
    mae = own.set_index("layer")["mae"]
    assert np.allclose(found.groupby("layer")["value"].mean()[mae.index], mae)
    ends = found.groupby("layer")[["row", "column"]].max().loc[LAYERS]
    assert ends["row"].tolist() == ends["column"].tolist() == [47, 47, 23, 11, 5]


def test_channels_average_to_the_metric_and_to_the_power(measured):
    found, table = measured[ONE]["channels"], measured[ONE]["metrics"]
    own = table[table["data"] == "plane"].set_index("layer")
    means = found.groupby("layer")[["mae", "power"]].mean().loc[own.index]
    assert np.allclose(means["mae"], own["mae"])
    assert np.allclose(means["power"], own["power_windows"] / own["sigma"] ** 2, atol=1e-9)
    assert found.groupby("layer").size().loc[LAYERS].tolist() == [16, 16, 32, 48, 80]


def test_the_same_run_gives_the_same_tables(small, measured):
    again = measure_run(small_resnet(seed=3).eval(), ONE)
    for name, table in measured[ONE].items():
        pd.testing.assert_frame_equal(again[name], table)


def test_finished_runs_become_tables(small, tmp_path, capsys):
    wanted = [Run("resnet", "zeros", "trained", 0), CONTROL]
    with pytest.raises(PPPError, match="2 of 2 runs are not finished"):
        design.collect(tmp_path / "runs", tmp_path / "data", wanted)
    design.measure_design(wanted, tmp_path / "runs")
    assert capsys.readouterr().out.startswith("resnet-zeros-trained-seed0: ")
    assert design.collect(tmp_path / "runs", tmp_path / "data", wanted) == 2
    for name in design.TABLES:
        table = read(name, tmp_path / "data")
        assert table.columns[:4].tolist() == ["family", "padding", "state", "seed"]
    metrics = read("metrics", tmp_path / "data")
    assert metrics.groupby("padding").size().to_dict() == {"optimal": 25, "zeros": 30}
    assert design.perform(wanted[0], tmp_path / "runs") > 0  # kept, not measured again


# ------------------------------------------------------------------------------ as shipped


@pytest.fixture(scope="module")
def shipped():
    return {name: read(name) for name in design.TABLES}


def test_every_run_is_shipped(shipped):
    key = ["family", "padding", "state", "seed"]
    held = tables.read_table(design.DATA / "runs.csv")
    assert {*held[key].itertuples(index=False, name=None)} == {
        (r.family, r.padding, r.state, r.seed) for r in runs()
    }
    rows = shipped["metrics"].groupby(key).size()
    for run in runs():
        expected = 5 * (len(PADDINGS) + (len(run.tested) if run.sizes else 0))
        assert rows[run.family, run.padding, run.state, run.seed] == expected, run


def test_shipped_numbers_are_of_the_design(shipped):
    metrics = shipped["metrics"]
    photos, plane = (metrics[metrics["data"] == d] for d in ("photographs", "plane"))
    assert set(photos["n"]) == {8 * design.PER_PHOTO} and set(photos["groups"]) == {8}
    assert plane.groupby("family")["n"].unique().map(list).to_dict() == {
        "resnet": [512],
        "vgg": [128],
    }
    assert metrics["null_relative"].max() <= 1e-4
    assert (metrics["mae_floor"] > 0).all() and (metrics["mae"] > 0).all()
    assert shipped["halves"]["r"].abs().max() <= 1


def test_a_shipped_row_is_computed_again(shipped):
    run = Run("resnet", "zeros", "trained", 3)
    model = load_network("plane-resnet-zeros", "trained", seed=3).model
    reach = reach_of("resnet")
    found = [
        design._measured(
            model, reach, design.windows_of_scenes(reach, 8, half), ["zeros"], seed=seed, marks=(8,)
        )
        for half, seed in enumerate((1, 2))
    ]
    key = {"family": "resnet", "padding": "zeros", "state": "trained", "seed": run.seed, "n": 8}
    halves = shipped["halves"]
    halves = halves[(halves[[*key]] == pd.Series(key)).all(axis=1) & (halves["data"] == "plane")]
    again = {layer: correlation(*(part["zeros", layer] for part in found)) for layer in LAYERS}
    known = halves.set_index("layer")["r"].to_dict()
    assert again == pytest.approx(known, abs=1e-3)
    growth = shipped["growth"]
    growth = growth[(growth[[*key]] == pd.Series(key)).all(axis=1) & (growth["half"] == 0)]
    assert found[0].table()["mae"].tolist() == pytest.approx(growth["mae"].tolist(), rel=1e-3)


def test_an_unknown_table_is_refused():
    with pytest.raises(ParameterError, match="unknown table 'metric'; did you mean 'metrics'"):
        read("metric")


def test_kinds_of_networks(shipped):
    found = design.with_kind(shipped["metrics"])
    found = found[found["data"] == "photographs"]
    trained = found[found["kind"] == "trained"]
    assert (trained["scheme"] == trained["padding"]).all()
    assert found.groupby("kind")["scheme"].nunique().to_dict() == dict.fromkeys(
        ("control", "initial", "trained"), 5
    )
    control = found[found["kind"] == "control"]
    assert set(control["padding"]) == {OPTIMAL} and set(control["state"]) == {"trained"}
