import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import checks
import numpy as np
import pytest
import torch
from torch import nn

import ppp
from ppp import files
from ppp.errors import PPPError, ResumptionError
from ppp.results import flat
from ppp.windows import Picture, Windows

SIZE, LAYERS = 20, ["1", "3"]
SCHEMES = [None, "randn", "reflect", "randn(border)"]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
    ).eval()


MODEL = network()
REACH = ppp.coverage(MODEL, LAYERS, SIZE)


def pictures(count: int = 5, seed: int = 0, per_picture: int = 6, **options) -> Windows:
    draw = torch.Generator().manual_seed(seed)
    scenes = {f"scene {i}": torch.randn(3, 64, 72, generator=draw) for i in range(count)}
    return ppp.cut_windows(scenes, SIZE, REACH, per_picture=per_picture, seed=seed, **options)


def measure(windows=None, model=MODEL, layers=LAYERS, schemes=SCHEMES, **options):
    options = {"coverage": REACH, "batch_size": 4, "groups": 3, "seed": 1} | options
    return ppp.measure(model, windows or pictures(), layers, schemes, **options)


class Broken(Exception):
    pass


def break_off(after: int):
    """Return a `progress` that raises once so many windows are done."""
    done = []

    def progress(n: int) -> None:
        done.append(n)
        if sum(done) >= after:
            raise Broken

    return progress


def interrupted(folder, after: int, **options) -> None:
    with pytest.raises(Broken):
        measure(keep=folder, progress=break_off(after), **options)


def same_bits(first, second) -> None:
    assert list(first) == list(second)
    for key, result in first.items():
        other = second[key]
        np.testing.assert_array_equal(result.pattern, other.pattern)
        np.testing.assert_array_equal(result.deviation, other.deviation)
        assert result.null_test == other.null_test
    assert first.table().equals(second.table())
    assert first.provenance == second.provenance


@pytest.fixture(scope="module")
def whole():
    return measure()


# --- going on ----------------------------------------------------------------------------


def test_keeping_changes_no_bit(whole, tmp_path):
    same_bits(measure(keep=tmp_path / "new" / "folder"), whole)


@pytest.mark.parametrize("after", [1, 11, 24, 30])
def test_a_broken_off_measurement_goes_on_to_the_same_bits(whole, tmp_path, after):
    interrupted(tmp_path, after)
    seen = []
    same_bits(measure(keep=tmp_path, progress=seen.append), whole)
    assert sum(seen) == 30
    # pictures that had been finished are reported at once, the rest in batches of 4 and 2
    finished = (after - 1) // 6
    assert seen == [6] * finished + [4, 2] * (5 - finished)


def test_broken_off_again_and_again(whole, tmp_path):
    for after in (3, 10, 10, 15, 28):
        interrupted(tmp_path, after)
    same_bits(measure(keep=tmp_path), whole)


