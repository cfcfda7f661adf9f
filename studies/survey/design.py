"""Survey: which networks of torchvision can be measured, where, and why not elsewhere. [ours]

Every classification network, and the backbone of every segmentation and detection network,
with random weights: audit, choice of layers, coverage, and a measurement on two windows whose
null test must pass. The shipped table is ``data/torchvision/survey.csv``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torchvision
from torch import nn

import ppp
from ppp.errors import PPPError, first_line
from studies import networks, paths
from studies.networks import layers
from studies.networks.names import PADDINGS
from studies.pictures import plane
from studies.runs import Run, Study
from studies.storage import tables

DATA = paths.data("torchvision")
MEASURED, PARTLY, REFUSED, ERROR = "measured", "measured in part", "refused", "error"

_KINDS = {
    "classification": (torchvision.models, 224),
    "segmentation": (torchvision.models.segmentation, 224),
    "detection": (torchvision.models.detection, 256),
}
"""Kind -> the module that lists its networks, and the window (px)."""
_WINDOWS = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
"""Windows of networks that are made for another size."""
_LARGEST = 640
"""Side of the largest scene that is run (px), unless the first layer needs more."""
_SEED = 0

KINDS = {
    "squeeze and excitation": "avgpool",
    "attention in windows": "whole stride",
    "positional embedding": "Wrong image height",
}
"""What keeps a layer from having a finite margin, and the words of the refusal that tell."""


@dataclass(frozen=True, order=True)
class ListedNetwork(Run):
    """One network to examine."""

    kind: str
    model: str

    @property
    def stem(self) -> str:
        """Name of its folder."""
        return self.model


def models() -> dict[str, str]:
    """Return name -> kind of every network that torchvision lists in the three kinds.

    Examples
    --------
    >>> models()["fcn_resnet50"]
    'segmentation'
    """
    return {
        name: kind
        for kind, (module, _) in _KINDS.items()
        for name in torchvision.models.list_models(module=module)
    }


def build(name: str) -> nn.Module:
    """Make a network with random weights from a fixed seed, in evaluation mode.

    Parameters
    ----------
    name : str
        Of :func:`models`.

    Returns
    -------
    nn.Module
        The network; of segmentation and detection networks the backbone.

    Examples
    --------
    >>> type(build("squeezenet1_1")).__name__
    'SqueezeNet'
    """
    (run,) = STUDY.runs(model=[name])
    if run.kind == "classification":
        return networks.load_network(name, "random", seed=_SEED).model
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return model.backbone.eval()


def examine(name: str) -> dict[str, object]:
    """Examine one network.

    Parameters
    ----------
    name : str
        Of :func:`models`.

    Returns
    -------
    dict
        ``kind``, ``model``, ``parameters`` (of the part examined), ``window`` (px);
        ``sites``, ``unswappable`` and ``site_reason``: places that pad, those no swap
        replaces, and why the first; ``swaps``, ``swap_reason``: whether the five common
        schemes can be swapped in; ``rule``, ``layers``, ``strides`` (px) and
        ``clean_fractions``: of the layers chosen, separated by spaces; ``deepest``,
        ``stride``, ``margin`` (largest side, px), ``clean_fraction``: of the last of them;
        ``refused``: candidates refused; ``null_layers``, ``null_cells``, ``null_relative``:
        where the null test was made, on how many clean cells per channel, and its largest
        difference in units of the layer's largest feature; ``outcome``: "measured",
        "measured in part", "refused" or "error"; ``reason``: why not measured throughout.

    Raises
    ------
    ParameterError
        A name that torchvision does not list.

    Examples
    --------
    >>> row = examine("mobilenet_v3_small")
    >>> row["outcome"], row["layers"]
    ('measured in part', 'features.0 features.1.block.0')
    """
    (run,) = STUDY.runs(model=[name])
    row: dict[str, object] = dict.fromkeys(COLUMNS)
    row |= asdict(run) | {"window": _WINDOWS.get(name, _KINDS[run.kind][1])}
    try:
        _examine(build(name), row)
    except PPPError as error:
        row |= {"outcome": REFUSED, "reason": str(error)}
    except Exception as error:
        row |= {"outcome": ERROR, "reason": f"{type(error).__name__}: {first_line(error)}"}
    return row


COLUMNS = (
    *("kind", "model", "parameters", "window", "sites", "unswappable", "site_reason"),
    *("swaps", "swap_reason", "rule", "layers", "strides", "clean_fractions"),
    *("deepest", "stride", "margin", "clean_fraction", "refused"),
    *("null_layers", "null_cells", "null_relative", "outcome", "reason"),
)


def _examine(model: nn.Module, row: dict[str, object]) -> None:
    window = row["window"]
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    inventory = ppp.audit(model, window)
    blocked = inventory.unswappable(pools=True)
    row |= {"sites": len(inventory), "unswappable": len(blocked)}
    if blocked:
        row["site_reason"] = f"{blocked[0].module} ({blocked[0].kind}): {blocked[0].reason}"
    choice = layers.choose(model, window)
    row |= {
        "rule": choice.rule,
        "layers": " ".join(choice.layers),
        "strides": " ".join(str(layer.stride[0]) for layer in choice.coverage.values()),
        "clean_fractions": " ".join(
            f"{layer.clean_fraction:.4f}" for layer in choice.coverage.values()
        ),
        "deepest": choice.layers[-1],
        "stride": choice.coverage[choice.layers[-1]].stride[0],
        "margin": max(choice.coverage[choice.layers[-1]].margin),
        "clean_fraction": choice.coverage[choice.layers[-1]].clean_fraction,
        "refused": len(choice.refused),
    }
    row["swap_reason"] = _swap_refusal(model, inventory, choice, window)
    row["swaps"] = row["swap_reason"] is None
    row |= _null_test(model, choice, window)
    row["outcome"] = PARTLY if choice.refused else MEASURED
    if choice.refused:
        name, why = next(iter(choice.refused.items()))
        row["reason"] = why if why.startswith("layer ") else f"layer {name!r}: {why}"


def _swap_refusal(model, inventory, choice, window: int) -> str | None:
    """Say why one of the common schemes cannot be swapped in, or return None."""
    for site in inventory.unswappable():
        return f"{site.module} ({site.kind}): {site.reason}"
    x = torch.rand(1, 3, window, window, generator=torch.Generator().manual_seed(_SEED))
    for scheme in PADDINGS:
        try:
            generator = torch.Generator().manual_seed(_SEED)
            swapped = ppp.with_padding(model, scheme, generator=generator)
            maps = ppp.extract(swapped, x, choice.layers)
        except PPPError as error:
            return f"{scheme}: {error}"
        for layer, features in maps.items():
            if not bool(features.isfinite().all()):
                return f"{scheme}: layer {layer!r} gives values that are not finite"
    return None


def _null_test(model: nn.Module, choice: layers.Choice, window: int) -> dict[str, object]:
    """Measure two windows of one scene at the layers whose surroundings are not too wide."""
    tested: list[str] = []
    for layer in choice.layers:
        reach = choice.coverage.only([*tested, layer])
        if not tested or max(ppp.size_needed(window, reach)) <= _LARGEST:
            tested.append(layer)
    reach = choice.coverage.only(tested)
    sides = (need + stride for need, stride in zip(ppp.size_needed(window, reach), reach.stride))
    windows = ppp.cut_windows(
        plane.scenes(1, *sides, seed=_SEED),
        window,
        reach,
        per_picture=2,
        seed=_SEED,
        transform=partial(networks.normalise, mean=networks.PLANE_MEAN, std=networks.PLANE_STD),
    )
    measurement = ppp.measure(model, windows, tested, coverage=reach, batch_size=2)
    nulls = [result.null_test for result in measurement.values() if result.null_test.cells]
    return {
        "null_layers": " ".join(
            layer for _, layer in measurement if measurement["own", layer].null_test.cells
        ),
        "null_cells": sum(null.cells for null in nulls),
        "null_relative": max((null.relative for null in nulls), default=None),
    }


def compute(run: ListedNetwork) -> dict[str, pd.DataFrame]:
    """Examine one network; return the table of its row."""
    columns = [column for column in COLUMNS if column not in STUDY.key]
    return {"survey": pd.DataFrame([examine(run.model)])[columns]}


class Survey(Study):
    """The study, whose runs say how they ended."""

    def perform_one(self, run: ListedNetwork, folder: str | Path) -> str:
        """Examine a network, unless that has been done; return the outcome."""
        super().perform_one(run, folder)
        return str(self.read(run, folder, "survey")["outcome"].item())


def full_design() -> list[ListedNetwork]:
    """List the networks of torchvision."""
    return [ListedNetwork(kind, name) for name, kind in models().items()]


STUDY = Survey("survey", ListedNetwork, full_design, compute, {"survey": "survey.csv"})


def table(data: str | Path = DATA) -> pd.DataFrame:
    """Read the survey's table: one row per network, columns as in :func:`examine`.

    Examples
    --------
    >>> "outcome" in table()
    True
    """
    return tables.read_table(Path(data) / "survey.csv", columns=COLUMNS)


def refusals(rows: pd.DataFrame) -> pd.Series:
    """Name the kind of each refusal by its words; "other" where none of :data:`KINDS` fits.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`table`, with a reason.

    Examples
    --------
    >>> refusals(pd.DataFrame({"reason": ["reached from 'se.avgpool' (mean) on"]})).tolist()
    ['squeeze and excitation']
    """

    def kind(reason: str) -> str:
        return next((name for name, words in KINDS.items() if words in reason), "other")

    return rows["reason"].map(kind)
