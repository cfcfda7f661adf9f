"""Every kind of figure, from plain arrays and data frames, each with its alt text.

Each function returns a :class:`matplotlib.figure.Figure` that carries `fig.ppp_alt`: a
description computed from the numbers that were drawn, so that it can never speak of other data.
:func:`show` puts figure, alt text, caption and provenance on a page, :func:`save` writes a PNG.
Figures stay out of pyplot: no window is opened, and a notebook never shows one twice.
The look is `ppp.mplstyle`, applied inside each function whatever the caller's settings are.
"""

from __future__ import annotations

import base64
import functools
import io
import os
import pickle
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import ParamSpec, TypeVar

from ppp.errors import PPPError, first_words, unknown

try:
    import matplotlib.style
except ValueError as error:
    raise PPPError(
        f"matplotlib cannot be used: {first_words(error)}; take MPLBACKEND out of the environment"
    ) from None

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextPath
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
    SymmetricalLogLocator,
)
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from studies.padding.surroundings import mean_interval
from studies.storage import tables

STYLE = Path(__file__).with_name("ppp.mplstyle")
PALETTE: tuple[str, ...] = tuple(
    rc_params_from_file(STYLE, use_default_template=False)["axes.prop_cycle"].by_key()["color"]
)
MARKERS = "osD^vPX*<>"
CLEAN, TOUCHED = PALETTE[0], PALETTE[1]
UNKNOWN = "#BFBFBF"  # NaN
SCALE = matplotlib.colormaps["viridis"].with_extremes(bad=UNKNOWN)
WIDTH = 9.0  # inches; at 80 CSS pixels an inch, the 720 px of a page's text column

_FLOOR_KEY = Line2D(
    [], [], color="#4D4D4D", linestyle="--", linewidth=1.2, marker="", label="noise floor"
)

P = ParamSpec("P")
T = TypeVar("T")


def use_style() -> None:
    """Give the caller's own matplotlib figures the look of this project's.

    The functions of this module do not need it.

    Examples
    --------
    >>> with matplotlib.rc_context():
    ...     use_style()
    ...     matplotlib.rcParams["savefig.dpi"]
    160.0
    """
    matplotlib.style.use(STYLE)


def _styled(draw: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return styled


@_styled
def gallery(
    images: Mapping[str, np.ndarray],
    *,
    columns: int = 4,
    outline: tuple[int, int, int, int] | None = None,
    colorbar_label: str | None = None,
    shared_scale: bool = True,
) -> Figure:
    """Show pictures or maps side by side.

    Parameters
    ----------
    images : mapping of title to array
        Shape (H, W, 3), RGB in [0, 1] (values beyond are clipped), or (H, W), coloured by value.
        NaN is drawn grey.
    columns : int
        Pictures in a row.
    outline : (top, left, height, width), optional
        Rectangle in pixels to frame in every picture: the true picture inside its padding.
    colorbar_label : str, optional
        What the value of an (H, W) map is, with its unit; without it no colour bar is drawn.
    shared_scale : bool
        One colour scale for all maps, or one for each.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If there is no image, or one of another shape.

    Examples
    --------
    >>> gallery({"left half": np.eye(4)[:, :2]}, colorbar_label="value").ppp_alt
    '1 picture. left half: 4 x 2, value 0 to 1, mean 0.25.'
    """
    arrays = {title: np.asarray(image) for title, image in _some("image", images).items()}
    for title, a in arrays.items():
        if a.size == 0 or not (a.ndim == 2 or (a.ndim == 3 and a.shape[2] == 3)):
            raise PPPError(
                f"image {title!r} has shape {a.shape}; expected (H, W, 3) or (H, W): move the "
                "channels last, or give one map"
            )
    maps = [a for a in arrays.values() if a.ndim == 2]
    together = _norm(np.concatenate([m.ravel() for m in maps])) if maps else None
    columns = min(columns, len(arrays))
    rows = -(-len(arrays) // columns)
    side = min(2.6, WIDTH / columns)
    aspect = min(1.5, max(a.shape[0] / a.shape[1] for a in arrays.values()))
    bar = colorbar_label is not None and bool(maps)
    fig = _figure(
        columns * side + (0.8 if bar and shared_scale else 0),
        rows * (side * aspect + (0.35 if shared_scale or not bar else 0.9)),
    )
    axes = fig.subplots(rows, columns, squeeze=False)
    words = []
    for ax, (title, a) in zip(axes.flat, arrays.items()):
        missing = np.isnan(a).reshape(*a.shape[:2], -1).any(axis=2)
        if a.ndim == 3:
            ax.imshow(np.where(missing[..., None], 191 / 255, a).clip(0, 1))
            what = f"mean brightness {_n(_mean(a))}"
        else:
            drawn = ax.imshow(a, cmap=SCALE, norm=together if shared_scale else _norm(a))
            if bar and not shared_scale:
                fig.colorbar(drawn, ax=ax, label=colorbar_label, orientation="horizontal")
            name = colorbar_label or "value"
            what = f"{name} {_n(_extreme(a, np.min))} to {_n(_extreme(a, np.max))}"
            what += f", mean {_n(_mean(a))}"
        if missing.any():
            what += f", {missing.mean():.0%} of the cells NaN (grey)"
        if outline is not None:
            top, left, height, width = outline
            box = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, linewidth=1.6)
            box.set(edgecolor="white", linestyle=(0, (3, 3)))
            under = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, linewidth=1.6)
            under.set(edgecolor="black")
            ax.add_patch(under)
            ax.add_patch(box)
        ax.set_title(title)
        words.append(f"{title}: {a.shape[0]} x {a.shape[1]}, {what}")
    _bare(axes.flat, len(arrays))
    for ax, a in zip(axes.flat, arrays.values()):
        if a.ndim == 3:  # a white picture on a white page
            ax.spines[:].set(visible=True, color="#808080", linewidth=0.8)
    if bar and shared_scale:
        fig.colorbar(
            ScalarMappable(together, SCALE), ax=axes, label=colorbar_label, shrink=0.9, aspect=25
        )
    count = f"{len(arrays)} picture{'s' if len(arrays) > 1 else ''}"
    if outline is not None:
        count += f", each with a frame around {outline[2]} x {outline[3]} pixels"
    return _described(fig, count, words)


