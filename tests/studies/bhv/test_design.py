import json
import os
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import ppp
from ppp.errors import ParameterError, PPPError, WeightsError
from studies.bhv import analysis, design, variants
from studies.bhv.design import (
    CONDITIONS,
    MAIN,
    OTHERS,
    Condition,
    Run,
    accuracies,
    collect,
    logs,
    pattern,
    patterns,
    published,
    runs,
    train_design,
    train_live,
    train_run,
)
from studies.bhv.redgreen import RedGreen
from studies.bhv.variants import PUBLISHED, VARIANTS, Kept, Protocol
from studies.storage import outputs

HEAD = ["condition", "variant", "seed"]
FILES = ["accuracy.csv", "log.csv", "networks.safetensors", "pattern.csv", "record.json"]
TABLES = ["accuracy.csv.gz", "logs.csv.gz", "patterns.csv.gz", "runs.csv"]
SMALL = Protocol(epochs=1, n_train=40, n_validation=20, n_test=20, batch=20)
TINY = {
    "published": Condition(
        trials={"V": 2, "S-optimal": 1}, splits=("leaked", "independent"), longer=("independent",)
    ),
    "size-24": Condition(RedGreen(0.5, size=24), {"S-zero": 1}),
}


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
        train_design(runs(), folder)
    return folder


@pytest.fixture
def never(monkeypatch):
    """Let no network be trained."""
    monkeypatch.setattr(variants, "train", lambda *_, **__: pytest.fail("trained"))


def refused(call, error=ParameterError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def raw(folder, name) -> pd.DataFrame:
    """All rows of a table as the runs wrote them, read without the library."""
    paths = [folder / run.stem / f"{name}.csv" for run in runs()]
    frames = [pd.read_csv(path) for path in paths]
    return pd.concat([f for f in frames if len(f)], ignore_index=True)


def copied(folder, to):
    """Copy some runs, so that a test may damage them."""
    for name, content in contents(folder).items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return to


# ------------------------------------------------------------------------------------- runs


def test_the_full_design():
    found = runs()
    counts = Counter(run.condition for run in found)
    assert counts == {
        "published": 68, "canvas-0.5": 66, "shuffled": 40,
        **dict.fromkeys(["canvas-noise", "canvas-1", "canvas-0.25", "canvas-photograph"], 20),
        **dict.fromkeys(["block-6", "size-24", "canvas-0.5-shuffled"], 20),
    }  # fmt: skip
    assert len({run.stem for run in found}) == len(set(found)) == len(found) == 314
    seeds = Counter((run.condition, run.variant) for run in found)
    for run in found:
        assert 0 <= run.seed < seeds[run.condition, run.variant]
    for condition, count in (("published", 10), ("shuffled", 10), ("block-6", 5)):
        assert all(seeds[condition, name] == count for name in MAIN)
    assert seeds["published", "S-circular-2"] == 10 and seeds["published", "S-randn"] == 5
    assert seeds["canvas-0.5", "F-optimal"] == 3


def test_conditions_variants_and_seeds_choose_runs():
    assert runs(["size-24"], ["V", "F-zero"], [0, 4]) == [
        Run("size-24", "V", 0), Run("size-24", "F-zero", 0),
        Run("size-24", "V", 4), Run("size-24", "F-zero", 4),
    ]  # fmt: skip
    assert {run.condition for run in runs(["block-6", "published"])} == {"block-6", "published"}
    assert [run.condition for run in runs(variants=iter(["F-optimal"]))] == ["canvas-0.5"] * 3
    # seeds that only some conditions have leave the others out
    assert {run.condition for run in runs(seeds=iter([9]))} == {
        "published", "canvas-0.5", "shuffled",
    }  # fmt: skip


def test_a_name_that_is_given_twice_counts_once():
    assert runs(["size-24"] * 2, ["V"] * 2, [0, 0]) == [Run("size-24", "V", 0)]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"conditions": ["canvas-0.6"]}, "unknown condition 'canvas-0.6'; did you mean 'canvas-0."),
        ({"conditions": ["published", "7"]}, "unknown condition '7'; known: published"),
        ({"variants": ["S-zeros"]}, "unknown variant 'S-zeros'; did you mean 'S-zero'"),
        ({"seeds": [10]}, "seed = 10; expected a whole number, 0 to 9"),
        ({"seeds": [-1]}, "seed = -1"),
        ({"seeds": ["x"]}, "seed = 'x'"),
        ({"seeds": [True]}, "seed = True"),
        ({"conditions": ["published"], "variants": ["F-optimal"]}, "no run of the design"),
        ({"conditions": ["size-24"], "seeds": [5]}, "no run of the design"),
    ],
)
def test_what_the_design_does_not_have_is_refused_in_one_line(chosen, words):
    assert words in refused(lambda: runs(**chosen))


