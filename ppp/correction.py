"""Take the pattern away: copies of a network that subtract it where it was measured. [ours]

A copy subtracts from maps of the measured size alone, and nothing where every padding has its true
values, as there is no pattern then. So the features of a larger picture, and the proof of
completeness, are those of the network itself, and :func:`ppp.measure` of a copy finds what
is left: the mean of A' - O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppp.certificate import Coverage
from ppp.errors import LayerError, PPPError, SwapError, unknown
from ppp.extraction import Tap, require_map
from ppp.influence import coverage as find_coverage
from ppp.inventory import audit
from ppp.measurement import OWN, measure
from ppp.results import Measurement
from ppp.resumption import network_fingerprint
from ppp.swapping import copied
from ppp.truth import ALL_TRUE
from ppp.windows import Windows

_BUFFER = "subtracted_pattern"


class _Subtract:
    """A hook that subtracts a layer's pattern, a buffer of it, from its output."""

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def __call__(self, module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
        require_map(self.layer, output)
        pattern = getattr(module, _BUFFER)
        if ALL_TRUE.get() or output.shape[2:] != pattern.shape[1:]:
            return None
        if output.shape[1] != len(pattern):
            raise LayerError(
                f"layer {self.layer!r} gives {output.shape[1]} channels; the pattern to subtract "
                f"has {len(pattern)}"
            )
        return output - pattern


def corrected(
    model: nn.Module, patterns: Measurement | Mapping[str, Tensor | np.ndarray],
    layers: Sequence[str] | None = None,
) -> nn.Module:  # fmt: skip
    """Return a copy of `model` that subtracts a pattern from a layer's output.

    Maps of another size than the pattern's are left as they are: what padding does there is
    not known, and a larger picture gives the true features only if nothing is subtracted from
    it. The copy shares the parameters of the original, as those of :func:`ppp.with_padding`.

    One layer of a measurement is corrected. In later ones, measured beside it, its pattern
    would be subtracted twice: :func:`corrected_in_order` measures each with the earlier ones
    corrected.

    Parameters
    ----------
    model : nn.Module
    patterns : Measurement, or mapping of str to Tensor or ndarray, shape (C_k, H_k, W_k)
        Of the padding of this very network (scheme "own"); or any pattern for each layer.
    layers : sequence of str, optional
        By default all that there are.

    Raises
    ------
    LayerError
        An unknown layer, or one without a pattern; when it runs, one that gives no maps (N, C,
        H, W), or of other channels.
    SwapError
        The network cannot be copied, or a copy would not follow it.
    PPPError
        A measurement of another network, of other schemes, or of several layers; a pattern that
        is no map of finite numbers; a layer that is corrected already.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> reach = ppp.coverage(net, ["0"], 16)
    >>> draw = torch.Generator().manual_seed(0)
    >>> scenes = {str(i): torch.rand(3, 32, 32, generator=draw) for i in range(4)}
    >>> windows = ppp.cut_windows(scenes, 16, reach, per_picture=4, seed=0)
    >>> copy = corrected(net, ppp.measure(net, windows, ["0"]))
    >>> bool(abs(ppp.measure(copy, windows, ["0"])["0"].pattern).max() < 1e-6)
    True
    """
    layers = [layers] if isinstance(layers, str) else layers
    if isinstance(patterns, Measurement):
        patterns = _measured(model, patterns, layers)
    layers = list(patterns) if layers is None else list(layers)
    for layer in layers:
        if layer not in patterns:
            raise LayerError(unknown("layer among the patterns", layer, patterns))
    Tap(model, layers)  # refuses unknown layers by name
    weight, clone = next(model.parameters()), copied(model)
    for name, module in model.named_modules():
        runs = vars(module).get("forward")  # that of a copy would still run the original's modules
        inside = [layer for layer in layers if layer.startswith(f"{name}." if name else "")]
        if inside and runs is not None and getattr(runs, "__self__", None) is not module:
            raise SwapError(
                f"layer {inside[0]!r} cannot be corrected: {name or 'the model'!r} has its forward "
                "replaced, which a copy would not follow"
            )
    for layer in layers:
        module, pattern = clone.get_submodule(layer), torch.as_tensor(patterns[layer])
        if pattern.ndim != 3 or not bool(pattern.isfinite().all()):
            raise PPPError(
                f"pattern of layer {layer!r} has shape {tuple(pattern.shape)}; expected (C, H, W), "
                "all of it finite"
            )
        if hasattr(module, _BUFFER):
            raise PPPError(f"layer {layer!r} is corrected already; correct the original network")
        module.register_buffer(_BUFFER, pattern.detach().to(weight).clone())
        module.register_forward_hook(_Subtract(layer))
    return clone


def _measured(
    model: nn.Module, measurement: Measurement, layers: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Return the patterns of the network's own padding, if this is the network."""
    patterns = {layer: found.pattern for (s, layer), found in measurement.items() if s == OWN}
    if not patterns:
        schemes = dict.fromkeys(scheme for scheme, _ in measurement)
        raise PPPError(
            f"measured under {', '.join(schemes)}, not as the network pads by itself; measure "
            "ppp.with_padding(model, scheme) with schemes=None, and correct that"
        )
    if measurement.provenance.get("network") not in (None, network_fingerprint(model)):
        raise PPPError(
            "this measurement is of another network, or of other weights; measure this one, or "
            "give its patterns as {layer: pattern}"
        )
    if len(patterns if layers is None else layers) > 1:
        raise PPPError(
            f"layers {list(patterns if layers is None else layers)} were measured side by side, so "
            "that a pattern would be subtracted twice; name one layer, or use corrected_in_order"
        )
    return patterns


def corrected_in_order(
    model: nn.Module, windows: Windows, layers: Sequence[str], *,
    coverage: Coverage | None = None, **settings: Any,
) -> nn.Module:  # fmt: skip
    """Return a copy that subtracts the pattern of several layers.

    Layer by layer in the order in which they run, the copy so far is measured, and corrected by
    what is left there: the mean of A'_k - O_k, with A' of the copy and O of the network itself.

    Parameters
    ----------
    model, windows, layers, coverage
        As in :func:`ppp.measure`.
    **settings
        Others of :func:`ppp.measure`: batch_size, groups, seed, memory, progress.

    Returns
    -------
    nn.Module
        Its patterns: :func:`patterns`.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]).eval()
    >>> reach = ppp.coverage(net, ["0", "1"], 16)
    >>> draw = torch.Generator().manual_seed(0)
    >>> scenes = {str(i): torch.rand(3, 32, 32, generator=draw) for i in range(4)}
    >>> windows = ppp.cut_windows(scenes, 16, reach, per_picture=4, seed=0)
    >>> copy = corrected_in_order(net, windows, ["0", "1"])
    >>> bool(abs(ppp.measure(copy, windows, ["0", "1"])["1"].pattern).max() < 1e-6)
    True
    """
    layers = Tap(model, layers).layers
    coverage = coverage or find_coverage(model, layers, windows.size)
    order = list(audit(model, windows.size).outputs)
    for layer in sorted(layers, key=order.index):
        found = measure(model, windows, [layer], coverage=coverage, **settings)
        model = corrected(model, found)
    return model


def patterns(model: nn.Module) -> dict[str, np.ndarray]:
    """Return what a corrected copy subtracts, by layer: (C_k, H_k, W_k)."""
    found = {name: getattr(m, _BUFFER, None) for name, m in model.named_modules()}
    return {name: pattern.cpu().numpy() for name, pattern in found.items() if pattern is not None}


def random_signs(pattern: Tensor | np.ndarray, seed: int) -> np.ndarray:
    """Return a control: as large as the pattern in every cell of every channel, of random sign.

    Examples
    --------
    >>> random_signs(np.ones((1, 1, 4)), seed=0).tolist()
    [[[1.0, -1.0, -1.0, -1.0]]]
    """
    pattern = np.asarray(pattern)
    return np.where(np.random.default_rng(seed).random(pattern.shape) < 0.5, -pattern, pattern)


def permuted_channels(pattern: Tensor | np.ndarray, seed: int) -> np.ndarray:
    """Return a control: the pattern's channels, each in the place of another.

    Examples
    --------
    >>> permuted_channels(np.arange(4.0)[:, None, None], seed=0).flatten().tolist()
    [2.0, 0.0, 3.0, 1.0]
    """
    pattern = np.asarray(pattern)
    order = np.random.default_rng(seed).permutation(len(pattern))
    moved = np.empty_like(pattern)
    moved[order] = pattern[np.roll(order, 1)]
    return moved
