"""Feature maps of named layers, taken while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ppp.errors import LayerError, unknown

Consume = Callable[[str, Tensor], None]


class _Finished(Exception):
    """Raised by a hook once every layer has been seen: the rest of the network is not run."""


class Tap:
    """Hand the output of each named layer to a callback at the moment it is made.

    Nothing is stored, so a later in-place operation (a ReLU, a residual sum) cannot
    change what the callback saw. The forward pass ends after the last named layer;
    a classifier head that wants a fixed input size is never reached.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of str
        Names as in ``model.named_modules()``; each must run once per forward pass and
        give one 4-D tensor (N, C, H, W).

    Raises
    ------
    LayerError
        Unknown or repeated name, no layer at all, a layer that does not run, runs more
        than once, or gives something else than maps.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    >>> Tap(net, ["0"])(torch.zeros(1, 3, 8, 8), lambda name, map: print(name, tuple(map.shape)))
    0 (1, 4, 6, 6)
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        if isinstance(layers, str):
            layers = [layers]
        modules = dict(model.named_modules())
        if not layers:
            raise LayerError("no layer given; name at least one module of the model")
        for layer in layers:
            if layer not in modules or not layer:
                raise LayerError(unknown("layer", layer, [name for name in modules if name]))
        if len(set(layers)) != len(layers):
            raise LayerError(f"a layer is named twice in {list(layers)}")
        self.model = model
        self.layers = tuple(layers)
        self._modules = {layer: modules[layer] for layer in layers}

    def __call__(self, x: Tensor, consume: Consume) -> None:
        """Run `x` (N, C, H, W) through the network, calling ``consume(layer, output)``."""
        pending = set(self.layers)
        handles = []

        def hook(layer: str) -> Callable[..., None]:
            def seen(_module: nn.Module, _inputs: object, output: object) -> None:
                if layer not in pending:
                    raise LayerError(
                        f"layer {layer!r} runs more than once per forward pass; "
                        "name a module that runs once, such as the block around it"
                    )
                if not isinstance(output, Tensor) or output.ndim != 4:
                    got = (
                        tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                    )
                    raise LayerError(
                        f"layer {layer!r} gives {got}; expected feature maps (N, C, H, W)"
                    )
                pending.discard(layer)
                consume(layer, output.detach())
                if not pending:
                    raise _Finished

            return seen

        try:
            for layer, module in self._modules.items():
                handles.append(module.register_forward_hook(hook(layer)))
            with torch.no_grad():
                self.model(x)
        except _Finished:
            return
        finally:
            for handle in handles:
                handle.remove()
        raise LayerError(f"layers {sorted(pending)} did not run in the forward pass")


def extract(model: nn.Module, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return a copy of each named layer's output.

    Parameters
    ----------
    model, layers
        As in :class:`Tap`.
    x : Tensor, shape (N, C, H, W)

    Returns
    -------
    dict of str to Tensor, each of shape (N, C_k, H_k, W_k)

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True))
    >>> bool((extract(net, torch.randn(1, 3, 8, 8), ["0"])["0"] < 0).any())  # before the ReLU
    True
    """
    maps: dict[str, Tensor] = {}
    Tap(model, layers)(x, lambda layer, output: maps.__setitem__(layer, output.clone()))
    return {layer: maps[layer] for layer in Tap(model, layers).layers}
