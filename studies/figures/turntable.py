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
from itertools import product
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from ppp.errors import PPPError
from studies.figures.maps import border_and_inside, check_pair
from studies.figures.page import as_html
from studies.figures.style import SCALE

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
        who = f"{self.layer}, {self.scheme}"
        check_pair(who, self.pattern, self.floor)
        for name, values in (("pattern", self.pattern), ("floor", self.floor)):
            if not np.isfinite(values).all() or np.min(values) < 0:
                raise PPPError(
                    f"{name} of {who} has a value that is negative or not finite; expected >= 0"
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
    choices = sorted(product(layers, schemes, numbers))
    if not choices or sorted((one.layer, one.scheme, one.n) for one in surfaces) != choices:
        raise PPPError(
            f"{len(surfaces)} surfaces for {len(layers)} layers, {len(schemes)} schemes and "
            f"{len(numbers)} numbers of windows; expected {len(choices)}, one for each choice"
        )
    colours = (SCALE(np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    data = {
        "colours": base64.b64encode(colours.tobytes()).decode(),
        "unit": unit,
        "n": numbers,
        "maps": [_map(one) for one in surfaces],
    }
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    if len(text) > MOST_BYTES:
        raise PPPError(
            f"the surfaces take {len(text):,} bytes; expected {MOST_BYTES:,} at most: give fewer"
        )
    style, script, template = (
        Path(__file__).with_name(f"turntable.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js", "html")
    )
    turning = Template(template.replace("\n", "")).substitute(
        style=style,
        script=script,
        data=text,
        layers=_options(layers, layers[len(layers) // 2]),
        schemes=_options(schemes, schemes[0]),
        last=len(numbers) - 1,
        stops=",".join(f"rgb({r},{g},{b})" for r, g, b in colours[::51]),
        unit=escape(unit),
    )
    return as_html(still, caption, footer, live=turning)


def show(*arguments, **options) -> None:
    """Display such a figure in a notebook; parameters as for :func:`as_page`."""
    from IPython.display import HTML, display

    display(HTML(as_page(*arguments, **options)))


def _map(one: Surface) -> dict[str, object]:
    border, inside = border_and_inside(one.pattern)
    packed = {
        "layer": one.layer,
        "scheme": one.scheme,
        "n": one.n,
        "height": one.pattern.shape[0],
        "width": one.pattern.shape[1],
        "border": _rounded(border),
        "inside": _rounded(inside if np.isfinite(inside) else border),
        "floor_mean": _rounded(np.mean(one.floor)),
    }
    maps = {"pattern": ("highest", one.pattern), "floor": ("floor_highest", one.floor)}
    for name, (top, values) in maps.items():
        highest = float(np.max(values))
        steps = np.round(255 * np.asarray(values) / (highest or 1)).astype(np.uint8)
        packed[name] = base64.b64encode(steps.tobytes()).decode()
        packed[top] = _rounded(highest)
    return packed


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _options(names: Sequence[str], chosen: str) -> str:
    return "".join(
        f"<option{' selected' if name == chosen else ''}>{escape(name)}</option>" for name in names
    )
