"""The library as strangers have it: a wheel in an empty folder, and types that a checker reads."""

import os
import re
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typed_user

from studies.paths import ROOT

pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=clean | environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """Build the wheel, out of copies; return the folder that it is unpacked in."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "unpacked"))
    named = ["pyproject.toml", "README.md", "LICENSE", *sorted((ROOT / "ppp").glob("*"))]
    for path in (ROOT / name for name in named):
        if path.is_file():
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    for package in ("studies", "companion"):
        (source / package).mkdir()
        (source / package / "__init__.py").touch()
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    built = run("-m", "pip", "wheel", ".", *options, "--wheel-dir", "wheels", cwd=source)
    assert built.returncode == 0, built.stderr
    (wheel,) = (source / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def alone(unpacked: Path, *command: str, cwd: Path, packages=True) -> subprocess.CompletedProcess:
    """Run Python with the wheel and what is installed, but not with an editable checkout."""
    path = os.pathsep.join([str(unpacked), *(site.getsitepackages() if packages else ())])
    return run("-S", *command, cwd=cwd, PYTHONPATH=path)  # -S: no .pth file names the checkout


def test_the_wheel_holds_the_library_alone(unpacked):
    (metadata,) = unpacked.glob("*.dist-info")
    assert {path.name for path in unpacked.iterdir()} == {"ppp", metadata.name}
    ours = {path.name for path in (ROOT / "ppp").iterdir() if path.is_file()}
    assert {path.name for path in (unpacked / "ppp").iterdir()} == ours and "py.typed" in ours


def test_the_library_s_example_runs_from_the_wheel(unpacked, tmp_path):
    _, _, rest = (ROOT / "book" / "library.md").read_text(encoding="utf-8").partition("```python\n")
    example = rest.partition("```")[0]
    assert "torchvision" in example and "studies" not in example
    show = "import ppp as p; print(p.__file__, p.__version__)"
    done = alone(unpacked, "-c", f"{example}\n{show}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(unpacked) in done.stdout and "0+" not in done.stdout.splitlines()[-1]
    assert "zeros" in done.stdout and "layer1" in done.stdout


@pytest.mark.parametrize("packages", [True, False])
def test_the_command_names_the_readme_where_there_is_no_checkout(unpacked, tmp_path, packages):
    done = alone(unpacked, "-m", "ppp", "params", cwd=tmp_path, packages=packages)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("ppp: ")
    assert done.stderr.count("\n") == 1 and "README" in done.stderr
    assert "git clone " in done.stderr and "make book" in done.stderr


# What no user of the library sees need not be read: the compiler of torch takes ten seconds.
MYPY = """\
[mypy]
strict = true
follow_imports = silent
[mypy-torch._dynamo.*,torch._inductor.*,torch.distributed.*,torch.export.*,torch.fx.*,sympy.*]
follow_imports = skip
"""


def test_a_user_s_script_passes_a_strict_type_checker_and_runs(tmp_path):
    script = Path(typed_user.__file__)
    wrong = script.read_text().replace('measured["zeros", "2"]', "measured[2]")
    (tmp_path / "wrong.py").write_text(wrong.replace("padded: Tensor", "padded: int"))
    (tmp_path / "mypy.ini").write_text(MYPY)
    options = ("--config-file=mypy.ini", "--cache-dir=/dev/null", "--no-error-summary")
    done = run("-m", "mypy", *options, str(script), "wrong.py", cwd=tmp_path, MYPYPATH=str(ROOT))
    assert done.returncode == 1, done.stderr
    errors = re.findall(r"^(.+):\d+: error: .*\[(.+)\]$", done.stdout, re.M)
    kinds = ["assignment", "arg-type", "index"]
    assert errors == [("wrong.py", kind) for kind in kinds], done.stdout
    assert "Measurement(schemes zeros, reflect; layers 0, 2)" in typed_user.main(tmp_path)
