"""What a user names is read through here: paths, files and JSON, or one line says why not.

Only a regular file is opened: a pipe would wait for ever, a device never end.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppp.errors import DocumentError, PPPError, first_words, shown

MOST = 2**28
"""Bytes that a document may have, unless said otherwise."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def as_path(
    text: str | os.PathLike[str], what: str = "path", error: type[PPPError] = DocumentError
) -> Path:
    """Return the path that a text means, ``~`` being a home folder.

    Parameters
    ----------
    text : path-like
    what : str
        What it is the path of, for the message.
    error : type
        What is raised.

    Raises
    ------
    PPPError
        No path: an unknown user, a NUL character, or a name that is too long.

    Examples
    --------
    >>> as_path("photos/set #2").name
    'set #2'
    >>> as_path("~no-such-user/photos", "folder")
    Traceback (most recent call last):
    ppp.errors.DocumentError: folder '~no-such-user/photos': no such user; write the whole path
    """
    text = os.fspath(text)
    try:
        path = Path(text).expanduser()
        os.lstat(path)
    except RuntimeError:
        raise error(f"{what} {shown(text)}: no such user; write the whole path") from None
    except ValueError:  # a NUL character, or half of a surrogate pair
        raise error(f"{what} {shown(text)}: a character that no path may hold") from None
    except OSError as problem:
        if problem.errno == errno.ENAMETOOLONG:
            raise error(
                f"{what} {shown(text)}: too long for a path ({len(text)} characters); give a "
                "shorter one"
            ) from None
    return path


def regular(
    path: str | os.PathLike[str], what: str = "", error: type[PPPError] = DocumentError
) -> Path:
    """Return the path of a regular file, or of a link to one, without opening it.

    Raises
    ------
    PPPError
        It is missing, or is a folder, a pipe, a socket or a device.

    Examples
    --------
    >>> regular("/dev/null", "list")
    Traceback (most recent call last):
    ppp.errors.DocumentError: list /dev/null cannot be read: it is a device; expected a file
    """
    found = as_path(path, what or "file", error)
    try:
        _check_regular(os.stat(found))
    except OSError as problem:
        raise _unreadable(found, what, error, problem) from None
    return found


def read_bytes(
    path: str | os.PathLike[str],
    what: str = "",
    *,
    most: int | None = MOST,
    error: type[PPPError] = DocumentError,
) -> bytes:
    """Read a regular file.

    Parameters
    ----------
    path : path-like
    what : str
        What the file is, for the message.
    most : int or None
        Bytes it may have.
    error : type
        What is raised.

    Raises
    ------
    PPPError
        As :func:`regular`, or the file cannot be read or is larger.

    Examples
    --------
    >>> read_bytes(__file__)[:3]
    b'\"\"\"'
    """
    found = regular(path, what, error)
    # The kind of file is looked at again once it is open: it may be another one by now.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(found, flags), "rb") as file:
            _check_regular(os.fstat(file.fileno()))
            content = file.read(-1 if most is None else most + 1)
    except MemoryError:
        raise error(f"{named(found, what)} cannot be read: larger than the memory") from None
    except OSError as problem:
        raise _unreadable(found, what, error, problem) from None
    if most is not None and len(content) > most:
        raise error(f"{named(found, what)} cannot be read: larger than {most:,} bytes")
    return content


def read_text(
    path: str | os.PathLike[str],
    what: str = "",
    *,
    most: int | None = MOST,
    error: type[PPPError] = DocumentError,
) -> str:
    """Read a text file: UTF-8, with or without a byte order mark.

    Raises
    ------
    PPPError
        As :func:`read_bytes`, or the file is not UTF-8.

    Examples
    --------
    >>> read_text(__file__).partition("(")[0].split()[-1]
    'as_path'
    """
    content = read_bytes(path, what, most=most, error=error)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        raise error(
            f"{named(path, what)} cannot be read: byte {problem.start + 1} is not UTF-8; save it "
            "as UTF-8"
        ) from None


def read_json(
    path: str | os.PathLike[str],
    what: str = "",
    *,
    constant: Callable[[str], Any] | None = None,
    error: type[PPPError] = DocumentError,
) -> dict[str, Any]:
    """Read a JSON file of names with values.

    Parameters
    ----------
    path : path-like
    what : str
        What the file is, for the message.
    constant : callable, optional
        Takes NaN and Infinity, which JSON lacks.
    error : type
        What is raised.

    Raises
    ------
    PPPError
        As :func:`read_text`, or it is no JSON, or holds no names with values.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "numbers.json")
    >>> _ = path.write_text('{"n": 64}')
    >>> read_json(path)
    {'n': 64}
    """
    text = read_text(path, what, error=error)
    try:
        values = json.loads(text, parse_constant=constant)
        if not isinstance(values, dict):
            raise ValueError("expected names with values")
    except (ValueError, RecursionError) as problem:
        raise error(
            f"{named(path, what)} cannot be read: not as expected in JSON ({first_words(problem)})"
        ) from None
    return values


# ---------------------------------------------------------------------------------- words


class _Irregular(OSError):
    """A file that is not a regular one."""


def _check_regular(about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = _KINDS.get(stat.S_IFMT(about.st_mode), "of another kind")
        raise _Irregular(f"it is {kind}; expected a file")


def _unreadable(path: Path, what: str, error: type[PPPError], problem: OSError) -> PPPError:
    return error(f"{named(path, what)} cannot be read: {problem.strerror or problem}")


def named(path: str | os.PathLike[str], what: str) -> str:
    return f"{what} {os.fspath(path)}".strip()
