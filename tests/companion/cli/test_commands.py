"""Every command that writes: what it refuses, what a signal or a kill leaves, odd command lines.

The commands run as a user's do, each in a process of its own. Every command meets one signal, a few
meet a kill, and five odd lines are drawn every time; the rest is marked ``nightly``.
"""

import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import toy_notebooks
import yaml
from PIL import Image

from studies.paths import ROOT
from studies.storage import outputs

PPP = [sys.executable, "-m", "companion"]
NOTEBOOK = """\
import time
from pathlib import Path
for step in range(n):
    time.sleep(0.02)
    Path(results, f"{step}.csv").write_text(f"step\\n{step}\\n")
Path(results, "numbers.json").write_text('{"square": 4}')
"""
NETWORK = """\
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
"""
SWEEP = "run: toy.ipynb\ngrid: {n: [2, 60]}\n"


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """A folder with what the commands work on."""
    folder = tmp_path_factory.mktemp("materials")
    values = 'n = 60\nseed = 0\nresults = "results"'
    toy_notebooks.write(folder / "toy.ipynb", "Toy", values, NOTEBOOK)
    (folder / "net.py").write_text(NETWORK)
    (folder / "sweep.yaml").write_text(SWEEP)
    draw = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name in "abcd":
        pixels = draw.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{name}.png")
    for n in (2, 3):
        done = ppp(f"run toy.ipynb -p n {n} --output run-{n}", folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(materials, tmp_path):
    """A copy of it, to work in."""
    shutil.copytree(materials, tmp_path / "here")
    return tmp_path / "here"


def start(line, folder, **changes):
    return subprocess.Popen(
        [*PPP, *shlex.split(line)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PPP_CACHE": str(folder / "cache"), **changes},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def ppp(line, folder, seconds=60, **changes):
    """Run a command to its end, or fail because it hangs."""
    process = start(line, folder, **changes)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process)
        pytest.fail(f"ppp {line} took more than {seconds} s")
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def family(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        found = psutil.Process(process.pid)
        return [found, *found.children(recursive=True)]
    return []


def living(processes):
    alive = []
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                alive.append(one)
    return alive


def assert_gone(processes):
    """Give them five seconds to end."""
    deadline = time.monotonic() + 5
    while living(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert living(processes) == []


def end(process):
    for one in family(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


def everything(folder):
    """Return what a folder holds, without Python's own caches."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


# ---- the place where results go

WHOLE = {
    "run": "run toy.ipynb -p n 2 --output {}",
    "measure": "measure net.py:make --window 16 --per-photo 2 --photos photos --output {}",
    "course": "course --output {}",
}
"""Commands that make a folder in one go."""

KEPT = {
    "bhv": "bhv --condition published --variant V --seed 0 --out {}",
    "posenet": "posenet --part trained --padding zeros --seed 0 --out {}",
    "patterns": "patterns --family vgg --padding zeros --seed 0 --out {}",
    "survey": "survey alexnet --out {}",
    "zoo train": "zoo train --family vgg --padding zeros --seed 0 --out {}",
    "sweep run": "sweep run sweep.yaml --output {}",
    "sweep table": "sweep table sweep.yaml --output {}",
}
"""Commands that keep in a folder what is finished, and go on."""

FILES = {
    "compare": ("compare run-2 run-3 --output {}", "page.html", "page.html"),
    "bhv tables": ("bhv --seed 0 --out kept --data {}", "accuracy.csv.gz", None),
    "posenet tables": ("posenet --seed 0 --out kept --data {}", "trials.csv.gz", None),
    "patterns tables": ("patterns --seed 0 --out kept --data {}", "maps.csv.gz", None),
    "survey tables": ("survey alexnet --out kept --data {}", "survey.csv", None),
    "release": ("release --output {}", "ppp-companion-0.1.0.zip", None),
}
"""Commands that write certain files: the line, one of them, and whether the place is that file."""


@pytest.fixture
def refused(here, monkeypatch, capsys):
    """Return a function that sees a command refused, in this process: it saves the start."""
    from companion import cli

    monkeypatch.chdir(here)
    monkeypatch.setenv("PPP_CACHE", str(here / "cache"))

    def refused(line, *words):
        code = cli.main(shlex.split(line))
        out, err = capsys.readouterr()
        assert code == 2, (line, out, err)
        assert err.startswith("ppp: ") and err.count("\n") == 1, err
        for word in words:
            assert word in err

    return refused


@pytest.mark.parametrize("name", [*WHOLE, *KEPT])
def test_foreign_places_are_refused_and_stay(here, refused, name):
    """A folder with foreign files, a file, a link, a place that cannot be, one that is in use."""
    line = (WHOLE | KEPT)[name]
    force = " --force" if name in WHOLE else ""
    foreign = here / "foreign"
    (foreign / "results").mkdir(parents=True)
    (foreign / "results" / "thesis.txt").write_text("all of it")
    (foreign / "table.parquet").write_text("mine")
    (here / "file").write_text("mine")
    (here / "link").symlink_to("foreign")
    (here / "nowhere").symlink_to("nothing")
    before = everything(here)
    refused(line.format("foreign") + force, "foreign", "holds", "give another --out")
    refused(line.format("file") + force, "file")
    refused(line.format("link") + force, "link")
    if name != "sweep table":
        refused(line.format("nowhere") + force, "nowhere")
        refused(line.format("/proc/ppp/place") + force, "/proc/ppp")
    assert everything(here) == before
    assert (here / "link").is_symlink() and (here / "nowhere").is_symlink()
    if name == "sweep table":
        return
    busy = here / "busy"
    lock = here / ".busy.lock" if name in WHOLE else busy / ".lock"
    lock.parent.mkdir(exist_ok=True)
    with outputs.held(lock, "ppp other"):
        refused(line.format("busy"), f"'ppp other' is at work here (process {os.getpid()}")


@pytest.mark.parametrize("name", FILES)
def test_foreign_files_are_refused_and_stay(here, refused, name):
    line, file, place = FILES[name]
    folder = here / "tables"
    folder.mkdir()
    (folder / file).write_text("mine")
    before = everything(here)
    where = "tables/" + place if place else "tables"
    force = " --force" if name in ("compare", "release") else ""
    refused(line.format(where) + force, file)
    (here / "file").write_text("mine")
    refused(line.format("file") + force, "file")
    (here / "file").unlink()
    assert everything(here) == before


@pytest.mark.parametrize("name", WHOLE)
def test_absent_empty_and_own_places(here, refused, name):
    line = WHOLE[name]
    (here / "empty").mkdir()
    for place in ("empty", "deep/absent")[: 1 if name == "measure" else 2]:
        assert ppp(line.format(place), here).returncode == 0
    made = everything(here / "empty")
    refused(line.format("empty"), "empty exists; give another --output, or --force")
    assert everything(here / "empty") == made
    done = ppp(line.format("empty") + " --force", here)
    assert done.returncode == 0, done.stderr
    left = [path.name for path in here.iterdir() if path.name.startswith(".")]
    assert left == [] and sorted(everything(here / "empty")) == sorted(made)


def test_two_runs_into_one_place(here):
    """One of them writes its result, the other says who is at work."""
    both = [start(f"run toy.ipynb -p seed {seed} --output out", here) for seed in (0, 1)]
    said = [one.communicate(timeout=60) for one in both]
    assert sorted(one.returncode for one in both) == [0, 2]
    (loser,) = [err for one, (_, err) in zip(both, said) if one.returncode]
    assert "out" in loser and loser.splitlines()[-1].startswith("ppp: ")
    (winner,) = [seed for seed, one in enumerate(both) if not one.returncode]
    text = (here / "out" / "toy.ipynb").read_text()
    assert f"seed = {winner}" in text and "making" not in text


def test_a_variant_reaches_the_program_unharmed(tmp_path):
    """Brackets, spaces, quotes and semicolons go through make as they are."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("constraints.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    program = tmp_path / ".venv" / "bin" / "ppp"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    for variant in ("padding=constant(0.5)", "photos='my; set #2' n=6", "a=$(touch x)`", 'p="q|r"'):
        given = variant.replace("$", "$$")  # make's own sign
        done = subprocess.run(
            ["make", "-s", "book", f"VARIANT={given}", "PROFILE=a b"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        words = done.stdout.splitlines()
        assert words == ["build", "--profile", "a b", "--variant", variant], done
    assert not (tmp_path / "x").exists()


# ---- signals

LONG = {
    "run": "run toy.ipynb -p n 3000 --output out",
    "measure": "measure net.py:make --window 32 --per-photo 3000 --photos photos --output out",
    "sweep run": "sweep run long.yaml --output out --jobs 2",
    "patterns": "patterns --family vgg --out out --jobs 2",
    "zoo train": "zoo train --family vgg --padding zeros --seed 0 --out out",
}


def wait_for_work(process, folder, name):
    """Wait until a command is in the midst of its work."""
    signs = {
        "run": "*/results/1.csv",
        "measure": "*/*/state.json",
        "sweep run": "work/*/results/1.csv",
    }
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if name in ("run", "measure"):
            places = [*folder.glob(f".out.making-{signs[name]}"), *folder.glob(signs[name])]
        elif name == "patterns":  # it leaves nothing before a run is finished
            places = [one for one in family(process) if "spawn_main" in " ".join(one.cmdline())]
        else:
            places = [*(folder / "out").glob(signs.get(name, "*/*"))]
        if places:
            time.sleep(0.3)
            return
        time.sleep(0.02)
    pytest.fail(f"{name} did not begin: {process.communicate(timeout=5)}")


SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")
SENT = [
    pytest.param(name, one, marks=[pytest.mark.nightly] if (i + j) % 3 else [])
    for i, name in enumerate(LONG)
    for j, one in enumerate(SIGNALS)
]


@pytest.mark.parametrize(("name", "number"), SENT)
def test_a_signal_ends_a_command_and_its_children(here, name, number):
    (here / "long.yaml").write_text("run: toy.ipynb\ngrid: {n: [3000, 3001]}\n")
    (here / "neighbour").mkdir()
    (here / "neighbour" / "a.txt").write_text("mine")
    process = start(LONG[name], here)
    try:
        wait_for_work(process, here, name)
        all_of_it = family(process)
        begun = time.monotonic()
        process.send_signal(getattr(signal, number))
        _, said = process.communicate(timeout=20)
        took = time.monotonic() - begun
        assert process.returncode == 128 + getattr(signal, number), said
        assert took < 5, f"it took {took:.1f} s"
        assert living(all_of_it) == []
        assert "Traceback" not in said and said.rstrip().splitlines()[-1].count("ppp: ") == 1
        assert (here / "neighbour" / "a.txt").read_text() == "mine"
        if name in ("run", "measure"):
            assert not (here / "out").exists()
            assert not [path for path in here.iterdir() if path.name.startswith(".")]
    finally:
        end(process)


@pytest.mark.parametrize(
    "name",
    [
        *("run", "measure", "sweep run"),
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("patterns", "zoo train")),
    ],
)
def test_children_end_with_a_command_that_is_killed(here, name):
    (here / "long.yaml").write_text("run: toy.ipynb\ngrid: {n: [3000, 3001]}\n")
    process = start(LONG[name], here)
    try:
        wait_for_work(process, here, name)
        children = family(process)[1:]
        process.kill()
        process.communicate(timeout=20)
        assert_gone(children)
    finally:
        end(process)


def test_a_broken_pipe_is_no_success(here):
    line = shlex.join([*PPP, *shlex.split(WHOLE["measure"].format("out"))])
    done = subprocess.run(
        ["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode not in (0, 70) and "Traceback" not in done.stderr


# ---- where it runs

PLACES = {
    "a home that cannot be written": {"HOME": "/proc/nobody"},
    "another locale and time zone": {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Chatham"},
    "no text encoding": {"PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX", "PYTHONUTF8": "0"},
    "another kernel of that name": {"JUPYTER_PATH": "kernels"},
}


@pytest.mark.parametrize("place", PLACES)
def test_commands_work_wherever_they_are(here, place):
    (here / "kernels" / "kernels" / "python3").mkdir(parents=True)
    (here / "kernels" / "kernels" / "python3" / "kernel.json").write_text(
        '{"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}'
    )
    done = ppp(WHOLE["run"].format("out"), here, **PLACES[place])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_commands_work_under_a_parent_that_ignores_interrupts(here):
    """As in the background of a script: they go on, and a TERM still ends them."""
    ignoring = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    ignoring += "os.execv(sys.argv[1], sys.argv[1:])"
    for line, number in (("run toy.ipynb -p n 2 --output out", None), (LONG["run"], "SIGTERM")):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                ignoring,
                *PPP,
                *shlex.split(line.replace("--output out", f"--output o-{number}")),
            ],
            cwd=here,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if number:
                while not list(here.glob(f".o-{number}.making-*/results/1.csv")):
                    assert process.poll() is None
                    time.sleep(0.05)
                process.send_signal(signal.SIGINT)
                time.sleep(0.5)
                assert process.poll() is None
                children = family(process)
                process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
            assert process.returncode == (143 if number else 0), said
            assert not number or living(children) == []
        finally:
            end(process)


# ---- kills at any moment

KILLED = {
    "run": "run toy.ipynb --output out",
    "measure": "measure net.py:make --window 32 --per-photo 64 --photos photos --output out",
    "course": "course --output out",
    "compare": "compare run-2 run-3 --output out.html",
    "sweep run": "sweep run sweep.yaml --output out --jobs 2",
    "patterns": "patterns --family vgg --padding zeros --seed 0 --out out",
    "survey": "survey alexnet squeezenet1_0 --out out",
}
USUAL = ("run", "measure", "sweep run")
KILLS = [
    pytest.param(name, draw, marks=[pytest.mark.nightly] if draw or name not in USUAL else [])
    for name in KILLED
    for draw in range(10)
]


@pytest.mark.parametrize(("name", "draw"), KILLS)
def test_a_kill_spoils_nothing(here, name, draw):
    """Kill a command at a random moment: old results stay whole, and the same command completes."""
    line = KILLED[name]
    kept = name in KEPT
    again = line if kept else line + " --force"
    begun = time.monotonic()
    assert ppp(line, here).returncode == 0
    usual = time.monotonic() - begun
    (here / "neighbour.txt").write_text("mine")
    whole = everything(here)
    if kept:
        shutil.rmtree(here / "out")
    process = start(again, here)
    children = []
    moment = time.monotonic() + random.Random(f"{name} {draw}").uniform(0, usual)
    while time.monotonic() < moment and process.poll() is None:
        children = family(process)[1:] or children
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=20)
    assert_gone(children)
    now = {path: content for path, content in everything(here).items() if path in whole}
    if not kept:
        out = here / "out"
        names = {path for path in whole if path == out or out in path.parents}
        assert {
            path for path in now if path in names
        } == names  # the old result, or a whole new one
        if out.is_dir():
            outputs.check_free(out, f"ppp {name}", force=True)
    assert (here / "neighbour.txt").read_text() == "mine"
    done = ppp(again, here)
    assert done.returncode == 0, done.stderr
    left = [path.name for path in here.iterdir() if path.name.startswith(".")]
    assert left == []


# ---- odd command lines

WORDS = {
    "place": [
        *("out", "foreign", "foreign/thesis.txt", "/dev/null", "/dev/zero", "pipe", ".", "..", ""),
        *("~nobody/x", "x" * 300, "-", "link", "broken.json"),
    ],
    "file": [
        *("net.py:make", "net.py:", "net.py:nothing", "pipe:make", "~nobody/net.py:make"),
        *("pipe", "/dev/zero", "foreign", "bomb.yaml", "broken.json", "sweep.yaml", "toy.ipynb"),
        *("binary.pth", "nothing"),
    ],
    "number": ["0", "-1", "1", "2", "nan", "1e9", "18446744073709551616", "9" * 5000, "two", ""],
    "text": [
        *("zeros", "refelct", "constant(nan)", "constant(0.5)", "[a", "a,b", "!tag x", "# x", "'"),
        *("resnet18", "plane-vgg", "quick", "quik", "C1", "urban100", "%s", "{n}", "é", "None"),
    ],
}
GRAMMAR = {
    "run": "file|-p text text|-p n number|--output place|--force|--profile text",
    "params": "file",
    "build": "!--cores 0|-p text text|--profile nothing|--variant text",
    "why": "text|--profile text",
    "compare": "place|place|--output place|--force|--published place",
    "course": "--output foreign|--force",
    "release": "--profile text|!--output foreign",
    "claims": "text|--data place",
    "bhv": "--condition text|--seed number|!--out foreign|--data place|--jobs number",
    "posenet": "--part text|--seed number|!--out foreign|--data place",
    "patterns": "--family text|--state text|--seed number|!--out foreign|--data place",
    "survey": "text|!--out foreign|--data place|--jobs number",
    "measure": "file|--weights file|--layers text|--schemes text|--photos place|--window number|"
    "--seed number|--memory number|--output place|--force|--mean number|--std text|--device text|"
    "--batch-size number",
    "fetch": "file|--to place|--jobs number",
    "sweep plan": "file|--output place|--jobs number",
    "sweep run": "file|!--output foreign|--jobs number|--cluster place",
    "sweep table": "file|--output place",
    "zoo train": "--family text|--padding text|--seed number|!--out foreign",
    "zoo collect": "--runs place|!--data foreign|--replace",
    "zoo verify": "--data place|--accuracy number",
    "nothing": "text|--help",
}
"""What follows a command: a kind of :data:`WORDS` or itself; options may be left out, not with !"""
LINES = int(os.environ.get("PPP_ODD_LINES", "200"))


def odd_line(draw):
    command = draw.choice([*GRAMMAR])
    words = command.split()
    for part in GRAMMAR[command].split("|"):
        if not part.startswith("-") or draw.random() > 0.55:
            parts = part.removeprefix("!").split()
            words += [draw.choice(WORDS[one]) if one in WORDS else one for one in parts]
    return words


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.nightly) for s in range(1, LINES // 5))]
)
def test_odd_command_lines(here, seed):
    """Five lines: no traceback, no hang, no foreign file changed, and one line that says why."""
    foreign = here / "foreign"
    foreign.mkdir()
    for name in ("thesis.txt", "runs.csv", "survey.csv", "page.html", "record.json"):
        (foreign / name).write_text("mine")
    (here / "link").symlink_to("foreign")
    os.mkfifo(here / "pipe")
    (here / "broken.json").write_text("{")
    (here / "binary.pth").write_bytes(b"\x80\x02" + bytes(range(200)))
    levels = [f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    bomb = ["run: measure", "limits:", "  - &a0 [lol, lol, lol, lol]", *levels]
    (here / "bomb.yaml").write_text("\n".join(bomb))
    before = everything(foreign)
    draw = random.Random(seed)
    for _ in range(5):
        words = odd_line(draw)
        line = shlex.join(words)
        done = ppp(line, here)
        assert everything(foreign) == before, line
        assert (here / "link").is_symlink(), line
        said = done.stdout + done.stderr
        assert "Traceback" not in said and "fault of ppp" not in said, (line, said[-2000:])
        assert done.returncode in (0, 1, 2), (line, done)
        if done.returncode == 2:
            (last,) = [one for one in done.stderr.splitlines() if one.startswith("ppp: ")]
            assert len(last) < 2000, line


def test_the_grammar_covers_every_command():
    from companion import cli

    nested = {"sweep": cli.SWEEP, "zoo": cli.ZOO}
    known = {f"{name} {one}" for name in nested for one in nested[name]}
    known |= {name for name in cli.COMMANDS if name not in nested} - {"pdf"}
    assert known == set(GRAMMAR) - {"nothing"}
    assert yaml.safe_load(SWEEP)["run"] == "toy.ipynb"
