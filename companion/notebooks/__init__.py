"""Notebooks with parameters: read them, check what is asked of them, run them."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from companion import processes
from companion.notebooks.places import name_of
from ppp import files
from ppp.errors import ParameterError, PPPError, shown, unknown
from studies import parameters
from studies.paths import ROOT
from studies.storage import documents

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNEL = "python3"


class NotebookError(PPPError):
    """A notebook that cannot be found or read, or whose parameters cannot be."""


class NotebookFailed(RuntimeError):
    """A notebook's own code failed; the text is its traceback.

    Attributes
    ----------
    reason : str
        The error in one line.
    content : bytes
        The notebook as far as it got; empty if nothing of it ran.
    """

    def __init__(self, text: str, reason: str = "", content: bytes = b"") -> None:
        super().__init__(text)
        self.reason = reason or text.strip().partition("\n")[0]
        self.content = content


def find(name: str, folder: Path | None = None) -> Path:
    """Find a notebook by path, name, place, or a part of the name that only one notebook has.

    Parameters
    ----------
    name : str
        Such as ``notebooks/extracting-ppp.ipynb``, ``extracting`` or ``03``.
    folder : Path, optional
        Where to look; the checkout's ``notebooks`` without it.

    Raises
    ------
    NotebookError
        No notebook, or more than one, goes by this name.
    """
    path = documents.as_path(name, "notebook", NotebookError)
    if path.suffix == ".ipynb":
        if not path.is_file():
            raise NotebookError(
                f"notebook {name}: no such file; give a path, a name or a part of it"
            )
        return path
    paths = {path.stem: path for path in sorted((folder or ROOT / "notebooks").glob("*.ipynb"))}
    name = name if name in paths else name_of(name)
    for matches in (
        [stem for stem in paths if stem == name],
        [stem for stem in paths if stem.startswith(name)],
        [stem for stem in paths if name in stem],
    ):
        if len(matches) == 1:
            return paths[matches[0]]
        if matches:
            raise NotebookError(f"notebook {name!r} is ambiguous; it fits {', '.join(matches)}")
    raise NotebookError(unknown("notebook", name, paths or ["none: no notebooks here"]))


def read(notebook: Path) -> NotebookNode:
    """Read a notebook, or refuse what is none in one line.

    Raises
    ------
    NotebookError
    """
    import nbformat

    text = documents.read_text(notebook, "notebook", error=NotebookError)
    try:
        content = nbformat.reads(text, as_version=4)
        nbformat.validate(content)
    except Exception as error:  # nbformat raises whatever its JSON and schema readers raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise NotebookError(f"notebook {notebook}: not a notebook ({reason[0]})") from None
    return content


def defaults(notebook: Path) -> dict[str, Any]:
    """Read the parameters of a notebook without running it.

    Parameters
    ----------
    notebook : Path
        A notebook with one code cell that is tagged ``parameters`` and holds nothing
        but ``name = literal`` lines, each name one of
        :data:`studies.parameters.PARAMETERS`.

    Returns
    -------
    dict of str to object
        In the order of the cell.

    Raises
    ------
    NotebookError
        Not a notebook, not exactly one such cell, or anything else in the cell.
    ParameterError
        A name that the registry lacks, or a default that it refuses.
    """
    content = read(notebook)
    cells = [
        cell.source
        for cell in content.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(cells) != 1:
        raise NotebookError(
            f"notebook {notebook}: {len(cells)} code cells tagged 'parameters'; expected one"
        )
    try:
        values = {}
        for line in ast.parse(cells[0]).body:
            match line:
                case ast.Assign(targets=[ast.Name(id=name)]) if name not in values:
                    values[name] = ast.literal_eval(line.value)
                case _:
                    raise ValueError(f"line {line.lineno} of it")
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise NotebookError(
            f"notebook {notebook}: its parameters cell may hold only lines 'name = literal', "
            f"each name once ({error})"
        ) from None
    try:
        return parameters.checked(values)
    except ParameterError as error:
        raise ParameterError(f"notebook {notebook}: {error}") from None


def profile_values(
    profile: str, notebook: Path, values: Mapping[str, Any], profiles: Path | None = None
) -> dict[str, Any]:
    """Return what a profile changes in a notebook's parameters, checked.

    Parameters
    ----------
    profile : str
        A key of the profiles file. ``standard`` is what the notebook's own values mean.
    notebook : Path
        Its stem is the key below the profile.
    values : mapping of str to object
        The notebook's parameters, from :func:`defaults`.
    profiles : Path, optional
        The profiles file; the checkout's ``profiles.yaml`` without it.
    """
    path = profiles or ROOT / "profiles.yaml"
    from studies.storage import yaml_documents

    known = _names(yaml_documents.read_yaml(path, error=ParameterError), path)
    if profile not in known:
        raise ParameterError(unknown("profile", profile, known))
    changes = dict(_names(_names(known[profile], path).get(notebook.stem), path))
    if "profile" in values:
        changes.setdefault("profile", profile)
    try:
        return merge(values, changes)
    except ParameterError as error:
        raise ParameterError(f"{path.name}, {profile}, {notebook.stem}: {error}") from None


def merge(
    values: Mapping[str, Any], changes: Mapping[str, Any], *, text: bool = False
) -> dict[str, Any]:
    """Return `changes` in the parameters' types, having refused what `values` lacks.

    With `text`, every change is text, as on the command line.
    """
    for name in changes:
        if name not in values:
            raise ParameterError(unknown("parameter", name, values))
    return parameters.checked(changes, text=text)


def _names(value: Any, path: Path) -> Mapping[str, Any]:
    """Return a mapping of a profiles file, empty where nothing is given."""
    if value is not None and not isinstance(value, dict):
        raise ParameterError(f"{path.name}: {shown(value)}; expected names with values")
    return value or {}


def digest(values: Mapping[str, Any]) -> str:
    """Return eight hexadecimal digits that stand for these parameters.

    Examples
    --------
    >>> digest({"n": 2, "seed": 0}) == digest({"seed": 0, "n": 2})
    True
    """
    text = json.dumps(dict(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def execute(
    notebook: Path,
    output: Path,
    values: Mapping[str, Any],
    results: Path | None = None,
    named: Path | None = None,
) -> None:
    """Run a notebook with these parameters, into a folder that the caller puts in its place.

    Parameters
    ----------
    notebook : Path
        The source, left as it is.
    output : Path
        The executed notebook, written when all of it ran.
    values : mapping of str to object
        Checked parameters, from :func:`merge`.
    results : Path, optional
        The folder that the notebook's parameter ``results``, if it has one, is set to.
    named : Path, optional
        Where that folder will be in the end, which is what the executed notebook tells.

    Raises
    ------
    NotebookError
        A cell refused its input with a :class:`PPPError`: one line.
    NotebookFailed
        With the cell, its traceback, and the notebook as far as it got.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    values = dict(values)
    output.parent.mkdir(parents=True, exist_ok=True)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        if "results" in defaults(notebook):
            values["results"] = results.as_posix()
    source = nbformat.read(notebook, as_version=4)
    source.metadata.setdefault("papermill", {})
    # Kernels that start at the same time may take each other's ports; files they cannot.
    with tempfile.TemporaryDirectory(prefix="ppp-") as sockets:
        partial = Path(sockets, "partial.ipynb")
        config = Config(
            KernelManager={
                "transport": "ipc",
                "ip": f"{sockets}/kernel",
                "connection_file": f"{sockets}/kernel.json",
            },
            NotebookClient={"kernel_manager_class": "companion.notebooks.kernels.KernelManager"},
        )
        try:
            _undisturbed(
                lambda: papermill.execute_notebook(
                    source,
                    str(partial),
                    values,
                    kernel_name=KERNEL,
                    progress_bar={"desc": notebook.stem, "file": sys.stderr},
                    # A kernel that is told to end may complain of an interrupt.
                    extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                    config=config,
                )
            )
        except (papermill.PapermillExecutionError, DeadKernelError) as error:
            if getattr(error, "ename", "") in _refusals():
                raise NotebookError(
                    f"{notebook.name} refused its parameters: {error.evalue}"
                ) from None
            text = f"{str(error).strip()}\n\nnotebook {notebook.name} failed"
            name, value = getattr(error, "ename", ""), str(getattr(error, "evalue", ""))
            reason = f"{name}: {value.strip().partition(chr(10))[0]}" if name else ""
            content = partial.read_bytes() if partial.exists() else b""
            raise NotebookFailed(text, reason, content) from None
        text = partial.read_text(encoding="utf-8")
        if results is not None and named is not None:
            text = _renamed(text, results.as_posix(), named.as_posix())
        files.write(output, text.encode())


