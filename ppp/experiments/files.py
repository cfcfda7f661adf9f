"""Tables as CSV, packed where the name ends in .gz; each file is written whole or not at all."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pandas as pd

from ppp.errors import WeightsError
from ppp.files import write


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


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table; only an empty cell is a missing value.

    Raises
    ------
    WeightsError
        The file is missing or damaged.
    """
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError, EOFError, zlib.error) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(f"{path} cannot be read: {reason}") from None
