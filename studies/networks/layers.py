"""Choose the layers at which a network can be measured. [ours]

ResNets and VGGs have defined layers of interest. In any other network it is the deepest
block at each stride whose margin is finite; what is refused is named with its reason.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ppp.errors import LayerError, MarginError, PPPError, first_line
from ppp.extraction import require_eval
from ppp.influence import Coverage, coverage
from ppp.inventory import input_channels, input_shape
from ppp.swapping import current_scheme

STAGES = "stages of a ResNet or VGG"
DEFINED = "as the network defines them"
DEEPEST = "deepest at each stride"
NAMED = "as named"

_SHORT, _LONG, _ACROSS = 512, 1024, 128
"""Pixels along the two strips that find strides and reach, and across them."""
_SMALL = 16
"""Largest stride that is told where the strips are no multiple of it."""


@dataclass(frozen=True)
class Choice:
    """Layers to measure, and those that cannot be.

    Attributes
    ----------
    layers : tuple of str
        Shallow to deep; an explicit choice keeps its order.
    coverage : Coverage
        Of these layers at the window's size.
    refused : dict of str to str
        Candidate -> why it is not among them, one line each.
    rule : str
        "stages of a ResNet or VGG", "as the network defines them", "deepest at each stride", or
        "as named".
    """

    layers: tuple[str, ...]
    coverage: Coverage
    refused: dict[str, str]
    rule: str


@dataclass
class _Seen:
    """What one run showed of the modules, in the order in which they finished."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    everywhere: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    failure: str = ""