@pytest.mark.parametrize(
    "options",
    [
        {"distributions": True},
        {"groups": 1},
        {"groups": 10, "schemes": "randn", "batch_size": 100},
        {"memory": 800_000},
        {"pools": "swap"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_all_options_are_gone_on_with(tmp_path, options):
    whole = measure(**options)
    assert whole.provenance["tiles"] > 5 if "memory" in options else True
    interrupted(tmp_path, 15, **options)
    same_bits(measure(keep=tmp_path, **options), whole)


def test_the_moments_of_the_features_are_kept_too(tmp_path):
    """They show in checkpoints only, so they are looked at in the folder."""
    from safetensors.torch import load_file

    interrupted(tmp_path / "broken", 20, distributions=True)
    measure(keep=tmp_path / "broken", distributions=True)
    measure(keep=tmp_path / "whole", distributions=True)
    first, second = (load_file(tmp_path / k / "shared-5.safetensors") for k in ("broken", "whole"))
    assert int(first["optimal 3 n"]) == int(first["reflect 3 n"]) == 30
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_windows_in_rounds_touch_a_group_again(tmp_path):
    windows = pictures(4, interleave=True)
    interrupted(tmp_path, 13, windows=windows)
    same_bits(measure(windows, keep=tmp_path), measure(windows))


def test_a_finished_measurement_is_read_and_may_be_extended(whole, tmp_path):
    measure(pictures(3), keep=tmp_path)
    few = [next(iter(pictures(1)))]
    same_bits(measure(keep=tmp_path), whole)
    seen: list[int] = []
    handle = MODEL[0].register_forward_hook(lambda *_: seen.append(1))
    try:
        same_bits(measure(keep=tmp_path), whole)
    finally:
        handle.remove()
    assert len(seen) <= 4, "only the audits run it and its three swapped copies"
    with pytest.raises(ResumptionError, match="5 finished pictures, but only 1 are given"):
        measure(Windows(few, SIZE), keep=tmp_path)


def test_a_picture_rewrites_only_its_own_group(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "ppp.resumption.write", lambda path, c: (written.append(path.name), files.write(path, c))
    )
    measure(keep=tmp_path)
    groups = [name for name in written if name.startswith("group")]
    assert groups == [f"group-{i % 3}-{i + 1}.safetensors" for i in range(5)]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [
        "group-0-4.safetensors",
        "group-1-5.safetensors",
        "group-2-3.safetensors",
        "shared-5.safetensors",
        "state.json",
    ]


# --- killed ------------------------------------------------------------------------------


def survive(folder: str, count: int) -> None:
    """Kill measurements in one folder, at writes and at any time, until one finishes.

    Runs in a process of its own, with one thread, so that it can be forked.
    """
    draw, kept = random.Random(0), Path(folder, "kept")
    torch.set_num_threads(1)

    def child(deadly: int, before: bool) -> None:
        replace, writes = os.replace, [0]

        def counted(source, target):
            writes[0] += 1
            if writes[0] == deadly and before:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
            if writes[0] == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        files.os.replace = counted
        result = measure(pictures(count), keep=kept)
        files.os.replace = replace
        files.write(Path(folder, "result"), pickle.dumps(dict(result)))

    killed = {"at a write": 0, "at any time": 0}
    Path(folder, "whole").write_bytes(pickle.dumps(dict(measure(pictures(count)))))
    while not Path(folder, "result").exists():
        by_write, before = draw.random() < 0.7, draw.random() < 0.5
        deadly = draw.randint(1, 5) if by_write else 0
        process = os.fork()
        if not process:
            child(deadly, before)
            os._exit(0)
        if not by_write:
            time.sleep(draw.uniform(0.0, 0.05))
            os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        if os.WIFSIGNALED(status):
            killed["at a write" if by_write else "at any time"] += 1
        elif os.WEXITSTATUS(status):
            raise RuntimeError("a child failed")
    Path(folder, "killed").write_text(json.dumps(killed))


@pytest.mark.parametrize("count", [5, pytest.param(12, marks=pytest.mark.nightly)])
def test_killed_at_any_moment_it_goes_on(tmp_path, count):
    work = f"import sys, test_resumption as t; t.survive(sys.argv[1], {count})"
    command = [sys.executable, "-c", work]
    subprocess.run(
        [*command, str(tmp_path)],
        check=True,
        cwd=Path(__file__).parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    killed = json.loads((tmp_path / "killed").read_text())
    assert killed["at a write"] >= count // 4 and (count == 5 or killed["at any time"] >= 1)
    broken, whole = (pickle.loads((tmp_path / k).read_bytes()) for k in ("result", "whole"))
    assert list(broken) == list(whole)
    for key, result in whole.items():
        np.testing.assert_array_equal(broken[key].pattern, result.pattern)
        np.testing.assert_array_equal(broken[key].deviation, result.deviation)
        summaries = [list(flat(found[key].summary).values()) for found in (broken, whole)]
        np.testing.assert_array_equal(*summaries)  # bounds may be NaN, which equals itself here
    assert len(list((tmp_path / "kept").iterdir())) == 5, "what killed runs left is removed"


# --- refusals ----------------------------------------------------------------------------


def refused(*arguments, error=ResumptionError, **options) -> str:
    return checks.refused(measure, *arguments, error=error, **options)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    interrupted(folder, 15)
    return folder


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("network", {"model": network(1)}),
        ("layers", {"layers": ["3", "1"]}),
        ("schemes", {"schemes": ["zeros"]}),
        ("seed", {"seed": 2}),
        ("batch_size", {"batch_size": 5}),
        ("groups", {"groups": 4}),
        ("pools", {"pools": "swap"}),
        ("memory", {"memory": 10**9}),
        ("distributions", {"distributions": True}),
    ],
)
def test_another_measurement_is_refused_by_what_differs(begun, name, options):
    before = checks.contents(begun)
    message = refused(keep=begun, **options)
    assert f"with {name} = " in message and "give another folder, or delete" in message
    assert checks.contents(begun) == before


def test_another_window_size_is_refused(begun):
    reach = ppp.coverage(MODEL, LAYERS, SIZE + 2)
    scene = {"scene 0": torch.zeros(3, 64, 64)}
    windows = ppp.cut_windows(scene, SIZE + 2, reach, per_picture=6, seed=0)
    assert "window_px = [20, 20], not [22, 22]" in refused(windows, keep=begun, coverage=reach)


def changed(**values) -> Windows:
    first, second, *rest = pictures()
    fields = {name: getattr(second, name) for name in ("name", "pixels", "tops", "lefts")}
    return Windows([first, Picture(**fields | values), *rest], SIZE)


def test_other_pictures_are_refused(begun):
    second = list(pictures())[1]
    for values in (
        {"name": "moon"},
        {"pixels": second.pixels + 1},
        {"tops": second.tops[::-1].copy()},
        {"tops": second.tops[:5], "lefts": second.lefts[:5]},
    ):
        message = refused(changed(**values), keep=begun)
        assert "picture 2" in message and "give another folder" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"windows": 12', '"windows": 13'),
        lambda text: text + "x",
    ],
    ids=["empty", "half", "something else", "a number", "longer"],
)
def test_a_damaged_state_is_refused(tmp_path, change):
    interrupted(tmp_path, 15)
    path = tmp_path / "state.json"
    path.write_text(change(path.read_text()))
    message = refused(keep=tmp_path)
    assert f"{path} is damaged" in message and f"delete {tmp_path}" in message


