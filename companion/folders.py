"""Write a folder whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Fill a folder beside `output` that takes its place at the end.

    Examples
    --------
    >>> output = Path(tempfile.mkdtemp(), "made")
    >>> with whole_folder(output) as folder:
    ...     (folder / "a.txt").touch()
    >>> [path.name for path in output.iterdir()]
    ['a.txt']
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        folder.chmod(0o755)
        yield folder
        replace_folder(folder, output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def replace_folder(folder: Path, output: Path) -> None:
    """Move a folder into the place of another, which goes; if it cannot move, all stays.

    Examples
    --------
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / "new").mkdir()
    >>> replace_folder(place / "new", place / "made")
    >>> [path.name for path in place.iterdir()]
    ['made']
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    previous = output.with_name(f".{output.name}.previous")
    if previous.exists():
        shutil.rmtree(previous)
    try:
        if output.exists():
            os.replace(output, previous)
        os.replace(folder, output)
    except BaseException:
        if previous.exists():
            os.replace(previous, output)
        raise
    shutil.rmtree(previous, ignore_errors=True)
