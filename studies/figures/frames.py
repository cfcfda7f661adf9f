"""Figures of data frames: lines, points with intervals, and tables of colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from ppp.errors import PPPError, unknown
from studies.figures import style, words as say
from studies.figures.words import counted, described, number, spread
from studies.stats import mean_interval

_GREY = "#4D4D4D"
_FLOOR = Line2D([], [], color=_GREY, linestyle="--", linewidth=1.2, marker="", label="noise floor")


@style.styled
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
    _require(frame, x, y, hue, low, high, floor)
    groups = [("", frame)] if hue is None else list(frame.groupby(hue, sort=False, observed=True))
    xlabel, ylabel = xlabel or x, ylabel or y
    fig = style.new_figure(style.WIDTH * 0.86, 4.2)
    ax = fig.subplots()
    shade = 0.18 if len(groups) < 5 else 0.08
    words, handles = [], []
    for i, (name, rows) in enumerate(groups):
        rows = rows.sort_values(x, kind="stable")
        colour = style.look(i)["color"]
        handles += ax.plot(rows[x], rows[y], **style.look(i), label=str(name))
        if low is not None and high is not None:
            ax.fill_between(rows[x], rows[low], rows[high], color=colour, alpha=shade, linewidth=0)
        text = f"{name}: " * bool(str(name)) + say.ends(rows, x, y, low, high)
        if floor is not None:
            ax.plot(rows[x], rows[floor], color=colour, linestyle="--", linewidth=1.2)
            text += f" (noise floor {number(rows[floor].iloc[-1])})"
        words.append(text)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    _scales(ax, frame[x], logx, logy, most=12)
    handles = handles * (hue is not None) + [_FLOOR] * (floor is not None)
    if handles:
        _legend(fig, [ax], 1, handles, hue)
    return described(fig, say.against(len(groups), xlabel, ylabel, logx), words)


@style.styled
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
    limits: tuple[float, float] | None = None,
    marks: Mapping[str, float] | None = None,
    live: pd.DataFrame | None = None,
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
    limits : tuple of float, optional
        Beyond which no value can lie, such as (0, 100) for percentages: intervals are cut there.
    marks : mapping of label to x, optional
        Where to draw a labelled vertical line, in every panel.
    live : DataFrame, optional
        Other runs, in the same columns: dotted with large open markers, the mean if there are
        several units.

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
    kinds: dict[str | None, pd.DataFrame] = {None: _unique(frame, y, keys, logy)}
    _require(frame, floor)
    if live is not None:
        kinds["live"] = _unique(live, y, keys, logy)
    whole = pd.concat(kinds.values())
    names = _levels(whole, hue)
    panels = _levels(whole, col)
    xlabel, ylabel = xlabel or x, ylabel or y
    fig, axes = _panels(panels, 3, 2.5, xlabel, ylabel)
    lines: say.Lines = {}
    handles = {}
    for ax, panel in zip(axes, panels):
        _scales(ax, whole[x], logx, logy, most=6)  # before a mark fixes the limits
        for (kind, rows), (i, name) in product(kinds.items(), enumerate(names)):
            rows = _part(rows[rows[hue] == name], col, panel)
            if rows.empty:
                continue
            table = lines[panel, kind, name] = _averages(rows[x], rows[y], logy)
            if limits is not None:
                table[["low", "high"]] = table[["low", "high"]].clip(*limits)
            drawn = style.look(i) | {"label": say.who(name, kind), "markersize": 4.5}
            if kind is not None:
                drawn |= {"linestyle": ":", "markersize": 9, "markerfacecolor": "none"}
                drawn |= {"markeredgewidth": 1.6, "zorder": 3}
            (handles[kind, name],) = ax.plot(table["x"], table["y"], **drawn)
            if kind is not None:
                continue
            band = {"color": drawn["color"], "alpha": 0.15, "linewidth": 0}
            ax.fill_between(table["x"], table["low"], table["high"], **band)
            pale = {"color": drawn["color"], "linewidth": 0.7, "alpha": 0.3, "zorder": 1.5}
            for _, one in rows.sort_values(x, kind="stable").groupby(unit, observed=True):
                ax.plot(one[x], one[y], **pale)
            if floor is not None:
                mean = _averages(rows[x], rows[floor], False)
                ax.plot(mean["x"], mean["y"], color=drawn["color"], linestyle="--", linewidth=1)
        for text, at in (marks or {}).items():
            ax.axvline(at, color=_GREY, linewidth=1, linestyle="-.", zorder=1)
            place = {"transform": ax.get_xaxis_transform(), "ha": "right", "va": "top"}
            ax.text(at, 0.98, text, fontsize=9, rotation=90, **place)
    order = sorted(handles, key=lambda key: key[0] is not None)  # the live ones last
    keys = [handles[key] for key in order]
    keys.append(Line2D([], [], color=_GREY, linewidth=0.7, alpha=0.6, label=f"each {unit}"))
    _legend(fig, axes, len(panels), keys + [_FLOOR] * (floor is not None), hue)
    count = sum(kind is None for _, kind, _ in lines)
    head = say.against(count, xlabel, ylabel, logx) + say.in_panels(panels, col)
    mean = "geometric mean" if logy else "mean"
    head += f", {mean} over {say.repeats(lines, None)} values of {unit} with 95 % interval"
    if limits is not None:
        head += " cut at " + " and ".join(map(number, limits))
    if live is not None:
        head += f", and {len(lines) - count} (live) over {say.repeats(lines, 'live')}"
    if floor is not None:
        head += f", noise floor {number(frame[floor].min())} to {number(frame[floor].max())} dashed"
    if marks:
        head += ", marks at " + ", ".join(f"{text} ({number(at)})" for text, at in marks.items())
    return described(fig, head, say.of_lines(lines))


@style.styled
def strips(
    frame: pd.DataFrame,
    x: str,
    y: str,
    hue: str | None = None,
    *,
    unit: str,
    col: str | None = None,
    joined: bool = False,
    references: Mapping[str, pd.DataFrame] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    ylim: tuple[float, float] | None = None,
    linear_to: float | None = None,
) -> Figure:
    """Draw single values over categories: each one pale, their mean with its 95 % interval.

    The interval is Student's t over units; a single value has none.

    Parameters
    ----------
    frame : DataFrame
        One row for each value; rows without one are left out.
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
    references : mapping of label to DataFrame, optional
        One table of values to compare with, one for each combination of `x`, `hue` and `col`, in
        the same columns; its columns low and high, if any, are the ends of an interval. Drawn as
        open diamonds beside the strips.
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
        If a frame is empty or lacks a column, or holds a value or a reference twice.

    Examples
    --------
    >>> frame = pd.DataFrame({"variant": ["V", "V", "S-zero"], "seed": [0, 1, 0]})
    >>> strips(frame.assign(acc=[60.0, 61.0, 70.0]), "variant", "acc", unit="seed").ppp_alt
    'acc by variant, each seed and the mean with 95 % interval. 60.5 [54.1, 66.9] (n 2) at V, \
70 (n 1) at S-zero.'
    """
    keys = [key for key in (col, hue, x) if key is not None]
    values = _unique(frame, y, [*keys, unit])
    ((label, known),) = (references or {"": None}).items()
    parts = [values] if known is None else [values, _unique(known, y, keys)]
    cells, names = _cells(pd.concat(parts, ignore_index=True), x, y, hue, col)
    slots = len(names["hue"])
    step = (0.6 if joined else 0.8) / slots
    cells["at"] = cells["x"] + (cells["hue"] - (slots - 1) / 2) * step
    singles, known = cells[: len(values)].copy(), cells[len(values) :]
    singles["at"] -= 0.15 * step * (references is not None)
    by = ["panel", "hue", "x"]
    means = mean_interval(singles, [*by, "at"], "y")
    cell = singles.groupby(by)["y"]
    others = cell.transform("size") - 1
    singles["at"] += (
        (0.7 if references is None else 0.55)
        * step
        * ((cell.cumcount() - others / 2) / others.clip(lower=1))
    )
    per_row = min(4, max(1, 40 // (slots * len(names["x"]))))
    fig, axes = _panels(names["panel"], per_row, 2.8, xlabel or x, ylabel or y)
    line = "-" if joined else ""
    for (panel, i), rows in singles.groupby(["panel", "hue"]):
        dots = {"linestyle": "", "markersize": 4, "markeredgewidth": 0, "alpha": 0.45}
        axes[panel].plot(rows["at"], rows["y"], **style.look(i), **dots)
        mean = means[(means["panel"] == panel) & (means["hue"] == i)].set_index("x")
        mean = mean.reindex(range(len(names["x"])))  # a line breaks at a missing category
        bar = {"markersize": 6, "zorder": 3, "capsize": 5, "capthick": 2, "linestyle": line}
        axes[panel].errorbar(
            mean["at"], mean["y"], mean["high"] - mean["y"], **style.look(i), **bar
        )
    diamond = {"color": "black", "marker": "d", "linestyle": "", "markerfacecolor": "white"}
    for panel, rows in known.assign(at=known["at"] + 0.32 * step).groupby("panel"):
        ends = rows.dropna(subset=["low", "high"])
        axes[panel].vlines(ends["at"], ends["low"], ends["high"], color="black", linewidth=1.2)
        axes[panel].plot(rows["at"], rows["y"], **diamond, markersize=7, zorder=4)
    handles = []
    if hue is not None:
        for i, name in enumerate(names["hue"]):
            handles.append(Line2D([], [], linestyle=line, **style.look(i), label=str(name)))
    repeated = bool(means["n"].max() > 1)
    if repeated:
        dot = {"color": _GREY, "marker": "o", "linestyle": ""}
        handles.append(Line2D([], [], **dot, markersize=4, alpha=0.6, label=f"each {unit}"))
        dot |= {"capsize": 5, "label": "mean, 95 % interval"}
        handles.append(axes[0].errorbar([], [], [], **dot))
    if len(known):
        handles.append(Line2D([], [], **diamond, label=label))
    _legend(fig, axes, len(names["panel"]), handles, hue)
    if linear_to is not None:  # the panels share their axes
        axes[0].set_yscale("symlog", linthresh=linear_to)
        ticks = ticker.SymmetricalLogLocator(base=10, linthresh=linear_to, subs=(1, 2, 5))
        axes[0].yaxis.set_major_locator(ticks)
        axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].set(xlim=(-0.5, len(names["x"]) - 0.5), ylim=ylim)
    for ax, _ in zip(axes, names["panel"]):
        ax.grid(axis="x", visible=False)
        if slots > 1 and not joined:  # a line between categories keeps the hues of one together
            ax.set_xticks(np.arange(0.5, len(names["x"]) - 1), minor=True)
            ax.tick_params(axis="x", which="minor", length=0)
            ax.grid(axis="x", which="minor")
    _label_categories(fig, axes[: len(names["panel"])], list(map(str, names["x"])))
    head = f"{ylabel or y} by {xlabel or x}" + (f" and {hue}" if hue is not None else "")
    head += say.in_panels(names["panel"], col) + f", each {unit}"
    head += " and the mean with 95 % interval" * repeated + ", means joined by lines" * joined
    return described(fig, head, say.of_cells(means, known, names, label))


@style.styled
def paired(
    frame: pd.DataFrame,
    x: str,
    y: str,
    unit: str,
    group: str | None = None,
    *,
    logy: bool = False,
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
    ylabel : str, optional
        What the value is, with its unit; the column name without it.

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
    frame = _unique(frame, y, [*keys, x], logy)
    states = list(frame[x].unique())
    if len(states) != 2:
        raise PPPError(f"{x} has {len(states)} values, {states}; expected 2: select two of them")
    single = frame.drop_duplicates(keys, keep=False)
    if len(single):
        raise PPPError(f"{_named(single, [*keys, x])} has no partner; expected a pair")
    groups = _levels(frame, group)
    fig, axes = _panels(groups, 6, 3.2, "", ylabel or y)
    words = []
    for i, (ax, name) in enumerate(zip(axes, groups)):
        rows = _part(frame, group, name)
        wide = rows.pivot(index=unit, columns=x, values=y)[states]
        mean = np.exp(np.log(wide).mean()) if logy else wide.mean()
        thin = {"linewidth": 1, "alpha": 0.5, "marker": "o", "markersize": 3.5}
        ax.plot([0, 1], wide.T, color=style.look(i)["color"], **thin)
        ax.plot([0, 1], mean, **style.look(i), linewidth=3.5, markersize=8, markeredgecolor="white")
        ax.set_xlim(-0.35, 1.35)
        ax.set_xticks([0, 1], [str(state) for state in states], size=9)
        ax.grid(axis="x", visible=False)
        _scales(ax, None, False, logy)
        rise = int((wide[states[1]] > wide[states[0]]).sum())
        text = f"{'geometric ' * logy}mean {number(mean[states[0]])} to {number(mean[states[1]])}, "
        text += f"{rise} of {len(wide)} rise"
        words.append(f"{name}: {text}" if name is not None else text.capitalize())
    for ax in axes[len(groups) :]:
        ax.set_axis_off()
    if len(groups) == 1:
        fig.set_figwidth(style.WIDTH / 2)
    head = f"{ylabel or y} from {states[0]} to {states[1]}, a line for each {unit} and their mean"
    return described(fig, head + (f", by {group}" if group is not None else ""), words)


@style.styled
def forest(
    frame: pd.DataFrame,
    label: str,
    value: str,
    low: str,
    high: str,
    *,
    group: str | None = None,
    panel: str | None = None,
    floor: str | None = None,
    xlabel: str | None = None,
    logx: bool = False,
    reference: float | str | None = None,
) -> Figure:
    """Draw a point with its interval for each row, labels on the left.

    Parameters
    ----------
    frame : DataFrame
        One row for each point, drawn from the top down in order.
    label : str
        Column of the row labels.
    value, low, high : str
        Columns of the point and the ends of its interval. Without a value, a row stays empty.
    group : str, optional
        Column that tells points apart (colour and marker).
    panel : str, optional
        Column of the panels, one above the other; each has its own axis, named after it.
    floor : str, optional
        Column of the noise floor, drawn as a grey tick.
    xlabel : str, optional
        What the value is, with its unit; the column name without it.
    logx : bool
        Logarithmic axis; an end at or below 0 then runs to the edge.
    reference : float or str, optional
        Value marked by a vertical line, such as 0 or 1; or the column of each panel's.

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
    by_column = reference if isinstance(reference, str) else None
    _require(frame, label, value, low, high, group, panel, floor, by_column)
    groups, panels = _levels(frame, group), _levels(frame, panel)
    kinds = groups  # of a categorical column, a level looks the same in every figure
    if group is not None and isinstance(frame[group].dtype, pd.CategoricalDtype):
        kinds = list(frame[group].cat.categories)
        groups = [kind for kind in kinds if kind in groups]
    parts = [_part(frame, panel, name) for name in panels]
    names = [list(dict.fromkeys(part[label].astype(str))) for part in parts]
    beside = len(groups) if any(part.duplicated(label).any() for part in parts) else 1
    heights = [0.9 + len(labels) * max(0.34, 0.2 * beside) for labels in names]
    fig = style.new_figure(style.WIDTH * 0.86, sum(heights) + 0.1)
    axes = fig.subplots(len(parts), squeeze=False, height_ratios=heights)[:, 0]
    tick = {"color": "#6B6B6B", "marker": "|", "markersize": 11, "markeredgewidth": 2}
    tick["linestyle"] = ""
    handles: dict[object, Line2D] = {}
    for ax, name, part, labels in zip(axes, panels, parts, names):
        line = part[by_column].iloc[0] if by_column else reference
        if line is not None:
            ax.axvline(line, color=_GREY, linewidth=1.2, zorder=1)
        for i, one in enumerate(groups):
            rows, look = _part(part, group, one), style.look(kinds.index(one))
            at = np.array([labels.index(text) for text in rows[label].astype(str)], dtype=float)
            at += (i - (len(groups) - 1) / 2) * 0.7 / len(groups) * (beside > 1)
            ends = rows[low].clip(lower=np.finfo(float).tiny) if logx else rows[low]
            ax.hlines(at, ends, rows[high], color=look["color"], linewidth=2)
            (handle,) = ax.plot(rows[value], at, **look, linestyle="", label=str(one))
            handles.setdefault(one, handle)
            if floor is not None:
                ax.plot(rows[floor], at, **tick)
        if logx:
            ax.set_xscale("log")
            positive = part[[value, low, high] + ([floor] if floor else [])].to_numpy(dtype=float)
            positive = positive[positive > 0]
            if positive.size:
                ax.set_xlim(positive.min() / 1.3, positive.max() * 1.3)
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(str(name) if panel else xlabel or value)
    shown = [*handles.values()] if group is not None else []
    if floor is not None:
        shown.append(Line2D([], [], **tick, label="noise floor"))
    if shown:
        _legend(fig, list(axes), len(axes), shown, group)
    words = []
    for _, row in frame.iterrows():
        who = ", ".join(str(row[name]) for name in (panel, label, group) if name is not None)
        text = f"{who}: {number(row[value])} [{number(row[low])}, {number(row[high])}]"
        words.append(text + (f", noise floor {number(row[floor])}" if floor is not None else ""))
    head = f"{xlabel or value} with intervals, {counted(len(frame), 'row')}"
    if by_column:
        head += ", and a line in each panel"
    elif reference is not None:
        head += f", and a line at {number(reference)}"
    return described(fig, head, words)


