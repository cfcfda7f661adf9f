"""The laboratory's page: networks, patterns, photographs and scripts are put into one file.

What a sentence or a script of the page states is computed here, with the same rounded weights.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import ppp
from companion.laboratory import ENGINE, MODES, SCRIPTS, networks
from companion.laboratory.networks import text
from companion.templates import TEMPLATES
from ppp.metrics import Moments
from studies import figures
from studies.bhv import design as bhv
from studies.bhv.redgreen import PUBLISHED_IMAGES, PUBLISHED_SHIFT
from studies.networks import OPTIMAL, reach_of
from studies.networks.names import PADDINGS
from studies.patterns import design as patterns
from studies.pictures.photographs import Reduced, scikit_image_photographs
from studies.pictures.plane import SHAPES

PICTURES = ("astronaut", "chelsea", "coffee", "ihc", "retina", "rocket")
"""Photographs of scikit-image under free licences."""
MOST_BYTES = 5_000_000

_SIDE = 304  # px, of a photograph's shorter side
_SCENES = 256  # on which a shipped pattern is measured
_SHIPPED = ("layer2", "layer3", "layer4")
_STEPS = 127  # of a pattern's largest value in a channel
_FIRST = {"picture": "rocket", "network": "zeros", "padding": "zeros", "layer": "layer2"}
_COLUMNS = (8, 20)  # px, where the blocks begin


def make() -> str:
    """Return the page as HTML.

    Raises
    ------
    PPPError
        It takes more than 5 MB.
    """
    reach = reach_of("resnet")
    models = {padding: networks.residual(padding) for padding in networks.TRAINED}
    photographs = [_photograph(p) for p in scikit_image_photographs() if p.name in PICTURES]
    rendered = list(patterns.windows_of_scenes(reach, _SCENES, 0))  # once for all networks
    scenes = ppp.Windows(rendered, reach.input_size)
    measured = {name: _measured(model, _own(name), scenes) for name, model in models.items()}
    sigmas = {
        name: {layer: result.sigma for (_, layer), result in found.items()}
        for name, (found, _) in measured.items()
    }
    first, still = _first(models[_FIRST["network"]], photographs, sigmas)
    data = {
        "reach": networks.reach(reach),
        "description": networks.described(models["zeros"]),
        "networks": [
            {"name": name, "title": _title(name), "weights": networks.weights(model)}
            for name, model in models.items()
        ],
        "sigmas": sigmas,
        "patterns": {
            f"{name} {_own(name)} {layer}": _packed(found[layer], spread)
            for name, (found, spreads) in measured.items()
            for layer, spread in spreads.items()
        },
        "guessed": _SHIPPED[1:],
        "shapes": SHAPES,
        "pictures": [about for about, _ in photographs],
        "first": first,
        "corner": _corner(),
        "colours": {name: _colours(name) for name in ("viridis", "RdBu_r")},
    }
    page = TEMPLATES.get_template("laboratory/laboratory.html.j2").render(
        data=data,
        json=Markup(json.dumps(data, separators=(",", ":")).replace("</", "<\\/")),
        engine=_script(ENGINE),
        scripts=_script(SCRIPTS),
        still=base64.b64encode(_png(still)).decode(),
        still_alt=still.ppp_alt,
        modes=MODES,
        paddings=PADDINGS,
        coverage=reach,
        scenes=_SCENES,
        accuracies=_accuracies(),
        maes={name: found["layer4"].mae.value for name, (found, _) in measured.items()},
    )
    if (size := len(page.encode())) > MOST_BYTES:
        raise ppp.PPPError(f"the laboratory takes {size:,} bytes; expected {MOST_BYTES:,} at most")
    return page


def _script(paths: Sequence[Path]) -> Markup:
    return Markup("\n".join(path.read_text(encoding="utf-8") for path in paths))


def _title(padding: str) -> str:
    return "true surroundings" if padding == OPTIMAL else padding


def _colours(name: str) -> str:
    values = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return text((values * 255).round(), "u1")


# ---- photographs, and what is on the screen at once


def _photograph(photo) -> tuple[dict[str, object], Tensor]:
    """Return what the page says of a photograph, and its pixels as the page has them."""
    reduced = Reduced(photo, _SIDE)
    stride = reach_of("resnet").stride[0]
    height, width = (side - side % stride for side in (reduced.height, reduced.width))
    rgb = (reduced.pixels()[:, :height, :width] * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=88)
    kept = np.asarray(Image.open(file)).astype(np.float32) / 255
    about = {
        "name": photo.name,
        "caption": photo.caption,
        "source": photo.source,
        "height": height,
        "width": width,
        "url": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}",
    }
    return about, torch.from_numpy(kept).permute(2, 0, 1)


def _first(model: nn.Module, photographs, sigmas) -> tuple[dict[str, object], Figure]:
    """Return an answer of the worker that is computed beforehand, and a still figure of it."""
    pixels = next(kept for about, kept in photographs if about["name"] == _FIRST["picture"])
    reach, normal = reach_of("resnet"), patterns.normal(pixels)
    side, layer = reach.input_size[0], _FIRST["layer"]
    (all_places,) = ppp.cut_windows({"": normal}, side, reach, per_picture=10**6, seed=0)
    top, left = (_middle(offsets) for offsets in (all_places.tops, all_places.lefts))
    truth = ppp.optimal(model, normal, [top], [left], reach)
    both = {"A": ppp.extract(model, truth.windows, list(reach)), "O": truth.maps}
    a, o = (features[layer][0] for features in both.values())
    maps = {"A": a.mean(0), "O": o.mean(0), "D": (a - o).abs().mean(0)}
    height, width = maps["A"].shape
    answer = {
        name: {"channels": 1, "height": height, "width": width, "cells": _short(values)}
        for name, values in maps.items()
    }
    answer["answers"] = {
        name: _short(model.fc(features["layer4"].mean((2, 3)))[0].softmax(0))
        for name, features in both.items()
    }
    answer["clean"] = float((a - o).abs().amax(0).numpy()[~reach[layer].influence].max())
    sigma = sigmas[_FIRST["network"]][layer]
    window = pixels[:, top : top + side, left : left + side].permute(1, 2, 0).numpy()
    titles = "A, with padding", "O, with true surroundings", "mean of |A − O|"
    shown = {title: (m / sigma).numpy() for title, m in zip(titles, maps.values())}
    label = "mean over channels (σ)"
    figure = figures.gallery({"window": window} | shown, colorbar_label=label)
    return {**_FIRST, "top": top, "left": left, **answer}, figure


def _png(figure: Figure) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return figures.save(figure, Path(folder, "still.png")).read_bytes()


def _middle(offsets: np.ndarray) -> int:
    found = np.unique(offsets)
    return int(found[len(found) // 2])


def _short(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.flatten().tolist()]


# ---- patterns


def _own(padding: str) -> str:
    """Return the padding that a network's pattern is shipped under."""
    return "zeros" if padding == OPTIMAL else padding


