"""Controls that are trained further: from their own weights and windows, as it is said."""

import numpy as np
import pandas as pd
import pytest
import torch

from studies.dynamics import adaptation
from studies.dynamics.adaptation import Adaptation
from studies.dynamics.design import Observer
from studies.networks import OPTIMAL, load_network, rebuilt
from studies.networks.training import Settings, evaluate, with_batch_statistics


@pytest.fixture
def small(monkeypatch):
    """Two steps, measured on few windows."""
    few = {"n_scenes": 2, "n_test": 16, "n_statistics": 16}
    monkeypatch.setattr(Observer.__init__, "__kwdefaults__", Observer.__init__.__kwdefaults__ | few)
    monkeypatch.setattr(adaptation, "STEPS", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield few
    torch.set_num_threads(threads)


def test_a_control_is_measured_before_and_after_under_the_scheme(small, monkeypatch):
    run, given = Adaptation(OPTIMAL, "circular", 1), {}
    usual = adaptation.train

    def train(*names, **options):
        given.update(options, run=usual(*names, **options))
        return given["run"]

    monkeypatch.setattr(adaptation, "train", train)
    table = adaptation.compute(run)["adapted"]
    assert table.groupby(["step", "metric"])["layer"].nunique().to_dict() == dict.fromkeys(
        [(0, "mae"), (0, "snr"), (2, "mae"), (2, "snr")], 5
    )
    start = load_network("plane-resnet-optimal", "trained", seed=1).model
    first = Settings("resnet", seed=1).first_scene
    for step, model in ((0, start), (2, given["run"].model)):
        estimated = with_batch_statistics(rebuilt(model, "circular"), 16, first_scene=first)
        mine = table[table["step"] == step].set_index(["metric", "layer"])
        assert set(mine["accuracy"]) == {evaluate(estimated, 16)[0]}
        observer = Observer(Settings("resnet", "circular", 1))
        (_, layer), result = [*observer.measured(estimated, ["circular"]).items()][-1]
        expected = result.summary.mae.value
        assert mine.loc[("mae", layer), "value"] == pytest.approx(expected, rel=1e-3)
    weight = given["run"].model.fc.weight
    moved = float((weight - start.fc.weight).abs().max().detach())
    assert 0 < moved < 0.1  # it goes on from there, in small steps
    again = adaptation.compute(run)["adapted"]
    assert table.equals(again)


def test_the_design_is_of_shipped_and_of_mixed_controls():
    runs = adaptation.full_design()
    by = {kind: {run.seed for run in runs if run.control == kind} for kind in (OPTIMAL, "mixed")}
    assert by == {OPTIMAL: {0, 1, 2, 3, 4}, "mixed": {5, 6, 7, 8, 9}}


def test_a_mixed_control_is_taken_from_the_runs_or_trained_there(monkeypatch, tmp_path):
    asked, model = [], load_network("plane-resnet", "random").model
    monkeypatch.chdir(tmp_path)

    def train_run(*names, progress):
        asked.append([*map(str, names)])
        return type("Trained", (), {"model": model})

    monkeypatch.setattr(adaptation, "train_run", train_run)
    assert adaptation.trained(Adaptation("mixed", "zeros", 7)) is model
    assert asked == [["resnet", "mixed", "7", "runs/zoo"]]
    few = {"steps": 1, "batch": 2, "n_train": 4, "n_test": 4, "progress": False}
    folder = tmp_path / "runs" / "zoo" / "plane-resnet-mixed-seed7"
    there = adaptation.train("resnet", padding="mixed", seed=7, **few, folder=folder).model
    found = adaptation.trained(Adaptation("mixed", "zeros", 7))
    assert torch.equal(found.fc.weight, there.fc.weight) and len(asked) == 1


def test_changes_are_of_each_network_and_a_mean_over_layers():
    rows = [
        (control, "zeros", seed, step, layer, metric, value * (1 + seed), accuracy)
        for control in (OPTIMAL, "mixed")
        for seed in (0, 1)
        for step, accuracy, values in ((0, 0.5, (0.1, 0.2)), (50, 0.75, (0.2, 1.6)))
        for layer, value in zip(("relu", "layer4"), values)
        for metric in ("mae", "snr")
    ]
    names = ["control", "scheme", "seed", "step", "layer", "metric", "value", "accuracy"]
    found = adaptation.changes(pd.DataFrame(rows, columns=names))
    assert len(found) == 4 and found["change"].to_numpy() == pytest.approx(2)
    assert set(found["before"]) == {0.5} and set(found["after"]) == {0.75}


def test_the_shipped_table_is_whole():
    table = adaptation.read()
    runs = {Adaptation(*key) for key, _ in table.groupby(["control", "scheme", "seed"])}
    assert runs == {*adaptation.full_design()} and len(table) == 50 * 2 * 5 * 2
    assert (table["value"] > 0).all() and np.isfinite(table["value"]).all()
    assert table["accuracy"].between(0.5, 1).all() and set(table["step"]) == {0, 50}