# ------------------------------------------------------------------------------- conditions


class Trained(Exception):
    """Training would begin."""


class Images:
    def images(self, *_, **__):
        raise Trained


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_protocols_of_a_condition_share_one_training(name):
    condition = CONDITIONS[name]
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


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_shifts_of_a_condition_stay_on_its_canvas(name):
    condition = CONDITIONS[name]
    for shift in condition.shifts:
        condition.data.check_shift(shift)
    expected = {"size-24": (0, 8)}.get(name, (0, *range(9, 17)))
    assert condition.shifts == expected


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


# ------------------------------------------------------------------------------- single runs


def test_a_run_writes_whole_files(tiny, trained):
    assert {path.name for path in trained.glob("[!.]*")} == {run.stem for run in runs()}
    for run in runs():
        assert sorted(path.name for path in (trained / run.stem).iterdir()) == FILES
        record = json.loads((trained / run.stem / "record.json").read_text())
        assert [record[name] for name in HEAD] == [run.condition, run.variant, run.seed]
        assert record["seconds"] >= 0 and record["threads"] == 1
        assert record["torch"] == torch.__version__ and record["numpy"] == np.__version__


def test_a_run_keeps_one_network_per_protocol_and_tests_it_at_every_shift(tiny, trained):
    run = Run("published", "V", 1)
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
    run, data = Run("size-24", "S-zero", 0), TINY["size-24"].data
    tensors = load_file(trained / run.stem / "networks.safetensors")
    model = variants.network("S-zero", 0).eval()
    prefix = "leaked/1/"
    model.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items()})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = pattern(model, data, "S-zero", n=32)
    torch.set_num_threads(threads)
    found = pd.read_csv(trained / run.stem / "pattern.csv")
    assert found[HEAD].drop_duplicates().to_numpy().tolist() == [["size-24", "S-zero", 0]]
    pd.testing.assert_frame_equal(found.drop(columns=HEAD), expected, check_dtype=False)


def test_a_finished_run_is_not_trained_again(tiny, trained, never):
    before = contents(trained)
    for run in runs():
        seconds = json.loads(before[f"{run.stem}/record.json"])["seconds"]
        assert train_run(run, trained) == seconds
    assert contents(trained) == before


def test_an_unfinished_run_is_trained_again_to_the_same_tables(tiny, trained, tmp_path):
    run = Run("published", "V", 0)
    expected = contents(trained / run.stem)
    del expected["record.json"]
    outputs.claim(tmp_path, design.STUDY.command)
    place = tmp_path / run.stem
    place.mkdir()
    (place / "accuracy.csv").write_text("half a ta")
    train_design([run], tmp_path)
    found = contents(place)
    assert json.loads(found.pop("record.json"))["seed"] == 0
    assert found == expected