def _measured(
    model: nn.Module, scheme: str, windows: ppp.Windows
) -> tuple[ppp.Measurement, dict[str, Tensor]]:
    """Measure a network on scenes; return also O's spread in each channel of shipped layers."""
    reach = reach_of("resnet")
    moments = {layer: Moments() for layer in _SHIPPED}

    def spread(_picture: str, _scheme: str, layer: str, _: Tensor, optimal: Tensor) -> None:
        if layer in moments:
            moments[layer].update(optimal)

    found = ppp.measure(
        model, windows, list(reach), scheme, coverage=reach, batch_size=32, maps=spread
    )
    return found, {k: seen.variance.mean((1, 2)).sqrt() for k, seen in moments.items()}


def _packed(result: ppp.LayerResult, spread: Tensor) -> dict[str, object]:
    """Return a pattern in 8 bits, in steps of its own in each channel, with channels' spreads."""
    most = np.abs(result.pattern).max((1, 2))
    steps = result.pattern / np.where(most > 0, most, 1)[:, None, None] * _STEPS
    return {
        "n": result.n,
        "steps": _STEPS,
        "cells": text(steps.round(), "i1"),
        "scales": text(most, "<f4"),
        "spreadD": text(np.sqrt((result.deviation.astype(float) ** 2).mean((1, 2))), "<f4"),
        "spreadO": text(spread.numpy(), "<f4"),
    }


# ---- the BHV corner


def _corner() -> dict[str, object]:
    models = {canvas: networks.full_convolution(canvas) for canvas in networks.CANVASES}
    return {
        "description": networks.described(models["black"]),
        "weights": {canvas: networks.weights(model) for canvas, model in models.items()},
        "canvases": networks.CANVASES,
        "size": PUBLISHED_IMAGES.size,
        "block": PUBLISHED_IMAGES.block,
        "rows": PUBLISHED_IMAGES.rows,
        "jitter": PUBLISHED_IMAGES.jitter,
        "columns": _COLUMNS,
        "names": ["red left of green", "green left of red"],
    }


def _accuracies() -> list[dict[str, object]]:
    """Return what the study found of full convolution on the two canvases: means over seeds, %."""
    table = bhv.accuracies().query("variant == 'F-zero' and split == 'leaked' and epochs == 50")
    rows = []
    for canvas, value in networks.CANVASES.items():
        own = table[(table["condition"] == ("published" if value == 0 else f"canvas-{value}"))]
        means = own.groupby("shift")["accuracy"].mean()
        row = {"canvas": canvas, "networks": own["seed"].nunique()}
        rows.append(row | {"similar": means[0], "dissimilar": means[PUBLISHED_SHIFT]})
    return rows
