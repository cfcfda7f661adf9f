"""What a user names is read through here: paths, files, JSON and YAML, or one line says why not.

Only a regular file is opened: a pipe would wait for ever, a device never end. YAML is bounded
before anything is built of it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ppp.errors import DocumentError, PPPError, first_words, shown

MOST = 2**28
"""Bytes that a document may have, unless said otherwise."""

MOST_YAML = 2**20
"""Bytes of a YAML document."""

MOST_WRITTEN_OUT = 2**22
"""Characters of a YAML document with all its aliases written out, 20 for each value."""

MOST_DEPTH = 50
"""Levels of a YAML document."""

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
        raise error(f"{_named(found, what)} cannot be read: larger than the memory") from None
    except OSError as problem:
        raise _unreadable(found, what, error, problem) from None
    if most is not None and len(content) > most:
        raise error(f"{_named(found, what)} cannot be read: larger than {most:,} bytes")
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
            f"{_named(path, what)} cannot be read: byte {problem.start + 1} is not UTF-8; save it "
            "as UTF-8"
        ) from None


def read_json(
    path: str | os.PathLike[str],
    what: str = "",
    *,
    kind: type = dict,
    constant: Callable[[str], Any] | None = None,
    error: type[PPPError] = DocumentError,
) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : path-like
    what : str
        What the file is, for the message.
    kind : type
        Of the whole: dict or list.
    constant : callable, optional
        Takes NaN and Infinity, which JSON lacks.
    error : type
        What is raised.

    Raises
    ------
    PPPError
        As :func:`read_text`, or it is no JSON, or of another kind.

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
        found = json.loads(text, parse_constant=constant)
        if not isinstance(found, kind):
            raise ValueError(f"expected {'a list' if kind is list else 'names with values'}")
    except (ValueError, RecursionError) as problem:
        raise error(
            f"{_named(path, what)} cannot be read: not as expected in JSON ({first_words(problem)})"
        ) from None
    return found


# ---------------------------------------------------------------------------------- YAML


class _Bounded:
    """Refuses a document that is too deep, or too large with its aliases written out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.size = 0
        self.sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent, index):
        event = self.peek_event()
        before = self.size
        self.size += 20 + len(getattr(event, "value", ""))
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise yaml.YAMLError(f"deeper than {MOST_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if node not in self.sizes:
                raise yaml.YAMLError(f"{event.anchor!r} holds itself")
            self.size += self.sizes[node]
        else:
            self.sizes[node] = self.size - before
        if self.size > MOST_WRITTEN_OUT:
            raise yaml.YAMLError(
                f"larger than {MOST_WRITTEN_OUT:,} characters with its aliases written out"
            )
        return node


class Values(_Bounded, yaml.SafeLoader):
    """Reads numbers, dates and the like as YAML means them."""


class Texts(_Bounded, yaml.BaseLoader):
    """Keeps every value a text."""


def parse_yaml(
    text: str,
    what: str = "text",
    *,
    loader: type = Values,
    error: type[PPPError] = DocumentError,
) -> Any:
    """Return what a YAML document holds.

    Parameters
    ----------
    text : str
    what : str
        What the document is, for the message.
    loader : type
        :class:`Values` or :class:`Texts`, or a class made of one.
    error : type
        What is raised.

    Raises
    ------
    PPPError
        No YAML, or larger than is read.

    Examples
    --------
    >>> parse_yaml("n: 64"), parse_yaml("n: 64", loader=Texts)
    ({'n': 64}, {'n': '64'})
    >>> parse_yaml("&a [*a]")
    Traceback (most recent call last):
    ppp.errors.DocumentError: text: not YAML ('a' holds itself)
    """
    try:
        if len(text) > MOST_YAML:
            raise yaml.YAMLError(f"larger than {MOST_YAML:,} characters")
        return yaml.load(text, Loader=loader)
    # Numbers and dates that are none are refused by Python, not by YAML.
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise error(f"{what}: not YAML ({first_words(problem)})") from None


def read_yaml(
    path: str | os.PathLike[str],
    what: str = "",
    *,
    loader: type = Values,
    error: type[PPPError] = DocumentError,
) -> Any:
    """Read a YAML file, as :func:`parse_yaml` does a text.

    Raises
    ------
    PPPError
        As :func:`read_text` and :func:`parse_yaml`.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.yaml")
    >>> _ = path.write_text("n: [2, 8]")
    >>> read_yaml(path)
    {'n': [2, 8]}
    """
    text = read_text(path, what, most=MOST_YAML, error=error)
    return parse_yaml(text, _named(path, what), loader=loader, error=error)


# ---------------------------------------------------------------------------------- words


class _Irregular(OSError):
    """A file that is not a regular one."""


def _check_regular(about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        kind = _KINDS.get(stat.S_IFMT(about.st_mode), "of another kind")
        raise _Irregular(f"it is {kind}; expected a file")


def _unreadable(path: Path, what: str, error: type[PPPError], problem: OSError) -> PPPError:
    return error(f"{_named(path, what)} cannot be read: {problem.strerror or problem}")


def _named(path: str | os.PathLike[str], what: str) -> str:
    return f"{what} {os.fspath(path)}".strip()
