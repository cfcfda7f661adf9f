import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from checks import contents, refused
from safetensors.torch import load_file, save_file

import ppp
from ppp import files
from ppp.errors import ParameterError, WeightsError
from studies.dynamics import design
from studies.dynamics.design import STUDY, Observer, SmallNetwork
from studies.networks import MIXED, OPTIMAL, SHIPPED, load_network, manifest, rebuilt, training
from studies.networks.names import PADDINGS
from studies.networks.training import Settings, evaluate, with_batch_statistics
from studies.storage import outputs

tiny = {"steps": 8, "batch": 4, "n_train": 16, "n_test": 8}
few = {"n_scenes": 2, "n_test": 16, "n_statistics": 16}
LAYERS = ["relu", "layer1", "layer2", "layer3", "layer4"]


@pytest.fixture(autouse=True, scope="module")
def one_thread_and_few_windows():
    threads, defaults = torch.get_num_threads(), dict(Observer.__init__.__kwdefaults__)
    torch.set_num_threads(1)
    Observer.__init__.__kwdefaults__.update(few)
    yield
    torch.set_num_threads(threads)
    Observer.__init__.__kwdefaults__.update(defaults)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of three tiny runs."""
    folder = tmp_path_factory.mktemp("runs")
    for run in (("resnet", "randn", 0), ("resnet", OPTIMAL, 1), ("vgg", "zeros", 1)):
        design.train_run(*run, folder, progress=False, **tiny)
    return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder of two tiny runs of a seed whose weights are not shipped."""
    folder = tmp_path_factory.mktemp("fresh")
    for padding in ("zeros", MIXED):
        design.train_run("resnet", padding, 5, folder, progress=False, **tiny)
    return folder


@pytest.fixture
def data(trained, tmp_path):
    STUDY.collect(trained, tmp_path / "data")
    return tmp_path / "data"


def one(folder, trained, stem):
    """Make a folder of a single run."""
    shutil.copytree(trained / stem, folder / stem)
    return folder


# ---------------------------------------------------------------------------- observation


@pytest.mark.parametrize(
    ("stem", "between", "ends"),
    [
        ("plane-resnet-randn-seed0", {"randn"}, {*PADDINGS, OPTIMAL}),
        ("plane-resnet-optimal-seed1", {*PADDINGS, OPTIMAL}, {*PADDINGS, OPTIMAL}),
        ("plane-vgg-zeros-seed1", {"zeros"}, {*PADDINGS, OPTIMAL}),
        ("plane-resnet-mixed-seed5", None, {*PADDINGS, OPTIMAL}),
    ],
)
def test_every_step_has_the_rows_that_are_promised(trained, fresh, stem, between, ends):
    run = training.load_run((fresh if "seed5" in stem else trained) / stem)
    rows = design._frame(run)
    steps = [0, 4, 8] if between else [0, 8]
    assert run.record["observed"] == steps
    for step, tested, kinds in (
        (0, ends, {"running", "re-estimated"}),
        (4, between, {"re-estimated"}),
        (8, ends, {"running", "re-estimated"}),
    ):
        mine = rows[rows["step"] == step]
        if step not in steps:
            assert mine.empty
            continue
        assert set(mine["batch_norm"]) == kinds
        for kind in kinds:
            for padding in PADDINGS:
                cells = mine[(mine["batch_norm"] == kind) & (mine["test_padding"] == padding)]
                assert len(cells) == (25 if padding in tested else 0)
                assert not cells.duplicated(["layer", "metric"]).any()
            without = mine[(mine["batch_norm"] == kind) & (mine["test_padding"] == OPTIMAL)]
            assert len(without) == (OPTIMAL in tested)
            assert without["layer"].isna().all() and without["accuracy"].notna().all()
    measured = rows[rows["layer"].notna()]
    assert set(measured["metric"]) == set(design.METRICS)
    assert np.isfinite(measured[["value", "floor", "accuracy", "loss"]]).all(axis=None)
    bounded = measured[measured["metric"].isin(["mae", "snr"])]  # power needs more scenes
    assert (bounded["low"] < bounded["high"]).all()  # around the value corrected for its bias
    assert rows["accuracy"].between(0, 1).all()
    assert list(rows["epoch"].unique()) == [step / 4 for step in steps]


