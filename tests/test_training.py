import csv
import json

import pytest
import torch

from ppp.errors import PaddingError, ParameterError
from ppp.experiments import files
from ppp.experiments.networks import load_network, small_resnet
from ppp.experiments.plane import SHAPES
from ppp.experiments.training import accuracy, main, train, windows

short = {"steps": 3, "batch": 4, "n_test": 8, "progress": False}


def same(first, second) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("family", "padding"), [("resnet", "zeros"), ("vgg", "randn")])
def test_two_runs_give_the_same_weights_bit_for_bit(family, padding):
    first = train(family, padding=padding, seed=2, **short, device="cpu")
    again = train(family, padding=padding, seed=2, **short, device="cpu")
    other = train(family, padding=padding, seed=3, **short, device="cpu")
    assert same(first.model, again.model) and not same(first.model, other.model)
    assert first.log == again.log
    assert not first.model.training


def test_a_run_starts_at_the_initial_weights_and_reports_every_step():
    seen = []

    def note(step, model):
        seen.append(step)
        if step == 0:
            assert same(model, small_resnet(seed=1))

    run = train("resnet", seed=1, **short, after_step=note, device="cpu")
    assert seen == [0, 1, 2, 3]
    assert not same(run.model, small_resnet(seed=1))
    assert run.log[-1]["step"] == 3


def test_training_reduces_the_loss():
    run = train("vgg", steps=30, batch=8, n_test=8, progress=False, lr=0.02)
    assert run.log[0]["loss"] < 2.4
    assert run.log[-1]["train_accuracy"] > 1 / len(SHAPES)


def test_windows_are_reproducible_balanced_and_normalised():
    pixels, labels = windows(80, 16, 5)
    again, _ = windows(80, 16, 5)
    assert torch.equal(pixels, again)
    assert labels.bincount().tolist() == [2] * 8
    assert pixels.shape == (16, 3, 96, 96) and -2 <= float(pixels.min()) < float(pixels.max()) <= 2
    assert not torch.equal(windows(80, 16, 6)[0], pixels)


def test_accuracy_restores_the_mode_and_the_statistics():
    model = small_resnet()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert 0 <= accuracy(model, 5) <= 1
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_files_are_loadable_and_recorded(tmp_path, capsys):
    arguments = ["--padding", "reflect", "--steps", "2", "--batch", "4", "--n-test", "40"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert "plane-resnet-reflect-seed0.safetensors" in capsys.readouterr().out
    assert main([*arguments, "--seed", "1", "--out", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    stems = [f"plane-resnet-reflect-seed{seed}" for seed in (0, 1)]
    assert names == {"manifest.json", *(f"{s}{e}" for s in stems for e in (".csv", ".safetensors"))}
    entries = json.loads((tmp_path / "manifest.json").read_text())
    record = entries["plane-resnet-reflect-seed1"]
    assert record["steps"] == 2 and record["n_test"] == 40
    (_, b), (c, d) = (entries[stem]["train_scenes"] for stem in stems)
    assert b <= c and d <= record["test_scenes"][0]
    network = load_network("plane-resnet-reflect", "trained", seed=1, models=tmp_path)
    assert network.provenance["sha256"] == record["sha256"]
    assert accuracy(network.model, 40) == record["test_accuracy"]
    rows = list(csv.DictReader((tmp_path / f"{stems[0]}.csv").open()))
    assert rows[-1]["step"] == "2"


def test_a_failed_run_leaves_nothing_half_made(tmp_path, monkeypatch):
    def stop(step, model):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("resnet", **short, out=tmp_path / "out", after_step=stop)
    assert not (tmp_path / "out").exists()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        train("resnet", **short, out=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_arguments_are_refused_before_anything_runs(tmp_path, capsys):
    with pytest.raises(ParameterError, match="did you mean 'resnet'"):
        train("resnt")
    with pytest.raises(PaddingError, match="did you mean 'zeros'"):
        train("resnet", padding="zero")
    for name, value in (
        ("steps", 0),
        ("batch", 1),
        ("batch", "64"),
        ("seed", -1),
        ("n_test", 2.5),
        ("seed", True),
        ("seed", 65536),
        ("lr", float("nan")),
    ):
        with pytest.raises(ParameterError, match=name):
            train("resnet", **{name: value})
    assert main(["--padding", "zero", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
