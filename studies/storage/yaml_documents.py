"""YAML from outside, bounded before anything is built of it.

A module of its own, because loading YAML takes a third of the time in which ``ppp --help`` starts.
"""

from __future__ import annotations

import os
from typing import Any

import yaml

from ppp.errors import DocumentError, PPPError, first_words
from studies.storage.documents import named, read_text

MOST_YAML = 2**20
"""Bytes of a YAML document."""

MOST_WRITTEN_OUT = 2**22
"""Characters of a YAML document with all its aliases written out, 20 for each value."""

MOST_DEPTH = 50
"""Levels of a YAML document."""


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
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp(), "a.yaml")
    >>> _ = path.write_text("n: [2, 8]")
    >>> read_yaml(path)
    {'n': [2, 8]}
    """
    text = read_text(path, what, most=MOST_YAML, error=error)
    return parse_yaml(text, named(path, what), loader=loader, error=error)
