"""The look of every figure, and the words of its alt text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib.style
import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from studies.figures.words import spread

STYLE = Path(__file__).with_name("ppp.mplstyle")
PALETTE: tuple[str, ...] = tuple(
    rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"].by_key()["color"]
)
MARKERS = "osD^vPX*<>"
CLEAN, TOUCHED = PALETTE[0], PALETTE[1]
UNKNOWN = "#BFBFBF"  # NaN
SCALE = matplotlib.colormaps["viridis"].with_extremes(bad=UNKNOWN)
WIDTH = 9.0  # inches; at 80 CSS pixels an inch, the 720 px of a page's text column

P = ParamSpec("P")
T = TypeVar("T")


def use_style() -> None:
    """Give the caller's own matplotlib figures the look of this project's.

    The functions of this package do not need it.

    Examples
    --------
    >>> with matplotlib.rc_context():
    ...     use_style()
    ...     matplotlib.rcParams["savefig.dpi"]
    160.0
    """
    matplotlib.style.use(STYLE)


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Make a function draw in this style, whatever the caller's settings are."""

    @functools.wraps(draw)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return in_style


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure outside pyplot; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def look(i: int) -> dict[str, str]:
    """Return colour and marker of the i-th line."""
    return {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}


def colour_scale(values: np.ndarray, zero: bool = False) -> Normalize:
    """Return a scale from the least value, or with `zero` from 0 at most, to the greatest."""
    low, _, high = spread(values)
    if np.isnan(low):
        return Normalize(0, 1)
    low = min(low, 0.0) if zero else low
    return Normalize(low, high if high > low else low + 1)
