"""A figure to play with: the paper's Figure 1 as a surface that the reader turns and steps through.

One HTML text with everything in it: no library, no network. Without scripts, and on paper, the
still figure stands in its place.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppp.errors import PPPError
from studies.figures import SCALE, as_html, border_and_inside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BYTES = 1_000_000
"""Of one such figure, without its still picture."""


@dataclass(frozen=True)
class Surface:
    """One estimate of the pattern: what is drawn for one choice of layer, scheme and n.

    Parameters
    ----------
    layer, scheme : str
    n : int
        Number of windows.
    pattern, floor : array
        Shape (H, W), at least 2 x 2: magnitude of the estimate and of its noise floor, >= 0.
    """

    layer: str
    scheme: str
    n: int
    pattern: np.ndarray
    floor: np.ndarray

    def __post_init__(self) -> None:
        shapes = np.shape(self.pattern), np.shape(self.floor)
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or min(shapes[0]) < 2:
            raise PPPError(
                f"surfaces of {self.layer}, {self.scheme} have shapes {shapes[0]} and {shapes[1]}; "
                "expected the same (H, W) of at least 2 x 2: average over the channels first"
            )
        for name, values in (("pattern", self.pattern), ("floor", self.floor)):
            if not np.isfinite(values).all() or np.min(values) < 0:
                raise PPPError(
                    f"{name} of {self.layer}, {self.scheme} has a value that is negative or not "
                    "finite; expected magnitudes"
                )


def as_page(
    surfaces: Sequence[Surface],
    still: Figure,
    caption: str,
    footer: Mapping[str, object],
    *,
    unit: str,
) -> str:
    """Return surfaces as an HTML figure that a reader turns and steps through.

    Parameters
    ----------
    surfaces : sequence of Surface
        One for every combination of their layers, schemes and numbers of windows.
    still : Figure
        What is shown without scripts and in print; its alt text stands for both.
    caption : str
    footer : mapping
        As for :func:`studies.figures.as_html`.
    unit : str
        Of the magnitudes.

    Returns
    -------
    str

    Raises
    ------
    PPPError
        No surface, one that is missing or comes twice, or more than 1 MB of them.

    Examples
    --------
    >>> from studies.figures import gallery
    >>> ramp = np.eye(4)
    >>> page = as_page([Surface("layer1", "zeros", 8, ramp, 0 * ramp)], gallery({"a": ramp}),
    ...                "Turn it.", {}, unit="σ")
    >>> "<canvas" in page, "src=\\"http" in page
    (True, False)
    """
    layers = list(dict.fromkeys(one.layer for one in surfaces))
    schemes = list(dict.fromkeys(one.scheme for one in surfaces))
    numbers = sorted({one.n for one in surfaces})
    wanted = len(layers) * len(schemes) * len(numbers)
    if not surfaces or len({(s.layer, s.scheme, s.n) for s in surfaces}) != len(surfaces):
        raise PPPError(f"{len(surfaces)} surfaces, one twice; expected one for each choice")
    if len(surfaces) != wanted:
        raise PPPError(
            f"{len(surfaces)} surfaces for {len(layers)} layers, {len(schemes)} schemes and "
            f"{len(numbers)} numbers of windows; expected {wanted}"
        )
    table = (SCALE(np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    data = {
        "colours": base64.b64encode(table.tobytes()).decode(),
        "unit": unit,
        "n": numbers,
        "maps": [_map(one) for one in surfaces],
    }
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    if len(text) > MOST_BYTES:
        raise PPPError(
            f"the surfaces take {len(text):,} bytes; expected {MOST_BYTES:,} at most: give fewer"
        )
    middle = layers[len(layers) // 2]
    controls = (
        f"<label>layer {_select('layer', layers, middle)}</label>"
        f"<label>padding {_select('scheme', schemes, schemes[0])}</label>"
        f'<label>windows n = <span class="ppp-n"></span> <input type="range" name="n" min="0" '
        f'max="{len(numbers) - 1}" value="{len(numbers) - 1}"></label>'
        '<label><input type="checkbox" name="shared"> one scale for the layer</label>'
    )
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in table[::51])
    style, script = (
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("turntable.css", "turntable.js")
    )
    turning = (
        f"<style>{style}</style>"
        '<div class="ppp-turntable" hidden>'
        '<canvas tabindex="0" role="img" aria-label="Surface of the pattern over the feature map; '
        'arrow keys turn it"></canvas>'
        f'<div class="ppp-scale"><span>0</span><span class="ppp-bar" '
        f'style="background:linear-gradient(90deg,{stops})"></span><span class="ppp-top"></span>'
        f"<span>{escape(unit)}; grey: noise floor</span></div>"
        f'<div class="ppp-choices">{controls}</div><output aria-live="polite"></output>'
        f'<script type="application/json">{text}</script>'
        f"<script>{script}</script></div>"
    )
    return as_html(still, caption, footer, live=turning)


def show(
    surfaces: Sequence[Surface],
    still: Figure,
    caption: str,
    footer: Mapping[str, object],
    *,
    unit: str,
) -> None:
    """Display such a figure in a notebook; see :func:`as_page`."""
    from IPython.display import HTML, display

    display(HTML(as_page(surfaces, still, caption, footer, unit=unit)))


def _map(one: Surface) -> dict[str, object]:
    border, inside = border_and_inside(one.pattern)
    packed = {
        "layer": one.layer,
        "scheme": one.scheme,
        "n": one.n,
        "height": one.pattern.shape[0],
        "width": one.pattern.shape[1],
        "border": float(f"{border:.4g}"),
        "inside": float(f"{inside if np.isfinite(inside) else border:.4g}"),
        "floor_mean": float(f"{np.mean(one.floor):.4g}"),
    }
    for name, top, values in (
        ("pattern", "highest", one.pattern),
        ("floor", "floor_highest", one.floor),
    ):
        highest = float(np.max(values))
        bytes_ = np.round(255 * np.asarray(values) / (highest or 1)).astype(np.uint8)
        packed[name] = base64.b64encode(bytes_.tobytes()).decode()
        packed[top] = float(f"{highest:.4g}")
    return packed


def _select(name: str, options: Sequence[str], chosen: str) -> str:
    items = "".join(
        f"<option{' selected' if option == chosen else ''}>{escape(option)}</option>"
        for option in options
    )
    return f'<select name="{name}">{items}</select>'
