"""Measure the position-information pattern from padding (PPP) of convolutional networks.

:mod:`ppp.padding` (schemes), :mod:`ppp.inventory` (every padding of a network),
:mod:`ppp.swapping` (swap schemes), :mod:`ppp.influence` (what padding can touch),
:mod:`ppp.truth` (true values in the place of padding), :mod:`ppp.completeness` (proof that
nothing unlisted pads), :mod:`ppp.windows` and :mod:`ppp.measurement` (one pass over
windows), :mod:`ppp.results`, :mod:`ppp.metrics`,
:mod:`ppp.statistics` (is there a pattern, how sure are we), :mod:`ppp.matched_filter`,
:mod:`ppp.attribution` (which padding makes it), :mod:`ppp.correction` (taking it away),
:mod:`ppp.monitoring` (while a network is trained),
:mod:`ppp.tiling` (inference in tiles without seams).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppp.attribution import Attribution, attribute
    from ppp.certificate import Completeness, Coverage, LayerCoverage
    from ppp.correction import corrected, corrected_in_order
    from ppp.errors import PPPError
    from ppp.extraction import extract
    from ppp.influence import coverage
    from ppp.inventory import Audit, PaddingSite, audit
    from ppp.matched_filter import Visibility, visibility
    from ppp.measurement import measure
    from ppp.metrics import mae_ppp, snr_ppp
    from ppp.monitoring import Monitor, PPPMetric, lightning_callback
    from ppp.padding import SCHEMES, Scheme, pad
    from ppp.results import LayerResult, Measurement, NullTest
    from ppp.statistics import Estimate
    from ppp.swapping import with_padding
    from ppp.tiling import Tiling, tiles
    from ppp.truth import Optimal, optimal
    from ppp.windows import Picture, Windows, cut_windows, size_needed

    __version__: str

# Where each public name is defined; it is imported when it is first used.
_MODULES = {
    "SCHEMES": "padding", "Scheme": "padding", "pad": "padding",
    "Audit": "inventory", "PaddingSite": "inventory", "audit": "inventory",
    "with_padding": "swapping", "Tiling": "tiling", "tiles": "tiling",
    "Completeness": "certificate", "Coverage": "certificate", "LayerCoverage": "certificate",
    "coverage": "influence", "Optimal": "truth", "optimal": "truth", "extract": "extraction",
    "Picture": "windows", "Windows": "windows", "cut_windows": "windows", "size_needed": "windows",
    "measure": "measurement",
    "LayerResult": "results", "Measurement": "results", "NullTest": "results",
    "Estimate": "statistics", "mae_ppp": "metrics", "snr_ppp": "metrics", "PPPError": "errors",
    "Visibility": "matched_filter", "visibility": "matched_filter",
    "Attribution": "attribution", "attribute": "attribution",
    "corrected": "correction", "corrected_in_order": "correction",
    "Monitor": "monitoring", "PPPMetric": "monitoring", "lightning_callback": "monitoring",
}  # fmt: skip
__all__ = [
    "SCHEMES", "Attribution", "Audit", "Completeness", "Coverage", "Estimate", "LayerCoverage",
    "LayerResult", "Measurement", "Monitor", "NullTest", "Optimal", "PPPError", "PPPMetric",
    "PaddingSite", "Picture", "Scheme", "Tiling", "Visibility", "Windows", "__version__",
    "attribute", "audit", "corrected", "corrected_in_order", "coverage", "cut_windows", "extract",
    "lightning_callback", "mae_ppp", "measure", "optimal", "pad", "size_needed", "snr_ppp", "tiles",
    "visibility", "with_padding",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the command line stays quick."""
    if name == "__version__":
        metadata = importlib.import_module("importlib.metadata")
        try:
            return metadata.version("ppp-companion")
        except metadata.PackageNotFoundError:  # a checkout on the path, not installed
            return "0+checkout"
    if name not in _MODULES:
        raise AttributeError(f"module 'ppp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ppp.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
