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
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from ppp.errors import PPPError, unknown
from ppp.experiments import files

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
        border = np.ones(a.shape, dtype=bool)
        border[1:-1, 1:-1] = False
        inside = _n(_mean(a[~border])) if not border.all() else "none"
        words.append(
            f"{title}: algorithmic padding {_n(_mean(a))} (border {_n(_mean(a[border]))}, "
            f"interior {inside}, highest {_n(_extreme(a, np.max))}), "
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
        Logarithmic axes.
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
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        ax.plot(rows[x], rows[y], color=colour, marker=marker, label=str(name))
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
    ax.set_xscale("log" if logx else "linear")
    ax.set_yscale("log" if logy else "linear")
    ticks = np.unique(frame[x].to_numpy())
    if logx and len(ticks) <= 12:
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
    handles, labels = ax.get_legend_handles_labels() if hue is not None else ([], [])
    if floor is not None:
        handles.append(Line2D([], [], color="#4D4D4D", linestyle="--", linewidth=1.2))
        labels.append("noise floor")
    if handles:
        fig.legend(handles, labels, title=hue, loc="outside right upper", alignment="left")
    head = (
        f"{len(groups)} line{'s' if len(groups) > 1 else ''} of {ylabel or y} against "
        f"{xlabel or x}{' (logarithmic)' if logx else ''}"
    )
    return _described(fig, head, words)


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
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
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

    Returns
    -------
    Figure

    Raises
    ------
    PPPError
        If the frame is empty.

    Examples
    --------
    >>> frame = pd.DataFrame({"layer1": [0.5, 0.25]}, index=["zeros", "reflect"])
    >>> heatmap(frame, label="SNR-PPP").ppp_alt
    'SNR-PPP, 2 rows by 1 column, 0.25 to 0.5. zeros: layer1 0.5; reflect: layer1 0.25.'
    """
    _columns(frame)
    values = frame.to_numpy(dtype=float)
    rows, columns = values.shape
    fig = _figure(min(WIDTH, 2.4 + 0.85 * columns), 1.3 + 0.42 * rows)
    ax = fig.subplots()
    sns.heatmap(
        frame.astype(float),
        ax=ax,
        annot=True,
        fmt=fmt,
        cmap="viridis" if center is None else "RdBu_r",
        center=center,
        linewidths=1,
        cbar_kws={"label": label},
        annot_kws={"size": 10},
    )
    ax.set_facecolor(UNKNOWN)
    ax.tick_params(axis="y", rotation=0, length=0)
    ax.grid(False)
    longest = max(len(str(c)) for c in frame.columns)
    ax.tick_params(axis="x", rotation=30 if longest > 9 else 0, length=0)
    words = [
        f"{name}: " + ", ".join(f"{c} {_n(v)}" for c, v in zip(frame.columns, row))
        for name, row in zip(frame.index, values)
    ]
    head = (
        f"{label}, {rows} row{'s' if rows > 1 else ''} by {columns} "
        f"column{'s' if columns > 1 else ''}, {_n(_extreme(values, np.min))} to "
        f"{_n(_extreme(values, np.max))}"
    )
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
    files.write(path, _png(fig))
    return path


def as_html(fig: Figure, caption: str, footer: Mapping[str, object] | None = None) -> str:
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
    parts = [
        '<figure class="ppp-figure" style="margin:1.5em 0">',
        f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" '
        f'alt="{escape(_alt(fig))}" width="{css_width}" '
        'style="max-width:100%;height:auto;background:#fff;border-radius:4px">',
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
            "the figure has no alt text; make it with a function of ppp.experiments.figures, or "
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
    interval = f" [{_n(row[low])}, {_n(row[high])}]" if low is not None and high is not None else ""
    return f"{_n(row[y])}{interval} at {_n(row[x])}"


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
