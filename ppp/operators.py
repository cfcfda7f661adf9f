"""How PyTorch's operators pad, seen below the modules.

The inventory (:mod:`ppp.inventory`) and the NaN run (:mod:`ppp.influence`) both watch the
operators themselves, so that a padding written as a function call inside ``forward``
cannot escape. Circular padding is the one form that PyTorch dissolves into copies before
it reaches an operator; it is caught one level higher, at ``torch.nn.functional.pad``, and
so are :func:`ppp.padding.pad` and :func:`ppp.padding.convolve`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from ppp.padding import Scheme, Sides, check_amount, convolve, pad, shortest

aten = torch.ops.aten


@dataclass(frozen=True)
class PaddedCall:
    """One operator call that pads: what it is, how much, with what."""

    kind: str
    declared: Sides
    used: Sides
    fill: str
    ceil_mode: bool
    #: Run the operator on an input that already carries its border.
    run: Callable[[Tensor], Tensor | tuple]
    input: Tensor
    #: What the input needs on each side for :attr:`run`; negative where cells are unused.
    border: Sides
    #: Run it on a map that is constant but for NaN; takes what puts a border around a map.
    constant: Callable[[Callable[[Tensor], Tensor]], Tensor] | None = None
    #: Cells of the input between two of the output: (y, x).
    stride: tuple[int, int] = (1, 1)

    @property
    def pads(self) -> bool:
        """Whether it pads at this size."""
        return max(self.declared + self.used) > 0 or self.ceil_mode

    def filled(self, rows: float, columns: float) -> object:
        """Run the operator cheaply, with one value in its borders above, below and beside."""
        left, right, top, bottom = self.border

        def surround(map_: Tensor) -> Tensor:
            padded = F.pad(map_, (0, 0, top, bottom), value=rows)
            return F.pad(padded, (left, right, 0, 0), value=columns)

        if self.constant:
            return self.constant(surround)
        return self.run(surround(self.input)) if self.pads else NotImplemented


class ModuleStack:
    """Which module is running: names pushed and popped by hooks."""

    def __init__(self, model: nn.Module) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        self._running: list[nn.Module] = []
        self.runs: Counter[str] = Counter()
        self.outputs: Counter[str] = Counter()
        self.entered = 0

    def _enter(self, module: nn.Module, _inputs: object) -> None:
        self._running.append(module)
        self.runs[self._names[module]] += 1
        self.entered += 1

    def _leave(self, module: nn.Module, _inputs: object, output: object) -> None:
        self.outputs[self._names[module]] = getattr(output, "nbytes", 0)
        self._running.pop()

    @contextmanager
    def watching(self) -> Iterator[ModuleStack]:
        handles = []
        for module in self._names:
            handles.append(module.register_forward_pre_hook(self._enter))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield self
        finally:
            self._running.clear()
            for handle in handles:
                handle.remove()

    @property
    def module(self) -> nn.Module | None:
        return self._running[-1] if self._running else None

    @property
    def name(self) -> str:
        return self._names[self._running[-1]] if self._running else ""


def _pair(value: object, default: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value) or default  # type: ignore[arg-type]
    return values[0], values[-1]


def _axis(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool):
    """Border cells an axis needs: (declared, used before, used after, border after)."""
    extent = dilation * (kernel - 1) + 1
    span = size + 2 * padding - extent
    count = (span + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    after = (count - 1) * stride + extent - size - padding
    return padding, max(0, after), after


def _windowed(kind, fill, x, kernel, stride, padding, dilation, ceil, run, constant=None):
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride, kernel)
    rows = _axis(x.shape[-2], kernel[0], stride[0], padding[0], dilation[0], ceil)
    columns = _axis(x.shape[-1], kernel[1], stride[1], padding[1], dilation[1], ceil)
    declared = columns[0], columns[0], rows[0], rows[0]
    used = columns[0], columns[1], rows[0], rows[1]
    border = columns[0], columns[2], rows[0], rows[2]
    return PaddedCall(kind, declared, used, fill, ceil, run, x, border, constant, stride)


def _convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    if x.ndim == 3:
        rows = (1, *stride), (0, *padding), (1, *dilation), transposed, (0, *output_padding)
        call = _convolution(x[:, :, None], weight[:, :, None], bias, *rows, groups)
        return replace(call, input=x, constant=None)
    if x.ndim == 5 and not transposed:  # a stack of maps is a map of more channels
        stack, deep = x.shape[1:3], (padding[0], 0, 0)

        def run(p: Tensor) -> Tensor:
            p = p.unflatten(1, stack)
            return aten.convolution(
                p, weight, bias, stride, deep, dilation, False, (0, 0, 0), groups
            )

        sizes = [sizes[-2:] for sizes in (weight.shape, stride, padding, dilation)]
        return _windowed("convolution", "zeros", x.flatten(1, 2), *sizes, False, run)
    if x.ndim != 4:
        return None
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    kernel = weight.shape[-2:]
    if not transposed:

        def convolve(p: Tensor, stride=stride) -> Tensor:
            return aten.convolution(
                p, weight, bias, stride, (0, 0), dilation, False, (0, 0), groups
            )

        def constant(surround: Callable[[Tensor], Tensor]) -> Tensor:
            """Convolve one place without NaN; what NaN reaches, all channels share."""
            worst = x.amax(1, keepdim=True)
            reached = F.max_pool2d(surround(worst), tuple(kernel), stride, 0, dilation).isnan()
            place = worst.isnan().flatten(1).byte().argmin(1)
            value = x.flatten(2)[torch.arange(len(x)), :, place][..., None, None]
            extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
            return torch.where(reached, torch.nan, convolve(value.expand(-1, -1, *extent), (1, 1)))

        cheap = constant if x.shape[1] == weight.shape[1] else None  # not by groups of channels
        sizes = kernel, stride, padding, dilation
        return _windowed("convolution", "zeros", x, *sizes, False, convolve, cheap)
    # A transposed convolution sums over the cells around each output cell; at the border
    # some of them do not exist and count as zero. Adding `reach` cells and cropping
    # `reach * stride` outputs makes those missing cells explicit.
    extra = _pair(output_padding)
    reach = [-(-(d * (k - 1)) // s) for d, k, s in zip(dilation, kernel, stride)]
    before = [max(0, d * (k - 1) - p) // s for d, k, p, s in zip(dilation, kernel, padding, stride)]
    after = [
        max(0, d * (k - 1) - p + e) // s
        for d, k, p, e, s in zip(dilation, kernel, padding, extra, stride)
    ]

    def run(padded: Tensor) -> Tensor:
        out = aten.convolution(
            padded, weight, bias, stride, padding, dilation, True, output_padding, groups
        )
        top, side = reach[0] * stride[0], reach[1] * stride[1]
        return out[..., top : out.shape[-2] - top, side : out.shape[-1] - side]

    border = (reach[1], reach[1], reach[0], reach[0])
    used = (before[1], after[1], before[0], after[0])
    return PaddedCall("transposed", used, used, "zeros", False, run, x, border)


def _max_pool(x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    return _windowed(
        "max-pool", "-inf", x, kernel, stride, padding, dilation, ceil_mode,
        lambda p: aten.max_pool2d_with_indices(p, kernel, stride, (0, 0), dilation, False),
    )  # fmt: skip


def _average_pool(x, kernel, stride=(), padding=0, ceil_mode=False, include=True, divisor=None):
    fill = "zeros" if include else "zeros, not counted"
    return _windowed(
        "average-pool", fill, x, kernel, stride, padding, (1, 1), ceil_mode,
        lambda p: aten.avg_pool2d(p, kernel, stride, (0, 0), False, include, divisor),
    )  # fmt: skip


def _unfold(x, kernel, dilation, padding, stride):
    return _windowed(
        "unfold", "zeros", x, kernel, stride, padding, dilation, False,
        lambda p: aten.im2col(p, kernel, dilation, (0, 0), stride),
    )  # fmt: skip


def _interpolation(ring: int, run):
    """Describe an enlargement that, at the border, reads the outermost cells again."""

    def describe(x, size, align_corners=False, *scales):
        factors = [new / old for new, old in zip(size, x.shape[2:])]
        if align_corners or not all(factor.is_integer() for factor in factors):
            return None  # no ring of true cells around the map gives the same grid
        rows, columns = (ring * (factor > 1) for factor in factors)
        sides = (columns, columns, rows, rows)

        def enlarge(padded: Tensor) -> Tensor:
            top, left = rows * int(factors[0]), columns * int(factors[1])
            out = run(padded, [size[0] + 2 * top, size[1] + 2 * left], False, *scales)
            return out[..., top : top + size[0], left : left + size[1]]

        return PaddedCall("interpolation", sides, sides, "replicate", False, enlarge, x, sides)

    return describe


def _explicit(fill: str):
    def describe(x, amount, value=0.0):
        constant = "zeros" if value == 0 else f"constant({shortest(value)})"
        name = constant if fill == "constant" else fill
        if x.ndim == 5 and not any(amount[4:]):
            call = describe(x.flatten(1, 2), amount[:4], value)
            return replace(call, run=lambda p: p.unflatten(1, x.shape[1:3]))
        if any(amount[4:]):  # channels, or rows of maps whose channels come last
            if any(amount[:2]) or not any(amount[2:4]) or any(amount[6:]):
                return None
            sides, x = tuple(amount[2:6]), x.permute(0, 3, 1, 2)
            return PaddedCall(
                "pad", sides, sides, name, False, lambda p: p.permute(0, 2, 3, 1), x, sides
            )
        sides = (*amount, 0, 0)[:4]
        return PaddedCall("pad", sides, sides, name, False, lambda p: p, x, sides)

    return describe


def _joined(tensors, dim=0):
    """Describe strips joined to a map along a spatial axis: padding by hand."""
    if tensors[0].ndim != 4 or dim % 4 < 2:
        return None
    sizes = [tensor.shape[dim] for tensor in tensors]
    widest = sizes.index(max(sizes))
    if sizes.count(max(sizes)) > 1:
        return None
    around = sum(sizes[:widest]), sum(sizes[widest + 1 :])
    sides = (*around, 0, 0) if dim % 4 == 3 else (0, 0, *around)
    return PaddedCall("pad", sides, sides, "joined", False, lambda p: p, tensors[widest], sides)


_DESCRIBE = {
    aten.cat.default: _joined,
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.im2col.default: _unfold,
    aten.upsample_bilinear2d.default: _interpolation(1, aten.upsample_bilinear2d.default),
    aten.upsample_bicubic2d.default: _interpolation(2, aten.upsample_bicubic2d.default),
    aten.constant_pad_nd.default: _explicit("constant"),
}
for _axes in ("1d", "2d", "3d"):
    _DESCRIBE[getattr(aten, f"reflection_pad{_axes}").default] = _explicit("reflect")
    _DESCRIBE[getattr(aten, f"replication_pad{_axes}").default] = _explicit("replicate")

Replace = Callable[[PaddedCall], object]
Around = Callable[[Callable, tuple, Callable[[], object]], object]


class _Operators(TorchDispatchMode):
    def __init__(self, replace: Replace, around: Around) -> None:
        super().__init__()
        self.replace, self.around = replace, around

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        describe = _DESCRIBE.get(function)

        def run() -> object:
            call = describe(*args, **kwargs) if describe else None
            out = self.replace(call) if call else NotImplemented
            return function(*args, **kwargs) if out is NotImplemented else out

        return self.around(function, args, run)


class _Functions(TorchFunctionMode):
    """Catch circular padding and :func:`ppp.padding.pad`, which reach no padding operator."""

    def __init__(self, operators: _Operators) -> None:
        super().__init__()
        self.operators = operators

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        call = None
        if function is F.pad or function is torch._C._nn.pad:
            bound = dict(zip(("input", "pad", "mode", "value"), args)) | kwargs
            if bound.get("mode") == "circular":
                call = _explicit("circular")(bound["input"], bound["pad"])
        elif function is pad:
            call = _explicit(str(Scheme.parse(args[2])))(args[0], check_amount(args[1]))
        elif function is convolve:
            x, weight, bias, stride, sides, dilation, groups, scheme, _ = args
            bare = (0, 0), dilation, False, (0, 0), groups
            call = _convolution(x, weight, bias, stride, *bare)
            call = replace(call, declared=sides, used=sides, border=sides, fill=str(scheme))
        if call is None:
            return function(*args, **kwargs)
        # What runs below it, in its place too, belongs to it and is no padding of its own.
        work, self.operators.replace = self.operators.replace, lambda _: NotImplemented
        try:
            out = work(call)
            return function(*args, **kwargs) if out is NotImplemented else out
        finally:
            self.operators.replace = work


@contextmanager
def watch(replace: Replace, *, around: Around = lambda _f, _args, run: run()) -> Iterator[None]:
    """Call ``replace(call)`` for every operator that could pad, and use what it returns.

    Returning ``NotImplemented`` leaves the operator as it is. ``call.pads`` says whether it
    pads at this size. ``around(function, args, run)`` stands in for every operator; ``run()``
    gives its result, or what takes its place.
    """
    operators = _Operators(replace, around)
    with _Functions(operators), operators:
        yield


class Held:
    """The most bytes that tensors hold at once while operators are watched.

    A convolution counts its input and its output twice: kernels copy them into an order of
    their own.

    Parameters
    ----------
    others : iterable of Tensor
        What was there before and does not count: the weights.

    Examples
    --------
    >>> held = Held()
    >>> with watch(lambda call: NotImplemented, around=held):
    ...     x = torch.zeros(100)
    ...     _ = x + 1 + 1
    >>> held.peak
    1200
    """

    def __init__(self, others: Iterable[Tensor] = ()) -> None:
        self.alive, self.others, self.peak = WeakIdKeyDictionary(), WeakIdKeyDictionary(), 0
        self.others.update((tensor.untyped_storage(), 0) for tensor in others)

    def __call__(self, function: Callable, args: tuple, run: Callable[[], object]) -> object:
        out = run()
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self.others:  # hundreds, which no sum should go through
                    self.alive.setdefault(storage, storage.nbytes())
        copied = args[0].nbytes + out.nbytes if function is aten.convolution.default else 0
        self.peak = max(self.peak, sum(self.alive.values()) + copied)
        return out
