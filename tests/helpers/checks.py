"""What many tests ask: that something is refused in one line, that a folder is as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ppp.errors import PPPError


def refused(function: Callable, *arguments, error: type[Exception] = PPPError, **options) -> str:
    """Call a function that must raise `error` with a message of one line; return the message."""
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by their path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
