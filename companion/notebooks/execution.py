"""Notebooks are run: with parameters, in a kernel that notes which files are opened."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from companion import processes
from companion.notebooks import prose, sources
from companion.notebooks.numbers import numbers
from ppp import files
from ppp.errors import PPPError
from studies import paths

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNEL = "python3"


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


def execute(
    notebook: Path,
    output: Path,
    values: Mapping[str, Any],
    results: Path | None = None,
    named: Path | None = None,
) -> list[Path]:
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

    Returns
    -------
    list of Path
        The files that its kernel opened, of those below the folder ``data`` of the checkout and
        those that a parameter names. A process that the kernel starts is not watched.

    Raises
    ------
    NotebookError
        A cell refused its input with a :class:`PPPError`: one line.
    NotebookFailed
        With the cell, its traceback, and the notebook as far as it got.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    defaults, values = sources.defaults(notebook), dict(values)
    output.parent.mkdir(parents=True, exist_ok=True)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        if "results" in defaults:
            values["results"] = results.as_posix()
    source = sources.read(notebook)
    source.metadata.setdefault("papermill", {})
    # Kernels that start at the same time may take each other's ports; files they cannot.
    with tempfile.TemporaryDirectory(prefix="ppp-") as sockets:
        partial, opened = Path(sockets, "partial.ipynb"), Path(sockets, "opened")
        config = Config(
            KernelManager={
                "transport": "ipc",
                "ip": f"{sockets}/kernel",
                "connection_file": f"{sockets}/kernel.json",
                "opened": str(opened),
                "watched": [str(paths.DATA), *_named(defaults | values)],
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
                raise sources.NotebookError(
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
        return [Path(os.fsdecode(path)) for path in opened.read_bytes().split(b"\0") if path]


def _named(values: Mapping[str, Any]) -> list[str]:
    """Return the files and folders that parameters name, but for where results go."""
    texts = (value for name, value in values.items() if name != "results")
    return [os.path.abspath(one) for one in texts if isinstance(one, str) and os.path.exists(one)]


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


def explain(notebook: Path, results: Path, stem: str) -> None:
    """Write the prose of an executed chapter as it can be read alone, with its own numbers.

    Links lead to the pages of the published book where it has been built here.
    """
    import nbformat

    found = numbers(results, stem)
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = prose.alone(cell.source, found, _built)
    files.write(notebook, nbformat.writes(content).encode())


def _built(name: str) -> str:
    """Return the address of a page of the book that was built in this checkout, or nothing."""
    html = paths.ROOT / "build" / "standard" / "html"
    for path in (html / "notebooks" / f"{name}.html", html / f"{name}.html"):
        if path.is_file():
            return path.resolve().as_uri()
    return ""


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
