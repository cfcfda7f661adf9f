"""Figures of arrays: pictures, and maps over the cells of a layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from ppp.errors import PPPError, unknown
from studies.figures import style
from studies.figures.words import counted, described, number, spread


@style.styled
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
    arrays = _checked("image", images, colour=True)
    maps = [a.ravel() for a in arrays.values() if a.ndim == 2]
    common = style.colour_scale(np.concatenate(maps)) if maps and shared_scale else None
    bar = colorbar_label is not None and bool(maps)
    columns = min(columns, len(arrays))
    side = min(2.6, style.WIDTH / columns)
    tallest = min(1.5, max(a.shape[0] / a.shape[1] for a in arrays.values()))
    below = 0.9 if bar and not shared_scale else 0.35
    beside = 0.8 if bar and shared_scale else 0
    fig, axes = _places(len(arrays), columns, (side, side * tallest + below), (beside, 0))
    words = []
    for ax, (title, a) in zip(axes.flat, arrays.items()):
        ax.set_title(title)
        low, mean, high = spread(a)
        missing = np.isnan(a).reshape(*a.shape[:2], -1).any(axis=2)
        if a.ndim == 3:
            ax.imshow(np.where(missing[..., None], 191 / 255, a).clip(0, 1))
            ax.spines[:].set(visible=True, color="#808080", linewidth=0.8)  # white on white
            what = f"mean brightness {number(mean)}"
        else:
            image = ax.imshow(a, cmap=style.SCALE, norm=common or style.colour_scale(a))
            if bar and not shared_scale:
                fig.colorbar(image, ax=ax, label=colorbar_label, orientation="horizontal")
            what = f"{colorbar_label or 'value'} {number(low)} to {number(high)}"
            what += f", mean {number(mean)}"
        if missing.any():
            what += f", {missing.mean():.0%} of the cells NaN (grey)"
        if outline is not None:
            _frame(ax, *outline)
        words.append(f"{title}: {a.shape[0]} x {a.shape[1]}, {what}")
    if bar and shared_scale:
        scale = ScalarMappable(common, style.SCALE)
        fig.colorbar(scale, ax=axes, label=colorbar_label, shrink=0.9, aspect=25)
    head = counted(len(arrays), "picture")
    if outline is not None:
        head += f", each with a frame around {outline[2]} x {outline[3]} pixels"
    return described(fig, head, words)


@style.styled
def surfaces(
    grey: Sequence[np.ndarray],
    coloured: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    label: str,
    names: tuple[str, str] = ("noise floor", "pattern"),
) -> Figure:
    """Show estimates as surfaces over the feature map, one column for each sample size [paper].

    The layout of the paper's Figure 1: above, a tilted view with one surface in grey and the other
    one coloured by magnitude; below, the latter from the top. Weak is dark blue, strong is yellow.
    Each column has its own scale, because magnitudes shrink as n grows.

    Parameters
    ----------
    grey, coloured : sequence of arrays
        Shape (H, W), at least 2 x 2, magnitudes; one of each for every title.
    titles : sequence of str
        One for each column, such as ``"n = 64"``.
    label : str
        What the magnitude is, with its unit.
    names : (str, str)
        What the grey and the coloured surface are.

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
    'n = 4: pattern 0.5 (border 0.5, interior 0.5, highest 1), noise floor 0'
    """
    n = len(titles)
    if not n == len(grey) == len(coloured) > 0:
        raise PPPError(
            f"{len(grey)} grey and {len(coloured)} coloured surfaces, {n} titles; "
            "expected as many of each, and at least one"
        )
    pairs = [[np.asarray(a, dtype=float) for a in pair] for pair in zip(grey, coloured)]
    for title, (o, a) in zip(titles, pairs):
        check_pair(title, o, a)
    # Laid out by hand, in inches: constrained layout leaves 3-D axes far apart.
    side, head, foot = min(3.0, style.WIDTH / n), 0.5, 0.85
    width, height = n * side + 0.15, head + 1.65 * side + foot
    right, middle, inset = 1 - 0.15 / width, (foot + 0.8 * side) / height, 0.1 * side / width
    fig = Figure(figsize=(width, height), layout="none")
    upper = fig.add_gridspec(1, n, left=0, right=right, bottom=middle, top=1 - head / height)
    upper.update(wspace=0)
    lower = fig.add_gridspec(1, n, bottom=foot / height, top=middle)
    lower.update(wspace=0.2, left=inset, right=right - inset)
    words = []
    for i, (title, (o, a)) in enumerate(zip(titles, pairs)):
        norm = style.colour_scale(a, zero=True)
        (_, mean, high), (_, grey_mean, grey_high) = spread(a), spread(o)
        ax = fig.add_subplot(upper[i], projection="3d", computed_zorder=False)
        _two_surfaces(ax, o, a, norm)
        top = max(grey_high, high)
        ax.set_zlim(norm.vmin, top if top > norm.vmin else norm.vmax)
        ax.set_title(title, y=1.0)
        flat = fig.add_subplot(lower[i])
        _bare([flat], 1)
        place = flat.inset_axes((0.05, -0.13, 0.9, 0.06))
        image = flat.imshow(a, cmap=style.SCALE, norm=norm)
        _small_ticks(fig.colorbar(image, cax=place, orientation="horizontal"))
        border, inside = border_and_inside(a)
        words.append(
            f"{title}: {names[1]} {number(mean)} (border {number(border)}, "
            f"interior {'none' if np.isnan(inside) else number(inside)}, highest {number(high)}), "
            f"{names[0]} {number(grey_mean)} (highest {number(grey_high)})"
        )
    fig.text(right / 2, 0.12 / height, label, ha="center", va="bottom")
    grey_key = Patch(color="#9A9A9A", label=names[0])
    fig.legend(handles=[grey_key], loc="upper left", borderaxespad=0.2, handlelength=1)
    title = f"Surfaces over the feature map of the {label}, {counted(n, 'column')}, "
    return described(fig, title + "tilted above and from the top below. Means", words)


@style.styled
def growth_maps(maps: Mapping[tuple[object, object], np.ndarray], *, label: str) -> Figure:
    """Show a table of small maps, such as one row for each padding and one column for each step.

    Parameters
    ----------
    maps : mapping of (row, column) to array
        Shape (H, W), magnitudes. Rows and columns come in the order of their appearance; a
        combination that is missing stays blank, NaN is drawn grey. Each row has a colour scale.
    label : str
        What the magnitude is, with its unit.

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
    arrays = {key: a.astype(float) for key, a in _checked("map", maps).items()}
    rows, columns = (list(dict.fromkeys(key[i] for key in arrays)) for i in (0, 1))
    beside = 0.8 + 0.09 * max(len(str(row)) for row in rows)  # names and colour bar, in inches
    side = min(1.3, (style.WIDTH - beside) / len(columns))
    places = len(rows) * len(columns)
    fig, axes = _places(places, len(columns), (side, side), (beside, 0.75))
    for ax, column in zip(axes[0], columns):
        ax.set_title(str(column), size=10)
    words = []
    for line, row in zip(axes, rows):
        present = {column: arrays[row, column] for column in columns if (row, column) in arrays}
        norm = style.colour_scale(np.concatenate([a.ravel() for a in present.values()]), zero=True)
        for column, a in present.items():
            line[columns.index(column)].imshow(a, cmap=style.SCALE, norm=norm)
        line[0].set_ylabel(str(row), rotation=0, ha="right", va="center")
        bar = fig.colorbar(ScalarMappable(norm, style.SCALE), ax=list(line), aspect=8, pad=0.01)
        _small_ticks(bar)
        last = [*present.values()][-1]
        means = [f"{number(spread(a)[1])} at {column}" for column, a in present.items()]
        text = f"{row}: mean {', '.join(dict.fromkeys([means[0], means[-1]]))}"
        border, inside = border_and_inside(last)
        if border > inside:
            text += f", strongest at the border ({number(border)}, {number(inside)} inside)"
        elif inside > border:
            text += f", strongest at the centre ({number(inside)}, {number(border)} at the border)"
        words.append(text)
    fig.supxlabel(f"colour: {label}, a scale for each row", size="medium")
    head = f"{label}, {counted(len(rows), 'row')} of maps from {columns[0]} to {columns[-1]}"
    return described(fig, f"{head}, a colour scale for each row", words)


