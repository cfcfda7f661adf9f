"""Amounts with units, as files and command lines give them and as people read them."""

from __future__ import annotations

import re

from ppp.errors import ParameterError, shown

_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def read_bytes(name: str, text: str) -> int:
    """Read a number of bytes.

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> [read_bytes("memory", text) for text in ("2G", "1.5 KiB", "8kb", "700")]
    [2147483648, 1536, 8192, 700]
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or not 1 <= float(match[1]) * _BYTES[match[2].upper()] < 2**63:
        raise ParameterError(
            f"{name} {shown(text)}: expected bytes above 0, such as 2G or 500M (K, M, G: powers of "
            "1024)"
        )
    return int(float(match[1]) * _BYTES[match[2].upper()])


def read_seconds(name: str, text: str) -> float:
    """Read a duration, s.

    Raises
    ------
    ParameterError

    Examples
    --------
    >>> read_seconds("time", "90 s"), read_seconds("time", "1.5 h")
    (90.0, 5400.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if not match or not 0 < float(match[1]) * _SECONDS[match[2]] < 2**31:
        raise ParameterError(
            f"{name} {shown(text)}: expected a time above 0, such as 90 s, 30 min, 2 h"
        )
    return float(match[1]) * _SECONDS[match[2]]


def show_bytes(amount: float) -> str:
    """Return a number of bytes for people.

    Examples
    --------
    >>> show_bytes(900), show_bytes(2_500_000), show_bytes(3 * 2**30)
    ('900 B', '2.38 MiB', '3 GiB')
    """
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while amount >= 1024 and unit != "TiB":
        amount, unit = amount / 1024, next(units)
    return f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:.0f} {unit}"


def show_seconds(amount: float) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> show_seconds(0.31), show_seconds(34.6), show_seconds(200), show_seconds(9000)
    ('0.3 s', '35 s', '3 min 20 s', '2 h 30 min')
    """
    if amount < 1:
        return f"{amount:.1f} s"
    if round(amount) < 100:
        return f"{amount:.0f} s"
    if amount < 3600:
        return f"{round(amount) // 60} min {round(amount) % 60} s"
    return f"{round(amount / 60) // 60} h {round(amount / 60) % 60} min"
