"""The numbers that a notebook leaves for prose to quote: ``numbers.json`` in its results."""

from __future__ import annotations

import re
from pathlib import Path

from ppp.errors import PPPError, first_words, shown
from studies.storage import documents


class NumbersError(PPPError):
    """A file of numbers that holds something else."""


def numbers(results: Path, stem: str) -> dict[str, int | float | str]:
    """Read the numbers that prose may quote from a notebook's results.

    Parameters
    ----------
    results : Path
        The notebook's results folder. If it holds ``numbers.json``, a flat object from names
        to numbers or texts, each becomes a substitution.
    stem : str
        ``extracting-ppp`` gives each name the prefix ``extracting_ppp_``.

    Raises
    ------
    NumbersError
        Not such an object, or a name that is no identifier.
    """
    prefix = name_in_prose(stem)
    return {f"{prefix}_{name}": value for name, value in read_numbers(results).items()}


def read_numbers(results: Path) -> dict[str, int | float | str]:
    """Read the numbers of a results folder by the names that the notebook gave them."""
    path = results / "numbers.json"
    if not path.exists():
        return {}
    try:
        found = documents.read_json(path, constant=_not_a_number)
        for name, value in found.items():
            if not name.isidentifier() or type(value) not in (int, float, str):
                raise ValueError(f"{shown(name)} is {shown(value)}")
    except ValueError as error:
        raise NumbersError(
            f"{path}: expected names with one finite number or text each "
            f"({first_words(error).removeprefix(f'{path} cannot be read: ')})"
        ) from None
    return found


def name_in_prose(stem: str) -> str:
    """Return what the names of a chapter's numbers begin with.

    Examples
    --------
    >>> name_in_prose("extracting-ppp")
    'extracting_ppp'
    """
    return re.sub(r"\W+", "_", re.sub(r"^\d+-", "", stem))


def _not_a_number(text: str) -> float:
    raise ValueError(f"{text} is no finite number")