@style.styled
def predictions(
    frame: pd.DataFrame,
    x: str,
    y: str,
    predicted: str,
    *,
    col: str,
    live: pd.DataFrame | None = None,
    ylabel: str | None = None,
) -> Figure:
    """Draw what was measured as dots beside the line of what a model predicts, on log axes.

    Parameters
    ----------
    frame : DataFrame
        The shipped points, a row each.
    x, y, predicted : str
        Columns of numbers above 0: the coordinate, what was measured, what the model says.
    col : str
        Column that deals the rows to panels; each panel has its own x axis.
    live : DataFrame, optional
        Points measured now, drawn as large open diamonds.
    ylabel : str, optional
        In place of the name `y`.

    Examples
    --------
    >>> frame = pd.DataFrame({"n": [8, 64], "s": [1.0, 8.0], "model": [1.0, 10.0], "of": "n"})
    >>> predictions(frame, "n", "s", "model", col="of").ppp_alt
    's by n, measured and predicted, in 1 panel. n, measured: 1 (predicted 1) at 8, \
8 (predicted 10) at 64.'
    """
    frames = {"measured": frame} | ({} if live is None else {"measured now": live})
    for one in frames.values():
        _require(one, x, y, predicted, col)
    panels = _levels(frame, col)
    fig, axes = _panels(panels, 2, 2.5, "", ylabel or y, sharex=False)
    diamond = {"color": "black", "marker": "d", "markersize": 9, "markerfacecolor": "none"}
    words, handles = [], {}
    for (ax, panel), (kind, rows) in product(zip(axes, panels), frames.items()):
        rows = rows[rows[col] == panel].sort_values(x)
        look = diamond if kind != "measured" else style.look(0)
        (handles[kind],) = ax.plot(rows[x], rows[y], **look, linestyle="", label=kind, zorder=3)
        if kind == "measured":
            line = {"color": style.PALETTE[1], "label": "predicted"}
            (handles["predicted"],) = ax.plot(rows[x], rows[predicted], **line)
            _scales(ax, rows[x], True, True, most=8)
        values = rows[[y, predicted, x]].itertuples(index=False)
        text = ", ".join("{} (predicted {}) at {}".format(*map(number, row)) for row in values)
        words += [f"{panel}, {kind}: {text}"] * bool(text)
    _legend(fig, axes, len(panels), [*handles.values()], None)
    head = f"{ylabel or y} by {x}, measured and predicted, in {counted(len(panels), 'panel')}"
    return described(fig, head, words)


