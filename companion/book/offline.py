"""A Sphinx extension that takes out of pages what would only work with a network.

Jupyter Book loads an extension for running cells on a server; it declares the address of its
script on every page, twice, which is an error in the browser's log, although it is switched off.
"""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Let Sphinx call :func:`without_thebe` for every page."""
    app.connect("html-page-context", without_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def without_thebe(
    app: Any, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Drop the scripts of Thebe from a page."""
    for kind in ("script_files", "css_files"):
        context[kind] = [one for one in context.get(kind, []) if not _thebe(one)]


def _thebe(file: Any) -> bool:
    said = f"{getattr(file, 'filename', file)} {getattr(file, 'attributes', '')}"
    return "thebe" in said.lower()
