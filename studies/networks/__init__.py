"""Networks to measure: two small ones trained on the plane, and torchvision's. [ours]

Weights are read as data only: safetensors, or pickles restricted to tensors, each verified
against a SHA-256 where one is known.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from ppp.errors import LayerError, PPPError, WeightsError, first_words, shown, unknown
from ppp.files import digest
from ppp.influence import Coverage, coverage
from ppp.swapping import with_padding
from studies import paths
from studies.pictures.datasets import online
from studies.storage import documents

SHIPPED = paths.data("networks")
"""Folder of the shipped weights and their ``manifest.json``."""

PLANE_MEAN, PLANE_STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PLANE_WINDOW = 96
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SUFFIXES = (".safetensors", ".pth", ".pt")
"""Endings of files of weights."""


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
        """Normalise pixels in [0, 1], shape (..., 3, H, W), as this network expects them."""
        return normalise(pixels, self.mean, self.std)


# --------------------------------------------------------------------- the small networks

OPTIMAL = "optimal"
"""Padding of a network that pads nothing and is given the true surroundings instead."""


class SmallResNet(nn.Module):
    """Residual network of 3 x 3 convolutions; see :func:`small_resnet`."""

    def __init__(self, classes: int, *, pads: bool = True) -> None:
        super().__init__()
        self.surroundings = (0, 0) if pads else (48, 33)
        self.conv1 = nn.Conv2d(3, 16, 5, stride=2, padding=2 if pads else 0, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _Block(16, 16, 1, pads)
        self.layer2 = _Block(16, 32, 2, pads)
        self.layer3 = _Block(32, 48, 2, pads)
        self.layer4 = _Block(48, 80, 2, pads)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(80, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class _Block(nn.Module):
    """The basic block of residual networks: two convolutions and a shortcut around them."""

    def __init__(self, before: int, width: int, stride: int, pads: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=int(pads), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=int(pads), bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )
        # Cells before the first one that convolutions without padding still give.
        self.lost = 0 if pads else 1 + stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        x = x[..., self.lost :, self.lost :]
        x = x if self.downsample is None else self.downsample(x)
        return self.relu(out + x[..., : out.shape[2], : out.shape[3]])


class SmallVGG(nn.Module):
    """Plain network of 3 x 3 convolutions; see :func:`small_vgg`."""

    def __init__(self, classes: int, *, pads: bool = True) -> None:
        super().__init__()
        self.surroundings = (0, 0) if pads else (61, 61)
        blocks, before = [], 3
        for convolutions, width in ((1, 16), (2, 24), (2, 32), (2, 48), (2, 64)):
            for channels in (before, width)[:convolutions]:
                blocks += [
                    nn.Conv2d(channels, width, 3, padding=int(pads), bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            blocks.append(nn.MaxPool2d(2))
            before = width
        self.features = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def small_resnet(
    classes: int = 8,
    padding: str = "zeros",
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Make a small residual network for 96 px windows, with total stride 16. [ours]

    Stem (5 x 5, stride 2, 16 channels), four stages of one basic block (16, 32, 48, 80
    channels, strides 1, 2, 2, 2), global average pool, linear: 0.15 million parameters.

    Parameters
    ----------
    classes : int
        Outputs, at least 1.
    padding : str
        Scheme of every padded convolution, see :data:`ppp.padding.SCHEMES`; or "optimal": no
        convolution pads, and the input brings the true surroundings, as many pixels as the
        attribute ``surroundings`` says (left and top, right and bottom). Its features are
        those of the window alone when they are pooled. The names and shapes of its weights
        do not depend on the padding.
    seed : int
        Of the random weights; the global generator is not touched.
    generator : torch.Generator, optional
        Source of a stochastic padding's draws.

    Returns
    -------
    nn.Module
        In training mode; maps (n, 3, H, W) to (n, classes).

    Raises
    ------
    PaddingError
        Unknown padding scheme.

    Examples
    --------
    >>> small_resnet()(torch.zeros(2, 3, 96, 96)).shape
    torch.Size([2, 8])
    >>> surrounded = small_resnet(padding="optimal")
    >>> side = 96 + sum(surrounded.surroundings)
    >>> side, surrounded(torch.zeros(2, 3, side, side)).shape
    (177, torch.Size([2, 8]))
    """
    return _initialised(SmallResNet, classes, padding, seed, generator)