@style.styled
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
    _require(frame)
    values = frame.to_numpy(dtype=float)
    rows, columns = values.shape
    lowest, _, highest = spread(values)
    if logscale and (center is not None or lowest <= 0):
        raise PPPError(
            f"a logarithmic scale with center {center} and lowest value {number(lowest)}; expected "
            "no center and values above 0: use NaN for cells without a value, or leave logscale off"
        )
    if annotations is not None and not (
        annotations.index.equals(frame.index) and annotations.columns.equals(frame.columns)
    ):
        raise PPPError(
            f"annotations are labelled {list(annotations.index)} by {list(annotations.columns)}; "
            f"expected {list(frame.index)} by {list(frame.columns)}"
        )
    both = [name for name in frame.index if mark_diagonal and name in frame.columns]
    if mark_diagonal and not both:
        raise PPPError(
            f"no diagonal to mark: rows {list(frame.index)} and columns {list(frame.columns)} "
            "share no label; leave mark_diagonal off"
        )
    fig = style.new_figure(min(style.WIDTH, 2.4 + 0.85 * columns), 1.3 + 0.42 * rows)
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
    texts = np.full(values.shape, "", dtype=object)
    if annotations is not None:
        texts = " (" + annotations.astype(str).to_numpy(dtype=object) + ")"
        for i, j in np.argwhere(np.isnan(values)):  # which seaborn leaves empty
            ax.text(j + 0.5, i + 0.5, annotations.iat[i, j], ha="center", va="center", size=10)
    for name in both:
        corner = frame.columns.get_loc(name) + 0.02, frame.index.get_loc(name) + 0.02
        box = {"fill": False, "edgecolor": "black", "linewidth": 1.8, "clip_on": False}
        ax.add_patch(Rectangle(corner, 0.96, 0.96, **box))
    if logscale:
        _plain_ticks(ax.collections[0].colorbar.ax.yaxis)
    ax.set_facecolor(style.UNKNOWN)
    ax.grid(False)
    longest = max(len(str(c)) for c in frame.columns)
    ax.tick_params(axis="y", rotation=0, length=0)
    ax.tick_params(axis="x", rotation=30 if longest > 9 else 0, length=0)
    words = [
        f"{name}: " + ", ".join(f"{c} {number(v)}{t}" for c, v, t in zip(frame.columns, row, text))
        for name, row, text in zip(frame.index, values, texts)
    ]
    head = f"{label}, {counted(rows, 'row')} by {counted(columns, 'column')}, "
    head += f"{number(lowest)} to {number(highest)}" + ", logarithmic colours" * logscale
    if both:
        head += f", a frame around the {len(both)} cells of equal row and column"
    return described(fig, head, words)


