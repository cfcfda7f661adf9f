import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from companion import cli


def refused(capsys, *arguments) -> str:
    assert cli.main(["zoo", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("ppp: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the library, which does nothing here."""
    from studies.dynamics import design

    calls = []

    def train(wanted, folder, *, jobs, threads):
        assert threads == 1
        calls.append((wanted, folder, jobs))

    monkeypatch.setattr(design, "train_zoo", train)
    return calls


def test_without_options_the_whole_zoo_is_trained(asked, capsys):
    from studies.dynamics import design

    assert cli.main(["zoo", "train"]) == 0
    assert asked == [(design.runs(), Path("runs/zoo"), 1)]
    assert capsys.readouterr().out == "48 runs in runs/zoo; to ship them: ppp zoo collect\n"


def test_options_choose_runs(asked, capsys):
    options = "--family vgg --padding zeros --scheme optimal --seed 5 --seed 0 --jobs 2"
    assert cli.main(["zoo", "train", *options.split(), "--out", "my runs"]) == 0
    wanted = [("vgg", padding, seed) for padding in ("zeros", "optimal") for seed in (5, 0)]
    assert asked == [(wanted, Path("my runs"), 2)]
    assert "ppp zoo collect --runs 'my runs'\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--seed x", "seed = 'x'; expected a whole number"),
        ("--seed=-1", "seed = -1; expected a whole number"),
        ("--family resnt", "did you mean 'resnet'"),
        ("--padding zeros --scheme refelct", "did you mean 'reflect'"),
        ("--jobs 0", "jobs = 0; expected a whole number of at least 1"),
        ("--jobs two", "jobs = 'two'"),
        ("--threads 0", "threads = 0; expected a whole number of at least 1"),
    ],
)
def test_wrong_options_are_told_in_one_line(capsys, tmp_path, options, words):
    out = tmp_path / "out"
    assert words in refused(capsys, "train", "--out", out, *options.split())
    assert not out.exists()


def test_a_strange_folder_is_told_in_one_line(capsys, tmp_path):
    folder = tmp_path / "plane-vgg-zeros-seed0"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    run = "--family vgg --padding zeros --seed 0 --out"
    assert cli.main(["zoo", "train", *run.split(), str(tmp_path)]) == 2
    assert "holds 'plane-vgg-zeros-seed0'" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    from studies.dynamics import design

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(design, "train_zoo", stop)
    assert cli.main(["zoo", "train"]) == 130
    assert capsys.readouterr().err == (
        "ppp: interrupted; unfinished runs continue when the command is given again\n"
    )


def test_collect_and_verify(tmp_path, capsys):
    from studies.dynamics import design

    tiny = {"steps": 2, "batch": 2, "n_train": 4, "n_test": 8, "progress": False}
    settings = design.Settings("resnet", steps=2, batch=2, n_train=4)
    observer = design.Observer(settings, n_scenes=2, n_test=4, n_statistics=4)
    for lr, out in ((0.1, "runs"), (0.01, "others")):
        folder = tmp_path / out / settings.stem
        design.train("resnet", **tiny, lr=lr, folder=folder, observe=observer, observe_at=(2,))
    runs, data = tmp_path / "runs", tmp_path / "data"
    assert cli.main(["zoo", "collect", "--runs", str(runs), "--data", str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == settings.stem and lines[1].startswith(f"1 run added to {data}")
    assert lines[1].endswith(f"ppp zoo verify --data {data}")
    for options in ([], ["--accuracy", "8"]):
        assert cli.main(["zoo", "verify", "--data", str(data), *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{settings.stem}: hash and weights match, accuracy")
        assert ("again" in lines[0]) == bool(options)
        assert lines[1:] == ["1 network verified"]

    others = ["--runs", tmp_path / "others", "--data", data]
    assert "give --replace" in refused(capsys, "collect", *others)
    assert cli.main(["zoo", "collect", *map(str, others), "--replace"]) == 0
    capsys.readouterr()
    assert "no finished run" in refused(capsys, "collect", "--runs", data, "--data", data)
    assert "accuracy = 'all'" in refused(capsys, "verify", "--data", data, "--accuracy", "all")
    (data / "networks" / f"{settings.stem}.safetensors").write_bytes(b"")
    assert "SHA-256" in refused(capsys, "verify", "--data", data)
    shutil.rmtree(data)
    assert "manifest.json" in refused(capsys, "verify", "--data", data)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupt_of_the_command_stops_all_its_processes(tmp_path):
    out = tmp_path / "runs"
    options = f"--family vgg --padding zeros --seed 0 --seed 1 --seed 2 --jobs 2 --out {out}"
    command = [sys.executable, "-m", "companion", "zoo", "train", *options.split()]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        begun = [out / f"plane-vgg-zeros-seed{seed}" / "settings.json" for seed in (0, 1)]
        deadline = time.monotonic() + 120
        while not all(path.exists() for path in begun):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    last = said.rstrip().splitlines()[-1]
    assert last == "ppp: interrupted; unfinished runs continue when the command is given again"
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    with pytest.raises(ProcessLookupError):  # nothing of it still runs
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    assert not (out / "plane-vgg-zeros-seed2").exists()