@style.styled
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
    arrays = {name: a.astype(bool) for name, a in _checked("map", maps).items()}
    for name, touched in arrays.items():
        if name not in clean:
            raise PPPError(unknown("layer", name, clean) + ": give its clean fraction")
        if abs(clean[name] - (~touched).mean()) > 1e-6:
            raise PPPError(
                f"clean fraction of {name!r} is {clean[name]:.6g}; expected "
                f"{(~touched).mean():.6g} from its map: True is a touched cell"
            )
    columns = len(arrays) if len(arrays) <= 5 else 4
    side = min(2.6, style.WIDTH / columns)
    fig, axes = _places(len(arrays), columns, (side, side + 0.65), (0, 0.4))
    words = []
    for ax, (name, touched) in zip(axes.flat, arrays.items()):
        height, width = touched.shape
        ax.imshow(touched, cmap=ListedColormap([style.CLEAN, style.TOUCHED]), vmin=0, vmax=1)
        if max(height, width) <= 32:
            grid = {"color": "white", "linewidth": min(1.5, 20 / max(height, width))}
            ax.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, **grid)
            ax.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, **grid)
        count = int((~touched).sum())
        share = f"{count} clean ({100 * clean[name]:.3g} %)"
        ax.set_title(f"{name}: {height} x {width}\n{share}")
        cells = f"{touched.size - count} of {height} x {width} cells touched"
        words.append(f"{name}: {cells}, {share}")
    keys = [
        Patch(color=style.TOUCHED, label="padding can touch it"),
        Patch(color=style.CLEAN, label="clean"),
    ]
    fig.legend(handles=keys, loc="outside lower center", ncols=2)
    return described(fig, "Cells that padding can touch", words)


