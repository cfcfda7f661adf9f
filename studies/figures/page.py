"""Figures on a page, with alt text, caption and provenance, and in a file."""

from __future__ import annotations

import base64
import io
import os
import pickle
from collections.abc import Mapping
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from ppp.errors import PPPError
from studies.figures.dark import PAGE, darken
from studies.figures.style import styled
from studies.storage import tables

_MOST_ALT = 300  # characters; a screen reader cannot be hurried
_MORE = " ... More below."
_MOST_COLOURS = 20_000  # of a drawing; a photograph has more


def save(fig: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, whole or not at all, with its alt text as the PNG's description.

    Parameters
    ----------
    fig : Figure
    path : path-like
        Ends in .png; its folder is made if need be, an existing file is replaced.

    Returns
    -------
    Path

    Raises
    ------
    PPPError
        If the path does not end in .png, or the figure has no alt text.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from studies import figures
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(figures.gallery({"a": np.eye(4)}), f"{folder}/deep/a.png").name
    'a.png'
    """
    path = Path(path)
    if path.suffix != ".png":
        raise PPPError(f"figure path {str(path)!r} ends in {path.suffix!r}; expected '.png'")
    tables.write(path, _png(fig))
    return path


def as_html(
    fig: Figure, caption: str, footer: Mapping[str, object] | None = None, *, live: str = ""
) -> str:
    """Return a figure as an HTML `<figure>` that needs no other file.

    The PNG has two pixels for each CSS pixel, on a white card. Another one, of the class
    `ppp-dark`, is for dark pages; it is hidden unless a style sheet shows it. Where the alt text is
    too long to be listened to, it is cut and stands whole in the footer. Alt text, caption and
    footer are escaped.

    Parameters
    ----------
    fig : Figure
    caption : str
        Plain text.
    footer : mapping, optional
        How the figure was made, folded away: parameters, seed, versions, ...
    live : str
        HTML that a script shows in the place of the picture, which lies in an element of the
        class `ppp-still` then.

    Returns
    -------
    str

    Raises
    ------
    PPPError
        If the figure has no alt text.

    Examples
    --------
    >>> import numpy as np
    >>> from studies import figures
    >>> page = as_html(figures.gallery({"a": np.eye(4)}), "Padding < picture", {"seed": 0})
    >>> "<figcaption>Padding &lt; picture</figcaption>" in page, "<b>seed</b>: 0" in page
    (True, True)
    """
    picture = _picture(fig) + _picture(fig, dark=True)
    parts = [
        '<figure class="ppp-figure" style="margin:1.5em 0">',
        f'<div class="ppp-still">{picture}</div>{live}' if live else picture,
        f"<figcaption>{escape(caption)}</figcaption>",
    ]
    facts = {"in words": _words(fig)} if _words(fig) != _alt(fig) else {}
    facts |= footer or {}
    if facts:
        items = "".join(f"<li><b>{escape(str(k))}</b>: {_value(v)}</li>" for k, v in facts.items())
        parts.append(
            f"<details><summary>How this figure was made</summary><ul>{items}</ul></details>"
        )
    return "\n".join([*parts, "</figure>"])


def show(fig: Figure, caption: str, footer: Mapping[str, object] | None = None) -> None:
    """Display a figure in a notebook with alt text, caption and provenance.

    Parameters
    ----------
    fig, caption, footer
        As for :func:`as_html`.

    Raises
    ------
    PPPError
        If the figure has no alt text.
    """
    from IPython.display import HTML, display

    display(HTML(as_html(fig, caption, footer)))


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        items = "".join(f"<li>{escape(str(k))}: {_value(v)}</li>" for k, v in value.items())
        return f"<ul>{items}</ul>"
    if isinstance(value, (list, tuple)):
        return escape(", ".join(map(str, value)))
    return escape(str(value))


def _picture(fig: Figure, dark: bool = False) -> str:
    data = _reduced(_png(fig, dark), every=dark)
    css_width = int.from_bytes(data[16:20], "big") // 2  # from the PNG's header
    look = "display:none" if dark else "background:#fff;border-radius:4px"
    return (
        f'<img class="{"ppp-dark" if dark else "ppp-light"}" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode()}" '
        f'alt="{escape(_alt(fig))}" width="{css_width}" '
        f'style="max-width:100%;height:auto;{look}">'
    )


@styled
def _png(fig: Figure, dark: bool = False) -> bytes:
    fig = pickle.loads(pickle.dumps(fig))  # drawing fixes the layout; the figure stays as it is
    if dark:
        darken(fig)
    if isinstance(fig.get_layout_engine(), ConstrainedLayoutEngine):
        # Constrained layout moves things a little at every draw; one layout, then equal bytes.
        fig.set_dpi(matplotlib.rcParams["savefig.dpi"])
        fig.get_layout_engine().execute(fig)
        fig.set_layout_engine("none")
    buffer = io.BytesIO()
    # Software would hold matplotlib's version, and make equal figures differ.
    about = {"Software": None, "Description": _words(fig)}
    fig.savefig(buffer, format="png", metadata=about, facecolor=PAGE if dark else "auto")
    return buffer.getvalue()


def _reduced(png: bytes, every: bool) -> bytes:
    """Return a PNG with 256 colours if it is smaller so; that of a photograph only if `every`."""
    picture, buffer = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    drawn = picture.getcolors(_MOST_COLOURS) is not None
    if not (drawn or every):
        return png
    kept = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
    if not drawn:  # dots of neighbouring colours in the place of those that are not there
        kept = picture.quantize(palette=kept, dither=Image.Dither.FLOYDSTEINBERG)
    kept.save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)


def _words(fig: Figure) -> str:
    """Return all that is said of a figure."""
    words = getattr(fig, "ppp_alt", "")
    if not words:
        raise PPPError(
            "the figure has no alt text; make it with a function of studies.figures, or "
            "set fig.ppp_alt"
        )
    return words


def _alt(fig: Figure) -> str:
    """Return the words of a figure, or what fits of them, in whole parts."""
    words = _words(fig)
    if len(words) <= _MOST_ALT:
        return words
    start = words[: _MOST_ALT - len(_MORE)]
    end = max(start.rfind("; "), start.rfind(". "))
    return (start[:end] if end > 0 else start) + _MORE
