"""The networks of the laboratory: batch norm folded, weights in half precision, as text.

What is measured or tested here runs on the rounded weights, as the page does.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ppp.certificate import Coverage
from ppp.windows import size_needed
from studies import paths
from studies.bhv.variants import network as bhv_network
from studies.networks import OPTIMAL, PLANE_MEAN, PLANE_STD, load_network, rebuilt
from studies.networks.names import PADDINGS

TRAINED = (*PADDINGS, OPTIMAL)
"""How the residual networks of the page were trained."""
CANVASES = {"black": 0.0, "grey": 0.5}
"""On which the networks of full convolution were trained: name -> value."""

_KEPT = paths.data("laboratory", "full-convolution.safetensors")


def residual(padding: str) -> nn.Module:
    """Return a residual network of the zoo with rounded weights and zero padding.

    Parameters
    ----------
    padding : str
        With which it was trained, one of :data:`TRAINED`.

    Returns
    -------
    nn.Module
        In eval mode; each convolution has a bias in the place of its batch norm.

    Examples
    --------
    >>> float(residual("zeros").conv1.weight.half().sub(residual("zeros").conv1.weight).abs().max())
    0.0
    """
    model = rebuilt(load_network(f"plane-resnet-{padding}", "trained").model, "zeros")
    for module in list(model.modules()):
        inner = dict(module.named_children())
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1")):
            if isinstance(inner.get(norm), nn.BatchNorm2d):
                module.add_module(conv, fuse_conv_bn_eval(inner[conv], inner[norm]))
                module.add_module(norm, nn.Identity())
    return _rounded(model)


def full_convolution(canvas: str) -> nn.Module:
    """Return the BHV test's network F-zero, trained on one of :data:`CANVASES`, rounded."""
    model = bhv_network("F-zero", 0)
    held = load_file(_KEPT)
    model.load_state_dict({key: held[f"{canvas}/{key}"].float() for key in model.state_dict()})
    return _rounded(model)


def _rounded(model: nn.Module) -> nn.Module:
    for value in model.parameters():
        value.data = value.data.half().float()
        value.requires_grad_(False)
    return model.eval()


def described(model: nn.Module) -> dict[str, object]:
    """Return what the scripts need to know of a network beside its weights.

    Map 0 is the input and map i the output of layer i, from 1. A layer reads the map `from`, adds
    the map `added` if there is one, and has a `name` if it is a layer of interest.
    """
    layers = [
        {
            **about,
            "module": name,
            "inputs": conv.in_channels,
            "outputs": conv.out_channels,
            "kernel": conv.kernel_size[0],
            "stride": conv.stride[0],
            "pad": conv.padding[0],
        }
        for name, conv, about in _order(model)
    ]
    residual_network = hasattr(model, "avgpool")
    return {
        "layers": layers,
        "classes": model.fc.out_features,
        "pool": "mean" if residual_network else "max",
        "mean": PLANE_MEAN[0] if residual_network else 0,
        "deviation": PLANE_STD[0] if residual_network else 1,
    }


def _order(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d, dict[str, object]]]:
    """Yield name, convolution and place of every layer, in order."""
    modules = dict(model.named_modules())
    if not hasattr(model, "layer1"):
        for i in range(4):
            yield f"conv{i + 1}", modules[f"conv{i + 1}"], {"from": i, "relu": True}
        return
    yield "conv1", modules["conv1"], {"from": 0, "relu": True, "name": "relu"}
    last = 1
    for block in ("layer1", "layer2", "layer3", "layer4"):
        yield f"{block}.conv1", modules[f"{block}.conv1"], {"from": last, "relu": True}
        shortcut, made = last, last + 1
        if modules[block].downsample is not None:
            name, shortcut = f"{block}.downsample.0", made + 1
            yield name, modules[name], {"from": last, "relu": False}
        about = {"from": made, "added": shortcut, "relu": True, "name": block}
        yield f"{block}.conv2", modules[f"{block}.conv2"], about
        last = max(made, shortcut) + 1


def weights(model: nn.Module) -> str:
    """Return the weights in half precision, in the order of the layers, as base64."""
    convolutions = [conv for _, conv, _ in _order(model)]
    parts = []
    for layer in (*convolutions, model.fc):
        bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        parts += [layer.weight.numpy().ravel(), bias.numpy()]
    return text(np.concatenate(parts), "<f2")


def text(values: np.ndarray, kind: str) -> str:
    """Return numbers as base64; the kind is NumPy's, with its byte order."""
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def reach(coverage: Coverage) -> dict[str, object]:
    """Return of a coverage where windows may be cut, and what padding reaches."""
    layers = [
        {
            "name": name,
            "stride": layer.stride[0],
            "height": layer.influence.shape[0],
            "width": layer.influence.shape[1],
            "touched": layer.touched,
            "influence": "".join("01"[touched] for touched in layer.influence.ravel().tolist()),
        }
        for name, layer in coverage.items()
    ]
    window = coverage.input_size[0]
    return {
        "window": window,
        "stride": coverage.stride[0],
        "margin": coverage.margin,
        "needed": size_needed(window, coverage),
        "layers": layers,
    }
