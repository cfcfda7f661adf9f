"""The same figure for a page in dark mode: its own palette, light text, the page behind it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, QuadMesh
from matplotlib.colors import ListedColormap, to_hex, to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from studies.figures.style import PALETTE

PAGE = "#121212"
"""The colour of the page that figures are made to be read on, the book's."""
DARK = (
    *("#2385ff", "#ffb733", "#d4468d", "#a6ddff"),
    *("#21c187", "#ec7a64", "#9494cf", "#e2e1e1"),
)
"""In the place of the colours of :data:`studies.figures.PALETTE`. Apart by a CIEDE2000 distance of
10 or more in the four kinds of vision, and by a contrast of 4 or more from the page."""

_OTHER = dict(zip(map(str.lower, PALETTE), DARK))


def darken(fig: Figure) -> Figure:
    """Recolour a figure in place for a dark page, and return it.

    Colours of the palette get their dark counterparts, greys the opposite lightness; white becomes
    transparent. Maps, pictures and surfaces keep their colours, and so does text that lies on them.

    Examples
    --------
    >>> fig = Figure()
    >>> line, = fig.subplots().plot([0, 1], color=PALETTE[0])
    >>> darken(fig).axes[0].lines[0].get_color()
    '#2385ff'
    """
    on_maps = set(_on_maps(fig.axes))
    for artist in fig.findobj():
        if artist not in on_maps:
            _recolour(artist)
    for ax in fig.axes:
        for image in ax.images:
            if isinstance(image.cmap, ListedColormap) and image.cmap.N < 256:  # kinds, no values
                image.set_cmap(ListedColormap([_dark(one) for one in image.cmap.colors]))
        for axis in (getattr(ax, name, None) for name in ("xaxis", "yaxis", "zaxis")):
            if hasattr(axis, "pane"):  # of a box in three dimensions
                axis.pane.set_facecolor("none")
                axis.pane.set_edgecolor(_dark("#4D4D4D"))
    return fig


def _on_maps(axes: Iterable[Axes]) -> Iterable[Artist]:
    """Yield text and lines that are drawn on a map or a picture."""
    for ax in axes:
        if ax.images or any(isinstance(one, QuadMesh) for one in ax.collections):
            yield from (*ax.texts, *ax.lines, *ax.collections, *ax.patches)


def _recolour(artist: Artist) -> None:
    if isinstance(artist, Text):
        artist.set_color(_dark(artist.get_color()))
    elif isinstance(artist, Line2D):
        artist.set_color(_dark(artist.get_color()))
        artist.set_markerfacecolor(_dark(artist.get_markerfacecolor()))
        artist.set_markeredgecolor(_dark(artist.get_markeredgecolor()))
    elif isinstance(artist, Patch):
        face, edge = artist.get_facecolor(), artist.get_edgecolor()
        artist.set_facecolor(_dark(face))
        artist.set_edgecolor(_dark(edge))
    elif isinstance(artist, Collection) and not isinstance(artist, QuadMesh | Poly3DCollection):
        if artist.get_array() is not None:  # coloured by value
            return
        faces, edges = artist.get_facecolor(), artist.get_edgecolor()
        artist.set_facecolor(_all_dark(faces))
        artist.set_edgecolor(_all_dark(edges))


def _all_dark(colours: np.ndarray) -> np.ndarray:
    return to_rgba_array([_dark(tuple(one)) for one in colours]) if len(colours) else colours


def _dark(colour: object) -> object:
    """Return the counterpart of a colour; "none", "auto" and other colours stay as they are."""
    if isinstance(colour, str) and colour in ("none", "auto"):
        return colour
    red, green, blue, alpha = to_rgba(colour)
    if (other := _OTHER.get(to_hex((red, green, blue)))) is not None:
        return other if alpha == 1 else (*to_rgba(other)[:3], alpha)
    if max(red, green, blue) - min(red, green, blue) > 0.02 or alpha == 0:
        return colour
    if red > 0.99:
        return "none"
    light = 0.9 - 0.8 * red  # black text to nearly white, pale grid lines to dark ones
    return (light, light, light, alpha)