@pytest.mark.parametrize("how", ["missing", "empty", "half", "one bit"])
@pytest.mark.parametrize("part", ["group-0-1", "shared-2"])
def test_a_damaged_part_is_refused(tmp_path, part, how):
    interrupted(tmp_path, 15)
    path = tmp_path / f"{part}.safetensors"
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    else:
        content[-1] ^= 1
        end = {"empty": 0, "half": len(content) // 2, "one bit": len(content)}[how]
        path.write_bytes(bytes(content[:end]))
    assert f"{path} is damaged" in refused(keep=tmp_path)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    for name in ("photo.jpg", "state.json.bak", "group-0-1.safetensors.bak"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text("mine")
        assert "no state.json" in refused(keep=folder)
        assert [path.name for path in folder.iterdir()] == [name]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    assert "cannot be used" in refused(keep=path)
    assert "cannot be used" in refused(keep=path / "below")
    assert path.read_text() == "mine"


def test_a_full_disk_leaves_what_was_finished(whole, tmp_path, monkeypatch):
    replace, count = os.replace, []

    def full(source, target):
        count.append(target)
        if len(count) == 9:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", full)
        assert "No space left on device" in refused(keep=tmp_path)
    same_bits(measure(keep=tmp_path), whole)


def test_checkpoints_are_not_kept(tmp_path):
    message = refused(keep=tmp_path, checkpoints=[10], error=PPPError)
    assert "checkpoints" in message and not list(tmp_path.iterdir())
