"""Swap the padding scheme of a network without touching the network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from ppp.errors import PaddingError, PPPError, SwapError, first_line, unknown
from ppp.padding import PARTIAL, Scheme, Sides, convolve, pad

_PAD_MODULES = {
    nn.ZeroPad2d: "zeros",
    nn.ConstantPad2d: "constant",
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
#: What stands in for a layer's own code, where it is set on the layer itself.
_REPLACED = {"forward", "_conv_forward"}
#: What a swap may do with pooling layers.
POOLS = ("keep", "swap")


class Pad2d(nn.Module):
    """Pad a map by a scheme; takes the place of PyTorch's padding modules.

    Examples
    --------
    >>> import torch
    >>> Pad2d((1, 1, 0, 0), "replicate")(torch.tensor([[[[1.0, 2.0]]]]))
    tensor([[[[1., 1., 2., 2.]]]])
    """

    def __init__(
        self, amount: int | Sides, scheme: str | Scheme, *,
        generator: torch.Generator | None = None, site: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.amount, self.scheme = amount, Scheme.parse(scheme)
        self.generator, self.site = generator, site

    def forward(self, x: Tensor) -> Tensor:
        return self.padded(x, self.amount)

    def padded(self, x: Tensor, amount: int | Sides) -> Tensor:
        """Pad a map by some amount."""
        with self._named():
            return pad(x, amount, self.scheme, generator=self.generator)

    def convolve(self, x: Tensor, weight, bias, stride, dilation, groups, amount=None) -> Tensor:
        """Convolve a map with this border; arguments are torch.conv2d's."""
        amount = amount or self.amount
        given = weight, bias, stride, amount, dilation, groups, self.scheme, self.generator
        with self._named():
            return convolve(x, *given)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except PaddingError as error:
            where = f"layer {self.site!r}: " if self.site else ""
            raise PaddingError(f"{where}{error}") from None

    def extra_repr(self) -> str:
        return f"{self.amount}, {str(self.scheme)!r}"


