"""Swap the padding scheme of a network without touching the network."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ppp.errors import PaddingError, PPPError, SwapError, first_line, unknown
from ppp.padding import Scheme, Sides, pad

_PAD_MODULES = {
    nn.ZeroPad2d: "zeros",
    nn.ConstantPad2d: "constant",
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
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
        try:
            return pad(x, self.amount, self.scheme, generator=self.generator)
        except PaddingError as error:
            where = f"layer {self.site!r}: " if self.site else ""
            raise PaddingError(f"{where}{error}") from None

    def extra_repr(self) -> str:
        return f"{self.amount}, {str(self.scheme)!r}"


class PaddedConv2d(nn.Conv2d):
    """A Conv2d whose border comes from :func:`ppp.padding.pad`.

    Made by :func:`with_padding` from an existing layer, never built by hand.
    """

    border: Pad2d
    original: type = nn.Conv2d

    def __reduce_ex__(self, _protocol: object) -> tuple:
        return _unpickled, (self.original,), self.__dict__

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padded = self.border(x)
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, swapped to {str(self.border.scheme)!r}"


_PADDED: dict[type, type] = {nn.Conv2d: PaddedConv2d}


def _padded(kind: type) -> type:
    """Return the class of a swapped convolution: it keeps all that a subclass adds."""
    if kind not in _PADDED:
        name, bases = f"Padded{kind.__name__}", (PaddedConv2d, kind)
        _PADDED[kind] = type(name, bases, {"original": kind, "__doc__": PaddedConv2d.__doc__})
    return _PADDED[kind]


def _unpickled(kind: type) -> nn.Module:
    padded = _padded(kind)
    return padded.__new__(padded)


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
    if isinstance(module, torch.fx.GraphModule) and _pads_by_functions(module.graph):
        return f"{kind} is a graph that convolves or pads by function calls; swap before export"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return f"{kind} has no parameters yet; run the network once first"
    replaced = vars(module).keys() & {"forward", "_conv_forward"}
    if replaced and any(_may_pad(inner) for inner in module.modules()):
        bound = getattr(vars(module).get("forward"), "__self__", None) is module
        if isinstance(module, nn.Conv2d) or not bound:
            return f"{kind} has its {min(replaced)} replaced, which a copy would not follow"
    if isinstance(module, tuple(_PAD_MODULES)) and type(module) not in _PAD_MODULES:
        return f"{kind} is a padding module of its own kind"
    if isinstance(module, nn.ConvTranspose2d):
        sizes = zip(module.dilation, module.kernel_size, module.stride)
        overlap = any(d * (k - 1) >= s for d, k, s in sizes)
        if overlap or any(module.padding) or any(module.output_padding):
            return f"{kind} pads its input implicitly and takes no scheme"
        return None
    if isinstance(module, nn.Conv2d):
        known = nn.Conv2d._conv_forward, PaddedConv2d._conv_forward
        own = type(module)._conv_forward not in known
        if own or type(module).forward is not nn.Conv2d.forward:
            return f"{kind} has a forward of its own that may pad by itself"
        if is_parametrized(module) and any(conv_sides(module)):
            return f"{kind} computes its weight; call remove_parametrizations on it first"
        return None
    unpadded = 0, (0,), (0, 0, 0), "valid"
    if isinstance(module, nn.Conv1d | nn.Conv3d) and module.padding not in unpadded:
        return f"{kind} is not a convolution over images"
    return None


def _may_pad(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, Pad2d, *_PAD_MODULES))


def _pads_by_functions(graph: torch.fx.Graph) -> bool:
    calls = [node for node in graph.nodes if node.op in ("call_function", "call_method")]
    return any(word in str(node.target) for node in calls for word in ("conv", "pad"))


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
    if isinstance(conv.padding, str):
        spans = [
            d * (k - 1) * (conv.padding == "same")
            for d, k in zip(_pair(conv.dilation), _pair(conv.kernel_size))
        ]
        (top, left), (bottom, right) = zip(*((span // 2, span - span // 2) for span in spans))
        return left, right, top, bottom
    rows, columns = _pair(conv.padding)
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
        Any network of ``nn.Conv2d`` and PyTorch's 2-D padding modules.
    scheme : str or Scheme
        One of :data:`ppp.padding.SCHEMES`.
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
        subclass of Conv2d with a forward of its own, a compiled module, a forward replaced
        on the instance, ...; or a network that cannot be copied.

    Notes
    -----
    Padding done by function calls inside a ``forward`` cannot be seen from the modules;
    :func:`ppp.audit` sees it, and :func:`ppp.measure` checks the audit before it swaps.

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
    for name, module in modules.items():
        owner = modules.get(name.rpartition(".")[0])
        border = Pad2d(0, scheme, generator=generator, site=name).train(module.training)
        if isinstance(module, nn.Conv2d) and any(conv_sides(module)):
            _swap_convolution(module, border)
        elif isinstance(module, (Pad2d, *_PAD_MODULES)):
            if isinstance(owner, owners):
                continue
            border.amount = module.amount if isinstance(module, Pad2d) else module.padding
            if current_scheme(module) != scheme or scheme.name == "randn":
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
    return clone


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
    if not any(isinstance(m, Pad2d) and m.scheme.name == "randn" for m in model.modules()):
        return model
    clone = copied(model)
    for module in clone.modules():
        if isinstance(module, Pad2d):
            module.generator = generator
    return clone


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
    if current_scheme(conv) == border.scheme and border.scheme.name != "randn":
        return
    border.amount = left, right, top, bottom = conv_sides(conv)
    kind = conv.original if isinstance(conv, PaddedConv2d) else type(conv)
    if border.scheme.name == "zeros":  # PyTorch's own path: bit-equal, and the fastest
        conv.__class__, conv.padding_mode = kind, "zeros"
        conv._modules.pop("border", None)
        if conv_sides(conv) != border.amount and (left, top) == (right, bottom):
            conv.padding = top, left
        if conv_sides(conv) == border.amount:
            return
    conv.__class__ = _padded(kind)
    conv.border = border


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
