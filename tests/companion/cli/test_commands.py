"""Every command that writes: what it refuses, what a signal or a kill leaves, odd command lines.

Most of it runs in this process. What needs a process is asked of ``ppp run`` alone; of the other
commands it is marked ``nightly``. How a process ends is tested in ``test_processes.py``.
"""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import click
import numpy as np
import pytest
import toy_notebooks
from checks import contents
from families import assert_gone, ended, family, living
from PIL import Image

from companion import cli
from studies.paths import ROOT
from studies.storage import outputs

PPP = [sys.executable, "-m", "companion"]
VALUES = 'n = {}\nseed = 0\nresults = "results"'
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


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """A folder with what the commands work on."""
    folder = tmp_path_factory.mktemp("materials")
    toy_notebooks.write(folder / "toy.ipynb", "Toy", VALUES.format(60), NOTEBOOK)
    for n in (2, 3):  # as `ppp run` leaves them
        toy_notebooks.write(folder / f"run-{n}" / "toy.ipynb", "Toy", VALUES.format(n), NOTEBOOK)
    (folder / "net.py").write_text(NETWORK)
    (folder / "sweep.yaml").write_text("run: toy.ipynb\ngrid: {n: [2, 60]}\n")
    (folder / "long.yaml").write_text("run: toy.ipynb\ngrid: {n: [3000, 3001]}\n")
    draw = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name in "abcd":
        pixels = draw.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{name}.png")
    return folder