def test_values_are_those_of_measure(trained):
    run = training.load_run(trained / "plane-resnet-randn-seed0")
    rows = pd.DataFrame(run.rows)
    running = run.model
    estimated = with_batch_statistics(running, 16, first_scene=0)
    windows = design.windows_to_measure("resnet", 2)
    for kind, model in (("running", running), ("re-estimated", estimated)):
        found = ppp.measure(model, windows, LAYERS, ["randn", "circular"], groups=16)
        right, loss = evaluate(model, 16)
        for (padding, layer), result in found.items():
            mine = rows[
                (rows["step"] == 8) & (rows["batch_norm"] == kind)
                & (rows["test_padding"] == padding) & (rows["layer"] == layer)
            ].set_index("metric")  # fmt: skip
            summary, sigma = result.summary, result.summary.sigma
            expected = {
                "mae": summary.mae.value,
                "snr": summary.snr.value,
                "power": summary.power.value / sigma**2,
                "share": summary.share,
                "raw": summary.mae_raw,
            }
            for metric, value in expected.items():
                assert mine.loc[metric, "value"] == pytest.approx(value, rel=1e-4, abs=1e-9)
            low = pytest.approx(summary.mae.low, rel=1e-4, abs=1e-6)  # it can be near 0
            assert mine.loc["mae", "low"] == low
            assert mine.loc["snr", "floor"] == pytest.approx(summary.snr_floor, rel=1e-4)
            if padding == "randn":
                assert set(mine["accuracy"]) == {right}
                np.testing.assert_allclose(mine["loss"], loss, rtol=1e-6)


def test_accuracy_under_other_paddings_is_that_of_the_rebuilt_network(trained):
    run = training.load_run(trained / "plane-resnet-optimal-seed1")
    rows = pd.DataFrame(run.rows)
    rows = rows[(rows["step"] == 8) & (rows["batch_norm"] == "running")]
    for padding in ("reflect", OPTIMAL):
        right, loss = evaluate(rebuilt(run.model, padding), 16)
        mine = rows[rows["test_padding"] == padding]
        assert set(mine["accuracy"]) == {right}
        np.testing.assert_allclose(mine["loss"], loss, rtol=1e-6)


def test_observing_leaves_the_model_and_its_noise_alone():
    settings = Settings("resnet", "randn", steps=8)
    noise = torch.Generator().manual_seed(1)
    model = training.FAMILIES["resnet"](padding="randn", generator=noise)
    before, drawn = {k: v.clone() for k, v in model.state_dict().items()}, noise.get_state()
    rows, tensors = Observer(settings, patterns_at=(0,))(0, model)
    assert rows and tensors and model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(noise.get_state(), drawn)


