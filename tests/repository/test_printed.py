"""Nothing is printed that does not run: every command and block of README, pages and exercises.

By day every command is read as the program reads it, every ``ppp run`` gets as far as its kernel,
every target of make exists, and what takes seconds is run. By night every chapter and measurement
is run as it is printed. What takes a network connection or hours is listed with the reason.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import printed
import pytest
import torch
import yaml
from PIL import Image

from companion import cli, notebooks
from companion.notebooks.places import PLACES
from studies.paths import ROOT

COMMANDS = printed.commands()
PPP = [one for one in COMMANDS if one.startswith("ppp ")]

# By the first words of a command, the longest that fit.
NOT_RUN = {
    "ppp fetch": "takes a network connection; tests/studies/pictures fetches from this machine",
    "ppp study": "takes minutes to hours; tests/studies runs each with smaller settings",
    "ppp build": "takes minutes; the workflow builds the book, tests/companion/book small ones",
    "ppp why": "says nothing without a built book; tests/companion/book asks it of one",
    "ppp compare": "takes two finished runs; tests/companion compares some",
    "ppp sweep run mine.yaml --cluster slurm": "takes a cluster; tests/nightly simulates one",
    "ppp sweep run mine.yaml --jobs 2": "is run with --first 1",
    "ppp sweep table": "takes a finished sweep; tests/companion/sweeps makes one",
    "ppp run sweeps -p sweep": "takes a finished sweep; tests/companion/sweeps makes one",
    "ppp run extracting-ppp -p photos urban100": "takes a fetched set",
    "ppp run imagenet-networks -p network hed-vgg16": "takes fetched weights",
    "ppp run imagenet-networks -p network resnet18 -p weights trained": "downloads weights",
    "ppp measure resnet50 --weights trained": "downloads weights",
    "ppp claims --data my-data": "takes tables of one's own",
    "ppp claims C1 C6 --data my-data": "takes tables of one's own",
    "make": "the workflow runs the targets; by day they are looked up",
    "pip": "takes a network connection; by day its extras are looked up",
    "git": "takes the repository's address",
    "bash benchmarks/gpu.sh": "takes a graphics card; tests/benchmarks runs the small one",
    "papermill": "is run by ppp run; tests/studies/test_parameters.py has its kinds of values",
}
QUICK = ("ppp params", "ppp claims C6 C8", "ppp sweep plan", "ppp study --help")
"""Run by day; everything else that is run, by night."""

PLACEHOLDER = re.compile(r"\b[A-Z]{4,}\b|\.\.\.|PROFILE=\W*$")
MY_NETWORK = """\
from torch import nn

class MyNetwork(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, padding=1),
        )

def make():
    return MyNetwork()
