"""Tables as CSV, packed where the name ends in .gz; each file is written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ppp.errors import WeightsError, first_words
from ppp.files import write
from studies.storage import documents


def write_table(path: str | Path, frame: pd.DataFrame, digits: int | None = 7) -> None:
    """Write a table as CSV, numbers to so many digits or in full; equal tables, equal bytes.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.csv.gz")
    >>> write_table(path, pd.DataFrame({"n": [2]}))
    >>> read_table(path)["n"].tolist()
    [2]
    """
    write(path, packed(path, frame, digits))


def packed(path: str | Path, frame: pd.DataFrame, digits: int | None = 7) -> bytes:
    """Return what :func:`write_table` writes.

    Examples
    --------
    >>> packed("a.csv", pd.DataFrame({"n": [2]}))
    b'n\\n2\\n'
    """
    content = io.BytesIO()
    packing = {"method": "gzip", "mtime": 0} if str(path).endswith(".gz") else None
    precision = f"%.{digits}g" if digits else None
    frame.to_csv(content, index=False, float_format=precision, compression=packing)
    return content.getvalue()


def read_table(path: str | Path, *, columns: Iterable[str] = (), sha256: str = "") -> pd.DataFrame:
    """Read a table; only an empty cell is a missing value.

    Parameters
    ----------
    path : path-like
    columns : iterable of str
        Columns that it must have.
    sha256 : str
        Of the file, where that is known.

    Raises
    ------
    WeightsError
        The file is missing or damaged, or lacks a column.
    """
    content = documents.read_bytes(path, most=None, error=WeightsError)
    if sha256 and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise WeightsError(
            f"{path} is damaged: it has SHA-256 {found[:12]}..., not {sha256[:12]}... as when it "
            "was written"
        )
    packing = "gzip" if str(path).endswith(".gz") else None
    try:
        table = pd.read_csv(
            io.BytesIO(content), keep_default_na=False, na_values=[""], compression=packing
        )
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise WeightsError(f"{path} cannot be read: {first_words(error)}") from None
    if lacking := [name for name in columns if name not in table]:
        raise WeightsError(f"{path} cannot be read: it has no column {lacking[0]!r}")
    return table
