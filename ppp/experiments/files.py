"""Write a file whole or not at all; tables as CSV, packed where the name ends in .gz."""

from __future__ import annotations

import io
import os
import tempfile
import zlib
from pathlib import Path

import pandas as pd

from ppp.errors import WeightsError


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
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_table(path: str | Path, frame: pd.DataFrame, digits: int | None = 7) -> None:
    """Write a table as CSV, numbers to so many digits or in full; equal tables, equal bytes.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp(), "a.csv.gz")
    >>> write_table(path, pd.DataFrame({"n": [2]}))
    >>> read_table(path)["n"].tolist()
    [2]
    """
    content = io.BytesIO()
    packing = {"method": "gzip", "mtime": 0} if str(path).endswith(".gz") else None
    precision = f"%.{digits}g" if digits else None
    frame.to_csv(content, index=False, float_format=precision, compression=packing)
    write(path, content.getvalue())


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
