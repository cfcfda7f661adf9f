"""Every kind of figure, from plain arrays and data frames, each with its alt text.

Each function returns a :class:`matplotlib.figure.Figure` that carries `fig.ppp_alt`: a
description computed from the numbers that were drawn, so that it can never speak of other data.
:func:`show` puts figure, alt text, caption and provenance on a page, :func:`save` writes a PNG.
Figures stay out of pyplot: no window is opened, and a notebook never shows one twice.
The look is `ppp.mplstyle`, applied inside each function whatever the caller's settings are.

Figures of arrays are in `maps`, of data frames in `frames`; `turntable` is one to play with.
"""

from ppp.errors import PPPError, first_words

try:
    import matplotlib  # noqa: F401, before any figure
except ValueError as error:
    raise PPPError(
        f"matplotlib cannot be used: {first_words(error)}; take MPLBACKEND out of the environment"
    ) from None

from studies.figures.frames import bands, curves, forest, heatmap, paired, predictions, strips
from studies.figures.maps import border_and_inside, gallery, growth_maps, influence_maps, surfaces
from studies.figures.page import as_html, save, show
from studies.figures.style import CLEAN, MARKERS, PALETTE, SCALE, TOUCHED, use_style

__all__ = [
    "CLEAN", "MARKERS", "PALETTE", "SCALE", "TOUCHED", "as_html", "bands", "border_and_inside",
    "curves", "forest", "gallery", "growth_maps", "heatmap", "influence_maps", "paired",
    "predictions", "save", "show", "strips", "surfaces", "use_style",
]  # fmt: skip
