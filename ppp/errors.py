"""The one exception base class, and the helper behind every "did you mean".

Every error that this project raises on bad input is a :class:`PPPError` whose text is
one line: what is wrong, its value, what was expected, how to mend it. The command line
prints that line and ends with exit code 2.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class PPPError(ValueError):
    """Base class of every error this project raises on bad input."""


class PaddingError(PPPError):
    """An unknown padding scheme, or an amount that the scheme cannot supply."""


class SwapError(PPPError):
    """A module whose padding cannot be replaced."""


class LayerError(PPPError):
    """A layer that does not exist, runs more than once, or gives no feature map."""


class MarginError(PPPError):
    """No finite margin, too-narrow surroundings, or a misaligned window."""


class GridError(MarginError):
    """Cells of a window and of a larger picture that do not lie at the same places."""


class NullTestError(PPPError):
    """Cells that padding cannot touch differ between the two branches."""


class PictureError(PPPError):
    """A photograph, folder or array of pixels that cannot be used."""


class DataError(PPPError):
    """Data that is not there, a wrong list of files to fetch, or files that cannot be fetched."""


class WeightsError(PPPError):
    """A checkpoint that is missing, corrupt, or of another network."""


class ResumptionError(PPPError):
    """A folder of a broken-off measurement that is damaged, or of another measurement."""


class ParameterError(PPPError):
    """An unknown notebook parameter, or a value it does not allow."""


class DocumentError(PPPError):
    """A path that is none, or a file that cannot be read as what it should be."""


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 160
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 24
_REPR.maxlevel = 3


def shown(value: object, most: int = 240) -> str:
    """Return a value as code writes it, in so many characters at most.

    Examples
    --------
    >>> shown(["zeros", 0.5])
    "['zeros', 0.5]"
    >>> shown("a" * 1_000_000, 20)
    "'aaaaaaaaaaaaaaaa..."
    """
    try:
        text = _REPR.repr(value)
    except ValueError:  # more digits than Python writes out
        text = f"a {type(value).__name__} too long to write out"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_words(error: BaseException, most: int = 200) -> str:
    """Return what an error says in one short line, or its kind if it says nothing.

    Examples
    --------
    >>> first_words(ValueError("a fault\\n  in line 2")), first_words(EOFError())
    ('a fault in line 2', 'EOFError')
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unknown(kind: str, given: object, allowed: Iterable[object]) -> str:
    """Say that `given` is not among `allowed`, with the nearest name if one is near.

    Examples
    --------
    >>> unknown("padding", "refelct", ["zeros", "reflect"])
    "unknown padding 'refelct'; did you mean 'reflect'? known: zeros, reflect"
    """
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given)[:200], names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    known = names if len(names) <= 24 else [*names[:24], f"... ({len(names)} in all)"]
    return f"unknown {kind} {shown(given)}; {hint}known: {', '.join(known)}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, for a one-line message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
