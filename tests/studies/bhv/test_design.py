from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refused
from safetensors.torch import load_file

import ppp
from ppp.errors import ParameterError, WeightsError
from studies.bhv import analysis, design, variants
from studies.bhv.design import (
    CONDITIONS,
    MAIN,
    OTHERS,
    STUDY,
    Condition,
    Training,
    accuracies,
    condition_of,
    logs,
    pattern,
    patterns,
    published,
    train_live,
)
from studies.bhv.redgreen import RedGreen
from studies.bhv.variants import PUBLISHED, VARIANTS, Kept, Protocol

HEAD = ["condition", "variant", "seed"]
SMALL = Protocol(epochs=1, n_train=40, n_validation=20, n_test=20, batch=20)
TINY = {
    "published": Condition(
        trials={"V": 2, "S-optimal": 1}, splits=("leaked", "independent"), longer=("independent",)
    ),
    "size-24": Condition(RedGreen(0.5, size=24), {"S-zero": 1}),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_design(patch):
    """Make the design a few runs, each of which takes a moment."""
    usual = Condition.protocols

    def protocols(self, variant):
        few = {"n_train": 20, "n_validation": 10, "n_test": 10, "batch": 10}
        return [replace(p, epochs=p.epochs // 50, **few) for p in usual(self, variant)]

    patch.setattr(design, "CONDITIONS", TINY)
    patch.setattr(Condition, "protocols", protocols)
    patch.setattr(design, "pattern", partial(pattern, n=32))


@pytest.fixture
def tiny(monkeypatch):
    tiny_design(monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with all runs of the tiny design, for reading only."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        tiny_design(patch)
        STUDY.perform(STUDY.runs(), folder)
    return folder


@pytest.fixture
def never(monkeypatch):
    """Let no network be trained."""
    monkeypatch.setattr(variants, "train", lambda *_, **__: pytest.fail("trained"))


def raw(folder, name) -> pd.DataFrame:
    """All rows of a table as the runs wrote them, read without the library."""
    frames = [pd.read_csv(folder / run.stem / f"{name}.csv") for run in STUDY.runs()]
    return pd.concat([f for f in frames if len(f)], ignore_index=True)


# ------------------------------------------------------------------------------------- runs


def test_the_full_design():
    runs = STUDY.runs()
    assert Counter(run.condition for run in runs) == {
        "published": 68, "canvas-0.5": 66, "shuffled": 40,
        **dict.fromkeys(["canvas-noise", "canvas-1", "canvas-0.25", "canvas-photograph"], 20),
        **dict.fromkeys(["block-6", "size-24", "canvas-0.5-shuffled"], 20),
    }  # fmt: skip
    seeds = Counter((run.condition, run.variant) for run in runs)
    for run in runs:
        assert 0 <= run.seed < seeds[run.condition, run.variant]
    for condition, count in (("published", 10), ("shuffled", 10), ("block-6", 5)):
        assert all(seeds[condition, name] == count for name in MAIN)
    assert seeds["published", "S-circular-2"] == 10 and seeds["published", "S-randn"] == 5
    assert seeds["canvas-0.5", "F-optimal"] == 3


# ------------------------------------------------------------------------------- conditions


class Trained(Exception):
    """Training would begin."""


class Images:
    def images(self, *_, **__):
        raise Trained


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_protocols_of_a_condition_share_one_training(name):
    condition = CONDITIONS[name]
    for shift in condition.shifts:
        condition.data.check_shift(shift)
    for variant in condition.trials:
        protocols = condition.protocols(variant)
        with pytest.raises(Trained):  # else refused before the first image is drawn
            variants.train(variant, protocols, Images())
        kept = [(p.split, p.epochs) for p in protocols]
        assert len(set(kept)) == len(kept)
        # patterns are those of the first one
        assert protocols[0] == replace(PUBLISHED, shuffled=condition.shuffled)
        longer = [p for p in protocols if p.epochs == 100]
        assert [p.split for p in longer] == [s for s in condition.longer if variant in MAIN]
        assert all(p.enough > 0 and p.patience == 20 for p in longer)
    with pytest.raises(ParameterError, match="share a training"):
        variants.train("V", [*protocols, replace(protocols[0], shuffled=not condition.shuffled)])


def test_conditions_change_what_they_say():
    usual = RedGreen()
    for name, condition in CONDITIONS.items():
        kind, _, level = name.removesuffix("-shuffled").partition("-")
        data = usual
        if kind == "canvas":
            value = level if level in ("noise", "photograph") else float(level)
            data = replace(usual, canvas=value)
        elif kind in ("block", "size"):
            data = replace(usual, **{kind: int(level)})
        assert condition.data == data
        assert condition.shuffled == name.endswith("shuffled")
        assert {*MAIN} <= set(condition.trials) <= {*MAIN, *OTHERS, "S-optimal", "F-optimal"}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_is_known_by_its_images_and_its_training(name):
    condition = CONDITIONS[name]
    for protocol in condition.protocols("V"):
        assert condition_of(condition.data, protocol) == name
        assert condition_of(replace(condition.data, jitter=3), protocol) is None
        assert condition_of(condition.data, replace(protocol, batch=100)) is None
    other = condition_of(condition.data, replace(protocol, shuffled=not condition.shuffled))
    assert other != name and (other is None or CONDITIONS[other].data == condition.data)


@pytest.mark.slow
def test_the_first_epochs_trained_again_are_the_shipped_ones():
    """On another machine rounding differs, so only the beginning is compared."""
    log = train_live(["V"], [0], replace(PUBLISHED, epochs=2))["log"]
    shipped = logs().query("condition == 'published' and variant == 'V' and seed == 0")
    same = ["loss", "leaked_loss"]  # of epoch 2: a third and a tenth of the first step's
    assert np.allclose(log[same], shipped.head(2)[same], rtol=0.01)


# ------------------------------------------------------------------------------- single runs


def test_a_run_keeps_one_network_per_protocol_and_tests_it_at_every_shift(tiny, trained):
    run = Training("published", "V", 1)
    table = pd.read_csv(trained / run.stem / "accuracy.csv")
    tensors = load_file(trained / run.stem / "networks.safetensors")
    protocols = TINY["published"].protocols("V")
    assert [(p.split, p.epochs) for p in protocols] == [
        ("leaked", 1), ("independent", 1), ("independent", 2),
    ]  # fmt: skip
    assert len(table) == 3 * 9
    for protocol in protocols:
        prefix = f"{protocol.split}/{protocol.epochs}/"
        model = variants.network("V", 0).eval()
        model.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        rows = table[(table["split"] == protocol.split) & (table["epochs"] == protocol.epochs)]
        found = variants.accuracies(Kept("V", protocol, model), TINY["published"].shifts)
        assert dict(zip(rows["shift"], rows["accuracy"])) == found
        assert rows["kept_epoch"].between(1, protocol.epochs).all()
    log = pd.read_csv(trained / run.stem / "log.csv")
    assert log["epoch"].tolist() == [1, 2]
    ended = table["validation_loss"].iloc[0]
    assert ended == log["leaked_loss"].iloc[0] and pd.isna(log["leaked_loss"].iloc[1])
    assert len(tensors) == 3 * len(variants.network("V", 0).state_dict())


def test_the_pattern_is_of_the_network_that_the_published_protocol_keeps(tiny, trained):
    run, data = Training("size-24", "S-zero", 0), TINY["size-24"].data
    tensors = load_file(trained / run.stem / "networks.safetensors")
    model = variants.network("S-zero", 0).eval()
    prefix = "leaked/1/"
    model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items()})
    expected = pattern(model, data, "S-zero", n=32)
    found = pd.read_csv(trained / run.stem / "pattern.csv")
    assert found[HEAD].drop_duplicates().to_numpy().tolist() == [["size-24", "S-zero", 0]]
    pd.testing.assert_frame_equal(found.drop(columns=HEAD), expected, check_dtype=False)


# ----------------------------------------------------------------------------------- tables


def test_collected_tables_read_back_equal(tiny, trained, tmp_path):
    data = tmp_path / "data"
    STUDY.collect(trained, data, STUDY.runs())
    before = raw(trained, "accuracy")
    found = accuracies(data)
    assert np.allclose(found["accuracy"], 100 * before["accuracy"], rtol=1e-6)
    same = [name for name in before if name != "accuracy"]
    pd.testing.assert_frame_equal(found[same], before[same], rtol=1e-6, check_dtype=False)
    factors = found.groupby("condition")[["canvas", "size", "block"]].agg(set)
    assert factors.loc["published"].tolist() == [{"0.0"}, {32}, {4}]
    assert factors.loc["size-24"].tolist() == [{"0.5"}, {24}, {4}]
    for read, name in ((patterns, "pattern"), (logs, "log")):
        rtol = 1e-6 if name == "pattern" else 1e-4
        before = raw(trained, name)
        pd.testing.assert_frame_equal(
            read(data)[list(before)], before, rtol=rtol, check_dtype=False
        )
    listed = pd.read_csv(data / "runs.csv")
    assert [Training(*row) for row in listed[HEAD].itertuples(index=False)] == STUDY.runs()
    assert (listed["threads"] == 1).all()


def test_numbers_keep_their_type_and_digits_beside_a_variant_without_a_pattern(
    tiny, trained, tmp_path
):
    assert not len(pd.read_csv(trained / "published-S-optimal-seed0" / "pattern.csv"))
    STUDY.collect(trained, tmp_path, STUDY.runs())
    text = pd.read_csv(tmp_path / "patterns.csv.gz", dtype=str)
    digits = text["value"].str.replace(r"e.*|^-?0\.0*|[.-]", "", regex=True).str.len()
    assert digits.max() == 7
    assert all(patterns(tmp_path)[name].dtype == float for name in ("value", "low", "floor"))
    only = [run for run in STUDY.runs() if VARIANTS[run.variant].scheme == "optimal"]
    STUDY.collect(trained, tmp_path / "none", only)
    assert patterns(tmp_path / "none").columns[:4].tolist() == [*HEAD, "layer"]
    assert patterns(tmp_path / "none").empty


def test_an_infinite_snr_survives(tiny, trained, tmp_path):
    STUDY.collect(trained, tmp_path, STUDY.runs())
    found = patterns(tmp_path)
    snr = found[(found["variant"] == "S-zero") & (found["metric"] == "snr")]
    assert np.isinf(snr["value"]).sum() == np.isinf(raw(trained, "pattern")["value"]).sum() > 0
    assert (snr["value"] > 0).all()


def test_missing_tables_are_told_in_one_line(tmp_path):
    for read in (accuracies, patterns, logs, published):
        assert str(tmp_path) in refused(read, tmp_path, error=WeightsError)


# ---------------------------------------------------------------------------------- pattern

CELLS = {"V": (30, 14, 6, 2), "S-zero": (32, 16, 8, 4), "F-zero": (34, 18, 10, 6)}


@pytest.mark.parametrize("variant", CELLS)
def test_a_pattern_has_the_cells_that_padding_can_reach(variant):
    model = variants.network(variant, 0).eval()
    found = pattern(model, RedGreen(0.5), variant, n=32)
    reach = ppp.coverage(model, variants.LAYERS, 32)
    for layer, side, clean in zip(variants.LAYERS, CELLS[variant], CELLS["V"]):
        here = found[found["layer"] == layer].set_index("metric")
        assert here.index.tolist() == ["mae", "snr", "power", "share", "raw"]
        assert (here["cells"] == side**2).all()
        assert (here["clean"] == reach[layer].clean_fraction).all()
        assert here["clean"].iloc[0] == pytest.approx(clean**2 / side**2)
        if variant == "V":
            assert (here[["value", "floor"]] == 0).all(axis=None)
        else:
            assert here.loc["mae", "value"] > 10 * here.loc["mae", "floor"] > 0
            assert here.loc["share", "value"] > 0.98  # the canvas is the same in every image
            assert here.loc["power", "low"] > 0.04


def test_zeros_on_a_canvas_of_zeros_make_no_pattern():
    model = variants.network("F-zero", 0).eval()
    found = pattern(model, RedGreen(), "F-zero", n=32)
    assert (found["clean"] < 1).all()
    # not 0 to the bit: a sum may be taken in another order where the map has another size
    mae, power = (found.loc[found["metric"] == name, "value"] for name in ("mae", "power"))
    assert (mae < 1e-6).all() and (power.abs() < 1e-12).all()
    found = pattern(model, RedGreen(0.5), "F-zero", n=32)
    mae, power = (found.loc[found["metric"] == name, "value"] for name in ("mae", "power"))
    assert (mae > 0.05).all() and (power > 0.1).all()


def test_true_surroundings_have_no_pattern():
    for variant in ("S-optimal", "F-optimal"):
        found = pattern(variants.network(variant, 0).eval(), RedGreen(), variant)
        assert found.empty and "floor" in found


@pytest.mark.parametrize(("size", "shift"), [(32, 16), (24, 8)])
def test_half_of_the_measured_images_have_moved_blocks(monkeypatch, size, shift):
    usual, calls = RedGreen.images, []

    def images(self, n, seed, shift=0, surroundings=(0, 0)):
        calls.append((n, shift))
        seeds.add(seed)
        return usual(self, n, seed, shift, surroundings)

    seeds = set()
    monkeypatch.setattr(RedGreen, "images", images)
    pattern(variants.network("V", 0).eval(), RedGreen(size=size), "V", n=32)
    assert calls == [(16, 0), (16, shift)] and len(seeds) == 2


# ------------------------------------------------------------------------------------- live


@pytest.mark.slow
def test_live_tables_do_not_depend_on_the_number_of_jobs():
    asked = (["F-optimal", "S-randn"], [3, 0], SMALL, RedGreen(0.5, size=24), 7)
    one, two = (train_live(*asked, jobs=jobs) for jobs in (1, 2))
    assert list(one) == list(two) == ["accuracy", "pattern", "log"]
    for name in one:
        pd.testing.assert_frame_equal(one[name], two[name])
    table = one["accuracy"]
    order = [("F-optimal", 3), ("S-randn", 3), ("F-optimal", 0), ("S-randn", 0)]
    assert list(zip(table["variant"], table["seed"])) == order
    right = table[["similar", "dissimilar"]].to_numpy() / 5  # of 20 images
    assert np.allclose(right, right.round()) and right.min() >= 0 and right.max() <= 20
    shown = one["pattern"]
    assert set(shown["variant"]) == {"S-randn"} and len(shown) == 2 * 4 * 5
    assert shown["value"].dtype == float and shown["seed"].dtype == int


def test_live_numbers_are_those_of_training_and_testing_by_hand():
    data = RedGreen(0.25)
    tables = train_live(["S-zero"], [7], SMALL, data, 9)
    (kept,), log = variants.train("S-zero", SMALL, data, 7)
    right = variants.accuracies(kept, (0, 9), data)
    measured = pattern(kept.model, data, "S-zero")
    row = tables["accuracy"].iloc[0].to_dict()
    assert row == {
        "variant": "S-zero", "seed": 7, "kept_epoch": 1,
        "similar": 100 * right[0], "dissimilar": 100 * right[9],
    }  # fmt: skip
    for name, expected in (("log", log), ("pattern", measured)):
        assert (tables[name]["variant"] == "S-zero").all() and (tables[name]["seed"] == 7).all()
        pd.testing.assert_frame_equal(tables[name][list(expected)], expected)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"variants": ["V", "S-zeros"]}, "did you mean 'S-zero'"),
        ({"shift": 19}, "at most 18 rows"),
        ({"shift": -1}, "shift -1"),
        ({"shift": 13, "data": RedGreen(size=24)}, "off the canvas of 24 px"),
        ({"jobs": 0}, "jobs = 0"),
        ({"variants": []}, ""),
        ({"seeds": []}, ""),
    ],
)
def test_live_training_refuses_before_it_begins(never, changed, words):
    asked = {"variants": ["V"], "seeds": [0], "protocol": SMALL, **changed}
    assert words in refused(train_live, error=ParameterError, **asked)