# -------------------------------------------------------------------------------- data


def _require(frame: pd.DataFrame, *names: str | None) -> None:
    for name in names:
        if name is not None and name not in frame.columns:
            raise PPPError(unknown("column", name, frame.columns))
    if frame.empty:
        raise PPPError("no row to draw; expected a frame with at least one row")


def _unique(frame: pd.DataFrame, y: str, keys: list[str], logy: bool = False) -> pd.DataFrame:
    """Return the rows with a `y`, after checking that their keys tell them apart."""
    _require(frame, y, *keys)
    frame = frame.dropna(subset=[y])
    _require(frame)
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        raise PPPError(f"{_named(twice, keys)} has more than one {y}; expected one: select rows")
    if logy and frame[y].min() <= 0:
        raise PPPError(
            f"{y} is {number(frame[y].min())} at its lowest; expected values above 0 on a "
            "logarithmic axis: leave those rows out, or logy off"
        )
    return frame


def _named(rows: pd.DataFrame, keys: Iterable[str]) -> str:
    """Return the keys of the first row in words."""
    return ", ".join(f"{key} {rows[key].iloc[0]}" for key in keys)


def _levels(frame: pd.DataFrame, column: str | None) -> list[object]:
    """Return the values of a column in order of appearance; without a column a single None."""
    return [None] if column is None else list(frame[column].unique())