def test_others_go_on_when_a_run_fails_and_the_next_call_trains_what_is_missing(
    tiny, tmp_path, monkeypatch
):
    usual, asked = variants.train, []

    def train(name, protocols, data, seed):
        asked.append(seed)
        if broken and seed == 0:
            raise broken
        return usual(name, protocols, data, seed)

    monkeypatch.setattr(variants, "train", train)
    wanted = runs(["published"], ["V"])
    for broken in (PPPError("an unlucky number"), OSError(28, "No space left on device")):
        said = refused(partial(train_design, wanted, tmp_path), PPPError)
        assert said == f"1 of 2 runs failed; the first: published-V-seed0: {broken}"
    assert asked == [0, 1, 0] and [p.name for p in tmp_path.glob("[!.]*")] == ["published-V-seed1"]
    broken = None
    train_design(wanted, tmp_path)
    assert asked == [0, 1, 0, 0]
    assert {path.name for path in tmp_path.glob("[!.]*")} == {run.stem for run in wanted}


@pytest.mark.parametrize("content", ["{", "[]", '{"seed": 0}'])
def test_a_damaged_record_is_told_in_one_line(tiny, trained, tmp_path, content):
    run = Run("published", "V", 0)
    place = copied(trained / run.stem, tmp_path / "runs" / run.stem)
    (place / "record.json").write_text(content)
    said = refused(lambda: train_design([run], tmp_path / "runs"), PPPError)
    assert run.stem in said
    if content == "{":
        refused(lambda: collect(tmp_path / "runs", tmp_path / "data", [run]), PPPError)
        assert not (tmp_path / "data").exists()


# ----------------------------------------------------------------------------------- tables


def test_collected_tables_read_back_equal(tiny, trained, tmp_path):
    data = tmp_path / "data"
    assert collect(trained, data) == 4
    assert sorted(path.name for path in data.glob("[!.]*")) == TABLES
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
    assert [Run(*row) for row in listed[HEAD].itertuples(index=False)] == runs()
    assert (listed["threads"] == 1).all()


def test_numbers_keep_their_type_and_digits_beside_a_variant_without_a_pattern(
    tiny, trained, tmp_path
):
    assert not len(pd.read_csv(trained / "published-S-optimal-seed0" / "pattern.csv"))
    collect(trained, tmp_path)
    text = pd.read_csv(tmp_path / "patterns.csv.gz", dtype=str)
    digits = text["value"].str.replace(r"e.*|^-?0\.0*|[.-]", "", regex=True).str.len()
    assert digits.max() == 7
    assert all(patterns(tmp_path)[name].dtype == float for name in ("value", "low", "floor"))
    only = [run for run in runs() if VARIANTS[run.variant].scheme == "optimal"]
    assert collect(trained, tmp_path / "none", only) == 1
    assert patterns(tmp_path / "none").columns[:4].tolist() == [*HEAD, "layer"]
    assert patterns(tmp_path / "none").empty


def test_an_infinite_snr_survives(tiny, trained, tmp_path):
    collect(trained, tmp_path)
    found = patterns(tmp_path)
    snr = found[(found["variant"] == "S-zero") & (found["metric"] == "snr")]
    assert np.isinf(snr["value"]).sum() == np.isinf(raw(trained, "pattern")["value"]).sum() > 0
    assert (snr["value"] > 0).all()


def test_tables_are_the_same_bytes_twice(tiny, trained, tmp_path):
    for name in ("a", "b"):
        collect(trained, tmp_path / name)
    before = contents(tmp_path / "a")
    assert sorted(before) == [".ppp.json", *TABLES] and contents(tmp_path / "b") == before
    os.utime(tmp_path / "a" / "runs.csv", (0, 0))
    collect(trained, tmp_path / "a")  # they may be replaced
    assert contents(tmp_path / "a") == before
    assert (tmp_path / "a" / "runs.csv").stat().st_mtime > 0


def test_missing_and_damaged_runs_are_named_and_nothing_is_written(tiny, trained, tmp_path):
    folder, data = copied(trained, tmp_path / "runs"), tmp_path / "data"
    (folder / "size-24-S-zero-seed0" / "record.json").unlink()
    said = refused(lambda: collect(folder, data), PPPError)
    assert "1 of 4 runs are not finished" in said and "size-24-S-zero-seed0" in said
    assert "4 of 4 runs" in refused(lambda: collect(tmp_path / "no", data), PPPError)
    # another run is not missed
    assert collect(folder, tmp_path / "some", runs(["published"])) == 3
    (folder / "published-V-seed1" / "pattern.csv").unlink()
    said = refused(lambda: collect(folder, data, runs(["published"])), WeightsError)
    assert "published-V-seed1" in said
    assert not data.exists()


