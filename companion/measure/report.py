"""The report of ``ppp measure``: one HTML file that needs no other."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from markupsafe import Markup

from companion.templates import TEMPLATES
from ppp.metrics import Estimate
from ppp.results import LayerResult, Measurement
from studies import figures

if TYPE_CHECKING:
    from companion.measure.measured import Measured

HEAD = (
    *("scheme", "layer", "MAE-PPP", "floor", "influenced cells", "SNR-PPP", "floor"),
    *("influenced cells", "p", "detected", "clean cells", "null test", "completeness"),
)
_METRICS = {"mae": "MAE-PPP (σ)", "snr": "SNR-PPP"}
_FACTS = {
    "source": "where from",
    "sha256": "SHA-256 of the weights' file",
    "authors": "authors of the weights",
    "licence": "their licence",
    "trained_on": "trained on",
    "dtype": "precision of the weights' file",
    "file_sha256": "SHA-256 of the network's file",
    "padding": "padding it was made with",
    "seed": "seed of the weights",
    "accuracy": "accuracy",
}
"""What is shown of a network's provenance; the rest is in measurement.json."""
_COLUMNS = 3
"""Heat maps side by side."""


def rows(measurement: Measurement) -> list[tuple[str, ...]]:
    """Return the table of results as texts, its head first.

    Intervals are in brackets; without one, as with a single photograph, there are none.

    Examples
    --------
    >>> rows(Measurement())[0][:3]
    ('scheme', 'layer', 'MAE-PPP')
    """
    return [HEAD, *map(_row, measurement.values())]


def _row(result: LayerResult) -> tuple[str, ...]:
    summary, test = result.summary, result.null_test
    return (
        result.scheme,
        result.layer,
        _estimate(summary.mae),
        _number(summary.mae_floor),
        _estimate(summary.mae_influenced),
        _estimate(summary.snr),
        _number(summary.snr_floor),
        _estimate(summary.snr_influenced),
        _number(summary.p),
        "not given" if np.isnan(summary.detected) else f"{summary.detected:.0%}",
        str(test.cells),
        "passed" if test.passed else "no clean cell",
        "shown" if result.completeness.shown else "not shown",
    )


def page(measured: Measured) -> bytes:
    """Return the report as one HTML file; every text that comes from outside is escaped."""
    measurement = measured.measurement
    table = measurement.table()
    head, *body = rows(measurement)
    provenance = measured.network.provenance
    html = TEMPLATES.get_template("measure/report.html.j2").render(
        measured=measured,
        verdicts=[_verdict(measurement, layer) for layer in measurement.coverage],
        facts={label: provenance[name] for name, label in _FACTS.items() if name in provenance},
        mean=_triple(measured.network.mean),
        std=_triple(measured.network.std),
        groups=int(table["groups"].max()),
        windows=int(table["n"].max()),
        head=head,
        body=body,
        forests=[_forest(table, metric) for metric in _METRICS],
        maps=[_maps(measurement, scheme) for scheme in dict.fromkeys(table["scheme"])],
        coverage=_texts(_coverage(measurement)),
        audit=_texts(measured.audit.table()),
    )
    return html.encode("utf-8", "backslashreplace")


def _verdict(measurement: Measurement, layer: str) -> dict[str, object]:
    """Return what vouches for a layer: the null test, the worst of all schemes, and proofs."""
    results = [result for result in measurement.values() if result.layer == layer]
    worst = max((result.null_test for result in results), key=lambda test: test.relative)
    return {
        "layer": layer,
        "test": worst,
        "complete": results[0].completeness,
        "margin": measurement.coverage[layer].margin,
    }


def _forest(table: pd.DataFrame, metric: str) -> Markup:
    label = _METRICS[metric]
    table = table.replace([np.inf, -np.inf], np.nan)
    figure = figures.forest(
        table.assign(layer=table["layer"].map(_short)),
        "layer",
        *(metric, f"{metric}_low", f"{metric}_high"),
        group="scheme" if table["scheme"].nunique() > 1 else None,
        floor=f"{metric}_floor",
        xlabel=label,
        logx=bool((table[metric] > 0).all()),
    )
    caption = (
        f"{label} of every layer with its 95 % interval over photographs. A point near its grey "
        "tick, the noise floor, is noise."
    )
    return Markup(figures.as_html(figure, caption))


def _maps(measurement: Measurement, scheme: str) -> Markup:
    maps = {}
    for result in measurement.values():
        if result.scheme == scheme:
            sigma = result.summary.sigma
            maps[_short(result.layer)] = result.magnitude() / (sigma if sigma > 0 else 1)
    figure = figures.gallery(
        maps, columns=_COLUMNS, colorbar_label="mean |d| (σ)", shared_scale=False
    )
    caption = (
        f"Padding {scheme}: channel mean of |d| over the map of every layer, one colour scale "
        "each. The frame that padding draws is strongest where the colour is yellow."
    )
    return Markup(figures.as_html(figure, caption))


def _short(name: str) -> str:
    """Break a name for a figure, in which a dollar sign would start a formula."""
    return ("\n".join(textwrap.wrap(name, 24)) or name).replace("$", r"\$")


def _coverage(measurement: Measurement) -> pd.DataFrame:
    """Return the coverage with the four margins in one column."""
    table = measurement.coverage.table()
    sides = ["margin_left", "margin_right", "margin_top", "margin_bottom"]
    margins = [", ".join(map(str, row)) for row in table[sides].to_numpy()]
    return table.drop(columns=sides).assign(**{"margin: left, right, top, bottom": margins})


def _texts(frame: pd.DataFrame) -> dict[str, list]:
    head = [name.replace("_", " ") for name in frame.columns]
    return {"head": head, "body": [[_cell(v) for v in row] for row in frame.to_numpy().tolist()]}


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _triple(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3g}"


def _estimate(estimate: Estimate) -> str:
    if not np.isfinite(estimate.low):
        return f"{_number(estimate.value)} [no interval]"
    return f"{_number(estimate.value)} [{_number(estimate.low)}, {_number(estimate.high)}]"
