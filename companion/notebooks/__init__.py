"""Notebooks with parameters: read them, check what is asked of them, run them."""

from companion.notebooks.execution import (
    KERNEL,
    NotebookFailed,
    execute,
    render,
    seconds,
)
from companion.notebooks.sources import (
    NotebookError,
    code_cells,
    defaults,
    digest,
    find,
    merge,
    profile_values,
    read,
)
from studies.paths import ROOT

__all__ = [
    "KERNEL",
    "ROOT",
    "NotebookError",
    "NotebookFailed",
    "code_cells",
    "defaults",
    "digest",
    "execute",
    "find",
    "merge",
    "profile_values",
    "read",
    "render",
    "seconds",
]