def test_an_interrupted_run_has_the_rows_of_a_whole_one(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_EVERY", 3)
    observe, steps = Observer.__call__, []

    def stop(self, step, model):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return observe(self, step, model)

    arguments = ("resnet", "randn", 0, tmp_path)
    monkeypatch.setattr(Observer, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        design.train_run(*arguments, progress=False, **tiny)
    run = design.train_run(*arguments, progress=False, **tiny)
    assert steps == [0, 4, 8, 8]  # what was measured before the last state is not done again
    stem = "plane-resnet-randn-seed0"
    first = training.load_run(trained / stem)
    assert design._frame(first).equals(design._frame(run))
    assert first.tensors.keys() == run.tensors.keys()
    assert all(torch.equal(first.tensors[k], v) for k, v in run.tensors.items())


def test_a_live_run_gives_the_rows_of_the_kept_one(trained, monkeypatch):
    stem = "plane-resnet-randn-seed0"
    whole = Settings.__init__.__defaults__
    short = (*whole[:2], tiny["steps"], tiny["batch"], whole[4], tiny["n_train"])
    monkeypatch.setattr(Settings.__init__, "__defaults__", short)
    names = {k: tiny[k] for k in ("steps", "batch", "n_train")}
    defaults = training.train.__kwdefaults__ | names
    monkeypatch.setattr(training.train, "__kwdefaults__", defaults)
    live = design.live("resnet", "randn", 0, 4, n_scenes=2, n_test=16)
    kept = design._frame(training.load_run(trained / stem))
    kept = kept[(kept["test_padding"] == "randn") & (kept["batch_norm"] == "re-estimated")]
    kept = kept[kept["step"] <= 4].reset_index(drop=True)
    assert list(live["step"].unique()) == [0, 4] and live.equals(kept)


# ------------------------------------------------------------------------------ many runs


def test_runs_are_listed_and_may_have_further_seeds():
    runs, shipped = STUDY.runs(), design.full_design()
    assert len(runs) == len(set(runs)) == 48 + 30 and len(shipped) == 48
    assert {run.seed for run in runs if run.family == "vgg"} == {0, 1, 2}
    assert {run for run in runs if not run.fresh} == {*shipped}
    assert {run.seed for run in runs if run.padding == MIXED} == {5, 6, 7, 8, 9}
    assert STUDY.runs(family=["resnet"], padding=["zeros", OPTIMAL], seed=[7, 0]) == [
        SmallNetwork("resnet", "zeros", 7), SmallNetwork("resnet", "zeros", 0),
        SmallNetwork("resnet", OPTIMAL, 7), SmallNetwork("resnet", OPTIMAL, 0),
    ]  # fmt: skip
    for run in runs:
        assert Settings(run.family, run.padding, run.seed).stem == run.stem
    for seed in (65535, 65536):  # the largest that training takes, and the next
        call = partial(Settings, "resnet", seed=seed), partial(STUDY.runs, seed=[seed])
        for each in call:
            each() if seed < 65536 else refused(each, error=ParameterError)


class Quick(design.Zoo):
    """A zoo that measures nothing."""

    def perform_one(self, run, folder):
        (folder.parent / f"threads-{run.seed}").write_text(str(torch.get_num_threads()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Observer, "__call__", lambda *_: ([{"value": 1.0}], {}))
            return super().perform_one(run, folder)


@pytest.mark.nightly
def test_two_processes_give_what_one_gives_and_a_failure_loses_nothing(tmp_path, capfd):
    study = Quick(*vars(STUDY).values())
    study = replace(study, changes=tiny | {"steps": 1})
    runs = [SmallNetwork("resnet", "zeros", seed) for seed in (0, 1, 2)]
    weights = {}
    for jobs in (1, 2):
        folder = tmp_path / str(jobs) / "runs"
        outputs.claim(folder, "ppp zoo train")  # as the command was named
        strange = folder / runs[0].stem
        strange.mkdir()
        (strange / "thesis.txt").touch()
        message = refused(study.perform, runs, folder, jobs=jobs)
        assert message.startswith("1 of 3 runs failed; the first: plane-resnet-zeros-seed0: ")
        for run in runs[1:]:
            path = folder / run.stem / "weights.safetensors"
            weights.setdefault(run, []).append(path.read_bytes())
            assert (folder.parent / f"threads-{run.seed}").read_text() == "1"
    assert all(first == second for first, second in weights.values())
    printed = "".join(capfd.readouterr())
    for words in ("plane-resnet-zeros-seed2: test accuracy", "failed: plane-resnet-zeros-seed0"):
        assert printed.count(words) == 2


# ----------------------------------------------------------------------------- collecting


def test_collected_runs_can_be_loaded_verified_and_read(trained, data):
    stems = sorted(path.name for path in trained.iterdir())
    assert sorted(manifest(data / "networks")) == stems
    lines = design.verify(data, n_test=8)
    assert [line.partition(":")[0] for line in lines] == stems
    table = design.trajectories(data)
    for stem in stems:
        run = training.load_run(trained / stem)
        mine = table[table["run"] == stem].reset_index(drop=True)
        expected = design._frame(run).sort_values("step", kind="stable", ignore_index=True)
        pd.testing.assert_frame_equal(mine, expected, rtol=1e-4, check_dtype=False)
    log = pd.read_csv(data / "dynamics" / "logs.csv")
    assert list(log.columns) == ["run", "step", "loss", "train_accuracy"]
    assert set(log["run"]) == set(stems)
    network = load_network("plane-resnet-optimal", "trained", seed=1, models=data / "networks")
    assert network.model.conv1.padding == (2, 2)
    first = training.load_run(trained / "plane-resnet-optimal-seed1").model.state_dict()
    assert all(torch.equal(first[k], v) for k, v in network.model.state_dict().items())


def test_patterns_are_kept_of_seed_0(data):
    maps = design.patterns("plane-resnet-randn-seed0", data)
    at = [step for step in (0, 4, 8) if step in design.PATTERN_STEPS]
    assert at == [0] and {step for step, _, _ in maps} == set(at)
    assert {padding for _, padding, _ in maps} == set(PADDINGS)
    assert {layer for _, _, layer in maps} == set(LAYERS)
    assert maps[0, "zeros", "relu"].shape == (48, 48)
    assert maps[0, "randn", "layer4"].dtype == np.float32
    border, middle = maps[0, "zeros", "relu"][0], maps[0, "zeros", "relu"][10:-10, 10:-10]
    assert border.mean() > 0 and not middle.any()
    for stem in ("plane-vgg-zeros-seed1", "plane-resnet-randn"):
        assert stem in refused(design.patterns, stem, data, error=WeightsError)


def test_one_run_after_the_other_gives_the_same_as_all_at_once(trained, data, tmp_path):
    apart = tmp_path / "apart"
    for stem in ("plane-vgg-zeros-seed1", "plane-resnet-randn-seed0", "plane-resnet-optimal-seed1"):
        added = STUDY.collect(one(tmp_path / stem, trained, stem), apart)
        assert added == [stem]
    together, one_by_one = contents(data), contents(apart)
    assert together.keys() == one_by_one.keys()
    assert [name for name in together if together[name] != one_by_one[name]] == []
    STUDY.collect(trained, apart)  # and once more
    assert contents(apart) == together


def test_only_the_runs_that_are_named_are_collected(trained, tmp_path):
    run = SmallNetwork("vgg", "zeros", 1)
    STUDY.check(tmp_path, [run])
    assert STUDY.collect(trained, tmp_path, [run]) == [run.stem]
    assert [*manifest(tmp_path / "networks")] == [run.stem]
    STUDY.check(tmp_path, STUDY.runs())  # its own files, and none of somebody else
    (tmp_path / "networks" / "plane-vgg-zeros-seed2.safetensors").touch()
    assert "was not written by" in refused(STUDY.check, tmp_path, STUDY.runs())


def test_another_network_of_the_same_name_is_refused_unless_replaced(
    trained, data, tmp_path, monkeypatch
):
    stem = "plane-vgg-zeros-seed1"
    other = tmp_path / "other"
    monkeypatch.setitem(Observer.__init__.__kwdefaults__, "ends", False)
    design.train_run("vgg", "zeros", 1, other, progress=False, **(tiny | {"steps": 1}))
    before = contents(data)
    message = refused(STUDY.collect, other, data)
    assert stem in message and "--replace" in message
    assert contents(data) == before
    rest = design.trajectories(data)
    STUDY.collect(other, data, replace=True)
    design.verify(data)
    assert manifest(data / "networks")[stem]["steps"] == 1
    after = design.trajectories(data)
    others = (table[table["run"] != stem] for table in (after, rest))
    pd.testing.assert_frame_equal(*others, check_dtype=False)
    assert set(after.loc[after["run"] == stem, "step"]) == {0, 1}


def test_what_is_no_finished_run_is_not_collected(trained, data, tmp_path):
    before = contents(data)
    stem = "plane-vgg-zeros-seed1"
    unfinished = one(tmp_path / "unfinished", trained, stem)
    (unfinished / stem / "record.json").unlink()
    renamed = one(tmp_path / "renamed", trained, stem)
    (renamed / stem).rename(renamed / "plane-vgg-zeros-seed2")
    broken = one(tmp_path / "broken", trained, stem)
    (broken / stem / "weights.safetensors").write_bytes(b"12345678")
    unmeasured = one(tmp_path / "unmeasured", trained, stem)
    (unmeasured / stem / "rows.json").write_text("[]")
    record = json.loads((unmeasured / stem / "record.json").read_text())
    del record["files"]["rows.json"]
    (unmeasured / stem / "record.json").write_text(json.dumps(record))
    for folder, words in (
        (tmp_path / "missing", "no finished run"),
        (unfinished, "no finished run"),
        (renamed, "holds run plane-vgg-zeros-seed1"),
        (broken, "cannot be read"),
        (unmeasured, "without being measured"),
    ):
        message = refused(STUDY.collect, folder, data)
        assert words in message and str(folder) in message
        assert contents(data) == before


@pytest.mark.parametrize("room", range(5))
def test_a_full_disk_leaves_every_file_whole(trained, data, tmp_path, monkeypatch, room):
    # The folder has two of three runs; the third comes when the disk is nearly full.
    target, stem = tmp_path / "target", "plane-resnet-randn-seed0"
    for name in ("plane-vgg-zeros-seed1", "plane-resnet-optimal-seed1"):
        STUDY.collect(one(tmp_path / name, trained, name), target)
    before, replace, done = contents(target), files.os.replace, []
    new = one(tmp_path / "new", trained, stem)

    def full(source, path):
        if len(done) == room:
            raise OSError(28, "No space left on device", str(path))
        done.append(path)
        replace(source, path)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            STUDY.collect(new, target)
    after = contents(target)
    assert after.keys() - before.keys() <= {f"networks/{stem}.safetensors"}
    changed = [target / name for name in before if after[name] != before[name]]
    assert len(done) == room and set(changed) <= set(done)
    STUDY.collect(new, target)  # there is room again
    assert contents(target) == contents(data)


def test_of_fresh_seeds_the_tables_are_kept_and_no_weights(trained, fresh, data):
    before = contents(data)
    added = STUDY.collect(fresh, data)
    assert added == ["plane-resnet-mixed-seed5", "plane-resnet-zeros-seed5"]
    after = contents(data)
    new = {"dynamics/fresh.csv.gz", "dynamics/fresh_runs.csv"}
    assert after.keys() - before.keys() == new
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"dynamics/.ppp.json", "dynamics/logs.csv"}
    table = design.trajectories(data, fresh=True)
    for stem in added:
        frame = design._frame(training.load_run(fresh / stem))
        frame = frame[(frame["batch_norm"] == "re-estimated")]
        frame = frame[frame["metric"].isin(["mae", "snr", "raw"]) | frame["layer"].isna()]
        own = frame[(frame["test_padding"] == "zeros") | frame["step"].isin([0, 8])]
        expected = own if "zeros" in stem else frame[frame["step"].isin([0, 8])]
        mine = table[table["run"] == stem].reset_index(drop=True)
        expected = expected.reset_index(drop=True)[list(mine.columns)]
        pd.testing.assert_frame_equal(mine, expected, rtol=1e-4, check_dtype=False)
    lines = design.verify(data)
    assert [line.partition(":")[0] for line in lines] == [*manifest(data / "networks"), *added]
    listed = pd.read_csv(data / "dynamics" / "fresh_runs.csv").set_index("run")
    content = (fresh / added[0] / "weights.safetensors").read_bytes()
    assert listed.loc[added[0], "sha256"] == hashlib.sha256(content).hexdigest()
    STUDY.collect(fresh, data)
    assert contents(data) == after


def test_another_fresh_network_is_refused_and_tables_that_disagree_are_found(fresh, tmp_path):
    data, folder, stem = tmp_path / "data", tmp_path / "other", "plane-resnet-zeros-seed5"
    STUDY.collect(fresh, data)
    design.train_run("resnet", "zeros", 5, folder, progress=False, **(tiny | {"lr": 0.01}))
    before = contents(data)
    assert stem in refused(STUDY.collect, folder, data) and contents(data) == before
    path = data / "dynamics" / "fresh.csv.gz"
    table = pd.read_csv(path)
    mine = table["run"] == stem
    for broken, words in (
        (table[~mine], "is not in both"),
        (table[~mine | (table["step"] < 8)], "lacks step 0 or step 8"),
        (table.assign(value=table["value"].where(table.index != mine.idxmax(), -1)), "above 0"),
    ):
        broken.to_csv(path, index=False)
        message = refused(lambda: list(design._verified(*both(data))), error=WeightsError)
        assert stem in message and words in message


def both(data):
    listed = pd.read_csv(data / "dynamics" / "fresh_runs.csv")
    return listed, design.trajectories(data, fresh=True)


# ------------------------------------------------------------------------------ verifying


def mismatch(data, **options) -> str:
    return refused(design.verify, data, error=WeightsError, **options)


def test_damaged_data_are_mismatch(data):
    networks, stem = data / "networks", "plane-resnet-randn-seed0"
    path = networks / f"{stem}.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert str(path) in mismatch(data) and "SHA-256" in mismatch(data)
    path.unlink()
    assert str(path) in mismatch(data)
    path.write_bytes(content)
    shutil.copy(path, networks / "plane-resnet-zeros-seed9.safetensors")
    assert "plane-resnet-zeros-seed9.safetensors is not in the manifest" in mismatch(data)
    (networks / "plane-resnet-zeros-seed9.safetensors").unlink()
    design.verify(data)


def test_weights_that_are_not_finite_are_mismatch(data):
    stem = "plane-resnet-randn-seed0"
    path = data / "networks" / f"{stem}.safetensors"
    state = load_file(path)
    state["fc.bias"][3] = float("nan")
    save_file(state, path)
    listed = data / "networks" / "manifest.json"
    entries = json.loads(listed.read_text())
    entries[stem]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    listed.write_text(json.dumps(entries))
    assert f"{stem}: some weights are NaN" in mismatch(data)


@pytest.mark.parametrize("keep", [[], [0, 4], [0, 4, 8, 16]])
def test_a_trajectory_with_other_steps_is_mismatch(data, keep):
    stem = "plane-resnet-randn-seed0"
    path = data / "dynamics" / "trajectories.csv.gz"
    table = design.trajectories(data)
    extra = table[(table["run"] == stem) & (table["step"] == 8)].assign(step=16)
    table = pd.concat([table, extra])
    table[(table["run"] != stem) | table["step"].isin(keep)].to_csv(path, index=False)
    assert f"{stem}: its trajectory has steps {keep}" in mismatch(data)


def test_a_wrong_accuracy_is_refused(trained, tmp_path):
    """Of one network alone: what the others score by chance differs between processors."""
    stem, data = "plane-resnet-randn-seed0", tmp_path / "data"
    STUDY.collect(one(tmp_path / "runs", trained, stem), data)
    listed = data / "networks" / "manifest.json"
    entries = json.loads(listed.read_text())
    entries[stem]["test_accuracy"] = 0.999
    listed.write_text(json.dumps(entries))
    design.verify(data)
    for n_test in (8, 64):
        message = mismatch(data, n_test=n_test)
        assert stem in message and "recorded 99.90%" in message
    del entries[stem]["seed"]
    listed.write_text(json.dumps(entries))
    assert f"{stem}: the manifest does not say its seed" in mismatch(data)
    for n_test in (-1, "many"):
        assert "n_test = " in refused(design.verify, data, n_test=n_test, error=ParameterError)


def test_missing_and_damaged_tables_are_mismatch(data, trained):
    path = data / "dynamics" / "trajectories.csv.gz"
    content = path.read_bytes()
    middle = len(content) // 2
    broken = (content[:middle], content[:middle] + b"\0" * 99 + content[middle:], b"text", b"")
    for text in (*broken, None):
        path.unlink() if text is None else path.write_bytes(text)
        assert path.name in refused(design.trajectories, data, error=WeightsError)
        mismatch(data)
    path.write_bytes(broken[0])
    assert path.name in refused(STUDY.collect, trained, data, error=WeightsError)
    patterns = data / "dynamics" / "patterns.safetensors"
    for text in (b"", b"12345678", patterns.read_bytes()[:1000]):
        patterns.write_bytes(text)
        stem = "plane-resnet-randn-seed0"
        assert patterns.name in refused(design.patterns, stem, data, error=WeightsError)


def test_rows_are_selected_by_family_padding_and_seed(data):
    table = design.trajectories(data)
    found = design.select(table, "resnet", ["randn"], [0, 1])
    assert set(found["run"]) == {"plane-resnet-randn-seed0", "plane-resnet-optimal-seed1"}
    assert set(found["test_padding"]) == {"randn", OPTIMAL}
    with pytest.raises(ParameterError, match="family 'resnet': unknown seed 7"):
        design.select(table, "resnet", ["randn"], [7])
    with pytest.raises(ParameterError, match="unknown padding 'zeros'"):
        design.select(table, "resnet", ["zeros"], [0])


# ------------------------------------------------------------------------ what is shipped


def test_the_shipped_zoo_is_whole_well_trained_and_small():
    listed = manifest()
    stems = {run.stem for run in design.full_design()}
    assert listed.keys() == stems
    assert len(design.verify()) == len(STUDY.runs())
    for stem in stems:
        assert listed[stem]["test_accuracy"] >= 0.95, stem
        assert listed[stem]["observed"] == list(design.STEPS)
    assert sum(path.stat().st_size for path in SHIPPED.glob("plane-*.safetensors")) <= 30e6
    for run in design.full_design():
        if run.seed:
            continue
        steps = {step for step, _, _ in design.patterns(run.stem)}
        assert steps == set(design.PATTERN_STEPS)