# ------------------------------------------------------------- the data that the book ships


def test_published_numbers_are_complete():
    table = published()
    assert sorted(zip(table["variant"], table["test"])) == sorted(
        (name, test) for name in MAIN for test in ("similar", "dissimilar")
    )
    assert table["mean"].between(0, 100).all() and table["deviation"].between(0, 5).all()
    assert table["source"].str.contains("Kayhan").all()


def test_shipped_accuracies_are_those_of_the_design():
    table = accuracies()
    assert table["accuracy"].between(0, 100).all() and not table.isna().any(axis=None)
    key = [*HEAD, "split", "epochs", "shift"]
    assert not table.duplicated(key).any()
    expected = {
        (*vars(run).values(), protocol.split, protocol.epochs, shift)
        for run in STUDY.runs()
        for protocol in CONDITIONS[run.condition].protocols(run.variant)
        for shift in CONDITIONS[run.condition].shifts
    }
    assert {tuple(row) for row in table[key].itertuples(index=False)} == expected
    assert (table["shuffled"] == table["condition"].map(lambda c: CONDITIONS[c].shuffled)).all()
    ends = table["last_epoch"].between(table["kept_epoch"], table["epochs"])
    assert ends.all() and (table["kept_epoch"] >= 1).all()


def test_shipped_patterns_and_logs_are_those_of_the_design():
    found = patterns()
    padded = [run for run in STUDY.runs() if VARIANTS[run.variant].scheme != "optimal"]
    key = [*HEAD, "layer", "metric"]
    expected = {
        (*vars(run).values(), layer, metric)
        for run in padded
        for layer in variants.LAYERS
        for metric in ("mae", "snr", "power", "share")
    }
    assert not found.duplicated(key).any()
    assert {tuple(row) for row in found[key].itertuples(index=False)} == expected
    unreached = found[found["variant"] == "V"]
    assert (unreached["clean"] == 1).all()
    assert (unreached.loc[unreached["metric"] == "mae", "value"] < 1e-6).all()
    assert (found.loc[found["variant"] != "V", "clean"] < 1).all()
    last = accuracies().groupby(HEAD)["last_epoch"].max()
    epochs = logs().groupby(HEAD)["epoch"].agg(["max", "size", "nunique"])
    assert set(epochs.index) == set(last.index)
    for column in epochs:
        assert (epochs[column] == last[epochs.index]).all()


@pytest.mark.parametrize("variant", MAIN)
def test_shipped_means_are_near_the_published_ones(variant):
    here = analysis.usual(accuracies())
    here = here[here["variant"] == variant]
    assert len(here) == 10
    known = published().set_index(["variant", "test"])["mean"]
    for test in ("similar", "dissimilar"):
        assert here[test].mean() == pytest.approx(known[variant, test], abs=2)


def test_shipped_data_settle_the_claim():
    verdict = analysis.judge(analysis.levels(accuracies()))
    assert verdict.verdict != "not evaluated at these parameters" and len(verdict.table) == 8
