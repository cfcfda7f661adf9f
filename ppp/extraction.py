"""Feature maps of named layers, taken while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ppp.errors import LayerError, PPPError, unknown
from ppp.pictures import as_batch

if TYPE_CHECKING:
    from ppp.pictures import AnyPicture

Consume = Callable[[str, Tensor], None]


class Finished(Exception):
    """Raised by a hook once all that is wanted has been seen: the rest is not run."""


def runs_twice(layer: str) -> LayerError:
    """Return what is said of a layer that has no single output."""
    return LayerError(
        f"layer {layer!r} runs more than once per forward pass; name a module that runs once, "
        "such as the block around it"
    )


def require_map(layer: str, output: object) -> Tensor:
    """Refuse what is not one tensor (N, C, H, W).

    Examples
    --------
    >>> require_map("head", torch.zeros(2, 10))
    Traceback (most recent call last):
    ppp.errors.LayerError: layer 'head' gives (2, 10); expected feature maps (N, C, H, W)
    """
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise LayerError(f"layer {layer!r} gives {got}; expected feature maps (N, C, H, W)")


@contextmanager
def plain() -> Iterator[None]:
    """Run as a network runs by itself, whatever stands around the call.

    Under ``torch.inference_mode`` operators cannot be watched, and under autocast features
    are rounded to half precision. Gradients are not kept either.
    """
    with torch.inference_mode(False), torch.no_grad(), ExitStack() as stack:
        for device in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def exact_kernels() -> Iterator[dict[str, bool]]:
    """Switch off what makes equal inputs give unequal features; yields the previous state."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    # PyTorch 2.9 and later fail where TF32 is read in another way than it was set in.
    exact = ("fp32_precision", "ieee") if hasattr(cudnn, "conv") else ("allow_tf32", False)
    switches = [(matmul, *exact), (getattr(cudnn, "conv", cudnn), *exact)]
    switches += [(cudnn, "benchmark", False), (cudnn, "deterministic", True)]
    before = [(where, what, getattr(where, what)) for where, what, _ in switches]
    names = ("matmul_tf32", "cudnn_tf32", "cudnn_benchmark", "cudnn_deterministic")
    try:
        for switch in switches:
            setattr(*switch)
        yield {name: state in (True, "tf32") for name, (*_, state) in zip(names, before)}
    finally:
        for switch in before:
            setattr(*switch)


class Tap:
    """Hand the output of each named layer to a callback at the moment it is made.

    Nothing is stored, so a later in-place operation (a ReLU, a residual sum) cannot
    change what the callback saw. The forward pass ends after the last named layer. Only the
    first one goes on, to see whether one of them runs again; what fails behind them, such as
    a classifier head that wants a fixed input size, is no error.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of str
        Names as in ``model.named_modules()``; each must run once per forward pass and
        give one 4-D tensor (N, C, H, W).
    to_the_end : bool
        Whether the first pass goes on behind the last layer.

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

    def __init__(self, model: nn.Module, layers: Sequence[str], *, to_the_end: bool = True) -> None:
        layers = [layers] if isinstance(layers, str) else layers
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
        self._to_the_end = to_the_end

    def __call__(self, x: Tensor, consume: Consume) -> None:
        """Run `x` (N, C, H, W) through the network, calling ``consume(layer, output)``."""
        pending = set(self.layers)
        handles = []

        def hook(layer: str) -> Callable[..., None]:
            def seen(_module: nn.Module, _inputs: object, output: object) -> None:
                if layer not in pending:
                    raise runs_twice(layer)
                consume(layer, require_map(layer, output).detach())
                pending.discard(layer)
                if not pending and not self._to_the_end:
                    raise Finished

            return seen

        try:
            for layer, module in self._modules.items():
                handles.append(module.register_forward_hook(hook(layer)))
            with plain():
                self.model(x.clone() if x.is_inference() else x)
        except Finished:
            return
        except Exception as error:
            if pending or isinstance(error, LayerError):
                raise
        finally:
            for handle in handles:
                handle.remove()
        if pending:
            raise LayerError(f"layers {sorted(pending)} did not run in the forward pass")
        self._to_the_end = False


def extract(
    model: nn.Module, x: AnyPicture | Sequence[AnyPicture], layers: Sequence[str]
) -> dict[str, Tensor]:
    """Return a copy of each named layer's output.

    Parameters
    ----------
    model, layers
        As in :class:`Tap`.
        The model in eval mode: in train mode a pass changes batch-norm statistics.
    x : Tensor, shape (N, C, H, W), or pictures of one size
        As :func:`ppp.pictures.as_pixels` takes them, one or a list.

    Returns
    -------
    dict of str to Tensor, each of shape (N, C_k, H_k, W_k)

    Raises
    ------
    LayerError, PPPError
        As :class:`Tap`; a model in train mode.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True)).eval()
    >>> bool((extract(net, torch.randn(1, 3, 8, 8), ["0"])["0"] < 0).any())  # before the ReLU
    True
    """
    require_eval(model)
    tap = Tap(model, layers)
    if not isinstance(x, Tensor) or x.ndim != 4:
        weight = next(model.parameters(), torch.empty(0))
        x = as_batch(x).to(weight.device, weight.dtype)
    maps = copies(tap, x)
    return {layer: maps[layer] for layer in tap.layers}


def copies(tap: Tap, x: Tensor) -> dict[str, Tensor]:
    """Return a copy of each layer's output, in the order in which they run."""
    maps: dict[str, Tensor] = {}
    tap(x, lambda layer, output: maps.__setitem__(layer, output.clone()))
    return maps


def layout(model: nn.Module, layers: Sequence[str], *shape: int) -> torch.memory_format:
    """Return channels last if a depthwise network on a CPU runs bit-equally so, and faster.

    It is tried on noise (C, H, W), in single precision; others keep the format that they have.

    Examples
    --------
    >>> layout(nn.Sequential(nn.Conv2d(4, 4, 3)).eval(), ["0"], 4, 8, 8)
    torch.contiguous_format
    """
    weight = next(model.parameters())
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules())
    if depthwise and weight.device.type == "cpu" and weight.dtype == torch.float32:
        x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
        with suppress(Exception):  # a network may need its maps in order
            plainly = extract(model, x, layers)
            last = extract(model, x.contiguous(memory_format=torch.channels_last), layers)
            if all(torch.equal(map_, last[layer]) for layer, map_ in plainly.items()):
                return torch.channels_last
    return torch.contiguous_format


def require_eval(model: nn.Module) -> None:
    """Refuse a model in train mode: batch statistics tie every cell to every pixel."""
    for name, module in model.named_modules():
        if module.training and not list(module.children()):
            raise PPPError(
                f"the model is in train mode at {name or 'its root'!r}; call model.eval() first"
            )


def gather(map_: Tensor, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Cut equally large pieces out of one map.

    Parameters
    ----------
    map_ : Tensor, shape (C, H, W)
    rows, columns : ndarray of int, shape (n,)
        First cells.
    shape : (h, w)

    Returns
    -------
    Tensor, shape (n, C, h, w)
    """
    height, width = shape
    return torch.stack([map_[:, y : y + height, x : x + width] for y, x in zip(rows, columns)])