@_styled
def surfaces(
    optimal: Sequence[np.ndarray],
    algorithmic: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    label: str,
    shared: bool = False,
) -> Figure:
    """Show estimates as surfaces over the feature map, one column for each sample size [paper].

    The layout of the paper's Figure 1: above, a tilted view with the surface under optimal
    padding in grey and the one under algorithmic padding coloured by magnitude; below, the
    latter from the top. Weak is dark blue, strong is yellow.

    Parameters
    ----------
    optimal, algorithmic : sequence of arrays
        Shape (H, W), at least 2 x 2, magnitudes; one of each for every title.
    titles : sequence of str
        One for each column, such as ``"n = 64"``.
    label : str
        What the magnitude is, with its unit.
    shared : bool
        One colour scale and height for all columns. By default each has its own, because
        magnitudes shrink as n grows.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If the numbers of arrays and titles differ, or the shapes of a pair do.

    Examples
    --------
    >>> y = np.linspace(0, 1, 5)[:, None] * np.ones(5)
    >>> fig = surfaces([0 * y], [y], ["n = 4"], label="magnitude")
    >>> fig.ppp_alt.partition("Means. ")[2][:71]
    'n = 4: algorithmic padding 0.5 (border 0.5, interior 0.5, highest 1), o'
    """
    grey = [np.asarray(a, dtype=float) for a in _some("surface", optimal)]
    coloured = [np.asarray(a, dtype=float) for a in _some("surface", algorithmic)]
    if not len(grey) == len(coloured) == len(titles):
        raise PPPError(
            f"{len(grey)} optimal and {len(coloured)} algorithmic surfaces, {len(titles)} titles; "
            "expected as many of each"
        )
    for title, o, a in zip(titles, grey, coloured):
        if o.shape != a.shape or a.ndim != 2 or min(a.shape) < 2:
            raise PPPError(
                f"surfaces of {title!r} have shapes {o.shape} and {a.shape}; expected the same "
                "(H, W) of at least 2 x 2: average over the channels first"
            )
    n = len(titles)
    # Laid out by hand, in inches: constrained layout leaves 3-D axes far apart.
    side, head, foot, bar_width = min(3.0, WIDTH / n), 0.5, 0.2, 0.15
    if shared:
        bar_width = 0.95
        side = min(side, (WIDTH - bar_width) / n)
    else:
        foot = 0.85
    width, height = n * side + bar_width, head + 1.65 * side + foot
    middle = (foot + 0.8 * side) / height
    fig = Figure(figsize=(width, height), layout="none")
    right = 1 - bar_width / width
    upper = fig.add_gridspec(1, n, left=0, right=right, bottom=middle, top=1 - head / height)
    upper.update(wspace=0)
    lower = fig.add_gridspec(1, n, left=0, right=right, bottom=foot / height, top=middle)
    lower.update(wspace=0.2, left=0.1 * side / width, right=right - 0.1 * side / width)
    every = np.concatenate([a.ravel() for a in coloured])
    highest = max(_extreme(a, np.max) for a in coloured + grey)
    words, flats = [], []
    for i, (title, o, a) in enumerate(zip(titles, grey, coloured)):
        norm = _norm(every if shared else a, zero=True)
        ax = fig.add_subplot(upper[i], projection="3d", computed_zorder=False)
        _two_surfaces(ax, o, a, norm)
        top = highest if shared else max(_extreme(o, np.max), _extreme(a, np.max))
        ax.set_zlim(norm.vmin, top if top > norm.vmin else norm.vmax)
        ax.set_title(title, y=1.0)
        flat = fig.add_subplot(lower[i])
        drawn = flat.imshow(a, cmap=SCALE, norm=norm)
        flats.append(flat)
        if not shared:
            bar = fig.colorbar(
                drawn, cax=flat.inset_axes((0.05, -0.13, 0.9, 0.06)), orientation="horizontal"
            )
            bar.ax.tick_params(labelsize=9)
            bar.ax.locator_params(nbins=3)
        border, inside = border_and_inside(a)
        words.append(
            f"{title}: algorithmic padding {_n(_mean(a))} (border {_n(border)}, "
            f"interior {'none' if np.isnan(inside) else _n(inside)}, "
            f"highest {_n(_extreme(a, np.max))}), "
            f"optimal padding {_n(_mean(o))} (highest {_n(_extreme(o, np.max))})"
        )
    _bare(flats, n)
    if shared:
        cax = fig.add_axes((right + 0.1 / width, 0.2, 0.18 / width, 0.6))
        fig.colorbar(drawn, cax=cax, label=label)
    else:
        fig.text(right / 2, 0.12 / height, label, ha="center", va="bottom")
    grey_key = Patch(color="#9A9A9A", label="optimal padding")
    fig.legend(handles=[grey_key], loc="upper left", borderaxespad=0.2, handlelength=1)
    head = (
        f"Surfaces over the feature map of the {label}, {n} column{'s' if n > 1 else ''}, "
        "tilted above and from the top below. Means"
    )
    return _described(fig, head, words)


@_styled
def growth_maps(
    maps: Mapping[tuple[object, object], np.ndarray], *, label: str, common: bool = False
) -> Figure:
    """Show a table of small maps, such as one row for each padding and one column for each step.

    Parameters
    ----------
    maps : mapping of (row, column) to array
        Shape (H, W), magnitudes. Rows and columns come in the order of their appearance; a
        combination that is missing stays blank, NaN is drawn grey.
    label : str
        What the magnitude is, with its unit.
    common : bool
        One colour scale for all maps, or one for each row.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If there is no map, or one that is not two-dimensional.

    Examples
    --------
    >>> edge = np.pad(np.zeros((2, 2)), 1, constant_values=3.0)
    >>> growth_maps({("zeros", 0): 0 * edge, ("zeros", 64): edge}, label="PPP (σ)").ppp_alt
    'PPP (σ), 1 row of maps from 0 to 64, a colour scale for each row. zeros: mean 0 at 0, \
2.25 at 64, strongest at the border (3, 0 inside).'
    """
    arrays = {key: np.asarray(m, dtype=float) for key, m in _some("map", maps).items()}
    for key, a in arrays.items():
        if a.ndim != 2 or a.size == 0:
            raise PPPError(f"map {key} has shape {a.shape}; expected (H, W): average over channels")
    rows, columns = (list(dict.fromkeys(key[i] for key in arrays)) for i in (0, 1))
    beside = 0.8 + 0.09 * max(len(str(row)) for row in rows)  # names and colour bar, in inches
    side = min(1.3, (WIDTH - beside) / len(columns))
    fig = _figure(len(columns) * side + beside, len(rows) * side + 0.75)
    axes = fig.subplots(len(rows), len(columns), squeeze=False)
    _bare(axes.flat, axes.size)
    everything = np.concatenate([a.ravel() for a in arrays.values()])
    words = []
    for line, row in zip(axes, rows):
        present = {column: arrays[row, column] for column in columns if (row, column) in arrays}
        shown = everything if common else np.concatenate([a.ravel() for a in present.values()])
        norm = _norm(shown, zero=True)
        for ax, column in zip(line, columns):
            if column in present:
                ax.imshow(present[column], cmap=SCALE, norm=norm)
            if ax in axes[0]:
                ax.set_title(str(column), size=10)
        line[0].set_ylabel(str(row), rotation=0, ha="right", va="center")
        if not common:
            bar = fig.colorbar(ScalarMappable(norm, SCALE), ax=list(line), aspect=8, pad=0.01)
            bar.ax.tick_params(labelsize=9)
            bar.ax.locator_params(nbins=3)
        (first, start), *_, (last, end) = [*present.items()] * 2
        border, inside = border_and_inside(end)
        means = dict.fromkeys([f"{_n(_mean(start))} at {first}", f"{_n(_mean(end))} at {last}"])
        text = f"{row}: mean {', '.join(means)}"
        if border != inside and not np.isnan(border + inside):
            where = ("the border", "inside") if border > inside else ("the centre", "at the border")
            high, low = sorted((border, inside), reverse=True)
            text += f", strongest at {where[0]} ({_n(high)}, {_n(low)} {where[1]})"
        words.append(text)
    if common:
        fig.colorbar(ScalarMappable(norm, SCALE), ax=axes, label=label, aspect=25, pad=0.01)
    else:
        fig.supxlabel(f"colour: {label}, a scale for each row", size="medium")
    head = (
        f"{label}, {len(rows)} row{'s' if len(rows) > 1 else ''} of maps from {columns[0]} to "
        f"{columns[-1]}, {'one colour scale' if common else 'a colour scale for each row'}"
    )
    return _described(fig, head, words)


