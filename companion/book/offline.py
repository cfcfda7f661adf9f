"""A Sphinx extension that takes out of pages what would only work with a network.

Jupyter Book loads an extension for running cells on a server; it declares the address of its
script on every page, twice, which is an error in the browser's log, although it is switched off.

It also vouches for extensions that do not say whether pages may be read by several processes.
"""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Let Sphinx call :func:`without_thebe` for every page."""
    app.connect("html-page-context", without_thebe, priority=900)
    app.connect("builder-inited", vouch)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def vouch(app: Any) -> None:
    """Say of extensions that reading a page changes nothing in them."""
    for name in ("sphinx-mathjax-offline", "sphinx_jupyterbook_latex", "sphinx_multitoc_numbering"):
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True


def without_thebe(
    app: Any, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop the scripts of Thebe from a page."""
    for kind in ("script_files", "css_files"):
        context[kind] = [one for one in context.get(kind, []) if not _thebe(one)]


def _thebe(file: Any) -> bool:
    said = f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', '')}"
    return "thebe" in said.lower()
