"""Kernels forked from a process that has loaded what they need: alone, and the same as cold."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import toy_notebooks
from families import assert_gone, ended

from companion import notebooks
from companion.notebooks import kernels
from studies import paths
from studies.storage import outputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone"),
]

PARAMETERS = 'results = "results"'
BODY = """\
import os, random, sys
import numpy as np, pandas, torch
from pathlib import Path
from scipy import stats
from studies import figures, paths

left = [name for name in ("mark", "torch.mark") if eval(f"hasattr(__builtins__, {name!r})")]
left += [hasattr(torch, "mark"), "PPP_MARK" in os.environ, os.getcwd()]
left += [torch.get_default_dtype(), torch.get_num_threads()]
torch.mark = __builtins__.mark = os.environ["PPP_MARK"] = "mark"
torch.set_default_dtype(torch.float64), os.chdir("/")

draw = torch.Generator().manual_seed(0)
image = torch.rand((4, 3, 64, 64), generator=draw, dtype=torch.float32)
weight = torch.rand((8, 3, 3, 3), generator=draw, dtype=torch.float32)
folded = torch.nn.functional.conv2d(image, weight, padding=1).numpy()
table = pandas.DataFrame(np.linalg.svd(folded[0, 0])[1]).describe()
test = stats.ttest_1samp(folded.ravel(), 0.3)
(paths.ROOT / "CITATION.cff").read_text()
result = [folded.tobytes().hex(), table.to_csv(), str(test), *map(str, left), str(sys.path)]
result += [os.environ["MPLBACKEND"], figures.page.matplotlib.rcParams["backend"]]
result += [sys.flags.safe_path, sys.argv[0]]
Path(results, "result.json").write_text(__import__("json").dumps(result))
about = [os.getppid(), os.environ.get("PPP_LOCKS"), os.getsid(0) == os.getpid()]
about += [random.random(), np.random.rand(), torch.rand(1, dtype=torch.float64).item()]
Path(results, "about.json").write_text(__import__("json").dumps(about))
"""


@pytest.fixture(scope="module")
def server():
    """The environment of a command with warm kernels."""
    threads = {"OMP_NUM_THREADS": "1"}
    with kernels.warm(paths.ROOT, threads) as found:
        yield threads | found


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a notebook and returns what it has left, and what it opened."""

    def run(name, environment, body=BODY):
        for one, value in environment.items():
            monkeypatch.setenv(one, value)
        source = toy_notebooks.write(tmp_path / "toy.ipynb", "Toy", PARAMETERS, body)
        results = tmp_path / name
        monkeypatch.setattr(paths, "DATA", paths.ROOT / "CITATION.cff")
        opened = notebooks.execute(source, tmp_path / f"{name}.ipynb", {}, results)
        found = (json.loads((results / f"{one}.json").read_text()) for one in ("result", "about"))
        return *found, opened

    return run


def test_a_forked_kernel_is_alone_and_computes_what_a_cold_one_does(server, run, tmp_path):
    cold, about, opened = run("cold", {"OMP_NUM_THREADS": "1"})
    assert about[0] == os.getpid()
    with outputs.held(tmp_path / ".lock", "ppp test") as lock:
        first, about_first, opened_first = run("first", server)
        held = str(lock.fileno())
    second, about_second, opened_second = run("second", server)
    # Both were forked, by one server, into sessions of their own.
    assert about_first[0] == about_second[0] != os.getpid()
    assert about_first[2] and about_second[2]
    assert about_first[1] == held and about_second[1] == about[1] == ""
    assert not {*about_first[3:]} & {*about_second[3:]}  # without a seed, each draws its own
    # The second sees nothing that the first has changed, and both what a cold one sees.
    assert first == second == cold
    assert opened == opened_first == opened_second == [paths.ROOT / "CITATION.cff"]


def test_a_forked_kernel_that_dies_is_told_like_any_other(server, run):
    for environment in ({}, server):
        with pytest.raises(notebooks.NotebookFailed, match="ernel died"):
            run("dies", environment, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


PARENT = """\
import json, os
from pathlib import Path
for name in ("result", "about"):
    Path(results, f"{name}.json").write_text(json.dumps([os.getppid()]))
"""


def test_without_a_server_a_kernel_starts_by_itself(run, tmp_path):
    """It is not there, or it has ended since it may not fork: its libraries hold threads."""
    with kernels.warm(paths.ROOT, {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}) as found:
        assert run("threads", found, PARENT)[0] == [os.getpid()]
    assert run("nothing", found, PARENT)[0] == [os.getpid()]


COMMAND = """\
import os, sys, time
from pathlib import Path
from companion import notebooks, processes
from companion.notebooks import kernels
from studies import paths

with kernels.warm(paths.ROOT, {"OMP_NUM_THREADS": "1"}) as found:
    os.environ |= found
    notebooks.execute(Path(sys.argv[1]), Path(sys.argv[2]), {})
"""


@pytest.mark.parametrize("number", ["SIGKILL", pytest.param("SIGINT", marks=pytest.mark.nightly)])
def test_a_forked_kernel_ends_with_its_command(tmp_path, number):
    mark = tmp_path / "pids"
    body = (
        f"import os, time; open({str(mark)!r}, 'w').write(f'{{os.getppid()}} {{os.getpid()}}.'); "
    )
    source = toy_notebooks.write(tmp_path / "a.ipynb", "A", PARAMETERS, f"{body}time.sleep(99)")
    command = [sys.executable, "-c", COMMAND, str(source), str(tmp_path / "b.ipynb")]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ended(subprocess.Popen(command, cwd=paths.ROOT, **quiet)) as running:
        while not (mark.exists() and mark.read_text().endswith(".")):
            assert running.poll() is None
            time.sleep(0.1)
        family = [psutil.Process(int(one)) for one in mark.read_text().rstrip(".").split()]
        assert family[1].ppid() == family[0].pid != running.pid
        running.send_signal(getattr(signal, number))
        assert_gone([running, *family])