def border_and_inside(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of a map's outermost ring, and of the rest: NaN if there is none.

    Examples
    --------
    >>> border_and_inside(np.array([[1.0, 1, 1], [1, 0, 1], [1, 1, 1]]))
    (1.0, 0.0)
    """
    border = np.ones(values.shape, dtype=bool)
    border[1:-1, 1:-1] = False
    return spread(values[border])[1], spread(values[~border])[1]


def check_pair(who: str, first: np.ndarray, second: np.ndarray) -> None:
    """Refuse surfaces of other shapes than (H, W), the same for both and at least 2 x 2."""
    shape = np.shape(first)
    if shape != np.shape(second) or len(shape) != 2 or min(shape) < 2:
        raise PPPError(
            f"surfaces of {who} have shapes {shape} and {np.shape(second)}; expected the same "
            "(H, W) of at least 2 x 2: average over the channels first"
        )


def _checked(
    kind: str, items: Mapping[object, np.ndarray], colour: bool = False
) -> dict[object, np.ndarray]:
    """Return maps (H, W), and with `colour` also pictures (H, W, 3), as arrays."""
    arrays = {name: np.asarray(values) for name, values in items.items()}
    if not arrays:
        raise PPPError(f"no {kind} to draw; expected at least one")
    for name, a in arrays.items():
        picture = colour and a.ndim == 3 and a.shape[2] == 3
        if a.size == 0 or not (a.ndim == 2 or picture):
            raise PPPError(
                f"{kind} {name!r} has shape {a.shape}; expected (H, W){' or (H, W, 3)' * colour}: "
                "average over the channels, or move them last"
            )
    return arrays


def _places(
    n: int, columns: int, size: tuple[float, float], around: tuple[float, float]
) -> tuple[Figure, np.ndarray]:
    """Return a figure of `n` places for pictures, each of a size, with room around them, inches."""
    rows = -(-n // columns)
    fig = style.new_figure(columns * size[0] + around[0], rows * size[1] + around[1])
    axes = fig.subplots(rows, columns, squeeze=False)
    _bare(axes.flat, n)
    return fig, axes


def _bare(axes: Iterable[Axes], used: int) -> None:
    """Take ticks, frame and grid off picture axes, and hide those beyond `used`."""
    for i, ax in enumerate(axes):
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        ax.spines[:].set_visible(False)
        if i >= used:
            ax.set_axis_off()


def _frame(ax: Axes, top: int, left: int, height: int, width: int) -> None:
    """Frame a part of a picture in black and white dashes, seen on any ground."""
    for line in ({"edgecolor": "black"}, {"edgecolor": "white", "linestyle": (0, (3, 3))}):
        corner = (left - 0.5, top - 0.5)
        ax.add_patch(Rectangle(corner, width, height, fill=False, linewidth=1.6, **line))


def _small_ticks(bar) -> None:
    bar.ax.tick_params(labelsize=9)
    bar.ax.locator_params(nbins=3)


def _two_surfaces(ax: Axes, grey: np.ndarray, coloured: np.ndarray, norm: Normalize) -> None:
    """Draw both surfaces as one collection, so that each cell hides what lies behind it."""
    height, width = coloured.shape
    y, x = np.mgrid[0:height, 0:width]
    quads, faces = [], []
    for z in (grey, coloured):
        corners = np.stack([x, y, z], axis=-1).astype(float)
        around = corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]
        quads.append(np.stack(around, axis=2).reshape(-1, 4, 3))
        shade = style.SCALE(norm(quads[-1][..., 2].mean(axis=1)))
        faces.append(np.full_like(shade, 154 / 255) if z is grey else shade)
    faces[0][:, 3] = 1
    cells = Poly3DCollection(np.concatenate(quads), facecolors=np.concatenate(faces))
    cells.set(edgecolor=(1, 1, 1, 0.25), linewidth=0.3)
    cells.set_clip_on(False)  # the tilted box may reach over its axes' edge
    ax.add_collection3d(cells)
    ax.set(xlim=(0, width - 1), ylim=(height - 1, 0))
    ax.set(xticklabels=[], yticklabels=[], zticklabels=[])
    ax.set_box_aspect((1, 1, 0.6), zoom=1.12)
    ax.view_init(elev=25, azim=-60)