def _part(frame: pd.DataFrame, column: str | None, value: object) -> pd.DataFrame:
    return frame if column is None else frame[frame[column] == value]


def _averages(x: pd.Series, y: pd.Series, log: bool) -> pd.DataFrame:
    """Return x, y, low, high and n: mean and interval of `y` at each `x`."""
    table = mean_interval(pd.DataFrame({"x": x, "y": np.log(y) if log else y}), ["x"], "y")
    if log:
        table[["y", "low", "high"]] = np.exp(table[["y", "low", "high"]])
    return table.sort_values("x", ignore_index=True)


def _cells(
    rows: pd.DataFrame, x: str, y: str, hue: str | None, col: str | None
) -> tuple[pd.DataFrame, dict[str, list[object]]]:
    """Return y, low, high and the numbers of panel, hue and category of rows, and their names."""
    cells = rows.reindex(columns=["low", "high"]).assign(y=rows[y])
    names: dict[str, list[object]] = {}
    for part, key in {"panel": col, "hue": hue, "x": x}.items():
        cells[part], levels = 0, [None]
        if key is not None:
            cells[part], levels = pd.factorize(rows[key], use_na_sentinel=False)
        names[part] = [f"{level:g}" if isinstance(level, float) else level for level in levels]
        if part == "panel" and col is not None:  # True says nothing as a title
            pairs = zip(levels, names[part])
            names[part] = [n if isinstance(level, str) else f"{col} {n}" for level, n in pairs]
    return cells, names


