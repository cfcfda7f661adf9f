"""Tables with small maps, as notebooks show them: no style of their own, light or dark alike."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np


def picture(map_: np.ndarray) -> str:
    """Return a map (H, W) as an image in HTML: black where it is 0, white at its largest.

    Examples
    --------
    >>> picture(np.eye(3))[:40]
    '<img width="80" style="image-rendering:p'
    """
    sizes = np.abs(np.nan_to_num(map_.astype(float)))
    grey = np.uint8(255 * sizes / (sizes.max(initial=0) or 1))
    size = struct.pack(">2I5B", *grey.shape[::-1], 8, 0, 0, 0, 0)  # 8 bits of grey
    rows = zlib.compress(np.pad(grey, ((0, 0), (1, 0))).tobytes())  # each begins with its filter
    png = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", size), (b"IDAT", rows), (b"IEND", b"")):
        png += struct.pack(">I", len(content)) + kind + content
        png += struct.pack(">I", zlib.crc32(kind + content))
    style = "image-rendering:pixelated;border:1px solid gray"
    return f'<img width="80" style="{style}" src="data:image/png;base64,{b64encode(png).decode()}">'


def table(caption: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a table in HTML: arrays as pictures, everything else as escaped text.

    Examples
    --------
    >>> table("a & b", [{"x": "<1>"}])
    '<table><caption>a &amp; b</caption><tr><th>x</th></tr><tr><td>&lt;1&gt;</td></tr></table>'
    """

    def line(tag: str, cells: Sequence[object]) -> str:
        shown = (picture(c) if isinstance(c, np.ndarray) else escape(str(c)) for c in cells)
        return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in shown)}</tr>"

    head = line("th", list(rows[0])) if rows else ""
    body = "".join(line("td", list(row.values())) for row in rows)
    return f"<table><caption>{escape(caption)}</caption>{head}{body}</table>"