def seconds(notebook: NotebookNode) -> float | None:
    """Return how long an executed notebook ran, s."""
    return notebook.metadata.get("papermill", {}).get("duration")


def _undisturbed(work: Callable[[], object]) -> None:
    """Do something in another thread: there nbclient cannot take signals from this program."""
    from concurrent.futures import Future

    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        done.result()
    except KeyboardInterrupt:
        processes.end_children()
        raise


def _renamed(text: str, old: str, new: str) -> str:
    """Replace a path in the text of a notebook, also where it stands in code in quotes."""
    for _ in range(3):
        text = text.replace(old, new)
        old, new = (json.dumps(path, ensure_ascii=False)[1:-1] for path in (old, new))
    return text


def _refusals() -> set[str]:
    """Name every error class that says, in one line, what is wrong with the input."""
    names, classes = set(), [PPPError]
    while classes:
        found = classes.pop()
        names.add(found.__name__)
        classes += found.__subclasses__()
    return names


_OFFLINE_PAGE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{{ resources.mathjax }}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
"""
_MATHJAX = (
    r"MathJax = {tex: {inlineMath: [['$', '$'], ['\\(', '\\)']]}, options: {enableMenu: false}}"
)


def render(notebook: Path, page: Path) -> None:
    """Write an executed notebook as one HTML file that needs no network.

    The usual export loads its formula renderer from the network; here the copy that the
    book uses is put into the page.
    """
    import nbformat
    from nbconvert import HTMLExporter

    package = find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
    mathjax = Path(package, "static/mathjax/tex-svg-full.js").read_text(encoding="utf-8")
    resources = {
        "metadata": {"name": notebook.stem, "path": str(notebook.parent)},
        "mathjax": f"<script>{_MATHJAX}</script>\n<script>{mathjax}</script>",
    }
    exporter = HTMLExporter(raw_template=_OFFLINE_PAGE, embed_images=True)
    html, _ = exporter.from_notebook_node(nbformat.read(notebook, as_version=4), resources)
    files.write(page, html.encode())