@pytest.fixture
def here(materials, tmp_path, monkeypatch):
    """A copy of it, to work in."""
    shutil.copytree(materials, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PPP_CACHE", str(tmp_path / "here" / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "here"


@pytest.fixture
def refused(here, capsys):
    """Return a function that sees a command refused in one line, and nothing changed."""

    def refused(line, *words):
        before = contents(here)
        capsys.readouterr()
        code = cli.main(shlex.split(line))
        out, err = capsys.readouterr()
        assert code == 2, (line, out, err)
        assert err.startswith("ppp: ") and err.count("\n") == 1, err
        assert all(word in err for word in words), err
        assert contents(here) == before

    return refused


def hidden(folder):
    """Name what a command must not leave behind: locks, and results that are being made."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# ---- the place where results go

WHOLE = {
    "run": "run toy.ipynb -p n 2 --output {}",
    "measure": "measure net.py:make --window 16 --per-photo 2 --photos photos --output {}",
    "course": "course --output {}",
}
"""Commands that make a folder in one go."""

KEPT = {
    "study bhv": "study bhv --condition published --variant V --seed 0 --out {}",
    "study posenet": "study posenet --part trained --padding zeros --seed 0 --out {}",
    "study posenet-real": "study posenet-real --network hed-vgg16 --state initial --out {}",
    "study patterns": "study patterns --family vgg --padding zeros --seed 0 --out {}",
    "study survey": "study survey alexnet --out {}",
    "study evidence": "study evidence --family vgg --padding zeros --seed 0 --out {}",
    "study adaptation": "study adaptation --scheme zeros --seed 0 --out {}",
    "study pretrained": "study pretrained --network hed-vgg16 --state trained --out {}",
    "study pretrained-adaptation": "study pretrained-adaptation --scheme randn --out {}",
    "study zoo": "study zoo --family vgg --padding zeros --seed 0 --out {}",
    "sweep run": "sweep run sweep.yaml --output {}",
    "sweep table": "sweep table sweep.yaml --output {}",
}
"""Commands that keep in a folder what is finished, and go on."""

FILES = {
    "compare": ("compare run-2 run-3 --force --output {}", "page.html", "tables/page.html"),
    "bhv tables": ("study bhv --seed 0 --out kept --data {}", "accuracy.csv.gz", "tables"),
    "posenet tables": ("study posenet --seed 0 --out kept --data {}", "trials.csv.gz", "tables"),
    "patterns tables": ("study patterns --seed 0 --out kept --data {}", "maps.csv.gz", "tables"),
    "survey tables": ("study survey alexnet --out kept --data {}", "survey.csv", "tables"),
    "release": ("release --force --output {}", "ppp-companion-0.1.0.zip", "tables"),
}
"""Commands that write certain files: the line, one of the files, and the place that is given."""


@pytest.mark.parametrize("name", [*WHOLE, *KEPT])
def test_foreign_places_are_refused_and_stay(here, refused, name):
    """A folder with foreign files, a file, a link, a place that cannot be, one that is in use."""
    line = (WHOLE | KEPT)[name] + (" --force" if name in WHOLE else "")
    (here / "foreign" / "results").mkdir(parents=True)
    (here / "foreign" / "results" / "thesis.txt").write_text("all of it")
    (here / "foreign" / "table.parquet").write_text("mine")
    (here / "file").write_text("mine")
    (here / "link").symlink_to("foreign")
    (here / "nowhere").symlink_to("nothing")
    refused(line.format("foreign"), "foreign", "holds", "give another --out")
    refused(line.format("file"), "file")
    refused(line.format("link"), "link")
    if name != "sweep table":  # it begins nothing
        refused(line.format("nowhere"), "nowhere")
        refused(line.format("/proc/ppp/place"), "/proc/ppp")
        busy = here / "busy"
        lock = here / ".busy.lock" if name in WHOLE else busy / ".lock"
        lock.parent.mkdir(exist_ok=True)
        with outputs.held(lock, "ppp other"):
            refused(line.format("busy"), f"'ppp other' is at work here (process {os.getpid()}")
    assert (here / "link").is_symlink() and (here / "nowhere").is_symlink()


@pytest.mark.parametrize("name", FILES)
def test_foreign_files_are_refused_and_stay(here, refused, name):
    line, file, place = FILES[name]
    (here / "tables").mkdir()
    (here / "tables" / file).write_text("mine")
    (here / "file").write_text("mine")
    refused(line.format(place), file)
    refused(line.format("file"), "file")


@pytest.mark.parametrize("name", ["measure", "course"])
def test_an_empty_place_and_an_own_one(here, refused, name):
    line = WHOLE[name].format("empty")
    (here / "empty").mkdir()
    assert cli.main(shlex.split(line)) == 0
    made = contents(here / "empty")
    refused(line, "empty exists; give another --output, or --force")
    assert cli.main(shlex.split(f"{line} --force")) == 0
    assert hidden(here) == [] and contents(here / "empty").keys() == made.keys()


def test_a_value_that_was_forgotten_is_no_path(refused):
    refused("course --output --force", "--force")


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


# ---- processes


def start(line, **environment):
    return subprocess.Popen(
        [*PPP, *shlex.split(line)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )


def ppp(line, seconds=300, **environment):
    """Run a command to its end, or fail because it hangs."""
    with ended(start(line, **environment)) as process:
        out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


LONG = {
    "run": "run toy.ipynb -p n 3000 --output out",
    "measure": "measure net.py:make --window 32 --per-photo 3000 --photos photos --output out",
    "sweep run": "sweep run long.yaml --output out --jobs 2",
    "study patterns": "study patterns --family vgg --out out --jobs 2",
    "study zoo": "study zoo --family vgg --padding zeros --seed 0 --out out",
}
SIGNS = {
    "run": ".out.making-*/results/1.csv",
    "measure": "out.partial/*/state.json",
    "sweep run": "out/*/*/results/1.csv",
    "study zoo": "out/*/*",
}
"""What each leaves once it is in the midst of its work."""


def nightly(*values):
    """Return parameters of a test, marked nightly unless they are the usual ones."""
    usual = values in (("run",), ("run", "SIGTERM"))
    return pytest.param(*values, marks=[] if usual else [pytest.mark.nightly])


def begun(process, folder, name):
    if name == "study patterns":  # it leaves nothing before a run is finished
        return any("popen_loky" in " ".join(one.cmdline()) for one in family(process))
    return list(folder.glob(SIGNS[name]))


def wait_for_work(process, folder, name):
    deadline = time.monotonic() + 60
    while not begun(process, folder, name):
        time.sleep(0.02)
        if time.monotonic() > deadline or process.poll() is not None:
            pytest.fail(f"{name} did not begin: {process.communicate(timeout=5)}")
    time.sleep(0.3)


@pytest.mark.parametrize(
    ("name", "number"),
    [nightly(name, one) for name in LONG for one in ("SIGTERM", "SIGINT", "SIGHUP")],
)
def test_a_signal_ends_a_command_and_its_children(here, name, number):
    (here / "neighbour.txt").write_text("mine")
    with ended(start(LONG[name])) as process:
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
    assert (here / "neighbour.txt").read_text() == "mine"
    if name in ("run", "measure"):
        assert not (here / "out").exists() and hidden(here) == []


@pytest.mark.parametrize("name", [nightly(name) for name in LONG])
def test_children_end_with_a_command_that_is_killed(here, name):
    with ended(start(LONG[name])) as process:
        wait_for_work(process, here, name)
        children = family(process)[1:]
        process.kill()
        process.communicate(timeout=20)
        assert_gone(children)


@pytest.mark.nightly
def test_two_runs_into_one_place(here):
    """One of them writes its result, the other says who is at work."""
    both = [start(f"run toy.ipynb -p seed {seed} --output out") for seed in (0, 1)]
    said = [one.communicate(timeout=60) for one in both]
    assert sorted(one.returncode for one in both) == [0, 2]
    (loser,) = [err for one, (_, err) in zip(both, said) if one.returncode]
    assert "out" in loser and loser.splitlines()[-1].startswith("ppp: ")
    (winner,) = [seed for seed, one in enumerate(both) if not one.returncode]
    text = (here / "out" / "toy.ipynb").read_text()
    assert f"seed = {winner}" in text and "making" not in text


def test_a_broken_pipe_is_no_success(here):
    line = shlex.join([*PPP, "params", "toy.ipynb"])
    done = subprocess.run(
        ["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.returncode == 128 + signal.SIGPIPE and done.stderr == ""


PLACES = {
    "HOME": "/proc/nobody",
    "TZ": "Pacific/Chatham",
    "LC_ALL": "POSIX",
    "PYTHONIOENCODING": "ascii",
    "PYTHONUTF8": "0",
    "JUPYTER_PATH": "kernels",
}
"""No home, no text encoding, and another kernel of the name that notebooks ask for."""


def test_a_notebook_runs_wherever_it_is(here):
    (here / "kernels" / "kernels" / "python3").mkdir(parents=True)
    (here / "kernels" / "kernels" / "python3" / "kernel.json").write_text(
        '{"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}'
    )
    done = ppp(WHOLE["run"].format("out"), **PLACES)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


KILLED = {
    "run": "run toy.ipynb --output out",
    "measure": "measure net.py:make --window 32 --per-photo 64 --photos photos --output out",
    "course": "course --output out",
    "compare": "compare run-2 run-3 --output out.html",
    "sweep run": "sweep run sweep.yaml --output out --jobs 2",
    "study patterns": "study patterns --family vgg --padding zeros --seed 0 --out out",
    "study survey": "study survey alexnet squeezenet1_0 --out out",
}


@pytest.mark.nightly
@pytest.mark.parametrize("draw", range(10))
@pytest.mark.parametrize("name", KILLED)
def test_a_kill_spoils_nothing(here, name, draw):
    """Kill a command at a random moment: old results stay whole, and the same command completes."""
    kept = name in KEPT
    again = KILLED[name] if kept else f"{KILLED[name]} --force"
    begun = time.monotonic()
    assert ppp(KILLED[name]).returncode == 0
    moment = random.Random(f"{name} {draw}").uniform(0, time.monotonic() - begun)
    (here / "neighbour.txt").write_text("mine")
    if kept:
        shutil.rmtree(here / "out")
    before = {file for file in contents(here) if file.startswith("out")}
    with ended(start(again)) as process:
        children, begun = [], time.monotonic()
        while time.monotonic() < begun + moment and process.poll() is None:
            children = family(process)[1:] or children
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=20)
        assert_gone(children)
    assert before <= contents(here).keys()  # the old result, or a whole new one
    if before and (here / "out").is_dir():
        outputs.check_free(here / "out", f"ppp {name}", force=True)
    assert (here / "neighbour.txt").read_text() == "mine"
    done = ppp(again)
    assert done.returncode == 0, done.stderr
    assert hidden(here) == []


# ---- odd command lines

WORDS = {
    "place": [
        *("out", "foreign", "foreign/thesis.txt", "/dev/null", "/dev/zero", "pipe", ".", "..", ""),
        *("~nobody-here/x", "x" * 300, "-", "link", "broken.json", "\udc80", "\ud800"),
    ],
    "file": [
        *("net.py:make", "net.py:", "net.py:nothing", "pipe:make", "~nobody-here/net.py:make"),
        *("pipe", "/dev/zero", "foreign", "bomb.yaml", "broken.json", "sweep.yaml", "toy.ipynb"),
        *("binary.pth", "nothing", "\udc80"),
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
    "pdf": "!--profile nothing|--variant text",
    "why": "text|--profile text",
    "compare": "place|place|--output place|--force|--published place",
    "course": "--output foreign|--force",
    "release": "--profile text|!--output foreign",
    "claims": "text|--data place",
    "study bhv": "--condition text|--seed number|!--out foreign|--data place|--jobs number",
    "study posenet": "--part text|--seed number|!--out foreign|--data place",
    "study posenet-real": "--network text|--state text|!--out foreign|--data place",
    "study patterns": "--family text|--state text|--seed number|!--out foreign|--data place",
    "study survey": "text|!--out foreign|--data place|--jobs number",
    "study evidence": "--family text|--state text|--seed number|!--out foreign|--data place",
    "study adaptation": "--control text|--seed number|!--out foreign|--data place",
    "study pretrained": "--network text|--state text|--seed number|!--out foreign|--data place",
    "study pretrained-adaptation": "--teacher text|--scheme text|!--out foreign|--data place",
    "measure": "file|--weights file|--layers text|--schemes text|--photos place|--window number|"
    "--seed number|--memory number|--output place|--force|--mean number|--std text|--device text|"
    "--batch-size number",
    "tiles": "!text|--memory number|--layer text|--weights file|--window number",
    "fetch": "file|--to place|--jobs number",
    "sweep plan": "file|--output place|--jobs number",
    "sweep run": "file|!--output foreign|--jobs number|--cluster place",
    "sweep table": "file|--output place",
    "study zoo": "--family text|--padding text|--seed number|!--out foreign",
    "study zoo collect": "--runs place|!--data foreign|--replace",
    "study zoo verify": "--data place|--accuracy number",
    **dict.fromkeys(["bhv", "posenet", "patterns", "survey"], "--seed number|!--out foreign"),
    "zoo": "!train|--family text|--seed number|!--out foreign",
    "nothing": "text|--help",
}
"""What follows a command: a kind of :data:`WORDS` or itself; options may be left out, not with !"""
LINES = int(os.environ.get("PPP_ODD_LINES", "400"))


def odd_line(draw):
    command = draw.choice([*GRAMMAR])
    words = command.split()
    for part in GRAMMAR[command].split("|"):
        if not part.startswith("-") or draw.random() > 0.55:
            parts = part.removeprefix("!").split()
            words += [draw.choice(WORDS[one]) if one in WORDS else one for one in parts]
    return words


@pytest.fixture
def deadline():
    """Fail what hangs."""

    def fail(number, frame):
        pytest.fail("it took more than two minutes")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.nightly) for s in range(1, LINES // 10))]
)
def test_odd_command_lines(here, capfd, deadline, seed):
    """Ten lines: no traceback, no hang, no foreign file changed, and one line that says why."""
    (here / "foreign").mkdir()
    for name in ("thesis.txt", "runs.csv", "survey.csv", "page.html", "record.json"):
        (here / "foreign" / name).write_text("mine")
    (here / "link").symlink_to("foreign")
    os.mkfifo(here / "pipe")
    (here / "broken.json").write_text("{")
    (here / "binary.pth").write_bytes(b"\x80\x02" + bytes(range(200)))
    levels = [f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    bomb = ["run: measure", "limits:", "  - &a0 [lol, lol, lol, lol]", *levels]
    (here / "bomb.yaml").write_text("\n".join(bomb))
    before = contents(here / "foreign")
    draw = random.Random(seed)
    for _ in range(10):
        words = odd_line(draw)
        code = cli.main(words)
        out, err = capfd.readouterr()
        assert contents(here / "foreign") == before and (here / "link").is_symlink(), words
        assert "Traceback" not in out + err and "fault of ppp" not in err, (words, err[-2000:])
        assert code in (0, 1, 2), (words, code, err)
        if code == 2:
            (last,) = [one for one in err.splitlines() if one.startswith("ppp: ")]
            assert len(last) < 2000, words


def commands(group, name=""):
    """Return the names of all commands of a group that do something themselves."""
    names = set()
    context = click.Context(group)
    for one in group.list_commands(context):
        command, full = group.get_command(context, one), f"{name} {one}".strip()
        if isinstance(command, click.Group):
            names |= commands(command, full)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            names.add(full)
    return names


def test_the_grammar_covers_every_command():
    assert commands(cli.program) == set(GRAMMAR) - {"nothing"}


def test_help_names_every_command_and_loads_no_torch():
    script = "import sys; from companion import cli; [cli.main([*w.split(), '--help']) for w in {}]"
    script += "; assert not {{'torch', 'nbformat', 'pandas'}} & sys.modules.keys()"
    line = [sys.executable, "-c", script.format(["", "study", "sweep"])]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in (name for name in GRAMMAR if name != "nothing" and name.count(" ") < 2):
        assert f"\n  {name.rpartition(' ')[2]} " in done.stdout, name
