"""Where the folders of the checkout are, and the one door to the data that is shipped."""

from pathlib import Path

from ppp.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
"""The checkout: notebooks, book, data and profiles lie in it."""

DATA = ROOT / "data"
"""The shipped tables, networks and patterns."""


def data(name: str, *parts: str) -> Path:
    """Return a shipped file or folder.

    A chapter depends on the data that the modules it imports, and its own cells, ask for here.
    That is read from the source, so the names are written as literals: ``paths.data("bhv")``.

    Parameters
    ----------
    name : str
        Below the folder ``data``.
    *parts : str
        Further down.

    Raises
    ------
    DataError
        There is nothing of that name, or the name leads out of the folder.

    Examples
    --------
    >>> data("bhv", "runs.csv").relative_to(ROOT).as_posix()
    'data/bhv/runs.csv'
    >>> data("../README.md")
    Traceback (most recent call last):
    ppp.errors.DataError: data '../README.md' lies outside the folder data; expected a name in it
    """
    path = DATA.joinpath(name, *parts)
    text = "/".join((name, *parts))
    if not path.resolve().is_relative_to(DATA.resolve()):
        raise DataError(f"data {text!r} lies outside the folder data; expected a name in it")
    if not path.exists():
        known = ", ".join(sorted(one.name for one in DATA.glob("*")))
        raise DataError(f"data {text!r} is not in {DATA}; expected one of {known}, or a file below")
    return path