@_styled
def influence_maps(maps: Mapping[str, np.ndarray], clean: Mapping[str, float]) -> Figure:
    """Show which cells of each layer padding can touch.

    Parameters
    ----------
    maps : mapping of layer name to bool array
        Shape (H, W), True where padding can influence the cell.
    clean : mapping of layer name to float
        Fraction of cells that padding cannot touch, in [0, 1].

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If there is no map, a layer has no fraction, or a fraction does not belong to its map.

    Examples
    --------
    >>> touched = np.ones((4, 4), dtype=bool)
    >>> touched[1:3, 1:3] = False
    >>> influence_maps({"layer1": touched}, {"layer1": 0.25}).ppp_alt
    'Cells that padding can touch. layer1: 12 of 4 x 4 cells touched, 4 clean (25 %).'
    """
    arrays = {name: np.asarray(m, dtype=bool) for name, m in _some("map", maps).items()}
    for name, m in arrays.items():
        if name not in clean:
            raise PPPError(unknown("layer", name, clean) + ": give its clean fraction")
        if m.ndim != 2 or abs(clean[name] - (~m).mean()) > 1e-6:
            raise PPPError(
                f"clean fraction of {name!r} is {clean[name]:.6g}; expected {(~m).mean():.6g} from "
                f"its map of shape {m.shape}: True is a touched cell"
            )
    columns = len(arrays) if len(arrays) <= 5 else 4
    rows = -(-len(arrays) // columns)
    side = min(2.6, WIDTH / columns)
    fig = _figure(columns * side, rows * (side + 0.65) + 0.4)
    axes = fig.subplots(rows, columns, squeeze=False)
    words = []
    for ax, (name, m) in zip(axes.flat, arrays.items()):
        height, width = m.shape
        ax.imshow(m, cmap=ListedColormap([CLEAN, TOUCHED]), vmin=0, vmax=1)
        if max(m.shape) <= 32:
            lines = dict(color="white", linewidth=min(1.5, 20 / max(m.shape)))
            ax.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, **lines)
            ax.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, **lines)
        count = int((~m).sum())
        ax.set_title(f"{name}: {height} x {width}\n{count} clean ({_percent(clean[name])})")
        words.append(
            f"{name}: {m.size - count} of {height} x {width} cells touched, {count} clean "
            f"({_percent(clean[name])})"
        )
    _bare(axes.flat, len(arrays))
    keys = [Patch(color=TOUCHED, label="padding can touch it"), Patch(color=CLEAN, label="clean")]
    fig.legend(handles=keys, loc="outside lower center", ncols=2)
    return _described(fig, "Cells that padding can touch", words)


@_styled
def curves(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str | None = None,
    *,
    low: str | None = None,
    high: str | None = None,
    logx: bool = False,
    logy: bool = False,
    xlabel: str | None = None,
    ylabel: str | None = None,
    floor: str | None = None,
) -> Figure:
    """Draw one line for each value of `hue`, with its interval as a band.

    Parameters
    ----------
    frame : DataFrame
        One row for each point.
    x, y : str
        Columns of the coordinates.
    hue : str, optional
        Column that tells the lines apart (colour and marker).
    low, high : str, optional
        Columns of the interval's ends.
    logx, logy : bool
        Logarithmic axes; an x of 0 has its place at the left.
    xlabel, ylabel : str, optional
        Axis labels with units; the column names without them.
    floor : str, optional
        Column of the noise floor, drawn dashed in the line's colour.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If the frame is empty or lacks a column.

    Examples
    --------
    >>> frame = pd.DataFrame({"n": [8, 64], "snr": [0.5, 0.21], "padding": "zeros"})
    >>> curves(frame, "n", "snr", "padding", logx=True).ppp_alt
    '1 line of snr against n (logarithmic). zeros: 0.5 at 8, 0.21 at 64.'
    """
    _columns(frame, x, y, hue, low, high, floor)
    groups = [("", frame)] if hue is None else list(frame.groupby(hue, sort=False, observed=True))
    fig = _figure(WIDTH * 0.86, 4.2)
    ax = fig.subplots()
    words = []
    shade = 0.18 if len(groups) < 5 else 0.08
    for i, (name, rows) in enumerate(groups):
        rows = rows.sort_values(x, kind="stable")
        colour = _look(i)["color"]
        ax.plot(rows[x], rows[y], **_look(i), label=str(name))
        if low is not None and high is not None:
            ax.fill_between(rows[x], rows[low], rows[high], color=colour, alpha=shade, linewidth=0)
        if floor is not None:
            ax.plot(rows[x], rows[floor], color=colour, linestyle="--", linewidth=1.2)
        ends = [_point(row, x, y, low, high) for _, row in rows.iloc[[0, -1]].iterrows()]
        line = f"{name}: " * bool(str(name)) + ", ".join(dict.fromkeys(ends))
        if floor is not None:
            line += f" (noise floor {_n(rows[floor].iloc[-1])})"
        words.append(line)
    ax.set(xlabel=xlabel or x, ylabel=ylabel or y)
    _scales(ax, frame[x], logx, logy, most=12)
    handles, labels = ax.get_legend_handles_labels() if hue is not None else ([], [])
    if floor is not None:
        handles.append(_FLOOR_KEY)
        labels.append(_FLOOR_KEY.get_label())
    if handles:
        fig.legend(handles, labels, title=hue, loc="outside right upper", alignment="left")
    return _described(fig, _against(len(groups), xlabel or x, ylabel or y, logx), words)