def small_vgg(
    classes: int = 8,
    padding: str = "zeros",
    *,
    seed: int = 0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Make a small plain network for 96 px windows, with total stride 32. [ours]

    Five blocks of 3 x 3 convolutions with batch norm (one of 16 channels, then two each of
    24, 32, 48 and 64), each followed by a max-pool that pads nothing; global average pool,
    linear: 0.13 million parameters. Parameters, result and errors are those of
    :func:`small_resnet`.

    Examples
    --------
    >>> layers_of_interest(small_vgg())
    ['features.2', 'features.9', 'features.16', 'features.23', 'features.30']
    """
    return _initialised(SmallVGG, classes, padding, seed, generator)


FAMILIES = {"resnet": small_resnet, "vgg": small_vgg}


def rebuilt(model: nn.Module, padding: str) -> nn.Module:
    """Return a small network with the same weights and another padding. [ours]

    Unlike :func:`ppp.with_padding`, it also knows "optimal", in both directions.

    Parameters
    ----------
    model : nn.Module
        Of :func:`small_resnet` or :func:`small_vgg`; left as it is.
    padding : str
        See :func:`small_resnet`.

    Returns
    -------
    nn.Module
        A copy in the mode of `model`.

    Raises
    ------
    PPPError
        Another network.

    Examples
    --------
    >>> rebuilt(small_vgg(), "optimal").surroundings
    (61, 61)
    """
    family = next((kind for kind in (SmallResNet, SmallVGG) if isinstance(model, kind)), None)
    if family is None:
        raise PPPError(f"{type(model).__name__} is no small network; see ppp.with_padding")
    state = model.state_dict()
    classes = next(reversed(state.values())).numel()  # the last bias
    with torch.random.fork_rng(devices=[]):
        fresh = family(classes, pads=padding != OPTIMAL)
    fresh.load_state_dict(state)
    fresh.train(model.training)
    return fresh if padding in ("zeros", OPTIMAL) else with_padding(fresh, padding)


def _initialised(family, classes, padding, seed, generator) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = family(classes, pads=padding != OPTIMAL)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if padding in ("zeros", OPTIMAL):
        return model
    return with_padding(model, padding, generator=generator)


# ----------------------------------------------------------------------------------- layers


def layers_of_interest(model: nn.Module) -> list[str]:
    """Name the five layers at which a network is measured, shallow to deep. [ours]

    Residual networks: the stem's ReLU and the outputs of the four stages. VGG: the last
    ReLU before each of the five max-pools.

    Parameters
    ----------
    model : nn.Module
        A small network of this module, or a ResNet or VGG of torchvision.

    Returns
    -------
    list of 5 str

    Raises
    ------
    LayerError
        Any other network: name its layers explicitly.

    Examples
    --------
    >>> layers_of_interest(small_resnet())
    ['relu', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    children = dict(model.named_children())
    residual = ["relu", "layer1", "layer2", "layer3", "layer4"]
    if children.keys() >= set(residual):
        return residual
    features = children.get("features")
    if isinstance(features, nn.Sequential):
        steps = list(features)
        pools = [i for i, step in enumerate(steps) if isinstance(step, nn.MaxPool2d)]
        if len(pools) == 5 and all(isinstance(steps[i - 1], nn.ReLU) for i in pools):
            return [f"features.{i - 1}" for i in pools]
    raise LayerError(
        f"no layers of interest are defined for {type(model).__name__}, only for ResNets and "
        "VGGs; name the layers explicitly"
    )


@cache
def reach_of(family: str) -> Coverage:
    """Return the coverage of a small network's layers of interest."""
    model = FAMILIES[family]().eval()
    return coverage(model, layers_of_interest(model), PLANE_WINDOW)


def normalise(pixels: Tensor, mean, std) -> Tensor:
    """Normalise pixels in [0, 1] to what a network was trained on.

    Parameters
    ----------
    pixels : Tensor of shape (..., 3, H, W)
    mean, std : sequences of 3 floats

    Returns
    -------
    Tensor of the shape of `pixels`.

    Examples
    --------
    >>> float(normalise(torch.ones(3, 1, 1), PLANE_MEAN, PLANE_STD).max())
    2.0
    """
    shift, scale = (pixels.new_tensor(v).view(3, 1, 1) for v in (mean, std))
    return (pixels - shift) / scale


# ---------------------------------------------------------------------------------- loading


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
        :func:`rebuilt`; or any classification network of torchvision, such as "resnet18".
    weights : str
        "random" (drawn from `seed`); a path to a .safetensors, .pth or .pt file; for plane
        networks "trained" (shipped) or "initial" (the same run before its first step); for
        torchvision's a weights name such as "IMAGENET1K_V1", downloaded once; there "trained"
        is torchvision's default and "initial" is "random".
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
    family, padding = _plane_name(name)
    if family:
        return _plane_network(name, family, padding, str(weights), seed, models)
    return _torchvision_network(name, str(weights), seed)


def manifest(models: str | Path | None = None) -> dict[str, dict]:
    """Read what is recorded of the shipped networks, by file stem.

    Examples
    --------
    >>> manifest()["plane-resnet-zeros-seed0"]["padding"]
    'zeros'
    """
    path = Path(models or SHIPPED) / "manifest.json"
    found = documents.read_json(path, "manifest", error=WeightsError)
    for stem, entry in found.items():
        texts = [entry.get(name) for name in ("file", "sha256")] if isinstance(entry, dict) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise WeightsError(f"manifest {path}: {stem} names no file with its sha256")
    return found


def _plane_name(name: str) -> tuple[str, str]:
    match = re.fullmatch(r"plane-(resnet|vgg)(?:-(.+))?", str(name))
    return (match[1], match[2] or "zeros") if match else ("", "")


def _plane_network(name, family, padding, weights, seed, models) -> Network:
    try:
        # A network that was trained without any padding is measured under others.
        model = FAMILIES[family](padding="zeros" if padding == OPTIMAL else padding, seed=seed)
    except PPPError as error:
        raise WeightsError(f"network {name!r}: {error}") from None
    provenance = {"source": "random weights", "seed": seed, "padding": padding}
    if weights in ("trained", "initial"):
        folder = Path(models or SHIPPED)
        listed = manifest(models)
        stem = f"plane-{family}-{padding}-seed{seed}"
        if stem not in listed:
            raise WeightsError(unknown("shipped network", stem, listed))
        record = listed[stem]
        if weights == "trained":
            path = folder / record["file"]
            state, _ = _read(path, expected=record["sha256"])
            _load(model, state, path)
            provenance = {"source": "trained on the plane", **record}
            provenance["accuracy"] = record["test_accuracy"]
        else:
            provenance["source"] = f"before the first training step of {stem}"
    elif weights.endswith(SUFFIXES):
        provenance = {**load_file(model, weights), "padding": padding}
    elif weights != "random":
        known = ("trained", "initial", "random", "a path to a .safetensors or .pth file")
        raise WeightsError(f"network {name!r}: {unknown('weights', weights, known)}")
    return Network(
        model.eval(),
        name,
        weights,
        tuple(layers_of_interest(model)),
        PLANE_WINDOW,
        PLANE_MEAN,
        PLANE_STD,
        provenance,
    )


def _torchvision_network(name: str, weights: str, seed: int) -> Network:
    catalogue = torchvision.models.list_models(module=torchvision.models)
    if name not in catalogue:
        known = [*(f"plane-{family}" for family in FAMILIES), *catalogue]
        raise WeightsError(unknown("network", name, known))
    choices, weights = _choices(name, weights)
    from_file = weights.endswith(SUFFIXES)
    if weights not in choices and weights != "random" and not from_file:
        known = ("random", *choices, "a path to a .safetensors or .pth file")
        raise WeightsError(f"network {name!r}: {unknown('weights', weights, known)}")

    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = torchvision.models.get_model(name, weights=None, **options)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    provenance = {"source": "random weights", "seed": seed}
    if from_file:
        provenance = load_file(model, weights)
    elif weights in choices:
        entry = choices[weights]
        path = fetch(entry)
        state, sha256 = _read(path)
        _load(model, state, path)
        preset = entry.transforms()
        mean, std = tuple(preset.mean), tuple(preset.std)
        accuracy = entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100
        provenance = {"source": entry.url, "sha256": sha256, "accuracy": accuracy}
    if options and weights != "random":
        model.transform_input = True  # those two were trained on another scale of pixels
    try:
        layers = tuple(layers_of_interest(model))
    except LayerError:
        layers = ()
    return Network(model.eval(), name, weights, layers, 224, mean, std, provenance)


def _choices(name: str, weights: str) -> tuple[dict, str]:
    """Return torchvision's weights of a network by name, and the name that `weights` means."""
    choices = {entry.name: entry for entry in torchvision.models.get_model_weights(name)}
    best = torchvision.models.get_model_weights(name).DEFAULT.name
    return choices, {"initial": "random", "trained": best}.get(weights, weights)


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
    if name not in torchvision.models.list_models(module=torchvision.models):
        return None
    choices, weights = _choices(name, weights)
    return fetch(choices[weights]) if weights in choices else None


def fetch(weights, *, folder: str | Path | None = None) -> Path:
    """Download a checkpoint unless it is there already, and verify its hash either way.

    Parameters
    ----------
    weights : torchvision.models.Weights or WeightsEnum
        Anything with a ``url`` whose file name carries the first 8 or more hexadecimal
        digits of the file's SHA-256, as in ``resnet18-f37072fd.pth``.
    folder : path, optional
        Where to keep it; by default the folder of torch.hub.

    Returns
    -------
    Path

    Raises
    ------
    WeightsError
        No hash in the name, a wrong hash, an address that cannot be reached, or a file that is
        not there where ``PPP_OFFLINE`` is set.

    Examples
    --------
    >>> fetch(torchvision.models.Weights("file:///net.pth", None, {}))
    Traceback (most recent call last):
    ...
    ppp.errors.WeightsError: file:///net.pth carries no SHA-256 in its name ...
    """
    url = weights.url
    name = Path(urlparse(url).path).name
    match = re.search(r"-([0-9a-f]{8,64})\.", name)
    if not match:
        raise WeightsError(
            f"{url} carries no SHA-256 in its name (NAME-0123abcd.pth), so it cannot be "
            "verified; download it yourself and give the local file"
        )
    path = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / name
    if not path.exists():
        online(str(path), "load these weights once without it", WeightsError)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), match[1])
        except RuntimeError as error:  # torch.hub's report of a wrong hash
            raise WeightsError(f"{url} is not the expected file: {first_words(error)}") from None
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{url} could not be reached ({first_words(error)}); give the path of a local file"
            ) from None
    found = digest(documents.read_bytes(path, most=None, error=WeightsError))
    if not found.startswith(match[1]):
        raise WeightsError(
            f"{path} has SHA-256 {found}, expected {match[1]}...; delete it to download it again"
        )
    return path