def test_tables_of_other_runs_are_not_replaced(tiny, trained, tmp_path):
    collect(trained, tmp_path, runs(["published"]))
    before = contents(tmp_path)
    for wanted in (runs(["size-24"]), runs(["published"], ["V"], [1])):
        said = refused(partial(collect, trained, tmp_path, wanted), PPPError)
        others = set(runs(["published"])) - {*wanted}
        assert f"hold {len(others)} other runs, such as {min(others).stem}" in said
        assert contents(tmp_path) == before
    assert collect(trained, tmp_path) == 4  # more than these may take their place
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 4


def test_a_strange_table_in_the_folder_is_told_in_one_line(tiny, trained, tmp_path):
    (tmp_path / "runs.csv").write_text("distance,time\n10,41.2\n")
    refused(lambda: collect(trained, tmp_path), PPPError)
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_missing_tables_are_told_in_one_line(tmp_path):
    for read in (accuracies, patterns, logs, published):
        assert str(tmp_path) in refused(partial(read, tmp_path), WeightsError)


# ---------------------------------------------------------------------------------- pattern

CELLS = {"V": (30, 14, 6, 2), "S-zero": (32, 16, 8, 4), "F-zero": (34, 18, 10, 6)}


@pytest.mark.parametrize("variant", CELLS)
def test_a_pattern_has_the_cells_that_padding_can_reach(variant):
    model = variants.network(variant, 0).eval()
    found = pattern(model, RedGreen(0.5), variant, n=32)
    reach = ppp.coverage(model, variants.LAYERS, 32)
    for layer, side, clean in zip(variants.LAYERS, CELLS[variant], CELLS["V"]):
        here = found[found["layer"] == layer].set_index("metric")
        assert here.index.tolist() == ["mae", "snr", "power", "share"]
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
    assert set(shown["variant"]) == {"S-randn"} and len(shown) == 2 * 4 * 4
    assert shown["value"].dtype == float and shown["seed"].dtype == int


def test_live_numbers_are_those_of_training_and_testing_by_hand():
    data = RedGreen(0.25)
    tables = train_live(["S-zero"], [7], SMALL, data, 9)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (kept,), log = variants.train("S-zero", SMALL, data, 7)
    right = variants.accuracies(kept, (0, 9), data)
    measured = pattern(kept.model, data, "S-zero")
    torch.set_num_threads(threads)
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
    assert words in refused(lambda: train_live(**asked))


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
        for run in runs()
        for protocol in CONDITIONS[run.condition].protocols(run.variant)
        for shift in CONDITIONS[run.condition].shifts
    }
    assert {tuple(row) for row in table[key].itertuples(index=False)} == expected
    assert (table["shuffled"] == table["condition"].map(lambda c: CONDITIONS[c].shuffled)).all()
    ends = table["last_epoch"].between(table["kept_epoch"], table["epochs"])
    assert ends.all() and (table["kept_epoch"] >= 1).all()


def test_shipped_patterns_and_logs_are_those_of_the_design():
    found = patterns()
    padded = [run for run in runs() if VARIANTS[run.variant].scheme != "optimal"]
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


def test_shipped_runs_are_recorded_once_on_one_thread():
    table = pd.read_csv(design.DATA / "runs.csv")
    found = [Run(*row) for row in table[HEAD].itertuples(index=False)]
    assert sorted(found) == sorted(runs())
    assert (table["threads"] == 1).all() and (table["seconds"] > 0).all()
    for name in ("torch", "numpy", "python", "machine"):
        assert table[name].notna().all() and table[name].nunique() == 1


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