@_styled
def bands(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str,
    *,
    unit: str,
    col: str | None = None,
    logx: bool = False,
    logy: bool = False,
    xlabel: str | None = None,
    ylabel: str | None = None,
    floor: str | None = None,
    marks: Mapping[str, float] | None = None,
    overlay: pd.DataFrame | None = None,
    overlay_label: str = "live",
) -> Figure:
    """Draw one line for each value of `hue`: the mean over units, with its 95 % interval.

    The interval is Student's t over units. The curve of each unit lies thin and pale behind it.

    Parameters
    ----------
    frame : DataFrame
        One row for each point of each unit; rows without a value are left out.
    x, y : str
        Columns of the coordinates.
    hue : str
        Column that tells the lines apart (colour and marker).
    unit : str
        Column of what was repeated independently, such as the seed.
    col : str, optional
        Column whose values get a panel each, three in a row.
    logx, logy : bool
        Logarithmic axes; an x of 0 has its place at the left. With `logy` mean and interval are
        computed from the logarithms: a geometric mean, and a band that stays positive.
    xlabel, ylabel : str, optional
        Axis labels with units; the column names without them.
    floor : str, optional
        Column of the noise floor; its arithmetic mean is drawn dashed in the line's colour.
    marks : mapping of label to x, optional
        Where to draw a labelled vertical line, in every panel.
    overlay : DataFrame, optional
        Other runs, in the same columns: dotted with large open markers, the mean if there are
        several units.
    overlay_label : str
        What the legend calls these, in brackets after the value of `hue`.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If a frame is empty or lacks a column, holds a point of one unit twice, or values at or
        below 0 for a logarithmic y axis.

    Examples
    --------
    >>> frame = pd.DataFrame({"step": [0, 0, 4, 4], "seed": [0, 1, 0, 1], "padding": "zeros"})
    >>> frame["snr"] = [0.25, 0.75, 1.0, 1.0]
    >>> bands(frame, "step", "snr", "padding", unit="seed", logx=True).ppp_alt
    '1 line of snr against step (logarithmic), mean over 2 values of seed with 95 % interval. \
zeros: 0.5 [-2.68, 3.68] at 0, 1 [1, 1] at 4.'
    """
    keys = [key for key in (hue, col, unit, x) if key is not None]
    parts = {None: _once(frame, y, keys, logy)}
    _columns(frame, floor)
    if overlay is not None:
        parts[overlay_label] = _once(overlay, y, keys, logy)
    drawn = pd.concat(parts.values())
    names = list(drawn[hue].unique())
    panels = [None] if col is None else list(drawn[col].unique())
    fig, axes = _panels(len(panels), 3, 2.5, xlabel or x, ylabel or y)
    lines, handles = {}, {}
    for ax, panel in zip(axes, panels):
        ax.set_title("" if panel is None else str(panel))
        _scales(ax, drawn[x], logx, logy, most=6)  # before a mark fixes the limits
        for (kind, part), (i, name) in product(parts.items(), enumerate(names)):
            rows = part[part[hue] == name]
            rows = rows if panel is None else rows[rows[col] == panel]
            if rows.empty:
                continue
            table = lines[panel, kind, name] = _averages(rows[x], rows[y], logy)
            look = _look(i) | {"label": _who(name, kind), "markersize": 4.5}
            if kind is not None:
                look |= {"linestyle": ":", "markersize": 9, "markerfacecolor": "none"}
                look |= {"markeredgewidth": 1.6, "zorder": 3}
            (handles[kind, name],) = ax.plot(table["x"], table["y"], **look)
            if kind is not None:
                continue
            colour = look["color"]
            ax.fill_between(
                table["x"], table["low"], table["high"], color=colour, alpha=0.15, linewidth=0
            )
            for _, one in rows.sort_values(x, kind="stable").groupby(unit, observed=True):
                ax.plot(one[x], one[y], color=colour, linewidth=0.7, alpha=0.3, zorder=1.5)
            if floor is not None:
                mean = _averages(rows[x], rows[floor], False)
                ax.plot(mean["x"], mean["y"], color=colour, linestyle="--", linewidth=1)
        for text, at in (marks or {}).items():
            ax.axvline(at, color="#4D4D4D", linewidth=1, linestyle="-.", zorder=1)
            ax.text(
                at, 0.98, text, transform=ax.get_xaxis_transform(), fontsize=9, rotation=90,
                ha="right", va="top",
            )  # fmt: skip
    order = sorted(handles, key=lambda key: key[0] is not None)  # the overlay's last
    keys = [handles[key] for key in order]
    keys.append(Line2D([], [], color="#4D4D4D", linewidth=0.7, alpha=0.6, label=f"each {unit}"))
    _legend(fig, axes, len(panels), keys + [_FLOOR_KEY] * (floor is not None), hue)
    count = sum(kind is None for _, kind, _ in lines)
    head = _against(count, xlabel or x, ylabel or y, logx)
    head += f" in {len(panels)} panels ({col})" if len(panels) > 1 else ""
    head += (
        f", {'geometric ' * logy}mean over {_span(lines, None)} values of {unit} with 95 % interval"
    )
    if overlay is not None:
        head += f", and {len(lines) - count} ({overlay_label}) over {_span(lines, overlay_label)}"
    if floor is not None:
        head += f", noise floor {_n(frame[floor].min())} to {_n(frame[floor].max())} dashed"
    if marks:
        head += ", marks at " + ", ".join(f"{text} ({_n(at)})" for text, at in marks.items())
    return _described(fig, head, _summary(lines))