def load_file(model: nn.Module, weights: str | Path) -> dict[str, object]:
    """Put the weights of a file into a network; every key, shape and kind of number must match.

    Floating-point numbers of another precision are taken, and told; the bytes that are hashed
    are those that are loaded.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    weights : path
        Ends in one of :data:`SUFFIXES`.

    Returns
    -------
    dict
        ``source``, the file's name, and its ``sha256``; the ``dtype`` of numbers that are no
        float32.

    Raises
    ------
    WeightsError
        A file that is missing, holds more than tensors, or does not fit; the first keys that
        are missing, too many, or of another shape or kind are named.

    Examples
    --------
    >>> load_file(small_vgg(), SHIPPED / "plane-vgg-zeros-seed0.safetensors")["source"]
    'plane-vgg-zeros-seed0.safetensors'
    """
    path = documents.as_path(weights, "weights", WeightsError)
    state, sha256 = _read(path)
    _load(model, state, path)
    kinds = {_dtype(value) for value in state.values() if value.is_floating_point()}
    cast = {"dtype": ", ".join(sorted(kinds))} if kinds - {"float32"} else {}
    return {"source": path.name, "sha256": sha256} | cast


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of a network's state: names, types, shapes and values in name order.

    Unlike the hash of a file, it names weights that were drawn or made, too.

    Examples
    --------
    >>> weights_sha256(small_vgg(seed=1)) == weights_sha256(small_vgg(seed=1))
    True
    """
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _read(path: Path, expected: str = "") -> tuple[dict[str, Tensor], str]:
    """Read a state dict and its SHA-256; a hash that differs is refused before parsing."""
    content = documents.read_bytes(path, most=None, error=WeightsError)
    found = digest(content)
    if expected and found != expected:
        raise WeightsError(
            f"{path} has SHA-256 {found}, expected {expected}; restore the original file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(content), found
        with warnings.catch_warnings(action="ignore"):  # of kinds that are refused below
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own exceptions for a broken file
        raise WeightsError(
            f"{path} (SHA-256 {found}) is no file of tensors alone: {first_words(error)}"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} (SHA-256 {found}) holds no state dict of tensors")
    for key, value in state.items():
        if not isinstance(key, str):
            raise WeightsError(f"{path} has a key {shown(key)}; expected names of parameters")
        if kind := _unusable(value):
            raise WeightsError(f"{path}: {key} is {kind}; save it as a dense tensor with values")
    return state, found


def _unusable(value: Tensor) -> str:
    """Say what a tensor is that no parameter can be, or nothing."""
    if value.is_meta:
        return "on the meta device, without values"
    if value.is_quantized:
        return f"quantised ({_dtype(value)})"
    return "" if value.layout == torch.strided and not value.is_nested else "sparse or nested"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _load(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    # DenseNet checkpoints have names from before dots were refused in module names.
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", k): v for k, v in state.items()
    }
    own = model.state_dict()
    # Old checkpoints lack the counters, which no computation in evaluation mode reads.
    needed = {key for key in own if not key.endswith("num_batches_tracked")}
    bad = [f"{key} is missing" for key in sorted(needed - state.keys())]
    bad += [f"{key} is not in the network" for key in sorted(state.keys() - own.keys())]
    bad += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    bad += [
        f"{key} is of {_dtype(state[key])}, not {_dtype(value)}"
        for key, value in own.items()
        if key in state and not _castable(state[key], value)
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: {'; '.join(bad[:3])}{more}; "
            "check that it belongs to this network"
        )
    model.load_state_dict(state, strict=False)


def _castable(value: Tensor, to: Tensor) -> bool:
    """Only precision may be lost: numbers stay floating-point, whole, complex or truth values."""
    return value.dtype == to.dtype or (value.is_floating_point() and to.is_floating_point())
