"""Notebooks with parameters: read them, check what is asked of them, run them."""

from companion.notebooks.checks import check as check
from companion.notebooks.execution import (
    KERNEL as KERNEL,
    NotebookFailed as NotebookFailed,
    execute as execute,
    explain as explain,
    render as render,
    seconds as seconds,
)
from companion.notebooks.sources import (
    NotebookError as NotebookError,
    code_cells as code_cells,
    defaults as defaults,
    digest as digest,
    find as find,
    merge as merge,
    profile_values as profile_values,
    read as read,
)
