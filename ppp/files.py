"""Write a file whole or not at all; hash one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def write(path: str | Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it.

    Parameters
    ----------
    path : path-like
        Its folder is made if need be; an existing file is replaced.
    content : bytes

    Raises
    ------
    OSError
        The folder cannot be written, or the disk is full; an existing file is as it was.

    Examples
    --------
    >>> folder = tempfile.mkdtemp()
    >>> write(Path(folder, "deep", "a.txt"), b"whole")
    >>> [path.name for path in Path(folder, "deep").iterdir()]
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:  # a full disk
            error.filename = str(path)
        raise


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits.

    Raises
    ------
    OSError
        It cannot be read.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp(), "empty")
    >>> path.touch()
    >>> sha256(path)[:8]
    'e3b0c442'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