@_styled
def trials(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str | None = None,
    *,
    unit: str,
    col: str | None = None,
    joined: bool = False,
    references: pd.DataFrame | None = None,
    references_label: str = "published",
    xlabel: str | None = None,
    ylabel: str | None = None,
    ylim: tuple[float, float] | None = None,
    linear_to: float | None = None,
) -> Figure:
    """Draw repeated trials over categories: each one pale, their mean with its 95 % interval.

    The interval is Student's t over units; a single trial has none.

    Parameters
    ----------
    frame : DataFrame
        One row for each trial; rows without a value are left out.
    x, y : str
        Columns of the category and of the value; categories keep the order of their appearance.
    hue : str, optional
        Column whose values are drawn side by side in each category (colour and marker).
    unit : str
        Column of what was repeated independently, such as the seed.
    col : str, optional
        Column whose values get a panel each, up to four in a row.
    joined : bool
        Join the means of one hue by a line: an interaction plot.
    references : DataFrame, optional
        Values to compare with, one for each combination of `x`, `hue` and `col`, in the same
        columns; its columns low and high, if any, are the ends of an interval. Drawn as open
        diamonds beside the trials.
    references_label : str
        What the legend calls these.
    xlabel, ylabel : str, optional
        Axis labels with units; the column names without them.
    ylim : tuple of float, optional
        Ends of the y axis.
    linear_to : float, optional
        Beyond this value, on both sides of 0, the y axis is logarithmic.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If a frame is empty or lacks a column, or holds a trial or a reference twice.

    Examples
    --------
    >>> frame = pd.DataFrame({"variant": ["V", "V", "S-zero"], "seed": [0, 1, 0]})
    >>> trials(frame.assign(acc=[60.0, 61.0, 70.0]), "variant", "acc", unit="seed").ppp_alt
    'acc by variant, each seed and the mean with 95 % interval. 60.5 [54.1, 66.9] (n 2) at V, \
70 (n 1) at S-zero.'
    """
    keys = [key for key in (col, hue, x) if key is not None]
    parts = [_once(frame, y, [*keys, unit], False)]
    if references is not None:
        parts.append(_once(references, y, keys, False))
    every = pd.concat(parts, ignore_index=True)
    cells = every.reindex(columns=["low", "high"]).assign(y=every[y])
    names: dict[str, list[object]] = {}
    for part, key in {"panel": col, "hue": hue, "x": x}.items():
        cells[part], found = (
            (0, [None]) if key is None else pd.factorize(every[key], use_na_sentinel=False)
        )
        names[part] = [f"{name:g}" if isinstance(name, float) else name for name in found]
        if part == "panel" and col is not None:  # True says nothing as a title
            names[part] = [
                name if isinstance(was, str) else f"{col} {name}"
                for was, name in zip(found, names[part])
            ]
    slots = len(names["hue"])
    step = (0.6 if joined else 0.8) / slots
    cells["at"] = cells["x"] + (cells["hue"] - (slots - 1) / 2) * step
    runs, known = cells[: len(parts[0])].copy(), cells[len(parts[0]) :]
    by = ["panel", "hue", "x"]
    runs["at"] -= 0.15 * step * (references is not None)
    means = mean_interval(runs, [*by, "at"], "y")
    cell = runs.groupby(by)["y"]
    others = cell.transform("size") - 1
    spread = (cell.cumcount() - others / 2) / others.clip(lower=1)
    runs["at"] += (0.7 if references is None else 0.55) * step * spread
    per_row = min(4, max(1, 40 // (slots * len(names["x"]))))
    fig, axes = _panels(len(names["panel"]), per_row, 2.8, xlabel or x, ylabel or y)
    for (panel, i), rows in runs.groupby(["panel", "hue"]):
        dots = {"linestyle": "", "markersize": 4, "markeredgewidth": 0, "alpha": 0.45}
        axes[panel].plot(rows["at"], rows["y"], **_look(i), **dots)
        mean = means[(means["panel"] == panel) & (means["hue"] == i)].set_index("x")
        mean = mean.reindex(range(len(names["x"])))  # a line breaks at a missing category
        axes[panel].errorbar(
            mean["at"], mean["y"], mean["high"] - mean["y"], **_look(i), markersize=6, zorder=3,
            linestyle="-" if joined else "", capsize=5, capthick=2,
        )  # fmt: skip
    diamond = {"color": "black", "marker": "d", "linestyle": "", "markerfacecolor": "white"}
    for panel, rows in known.assign(at=known["at"] + 0.32 * step).groupby("panel"):
        ends = rows.dropna(subset=["low", "high"])
        axes[panel].vlines(ends["at"], ends["low"], ends["high"], color="black", linewidth=1.2)
        axes[panel].plot(rows["at"], rows["y"], **diamond, markersize=7, zorder=4)
    repeated = bool(means["n"].max() > 1)
    handles = [Line2D([], [], linestyle="-" if joined else "", **_look(i), label=str(name))
               for i, name in enumerate(names["hue"]) if hue is not None]  # fmt: skip
    grey = {"color": "#4D4D4D", "marker": "o", "linestyle": ""}
    if repeated:
        handles.append(Line2D([], [], **grey, markersize=4, alpha=0.6, label=f"each {unit}"))
        look = {"fmt": "o", "color": "#4D4D4D", "capsize": 5, "label": "mean, 95 % interval"}
        handles.append(axes[0].errorbar([], [], [], **look))
    if len(known):
        handles.append(Line2D([], [], **diamond, label=references_label))
    _legend(fig, axes, len(names["panel"]), handles, hue)
    if linear_to is not None:  # the panels share their axes
        axes[0].set_yscale("symlog", linthresh=linear_to)
        ticks = SymmetricalLogLocator(base=10, linthresh=linear_to, subs=(1, 2, 5))
        axes[0].yaxis.set_major_locator(ticks)
        axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].set(xlim=(-0.5, len(names["x"]) - 0.5), ylim=ylim)
    for ax, name in zip(axes, names["panel"]):
        ax.set_title("" if name is None else name)
        ax.grid(axis="x", visible=False)
        if slots > 1 and not joined:  # a line between categories keeps the hues of one together
            ax.set_xticks(np.arange(0.5, len(names["x"]) - 1), minor=True)
            ax.tick_params(axis="x", which="minor", length=0)
            ax.grid(axis="x", which="minor")
    _categories(fig, axes[: len(names["panel"])], list(map(str, names["x"])))
    head = f"{ylabel or y} by {xlabel or x}" + (f" and {hue}" if hue is not None else "")
    head += f" in {len(names['panel'])} panels ({col})" if len(names["panel"]) > 1 else ""
    head += f", each {unit}" + " and the mean with 95 % interval" * repeated
    head += ", means joined by lines" * joined
    return _described(fig, head, _cells(means, known, names, references_label))


@_styled
def paired(
    frame: pd.DataFrame,
    x: str,
    y: str,
    unit: str,
    group: str | None = None,
    *,
    logy: bool = False,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Figure:
    """Draw for every unit a line from its first value to its second, and the mean thick.

    Parameters
    ----------
    frame : DataFrame
        Two rows for each unit of each group.
    x : str
        Column of two categories, drawn from left to right in the order of their appearance.
    y, unit : str
        Columns of the value and of what was measured twice, such as the seed.
    group : str, optional
        Column whose values get a panel each, six in a row.
    logy : bool
        Logarithmic axis; the means are then geometric.
    xlabel, ylabel : str, optional
        Axis labels with units; the column names without them.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If the frame is empty, lacks a column, has other than two categories, does not hold
        exactly one value of a unit in each, or holds values at or below 0 for a logarithmic axis.

    Examples
    --------
    >>> frame = pd.DataFrame({"state": ["initial", "trained"] * 2, "seed": [0, 0, 1, 1]})
    >>> paired(frame.assign(snr=[0.1, 0.5, 0.3, 0.2]), "state", "snr", "seed").ppp_alt
    'snr from initial to trained, a line for each seed and their mean. Mean 0.2 to 0.35, 1 of 2 \
rise.'
    """
    keys = [key for key in (group, unit) if key is not None]
    frame = _once(frame, y, [*keys, x], logy)
    states = list(frame[x].unique())
    if len(states) != 2:
        raise PPPError(f"{x} has {len(states)} values, {states}; expected 2: select two of them")
    single = frame.drop_duplicates(keys, keep=False)
    if len(single):
        raise PPPError(f"{_where(single.iloc[0], [*keys, x])} has no partner; expected a pair")
    groups = [None] if group is None else list(frame[group].unique())
    fig, axes = _panels(len(groups), 6, 3.2, xlabel or "", ylabel or y)
    words = []
    for i, (ax, name) in enumerate(zip(axes, groups)):
        rows = frame if name is None else frame[frame[group] == name]
        wide = rows.pivot(index=unit, columns=x, values=y)[states]
        mean = np.exp(np.log(wide).mean()) if logy else wide.mean()
        colour = _look(i)["color"]
        ax.plot([0, 1], wide.T, color=colour, linewidth=1, alpha=0.5, marker="o", markersize=3.5)
        ax.plot([0, 1], mean, **_look(i), linewidth=3.5, markersize=8, markeredgecolor="white")
        ax.set_xlim(-0.35, 1.35)
        ax.set_xticks([0, 1], [str(state) for state in states], size=9)
        ax.grid(axis="x", visible=False)
        ax.set_title("" if name is None else str(name))
        _scales(ax, None, False, logy)
        rise = int((wide[states[1]] > wide[states[0]]).sum())
        text = f"{'geometric ' * logy}mean {_n(mean[states[0]])} to {_n(mean[states[1]])}, "
        text += f"{rise} of {len(wide)} rise"
        words.append(f"{name}: {text}" if name is not None else text.capitalize())
    for ax in axes[len(groups) :]:
        ax.set_axis_off()
    if len(groups) == 1:
        fig.set_figwidth(WIDTH / 2)
    head = f"{ylabel or y} from {states[0]} to {states[1]}, a line for each {unit} and their mean"
    return _described(fig, head + (f", by {group}" if group is not None else ""), words)


@_styled
def forest(
    frame: pd.DataFrame,
    label: str,
    value: str,
    low: str,
    high: str,
    *,
    group: str | None = None,
    floor: str | None = None,
    xlabel: str | None = None,
    logx: bool = False,
    reference: float | None = None,
) -> Figure:
    """Draw a point with its interval for each row, labels on the left.

    Parameters
    ----------
    frame : DataFrame
        One row for each point, drawn from the top down in order.
    label : str
        Column of the row labels.
    value, low, high : str
        Columns of the point and the ends of its interval.
    group : str, optional
        Column that tells points of one label apart (colour and marker).
    floor : str, optional
        Column of the noise floor, drawn as a grey tick.
    xlabel : str, optional
        What the value is, with its unit; the column name without it.
    logx : bool
        Logarithmic axis; an end at or below 0 then runs to the edge.
    reference : float, optional
        Value marked by a vertical line, such as 0 or 1.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If the frame is empty or lacks a column.

    Examples
    --------
    >>> frame = pd.DataFrame({"net": ["VGG-16"], "v": [0.3], "lo": [0.25], "hi": [0.36]})
    >>> forest(frame, "net", "v", "lo", "hi", xlabel="SNR-PPP").ppp_alt
    'SNR-PPP with intervals, 1 row. VGG-16: 0.3 [0.25, 0.36].'
    """
    _columns(frame, label, value, low, high, group, floor)
    labels = list(dict.fromkeys(frame[label].astype(str)))
    groups = [None] if group is None else list(dict.fromkeys(frame[group]))
    fig = _figure(WIDTH * 0.86, 1.0 + len(labels) * max(0.34, 0.2 * len(groups)))
    ax = fig.subplots()
    words = []
    if reference is not None:
        ax.axvline(reference, color="#4D4D4D", linewidth=1.2, zorder=1)
    step = 0.7 / len(groups)
    for i, name in enumerate(groups):
        rows = frame if name is None else frame[frame[group] == name]
        at = np.array([labels.index(text) for text in rows[label].astype(str)], dtype=float)
        at += (i - (len(groups) - 1) / 2) * step
        colour, marker = _look(i).values()
        ends = rows[low].clip(lower=np.finfo(float).tiny) if logx else rows[low]
        ax.hlines(at, ends, rows[high], color=colour, linewidth=2)
        ax.plot(rows[value], at, marker, color=colour, label=str(name))
        if floor is not None:
            ax.plot(rows[floor], at, "|", color="#6B6B6B", markersize=11, markeredgewidth=2)
    if logx:
        ax.set_xscale("log")
        positive = frame[[value, low, high] + ([floor] if floor else [])].to_numpy(dtype=float)
        positive = positive[positive > 0]
        if positive.size:
            ax.set_xlim(positive.min() / 1.3, positive.max() * 1.3)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel or value)
    handles, names = ax.get_legend_handles_labels() if group is not None else ([], [])
    if floor is not None:
        handles.append(
            Line2D(
                [], [], color="#6B6B6B", marker="|", linestyle="", markersize=11, markeredgewidth=2
            )
        )
        names.append("noise floor")
    if handles:
        fig.legend(handles, names, title=group, loc="outside right upper", alignment="left")
    for _, row in frame.iterrows():
        who = str(row[label]) + (f", {row[group]}" if group is not None else "")
        text = f"{who}: {_n(row[value])} [{_n(row[low])}, {_n(row[high])}]"
        words.append(text + (f", noise floor {_n(row[floor])}" if floor is not None else ""))
    head = f"{xlabel or value} with intervals, {len(frame)} row{'s' if len(frame) > 1 else ''}"
    if reference is not None:
        head += f", and a line at {_n(reference)}"
    return _described(fig, head, words)


@_styled
def heatmap(
    frame: pd.DataFrame,
    *,
    label: str,
    fmt: str = ".2f",
    center: float | None = None,
    annotations: pd.DataFrame | None = None,
    logscale: bool = False,
    mark_diagonal: bool = False,
) -> Figure:
    """Draw a table as coloured cells with their numbers in them.

    Parameters
    ----------
    frame : DataFrame
        Numbers; index and columns give the labels, and their names the axis labels.
    label : str
        What the number is, with its unit.
    fmt : str
        Format of the numbers.
    center : float, optional
        Value of the neutral colour of a blue-to-red scale; without it the scale is viridis.
    annotations : DataFrame, optional
        Texts for the cells in place of the numbers, under the same index and columns.
    logscale : bool
        Logarithmic colours.
    mark_diagonal : bool
        Frame the cells whose row and column have the same label.

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If the frame is empty, the annotations' labels are others, no label is in both index and
        columns though the diagonal is to be marked, or a logarithmic scale is asked for
        together with `center` or with numbers at or below 0.

    Examples
    --------
    >>> frame = pd.DataFrame({"layer1": [0.5, 0.25]}, index=["zeros", "reflect"])
    >>> heatmap(frame, label="SNR-PPP").ppp_alt
    'SNR-PPP, 2 rows by 1 column, 0.25 to 0.5. zeros: layer1 0.5; reflect: layer1 0.25.'
    """
    _columns(frame)
    values = frame.to_numpy(dtype=float)
    rows, columns = values.shape
    if logscale and (center is not None or _extreme(values, np.min) <= 0):
        raise PPPError(
            f"a logarithmic scale with center {center} and lowest value "
            f"{_n(_extreme(values, np.min))}; expected no center and values above 0: use NaN for "
            "cells without a value, or leave logscale off"
        )
    if annotations is not None and not (
        annotations.index.equals(frame.index) and annotations.columns.equals(frame.columns)
    ):
        raise PPPError(
            f"annotations are labelled {list(annotations.index)} by {list(annotations.columns)}; "
            f"expected {list(frame.index)} by {list(frame.columns)}"
        )
    diagonal = [
        (i, list(frame.columns).index(name))
        for i, name in enumerate(frame.index)
        if mark_diagonal and name in frame.columns
    ]
    if mark_diagonal and not diagonal:
        raise PPPError(
            f"no diagonal to mark: rows {list(frame.index)} and columns {list(frame.columns)} "
            "share no label; leave mark_diagonal off"
        )
    fig = _figure(min(WIDTH, 2.4 + 0.85 * columns), 1.3 + 0.42 * rows)
    ax = fig.subplots()
    sns.heatmap(
        frame.astype(float),
        ax=ax,
        annot=True if annotations is None else annotations.astype(str).to_numpy(),
        fmt=fmt if annotations is None else "",
        cmap="viridis" if center is None else "RdBu_r",
        center=center,
        norm=LogNorm() if logscale else None,
        linewidths=1,
        cbar_kws={"label": label},
        annot_kws={"size": 10},
    )
    if annotations is not None:  # seaborn leaves cells without a number empty
        for i, j in np.argwhere(np.isnan(values)):
            ax.text(j + 0.5, i + 0.5, annotations.iat[i, j], ha="center", va="center", size=10)
    for i, j in diagonal:
        frame_of = {"fill": False, "edgecolor": "black", "linewidth": 1.8, "clip_on": False}
        ax.add_patch(Rectangle((j + 0.02, i + 0.02), 0.96, 0.96, **frame_of))
    if logscale:
        _plain_ticks(ax.collections[0].colorbar.ax.yaxis)
    ax.set_facecolor(UNKNOWN)
    ax.tick_params(axis="y", rotation=0, length=0)
    ax.grid(False)
    longest = max(len(str(c)) for c in frame.columns)
    ax.tick_params(axis="x", rotation=30 if longest > 9 else 0, length=0)
    texts = np.full(values.shape, "", dtype=object)
    if annotations is not None:
        texts = " (" + annotations.astype(str).to_numpy(dtype=object) + ")"
    words = [
        f"{name}: " + ", ".join(f"{c} {_n(v)}{t}" for c, v, t in zip(frame.columns, row, text))
        for name, row, text in zip(frame.index, values, texts)
    ]
    head = (
        f"{label}, {rows} row{'s' if rows > 1 else ''} by {columns} "
        f"column{'s' if columns > 1 else ''}, {_n(_extreme(values, np.min))} to "
        f"{_n(_extreme(values, np.max))}"
    )
    if logscale:
        head += ", logarithmic colours"
    if diagonal:
        head += f", a frame around the {len(diagonal)} cells of equal row and column"
    return _described(fig, head, words)


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
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(gallery({"a": np.eye(4)}), f"{folder}/deep/a.png").name
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

    The PNG has two pixels for each CSS pixel, on a white card; alt text, caption and footer are
    escaped.

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
    >>> page = as_html(gallery({"a": np.eye(4)}), "Padding < picture", {"seed": 0})
    >>> "<figcaption>Padding &lt; picture</figcaption>" in page, "<b>seed</b>: 0" in page
    (True, True)
    """
    data = _png(fig)
    css_width = int.from_bytes(data[16:20], "big") // 2  # from the PNG's header
    picture = (
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" '
        f'alt="{escape(_alt(fig))}" width="{css_width}" '
        'style="max-width:100%;height:auto;background:#fff;border-radius:4px">'
    )
    parts = [
        '<figure class="ppp-figure" style="margin:1.5em 0">',
        f'<div class="ppp-still">{picture}</div>{live}' if live else picture,
        f"<figcaption>{escape(caption)}</figcaption>",
    ]
    if footer:
        items = "".join(f"<li><b>{escape(str(k))}</b>: {_value(v)}</li>" for k, v in footer.items())
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


@_styled
def _png(fig: Figure) -> bytes:
    fig = pickle.loads(pickle.dumps(fig))  # drawing fixes the layout; the figure stays as it is
    if isinstance(fig.get_layout_engine(), ConstrainedLayoutEngine):
        # Constrained layout moves things a little at every draw; one layout, then equal bytes.
        fig.set_dpi(matplotlib.rcParams["savefig.dpi"])
        fig.draw_without_rendering()
        fig.set_layout_engine("none")
    buffer = io.BytesIO()
    # Software would hold matplotlib's version, and make equal figures differ.
    fig.savefig(buffer, format="png", metadata={"Software": None, "Description": _alt(fig)})
    return buffer.getvalue()


def _alt(fig: Figure) -> str:
    alt = getattr(fig, "ppp_alt", "")
    if not alt:
        raise PPPError(
            "the figure has no alt text; make it with a function of studies.figures, or "
            "set fig.ppp_alt"
        )
    return alt


def _described(fig: Figure, head: str, words: Iterable[str]) -> Figure:
    fig.ppp_alt = f"{head}. {'; '.join(words)}."  # type: ignore[attr-defined]
    return fig


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _some(kind: str, items: T) -> T:
    if not len(items):  # type: ignore[arg-type]
        raise PPPError(f"no {kind} to draw; expected at least one")
    return items


def _columns(frame: pd.DataFrame, *names: str | None) -> None:
    for name in names:
        if name is not None and name not in frame.columns:
            raise PPPError(unknown("column", name, frame.columns))
    if frame.empty:
        raise PPPError("no row to draw; expected a frame with at least one row")


def _once(frame: pd.DataFrame, y: str, keys: list[str], logy: bool) -> pd.DataFrame:
    """Return the rows with a `y`, after checking that their keys tell them apart."""
    _columns(frame, y, *keys)
    frame = frame.dropna(subset=[y])
    _columns(frame)
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        raise PPPError(
            f"{_where(twice.iloc[0], keys)} has more than one {y}; expected one: select rows first"
        )
    if logy and frame[y].min() <= 0:
        raise PPPError(
            f"{y} is {_n(frame[y].min())} at its lowest; expected values above 0 on a logarithmic "
            "axis: leave those rows out, or logy off"
        )
    return frame


def _where(row: pd.Series, keys: Iterable[str]) -> str:
    return ", ".join(f"{key} {row[key]}" for key in keys)


def _averages(x: pd.Series, y: pd.Series, log: bool) -> pd.DataFrame:
    """Return x, y, low, high and n: mean and interval of `y` at each `x`."""
    table = mean_interval(pd.DataFrame({"x": x, "y": np.log(y) if log else y}), ["x"], "y")
    if log:
        table[["y", "low", "high"]] = np.exp(table[["y", "low", "high"]])
    return table.sort_values("x", ignore_index=True)


def _summary(lines: Mapping[tuple[object, str | None, object], pd.DataFrame]) -> list[str]:
    """Describe the lines of :func:`bands`, or only their range where they are many."""
    if len(lines) <= 12:
        words = []
        for (panel, kind, name), table in lines.items():
            ends = [
                _point(row, "x", "y", "low", "high") for _, row in table.iloc[[0, -1]].iterrows()
            ]
            who = str(name) if panel is None else f"{panel}, {name}"
            words.append(f"{_who(who, kind)}: {', '.join(dict.fromkeys(ends))}")
        return words
    ranges: dict[str, list[str]] = {}
    for panel, kind in dict.fromkeys(key[:2] for key in lines):
        of = {key[2]: table for key, table in lines.items() if key[:2] == (panel, kind)}
        for end in (0, -1):
            at = {name: table["y"].iloc[end] for name, table in of.items()}
            low, high = min(at, key=at.__getitem__), max(at, key=at.__getitem__)
            steps = "/".join(dict.fromkeys(_n(table["x"].iloc[end]) for table in of.values()))
            ranges.setdefault(_who(panel, kind), []).append(
                f"at {steps} {_n(at[low])} ({low}) to {_n(at[high])} ({high})"
            )
    return [f"{who}: {', '.join(dict.fromkeys(texts))}" for who, texts in ranges.items()]


def _cells(
    means: pd.DataFrame, known: pd.DataFrame, names: Mapping[str, list[object]], label: str
) -> list[str]:
    """Describe the cells of :func:`trials`, or only the range of each hue where they are many."""
    parts = []
    for kind, table in (("", means), (f"{label} ", known)):
        told = table.reindex(columns=["panel", "hue", "x", "y", "n"]).assign(kind=kind)
        told["text"] = [kind + _estimate(row, "y", "low", "high") for _, row in table.iterrows()]
        told["text"] += [f" (n {n:.0f})" if n > 0 else "" for n in told["n"]]
        parts.append(told)
    told = pd.concat(parts)
    texts = told.groupby(["panel", "hue", "x"])["text"].agg(" and ".join).reset_index()
    words = []
    if len(texts) <= 24:
        for (panel, i), rows in texts.groupby(["panel", "hue"]):
            who = [str(n) for n in (names["panel"][panel], names["hue"][i]) if n is not None]
            cells = ", ".join(
                f"{text} at {names['x'][j]}" for j, text in zip(rows["x"], rows["text"])
            )
            words.append(f"{', '.join(who)}: " * bool(who) + cells)
        return words
    for i, rows in told.groupby("hue"):
        ranges = []
        for kind, part in rows.groupby("kind"):
            ends = []
            for _, row in part.sort_values("y").iloc[[0, -1]].iterrows():
                where = (names["panel"][row["panel"]], names["x"][row["x"]])
                ends.append(f"{_n(row['y'])} ({', '.join(str(n) for n in where if n is not None)})")
            ranges.append(kind + " to ".join(dict.fromkeys(ends)))
            if not kind:
                n = dict.fromkeys([_n(part["n"].min()), _n(part["n"].max())])
                ranges.append(f"n {' to '.join(n)}")
        words.append(f"{_who(names['hue'][i], None)}: {', '.join(ranges)}")
    return words


def _categories(fig: Figure, axes: Iterable[Axes], labels: list[str]) -> None:
    """Label the categories 0, 1, ...; wrap the labels or, where that is not enough, tilt them."""
    fig.draw_without_rendering()  # only then is the width known that the legend leaves
    room = fig.axes[0].get_window_extent().width / fig.dpi * 72 / len(labels)  # pt
    look: dict[str, object] = {}
    texts = [textwrap.wrap(text, max(1, int(room / 6)), break_long_words=False) for text in labels]
    lines = [TextPath((0, 0), line, size=10) for text in texts for line in text]
    if max((line.get_extents().width for line in lines), default=0) > room - 5:
        texts = [textwrap.wrap(text, 30 if room > 48 else 60) for text in labels]
        look = {"rotation": 35 if room > 24 else 90, "ha": "right", "rotation_mode": "anchor"}
        look["va"] = "top" if room > 24 else "center"
    for ax in axes:
        ax.set_xticks(range(len(labels)), ["\n".join(text) for text in texts], **look)


def _who(name: object, kind: str | None) -> str:
    name = "all" if name is None else name
    return f"{name} ({kind})" if kind is not None else str(name)


def _span(lines: Mapping[tuple[object, str | None, object], pd.DataFrame], kind: str | None) -> str:
    """Return the number of units behind the points of one kind of line."""
    n = pd.concat([table["n"] for key, table in lines.items() if key[1] == kind])
    return " to ".join(dict.fromkeys([_n(n.min()), _n(n.max())]))


def _panels(
    n: int, per_row: int, height: float, xlabel: str, ylabel: str
) -> tuple[Figure, list[Axes]]:
    """Return axes with shared scales; those beyond `n` are left to the caller."""
    columns = min(n, per_row)
    rows = -(-n // columns)
    fig = _figure(WIDTH * (0.86 if n == 1 else 1), 4.2 if n == 1 else rows * height + 0.8)
    axes = list(fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for ax in axes[max(0, n - columns) : n]:
        ax.tick_params(labelbottom=True)  # also above an empty place
        ax.set_xlabel(xlabel)
    fig.supylabel(ylabel, size="medium")
    return fig, axes


def _legend(fig: Figure, axes: list[Axes], used: int, handles: list[Line2D], title: str) -> None:
    """Put the legend in the empty place of a grid of panels, else beside or below them."""
    for ax in axes[used:]:
        ax.set_axis_off()
    where = {"handles": handles, "title": title, "alignment": "left"}
    if used < len(axes):
        axes[used].legend(loc="upper left", borderaxespad=0, **where)
    elif used == 1:
        fig.legend(loc="outside right upper", **where)
    else:
        fig.legend(loc="outside lower center", ncols=min(len(handles), 5), **where)


def _scales(ax: Axes, x: pd.Series | None, logx: bool, logy: bool, most: int = 0) -> None:
    """Set the scales, with plain numbers at the ticks: every `x` if they are few."""
    if logy:
        ax.set_yscale("log")
        _plain_ticks(ax.yaxis)
    if not logx:
        if x is not None and pd.api.types.is_integer_dtype(x):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    ticks = np.unique(x.to_numpy(dtype=float))
    if ticks[0] > 0:
        ax.set_xscale("log")
    else:
        # Linear up to the first positive x, over the width that a factor of 4 has beyond it.
        last = max(ticks[-1], 1)
        first = ticks[ticks > 0].min(initial=last)
        ax.set_xscale("symlog", base=4, linthresh=first, linscale=0.75)
        powers = np.arange(np.ceil(np.log(first) / np.log(4)), np.log(last) / np.log(4) + 1e-9)
        ticks = np.array([0, *4.0**powers])
        ticks = ticks if len(ticks) <= most + 1 else ticks[:: -(-len(ticks) // most)]
    if len(ticks) <= most + 1:
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)


def _plain_ticks(axis: Axis) -> None:
    """Label a logarithmic axis with 0.01, 0.02, 0.05 rather than powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _against(lines: int, x: str, y: str, logx: bool) -> str:
    count = f"{lines} line{'s' if lines > 1 else ''}"
    return f"{count} of {y} against {x}{' (logarithmic)' if logx else ''}"


def _look(i: int) -> dict[str, str]:
    return {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]}