# -------------------------------------------------------------------------------- axes


def _panels(
    titles: Sequence[object],
    per_row: int,
    height: float,
    xlabel: str,
    ylabel: str,
    sharex: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Return axes with shared scales and titles; those beyond are left to the caller."""
    n = len(titles)
    columns = min(n, per_row)
    rows = -(-n // columns)
    fig = style.new_figure(
        style.WIDTH * (0.86 if n == 1 else 1), 4.2 if n == 1 else rows * height + 0.8
    )
    axes = list(fig.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=True).flat)
    for ax in axes[max(0, n - columns) : n]:
        ax.tick_params(labelbottom=True)  # also above an empty place
        ax.set_xlabel(xlabel)
    for ax, title in zip(axes, titles):
        ax.set_title("" if title is None else str(title))
    fig.supylabel(ylabel, size="medium")
    return fig, axes


def _legend(
    fig: Figure, axes: list[Axes], used: int, handles: list[Line2D], title: str | None
) -> None:
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
            ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
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
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _label_categories(fig: Figure, axes: Iterable[Axes], labels: list[str]) -> None:
    """Label the categories 0, 1, ...; wrap the labels or, where that is not enough, tilt them."""
    fig.draw_without_rendering()  # only then is the width known that the legend leaves
    room = fig.axes[0].get_window_extent().width / fig.dpi * 72 / len(labels)  # pt
    tilt: dict[str, object] = {}
    texts = [textwrap.wrap(text, max(1, int(room / 6)), break_long_words=False) for text in labels]
    lines = [TextPath((0, 0), line, size=10) for text in texts for line in text]
    if max((line.get_extents().width for line in lines), default=0) > room - 5:
        texts = [textwrap.wrap(text, 30 if room > 48 else 60) for text in labels]
        tilt = {"rotation": 35 if room > 24 else 90, "ha": "right", "rotation_mode": "anchor"}
        tilt["va"] = "top" if room > 24 else "center"
    for ax in axes:
        ax.set_xticks(range(len(labels)), ["\n".join(text) for text in texts], **tilt)