class PaddedConv2d(nn.Conv2d):
    """A Conv2d whose border comes from a scheme.

    Made by :func:`with_padding` from an existing layer, never built by hand.
    """

    border: Pad2d

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.border.convolve(x, weight, bias, self.stride, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, swapped to {str(self.border.scheme)!r}"


class _Calls(TorchFunctionMode):
    """Gives padding and convolving by function calls another border."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.calls, self.border = calls, calls.border

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.pad or function is torch._C._nn.pad:
            x, amount = (*args, kwargs.get("pad"))[:2] if args else (kwargs["input"], kwargs["pad"])
            sides = min(amount) >= 0 and x.ndim == 4 and any(amount[:4])
            self.calls.used |= sides
            if sides and not any(amount[4:]):
                return self.border.padded(x, (*amount, 0, 0)[:4])
            if sides and not any((*amount[:2], *amount[6:])):  # maps whose channels come last
                x = self.border.padded(x.permute(0, 3, 1, 2), amount[2:6])
                return x.permute(0, 2, 3, 1)
        elif function is torch.conv2d and self.border.scheme != Scheme("zeros"):
            names = "input", "weight", "bias", "stride", "padding", "dilation", "groups"
            call = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
            call |= dict(zip(names, args)) | kwargs
            x, weight, bias, stride, padding, dilation, groups = (call[name] for name in names)
            sides = _sides(padding, weight.shape[2:], dilation)
            if any(sides) and x.ndim == 4:
                self.calls.used = True
                return self.border.convolve(x, weight, bias, stride, dilation, groups, sides)
        return function(*args, **kwargs)


class Calls:
    """Hooks that swap the padding by function calls while a network runs."""

    def __init__(self, border: Pad2d) -> None:
        self.border, self.running, self.used = border, [], False

    def enter(self, _module: nn.Module, _inputs: object) -> None:
        self.running.append(_Calls(self).__enter__())

    def leave(self, _module: nn.Module, _inputs: object, _output: object) -> None:
        if self.running:
            self.running.pop().__exit__(None, None, None)


class _PaddedPool(nn.Module):
    """A pooling layer that sees an explicit border instead of its own."""

    def __init__(self, border: Pad2d, pool: nn.Module) -> None:
        super().__init__()
        self.border, self.pool = border, pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.border(x))


def refusal(module: nn.Module) -> str | None:
    """Say why the padding of `module` cannot be swapped, or return None if it can."""
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        return f"{kind} is compiled by torch.jit; swap before tracing or scripting"
    if isinstance(module, torch.fx.GraphModule) and _pads_by_operators(module.graph):
        return f"{kind} is a graph that convolves or pads by operators; swap before export"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return f"{kind} has no parameters yet; run the network once first"
    if isinstance(module, nn.ConvTranspose2d):
        sizes = zip(module.dilation, module.kernel_size, module.stride)
        overlap = any(d * (k - 1) >= s for d, k, s in sizes)
        if overlap or any(module.padding) or any(module.output_padding):
            return f"{kind} pads its input implicitly and takes no scheme"
        return None
    unpadded = 0, (0,), (0, 0, 0), "valid"
    if isinstance(module, nn.Conv1d | nn.Conv3d) and module.padding not in unpadded:
        return f"{kind} is not a convolution over images"
    return None


def _pads_by_operators(graph: torch.fx.Graph) -> bool:
    targets = [str(node.target) for node in graph.nodes if isinstance(node.target, OpOverload)]
    return any(word in target for target in targets for word in ("conv", "pad"))


def conv_sides(conv: nn.Conv2d) -> Sides:
    """Return the cells that a convolution pads with now, read where PyTorch reads them.

    Examples
    --------
    >>> conv = nn.Conv2d(3, 4, 3)
    >>> conv.padding, conv.dilation = (2, 2), (2, 2)  # as dilated ResNets do
    >>> conv_sides(conv)
    (2, 2, 2, 2)
    """
    if isinstance(conv, PaddedConv2d):
        return conv.border.amount
    if conv.padding_mode != "zeros":
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        return left, right, top, bottom
    return _sides(conv.padding, conv.kernel_size, conv.dilation)


def _sides(padding: int | str | tuple, kernel: tuple, dilation: int | tuple) -> Sides:
    if isinstance(padding, str):
        spans = [d * (k - 1) * (padding == "same") for d, k in zip(_pair(dilation), _pair(kernel))]
        (top, left), (bottom, right) = zip(*((span // 2, span - span // 2) for span in spans))
        return left, right, top, bottom
    rows, columns = _pair(padding)
    return columns, columns, rows, rows


def current_scheme(module: nn.Module) -> Scheme | None:
    """Return the scheme that a padded convolution or padding module uses, None if none."""
    if isinstance(module, Pad2d):
        return module.scheme
    if isinstance(module, PaddedConv2d):
        return module.border.scheme
    if isinstance(module, nn.Conv2d):
        return Scheme(module.padding_mode) if any(conv_sides(module)) else None
    name = _PAD_MODULES.get(type(module))
    value = float(module.value) if name == "constant" else 0.0
    return Scheme(name, value=value) if name else None


def with_padding(
    model: nn.Module, scheme: str | Scheme, *, generator: torch.Generator | None = None,
    pools: str = "keep",
) -> nn.Module:  # fmt: skip
    """Return a copy of `model` that pads with `scheme`.

    The copy shares the parameters of the original (no memory, and training either trains
    both) and has its own buffers, so that batch-norm statistics of the original stay
    untouched. A layer that already pads with `scheme` is left exactly as it is, so its
    output is bit-equal.

    Parameters
    ----------
    model : nn.Module
        Any network that convolves and pads with PyTorch.
    scheme : str, Scheme or callable
        As in :func:`ppp.pad`; "partial" re-weights convolutions.
    generator : torch.Generator, optional
        Shared source of randn's draws, on the device of the maps.
    pools : {"keep", "swap"}
        Pooling layers pad too: max-pooling with -inf, average pooling with zeros.
        "keep" leaves them alone (the audit lists them); "swap" gives them the scheme.

    Returns
    -------
    nn.Module
        Usable for training and inference, picklable, deep-copyable.

    Raises
    ------
    SwapError
        A layer whose padding cannot be swapped, by name: a transposed convolution, a
        compiled module, ...; or a network that cannot be copied.

    Notes
    -----
    Padding by function calls inside a ``forward`` (``F.pad``, ``F.conv2d``) is swapped while
    the copy is run as a whole: layers with convolutions of their own kind, such as
    weight-standardised ones, are swapped so. :func:`ppp.measure` checks that every swap took
    effect.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Conv2d(3, 8, 3, padding=1)
    >>> swapped = with_padding(net, "reflect")
    >>> swapped.weight is net.weight, net.padding_mode
    (True, 'zeros')
    """
    scheme = Scheme.parse(scheme)
    if pools not in POOLS:
        raise PPPError(unknown("pools", pools, POOLS))
    refused = [(name, why) for name, m in model.named_modules() if (why := refusal(m))]
    if refused:
        shown = "; ".join(f"{name or 'the model'!r}: {why}" for name, why in refused[:3])
        more = f" (and {len(refused) - 3} more)" if len(refused) > 3 else ""
        raise SwapError(f"padding cannot be swapped at {shown}{more}")
    clone = copied(model)
    modules = dict(clone.named_modules())
    owners = (PaddedConv2d, _PaddedPool) if pools == "keep" else PaddedConv2d
    functional = False
    for name, module in modules.items():
        unhook(module)
        owner = modules.get(name.rpartition(".")[0])
        border = Pad2d(0, scheme, generator=generator, site=name).train(module.training)
        if type(module) in (nn.Conv2d, PaddedConv2d) and not vars(module).keys() & _REPLACED:
            if any(conv_sides(module)):
                _swap_convolution(module, border)
        elif type(module) in (Pad2d, *_PAD_MODULES):
            if isinstance(owner, owners):
                continue
            if scheme.name == PARTIAL:
                raise SwapError(
                    f"padding cannot be swapped at {name!r}: no convolution to re-weight"
                )
            border.amount = module.amount if isinstance(module, Pad2d) else module.padding
            if current_scheme(module) != scheme or scheme.random:
                clone = _put(clone, module, border)
        elif pools == "swap" and isinstance(module, _POOLS) and not isinstance(owner, _PaddedPool):
            rows, columns = _pair(module.padding)
            border.amount = (columns, columns, rows, rows)
            if module.ceil_mode or type(module) not in _POOLS:
                why = "a ceil_mode overhang" if module.ceil_mode else "a pool of its own kind"
                raise SwapError(f"padding cannot be swapped at {name!r}: {why} takes no scheme")
            if rows or columns:
                pool = _PaddedPool(border, module).train(module.training)
                clone = _put(clone, module, pool)
                module.padding = 0
        else:
            functional |= not type(module).__module__.startswith(("torch.nn.modules.", __name__))
            functional |= bool(vars(module).keys() & _REPLACED)
    if functional:
        calls = Calls(Pad2d(0, scheme, generator=generator))
        clone.register_forward_pre_hook(calls.enter)
        clone.register_forward_hook(calls.leave, always_call=True)
    return clone


def _hooked(module: nn.Module) -> Iterator[Calls]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(calls := getattr(hook, "__self__", None), Calls):
            yield calls


def unhook(module: nn.Module, *, unused: bool = False) -> None:
    """Take off the hooks that swap function calls; if `unused`, those that swapped none."""
    for calls in [calls for calls in _hooked(module) if not (unused and calls.used)]:
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [k for k, hook in hooks.items() if getattr(hook, "__self__", 0) is calls]:
                del hooks[key]


def copied(model: nn.Module) -> nn.Module:
    """Return a copy that shares the parameters and has its own buffers.

    Raises
    ------
    SwapError
        The network cannot be copied.

    Examples
    --------
    >>> net = nn.BatchNorm2d(3)
    >>> twin = copied(net)
    >>> twin.weight is net.weight, twin.running_mean is net.running_mean
    (True, False)
    """
    try:
        with torch.inference_mode(False), torch.no_grad():
            return copy.deepcopy(model, {id(p): p for p in model.parameters()})
    except Exception as error:
        raise SwapError(
            f"{type(model).__name__} cannot be copied: {first_line(error)}; take off what hinders "
            "it, such as weight_norm by remove_weight_norm"
        ) from error


def with_generator(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Return `model` with its own random padding drawn from `generator`.

    A copy that shares the parameters; `model` itself if none of its padding is random.

    Examples
    --------
    >>> import torch
    >>> net = with_padding(torch.nn.Conv2d(3, 4, 3, padding=1), "randn")
    >>> x, seed = torch.zeros(1, 3, 4, 4), torch.Generator
    >>> outputs = [with_generator(net, seed().manual_seed(0))(x) for _ in range(2)]
    >>> torch.equal(*outputs)
    True
    """
    if not any(border.scheme.random for border in _borders(model)):
        return model
    clone = copied(model)
    for border in _borders(clone):
        border.generator = generator
    return clone


def _borders(model: nn.Module) -> Iterator[Pad2d]:
    for module in model.modules():
        yield from [module] if isinstance(module, Pad2d) else []
        yield from (calls.border for calls in _hooked(module))


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Replace a submodule wherever it is registered; return the root."""
    if model is old:
        return new
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return model


def _swap_convolution(conv: nn.Conv2d, border: Pad2d) -> None:
    if current_scheme(conv) == border.scheme and not border.scheme.random:
        return
    border.amount = left, right, top, bottom = conv_sides(conv)
    if border.scheme == Scheme("zeros"):  # PyTorch's own path: bit-equal, and the fastest
        conv.__class__, conv.padding_mode = nn.Conv2d, "zeros"
        conv._modules.pop("border", None)
        if conv_sides(conv) != border.amount and (left, top) == (right, bottom):
            conv.padding = top, left
        if conv_sides(conv) == border.amount:
            return
    conv.__class__ = PaddedConv2d
    conv.border = border


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