def border_and_inside(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of a map's outermost ring, and of the rest: NaN if there is none.

    Examples
    --------
    >>> border_and_inside(np.array([[1.0, 1, 1], [1, 0, 1], [1, 1, 1]]))
    (1.0, 0.0)
    """
    border = np.ones(values.shape, dtype=bool)
    border[1:-1, 1:-1] = False
    return _mean(values[border]), _mean(values[~border])


def _bare(axes: Iterable[Axes], used: int) -> None:
    """Take ticks, frame and grid off picture axes, and hide those beyond `used`."""
    for i, ax in enumerate(axes):
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
        if i >= used:
            ax.set_axis_off()


def _norm(values: np.ndarray, zero: bool = False) -> Normalize:
    low, high = _extreme(values, np.min), _extreme(values, np.max)
    if np.isnan(low):
        return Normalize(0, 1)
    low = min(low, 0.0) if zero else low
    return Normalize(low, high if high > low else low + 1)


def _two_surfaces(ax: Axes, optimal: np.ndarray, algorithmic: np.ndarray, norm: Normalize) -> None:
    """Draw both surfaces as one collection, so that each cell hides what lies behind it."""
    height, width = algorithmic.shape
    y, x = np.mgrid[0:height, 0:width]
    quads, faces = [], []
    for z in (optimal, algorithmic):
        corners = np.stack([x, y, z], axis=-1).astype(float)
        quad = np.stack(
            [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2
        ).reshape(-1, 4, 3)
        quads.append(quad)
        shade = SCALE(norm(quad[..., 2].mean(axis=1)))
        faces.append(np.full_like(shade, 154 / 255) if z is optimal else shade)
    faces[0][:, 3] = 1
    cells = Poly3DCollection(np.concatenate(quads), facecolors=np.concatenate(faces))
    cells.set_edgecolor((1, 1, 1, 0.25))
    cells.set_linewidth(0.3)
    cells.set_clip_on(False)  # the tilted box may reach over its axes' edge
    ax.add_collection3d(cells)
    ax.set(xlim=(0, width - 1), ylim=(height - 1, 0))
    ax.set(xticklabels=[], yticklabels=[], zticklabels=[])
    ax.set_box_aspect((1, 1, 0.6), zoom=1.12)
    ax.view_init(elev=25, azim=-60)


def _point(row: pd.Series, x: str, y: str, low: str | None, high: str | None) -> str:
    return f"{_estimate(row, y, low, high)} at {_n(row[x])}"


def _estimate(row: pd.Series, y: str, low: str | None, high: str | None) -> str:
    interval = ""
    if low is not None and high is not None and not np.isnan(row[low] + row[high]):
        interval = f" [{_n(row[low])}, {_n(row[high])}]"
    return f"{_n(row[y])}{interval}"


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else np.nan


def _extreme(values: np.ndarray, which: Callable[[np.ndarray], float]) -> float:
    return float(which(values[~np.isnan(values)])) if not np.isnan(values).all() else np.nan


def _n(value: float) -> str:
    if np.isnan(value):
        return "undefined"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"