"""
SWEEP = """\
name: mine
run: measure
set: {network: plane-resnet, weights: trained, per_photo: 2}
grid: {window: [96, 64]}
limits: {threads: 1, memory: 6G, time: 15 min}
"""


def reason(command):
    fitting = [begin for begin in NOT_RUN if command.startswith(begin)]
    return NOT_RUN[max(fitting, key=len)] if fitting else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with what the commands speak of: photographs, a network, a sweep."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "my-photographs").mkdir()
    draw = np.random.default_rng(0)
    for name in ("cat.jpg", "018.png", "my cat.jpg", "2024-05-01.jpg"):
        small = Image.fromarray(draw.integers(0, 256, (80, 80, 3), dtype=np.uint8))
        small.resize((1280, 1216), Image.Resampling.BICUBIC).save(folder / "my-photographs" / name)
    (folder / "my_network.py").write_text(MY_NETWORK)
    (folder / "mine.yaml").write_text(SWEEP)
    spaces: dict = {}
    exec(MY_NETWORK, spaces)
    torch.manual_seed(0)
    torch.save(spaces["make"]().state_dict(), folder / "my_weights.pth")
    (folder / "my-list.txt").write_text("https://127.0.0.1/a.png\n")
    return folder


def in_world(command, world):
    return [
        one.replace("/my/photographs", str(world / "my-photographs")).replace("NAME", "bhv")
        for one in printed.words(command)
    ]


def understood(words):
    """Read a command as the program does, without doing it; return the last context."""
    context = cli.program.make_context("ppp", list(words))
    while hasattr(context.command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not rest:
            break
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context


# ---- by day


@pytest.mark.parametrize("command", PPP)
def test_the_program_understands_a_command(command, world, monkeypatch):
    monkeypatch.chdir(world)
    words = in_world(command, world)[1:]
    if "--help" in words:
        assert cli.main(words) == 0
        return
    bare = len(words) == 1 or words[-1] in ("plan", "collect", "verify")  # named in prose
    if bare and words[0] in cli.program.list_commands(None) and "claims" not in words:
        return
    assert understood(words).command.name in [*words, "run"]


CHAPTERS = [one for one in PPP if one.startswith("ppp run ") and not PLACEHOLDER.search(one)]


@pytest.mark.parametrize("command", CHAPTERS)
def test_a_chapter_s_command_reaches_its_kernel(command, world, monkeypatch, capsys):
    if any(word in reason(command) for word in ("fetched", "finished")):
        pytest.skip(reason(command))

    def reach(source, *arguments, **options):
        raise notebooks.NotebookFailed(f"{source.stem} reached")

    monkeypatch.chdir(world)
    monkeypatch.setattr(notebooks, "execute", reach)
    assert cli.main(in_world(command, world)[1:]) == 1, capsys.readouterr().err
    assert "reached" in capsys.readouterr().err


@pytest.mark.parametrize("command", [one for one in PPP if one.startswith(QUICK)])
def test_a_quick_command_runs(command, world, monkeypatch, capsys):
    if command == "ppp sweep plan" or (reason(command) and "--help" not in command):
        pytest.skip(reason(command) or "a name in prose")
    monkeypatch.chdir(world)
    assert cli.main(in_world(command, world)[1:]) == 0
    assert len(capsys.readouterr().out) > 40


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("make ")])
def test_a_target_of_make_exists(command):
    target, *variables = printed.words(command)[1:]
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(target)}:", text, re.M)
    given = dict(one.split("=", 1) for one in variables)
    assert given.keys() <= {"PROFILE", "VARIANT", "PYTHON"}
    assert given.get("PROFILE", "quick") in (
        "...",
        *yaml.safe_load((ROOT / "profiles.yaml").open()),
    )


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("pip ")])
def test_an_extra_exists(command):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for found in re.findall(r"\[(.+?)\]", command):
        assert set(found.split(",")) <= extras["optional-dependencies"].keys()


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("bash ")])
def test_a_script_exists(command):
    assert (ROOT / printed.words(command)[1]).is_file()


def test_every_reason_is_of_a_command_that_is_printed():
    of = {begin: [one for one in COMMANDS if one.startswith(begin)] for begin in NOT_RUN}
    allowed_to_lack = {"git", "papermill"}
    assert [
        begin for begin, found in of.items() if not found and begin not in allowed_to_lack
    ] == []


def test_every_block_is_of_a_kind_that_is_looked_at():
    assert {one.language for one in printed.blocks()} <= printed.NOT_CODE | {"python", "bash"}


# data/laboratory trains two networks in an hour; its script says so itself.
PYTHON = {
    f"{one.page}-{number}": one
    for number, one in enumerate(printed.blocks())
    if one.language == "python" and not one.page.startswith("data/laboratory")
}


@pytest.mark.parametrize("name", PYTHON)
def test_a_block_of_python_runs(name, world, tmp_path, monkeypatch, capsys):
    for package in re.findall(r"^import (timm)$", PYTHON[name].text, re.M):
        pytest.importorskip(package, reason=f"{package} is optional; run: pip install {package}")
    for path in world.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = PYTHON[name].text.replace("/my/photographs", "my-photographs")
    exec(compile(text, name, "exec"), {"__name__": "__main__"})  # nothing of another block's
    assert len(capsys.readouterr().out) > 40, "a block shows what it found"


# ---- by night


BY_NIGHT = [
    one for one in PPP
    if one.startswith(("ppp run ", "ppp measure ", "ppp sweep ", "ppp claims"))
    and not (reason(one) or one.startswith(QUICK) or PLACEHOLDER.search(one))
]  # fmt: skip


@pytest.mark.nightly
@pytest.mark.parametrize("command", BY_NIGHT)
def test_a_command_runs_as_it_is_printed(command, world):
    words = [
        *in_world(command, world)[1:],
        *(["--force"] if command.startswith(("ppp run", "ppp measure")) else []),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "companion", *words],
        cwd=world, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.nightly
@pytest.mark.parametrize("place", PLACES.values())
def test_every_chapter_runs_with_few_windows(place, world):
    done = subprocess.run(
        [sys.executable, "-m", "companion", "run", place, "--profile", "quick", "--force"],
        cwd=world, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (page,) = Path(world, "runs").glob(f"{notebooks.find(place).stem}-*/*.html")
    assert "{{ " not in re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.S)