def layers_of_interest(model: nn.Module) -> list[str]:
    """Name the five layers at which a network is measured, shallow to deep. [ours]

    Residual networks: the stem's ReLU and the outputs of the four stages. VGG: the last
    ReLU before each of the five max-pools. EfficientNet-Lite: the last block at each stride.
    HED: the ends of its five stages, before the max-pools. A network may name its own, in an
    attribute ``layers_of_interest``.

    Parameters
    ----------
    model : nn.Module
        A network of this package, or a ResNet or VGG of torchvision.

    Returns
    -------
    list of 5 str

    Raises
    ------
    LayerError
        Any other network: name its layers explicitly.

    Examples
    --------
    >>> from studies.networks import small_resnet
    >>> layers_of_interest(small_resnet())
    ['relu', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    if named := getattr(model, "layers_of_interest", None):
        return list(named)
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


def choose(
    model: nn.Module,
    window: int | tuple[int, int],
    layers: str | Sequence[str] = "auto",
    *,
    most: int = 5,
) -> Choice:
    """Choose layers with a finite margin, and find what padding can touch in them.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    window : int or (height, width)
        Pixels.
    layers : "auto" or sequence of str
        With "auto", those of :func:`studies.networks.layers_of_interest` where it
        knows the family. Otherwise, at each total stride, the outermost block whose margin is
        finite; of several, the one that runs last. Padding modules and what runs before the
        first convolution are no candidates. A module around three or more strides is
        the trunk; its blocks are preferred. Explicit names are taken as they are.
    most : int
        At most so many layers with "auto"; the deepest are kept.

    Returns
    -------
    Choice

    Raises
    ------
    MarginError
        An explicit layer without a finite margin; the message says which layers before it
        could be measured.
    LayerError
        An unknown layer; or no layer at all can be measured: the first refused, and why.
    PPPError
        A model in train mode, or that does not run at this size.

    Notes
    -----
    Two strips, their first line of pixels NaN, show the strides of all modules and which of
    them see every pixel. What runs behind the first of these and sees every pixel too is
    refused with it, without a run of its own.

    Examples
    --------
    >>> import torchvision
    >>> small = torchvision.models.mobilenet_v3_small(weights=None).eval()
    >>> choice = choose(small, 224)
    >>> choice.layers  # the first squeeze-excitation is in features.1
    ('features.0', 'features.1.block.0')
    """
    size = input_shape(window)
    require_eval(model)
    if type(most) is not int or most < 1:
        raise LayerError(f"most is {most!r}; expected a number of layers, at least 1")
    input_channels(model, size)  # refuses a model without one
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        model = copy.deepcopy(model).cpu().float()
    if layers != "auto":
        return _named(model, size, [layers] if isinstance(layers, str) else list(layers))
    try:
        known = layers_of_interest(model)
        rule = DEFINED if hasattr(model, "layers_of_interest") else STAGES
        return Choice(tuple(known), coverage(model, known, size), {}, rule)
    except (LayerError, MarginError):
        return _deepest(model, size, most)


def _named(model: nn.Module, size: tuple[int, int], names: list[str]) -> Choice:
    try:
        return Choice(tuple(names), coverage(model, names, size), {}, NAMED)
    except MarginError as error:
        refusal = error
    fine: list[str] = []
    for name in names:
        try:
            coverage(model, [name], size)
        except MarginError as error:
            refusal = error
            break
        fine.append(name)
    before = f"before it, {', '.join(fine)} can be measured" if fine else "none was named before it"
    raise MarginError(f"{refusal}; {before}")


def _deepest(model: nn.Module, size: tuple[int, int], most: int) -> Choice:
    usual = _watch(model, size)
    if usual.failure:
        raise PPPError(usual.failure)
    short, long = (_watch(model, (length, _ACROSS)) for length in (_SHORT, _LONG))
    strides, faults, broken = _strides(model, usual, short, long)
    blocks = _blocks(strides)
    order = list(usual.shapes)
    last = max((order.index(name) for name in [*strides, *broken]), default=len(order))
    # The head behind the last map is no candidate.
    refused = {n: faults[n] for n in _outermost(faults, blocks) if order.index(n) <= last}
    limited = [name for name in blocks if name in long.everywhere]
    if limited and _try(model, limited[:1], size, refused) is None:
        # What sees every pixel behind the first of them has no finite margin either.
        for name in _one_per_stride(blocks).values():
            if name in limited[1:]:
                refused[name] = (
                    f"layer {name!r} has no finite margin: every cell is reached from every "
                    f"pixel, as in {limited[0]!r} before it"
                )
        blocks = {name: stride for name, stride in blocks.items() if name not in limited}
    while chosen := list(_one_per_stride(blocks).values())[-most:]:
        found = _try(model, chosen, size, refused)
        if found is not None:
            return Choice(tuple(chosen), found, refused, DEEPEST)
        blocks = _before(model, blocks, next(reversed(refused)), size)
    if not refused:
        raise LayerError(f"{type(model).__name__} has no module that gives feature maps")
    name, why = next(iter(refused.items()))
    why = why if why.startswith("layer ") else f"layer {name!r}: {why}"
    raise LayerError(
        f"no layer of {type(model).__name__} can be measured; the first refused: {why}"
    )


def _strides(
    model: nn.Module, usual: _Seen, short: _Seen, long: _Seen
) -> tuple[dict[str, int], dict[str, str], list[str]]:
    """Return strides of modules, why others have none, and those with maps at one size only."""
    modules, order = dict(model.named_modules()), list(usual.shapes)
    first = next((i for i, n in enumerate(order) if isinstance(modules[n], nn.Conv2d)), 0)
    strides: dict[str, float] = {}
    faults: dict[str, str] = {}
    broken: list[str] = []
    for name in order[first:]:
        shape = usual.shapes[name]
        if current_scheme(modules[name]) and not isinstance(modules[name], nn.Conv2d):
            continue
        if name in usual.repeated:
            faults[name] = "runs more than once per forward pass"
        elif len(shape) != 4:
            faults[name] = f"gives {shape}, no feature maps (N, C, H, W)"
        elif name not in long.shapes or name not in short.shapes:
            faults[name] = long.failure or short.failure or "does not run on every input size"
            if min(shape[2:]) > 1:
                broken.append(name)
        else:
            more = long.shapes[name][2] - short.shapes[name][2]
            longer = _LONG - _SHORT
            stride = longer / more if more > 0 else 0
            whole = round(stride) if stride >= 1 else 1 / round(1 / stride) if stride else 0
            if whole and abs(longer / whole - more) < (1 if whole <= _SMALL else 1e-9):
                strides[name] = whole
            else:
                faults[name] = (
                    f"gives {shape}; its rows grow by {more} for {_LONG - _SHORT} px more input, "
                    "which is no whole stride"
                )
    return strides, faults, broken


def _try(
    model: nn.Module, names: list[str], size: tuple[int, int], refused: dict[str, str]
) -> Coverage | None:
    """Return the coverage, or enter the first layer that has none among the refused."""
    try:
        return coverage(model, names, size)
    except PPPError as error:
        if len(names) == 1:
            refused[names[0]] = str(error)
            return None
    for name in names:
        if _try(model, [name], size, refused) is None:
            return None
    raise LayerError(f"layers {names} can be measured one by one, but not together")


def _before(
    model: nn.Module, blocks: dict[str, int], name: str, size: tuple[int, int]
) -> dict[str, int]:
    """Return the blocks before one that is refused, up to the last that can be measured."""
    names = list(blocks)
    fine, bad = 0, names.index(name)  # of the first `fine` blocks the last can be measured
    while bad - fine > 0:
        middle = (fine + bad + 1) // 2
        if _try(model, [names[middle - 1]], size, {}) is None:
            bad = middle - 1
        else:
            fine = middle
    return {name: blocks[name] for name in names[:fine]}


def _blocks(strides: dict[str, int]) -> dict[str, int]:
    """Leave out the trunk: modules around layers of three or more strides."""
    inside: dict[str, set[int]] = {}
    for name, stride in strides.items():
        for outer in _around(name):
            inside.setdefault(outer, set()).add(stride)
    return {name: stride for name, stride in strides.items() if len(inside.get(name, ())) < 3}


def _one_per_stride(blocks: dict[str, int]) -> dict[int, str]:
    """Return stride -> outermost block, the last of several; shallow to deep."""
    best: dict[int, str] = {}
    for name, stride in blocks.items():
        if stride not in best or name.count(".") <= best[stride].count("."):
            best[stride] = name
    order = list(blocks)
    return dict(sorted(best.items(), key=lambda item: order.index(item[1])))


def _outermost(others: dict[str, str], blocks: Iterable[str]) -> list[str]:
    """Return those that lie neither in each other nor in a block."""
    held = {*others, *blocks}
    return [name for name in others if not any(outer in held for outer in _around(name))]


def _around(name: str) -> list[str]:
    """Return the names of the modules around one."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _watch(model: nn.Module, size: tuple[int, int]) -> _Seen:
    """Run once on zeros whose first row is NaN, and look at every module's output."""
    seen = _Seen()

    def look(name: str, output: object) -> None:
        if name in seen.shapes:
            seen.repeated.add(name)
        elif isinstance(output, Tensor):
            seen.shapes[name] = tuple(output.shape)
            if output.ndim == 4 and bool(output.isnan().any(1).flatten(1).all()):
                seen.everywhere.add(name)

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if name
    ]
    x = torch.zeros(1, input_channels(model, size), *size)
    x[:, :, 0] = torch.nan
    try:
        with torch.no_grad():
            model(x)
    except Exception as error:
        seen.failure = (
            f"the model does not run on a {size[0]} x {size[1]} input: {first_line(error)}"
        )
    finally:
        for handle in handles:
            handle.remove()
    return seen
