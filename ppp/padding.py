"""Padding schemes: what a network is shown beyond the border of a feature map.

A scheme is a name of :data:`SCHEMES`. Two of them take an option, written in brackets:
``"constant(0.5)"`` and ``"randn(border)"``. Two with a bar between them are one to the left and
right and another above and below, as panoramas need: ``"circular|zeros"``. ``"partial"`` pads a
convolution with zeros and re-weights what it gives (Liu et al., 2018). And any function of a map
and an amount that returns the padded map is a scheme, a layer with weights too. Sources: zeros,
constant, reflect, replicate and circular are PyTorch's own; symmetric as in NumPy;
randn is named in the paper's Section 2.4 [paper], its law is ours [ours]; mean follows
distribution padding (Nguyen et al., ICIP 2019); nan marks what padding can touch [ours].
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from ppp.errors import PaddingError, unknown

SCHEMES = (
    "zeros", "constant", "reflect", "symmetric", "replicate", "circular", "randn", "mean", "nan",
)  # fmt: skip

#: Known to convolutions alone.
PARTIAL = "partial"

#: Cells on each side: (left, right, top, bottom).
Sides = tuple[int, int, int, int]


@dataclass(frozen=True)
class Scheme:
    """A parsed padding scheme.

    Attributes
    ----------
    name : str
        One of :data:`SCHEMES`.
    value : float
        The constant of ``constant``; unused otherwise.
    border_only : bool
        For ``randn``: take mean and standard deviation from the one-pixel border ring
        instead of the whole map.
    rows : Scheme or None
        Another one above and below, over the full width.
    function : callable or None
        ``function(x, (left, right, top, bottom))`` pads maps (N, C, H, W).

    Examples
    --------
    >>> Scheme.parse("constant(0.5)").value
    0.5
    >>> str(Scheme.parse("randn(border)"))
    'randn(border)'
    >>> def twice(x, sides):  # what lies beyond is twice as bright
    ...     return 2 * pad(x, sides, "replicate") - pad(x, sides, "zeros")
    >>> pad(torch.ones(1, 1, 1, 2), (1, 1, 0, 0), twice)
    tensor([[[[2., 1., 1., 2.]]]])
    """

    name: str
    value: float = 0.0
    border_only: bool = False
    rows: Scheme | None = None
    function: Callable[[Tensor, Sides], Tensor] | None = None

    @classmethod
    def parse(cls, scheme: str | Scheme | Callable[[Tensor, Sides], Tensor]) -> Scheme:
        """Read a scheme from its text; a :class:`Scheme` is returned as it is."""
        if callable(scheme):
            return cls(getattr(scheme, "__name__", type(scheme).__name__), function=scheme)
        if isinstance(scheme, Scheme):
            if not math.isfinite(scheme.value):
                raise PaddingError(
                    f"padding {scheme}: expected a finite number, such as constant(0.5); the "
                    "scheme nan marks what padding can touch"
                )
            return scheme
        columns, bar, rows = str(scheme).partition("|")
        if bar and "partial" not in scheme:
            return replace(cls.parse(columns), rows=cls.parse(rows))
        match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", str(scheme))
        name, option = match.groups() if match else (str(scheme), None)
        if name not in (*SCHEMES, PARTIAL):
            raise PaddingError(unknown("padding", scheme, (*SCHEMES, PARTIAL)))
        if option is None:
            return cls(name)
        if name == "constant":
            try:
                value = float(option)
            except ValueError:
                raise PaddingError(
                    f"padding {scheme!r}: expected a number in the brackets, such as constant(0.5)"
                ) from None
            return cls.parse(cls(name, value))
        if name == "randn" and option in ("map", "border"):
            return cls(name, border_only=option == "border")
        raise PaddingError(
            f"padding {scheme!r}: {name} takes no option {option!r}; "
            "options exist for constant(NUMBER) and randn(map|border)"
        )

    @property
    def random(self) -> bool:
        """Whether it draws from a generator."""
        return "randn" in str(self)

    def __deepcopy__(self, _memo: dict) -> Scheme:
        return self  # so that copies of a network share a learned padding, as they do weights

    def __str__(self) -> str:
        if self.rows:
            return f"{replace(self, rows=None)}|{self.rows}"
        if self.name == "constant":
            return f"constant({shortest(self.value)})" if self.value else "constant"
        return "randn(border)" if self.border_only else self.name


def shortest(value: float) -> str:
    """Return the shortest text of a number that reads back as the same number.

    Examples
    --------
    >>> shortest(2.0), shortest(0.123456789)
    ('2', '0.123456789')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def check_amount(amount: int | Sequence[int]) -> Sides:
    """Return `amount` as (left, right, top, bottom), each >= 0, or say what is wrong."""
    try:
        sides = (amount,) * 4 if isinstance(amount, int) else tuple(amount)
    except TypeError:  # neither a number nor a sequence
        sides = ()
    if len(sides) != 4 or not all(type(side) is int for side in sides):
        raise PaddingError(
            f"padding amount {amount!r}: expected one integer or four (left, right, top, bottom)"
        )
    if min(sides) < 0:
        raise PaddingError(f"padding amount {amount!r} is negative; every side must be >= 0")
    return sides


def pad(
    x: Tensor, amount: int | Sequence[int],
    scheme: str | Scheme | Callable[[Tensor, Sides], Tensor], *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Pad the two last axes of a batch of maps.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
        Maps; randn, mean and nan need a floating type.
    amount : int or (left, right, top, bottom)
        Cells added on each side, each >= 0. reflect needs less than the map's size,
        symmetric and circular at most the map's size.
    scheme : str, Scheme or callable
        One of :data:`SCHEMES`, two of them as ``"circular|zeros"``, or a function of maps and
        (left, right, top, bottom) that returns the padded maps. ``randn`` draws each
        padded value of a channel i.i.d. from N(m, s^2), with m and s the mean and (population)
        standard deviation of that channel of that sample's map, fresh at every call [ours;
        named in paper, 2.4].
        ``mean`` fills with the mean of the channel's one-pixel border ring.
    generator : torch.Generator, optional
        Source of randn's draws, on the device of `x`; the default generator without it.

    Returns
    -------
    Tensor, shape (N, C, top + H + bottom, left + W + right)
        In the memory format of `x`.

    Raises
    ------
    PaddingError
        Unknown scheme; negative, malformed or too large amount; an empty tensor or one
        that is not 4-D.

    Examples
    --------
    >>> import torch
    >>> pad(torch.tensor([[[[1.0, 2.0, 3.0]]]]), (2, 1, 0, 0), "reflect")
    tensor([[[[3., 2., 1., 2., 3., 2.]]]])
    """
    if has_torch_function_unary(x):  # so that coverage and audit see this padding too
        return handle_torch_function(pad, (x,), x, amount, scheme, generator=generator)
    scheme = Scheme.parse(scheme)
    left, right, top, bottom = sides = check_amount(amount)
    if scheme.rows:
        x = pad(x, (left, right, 0, 0), replace(scheme, rows=None), generator=generator)
        return pad(x, (0, 0, top, bottom), scheme.rows, generator=generator)
    if scheme.name == PARTIAL:
        raise PaddingError("padding partial re-weights convolutions; no map can be padded by it")
    if x.ndim != 4:
        raise PaddingError(f"expected 4-D maps (N, C, H, W), got shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise PaddingError(f"cannot pad an empty tensor of shape {tuple(x.shape)}")
    if not any(sides):
        return x
    if scheme.function:
        return _checked(scheme.function(x, sides), x, sides, scheme.name)
    _check_size(x, sides, scheme.name)
    if scheme.name in ("zeros", "constant", "nan"):
        value = {"zeros": 0.0, "constant": scheme.value, "nan": float("nan")}[scheme.name]
        if not x.is_floating_point() and not float(value).is_integer():
            raise PaddingError(f"padding {scheme} needs floating-point maps, got {x.dtype}")
        padded = F.pad(x, sides, value=value)
    elif scheme.name == "circular":
        padded = _wrapped(_wrapped(x, left, right, 3), top, bottom, 2)
    elif scheme.name in ("reflect", "replicate"):
        padded = F.pad(x, sides, mode=scheme.name)
    elif scheme.name == "symmetric":
        rows = _mirrored(x.shape[2], top, bottom, x.device)
        columns = _mirrored(x.shape[3], left, right, x.device)
        padded = x.index_select(2, rows).index_select(3, columns)
    else:
        padded = _fill(x, sides, scheme, generator)
    return padded.contiguous(memory_format=torch.channels_last) if _channels_last(x) else padded


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int | Sequence[int], amount: Sides,
    dilation: int | Sequence[int], groups: int, scheme: Scheme,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Convolve maps whose border comes from a scheme; arguments are :func:`torch.conv2d`'s.

    Partial convolution [Liu et al., 2018]: without its bias, the output is multiplied by the
    cells of the kernel over those of them that lie on the map.

    Examples
    --------
    >>> ones = torch.ones(1, 1, 2, 2)
    >>> convolve(ones, torch.ones(1, 1, 3, 3), None, 1, (1,) * 4, 1, 1, Scheme("partial"))
    tensor([[[[9., 9.],
              [9., 9.]]]])
    """
    given = weight, bias, stride, amount, dilation, groups, scheme, generator
    if has_torch_function_unary(x):  # so that coverage and audit see this padding too
        return handle_torch_function(convolve, (x,), x, *given)
    if scheme.name != PARTIAL:
        padded = pad(x, amount, scheme, generator=generator)
        return F.conv2d(padded, weight, bias, stride, 0, dilation, groups)
    out = F.conv2d(F.pad(x, amount), weight, None, stride, 0, dilation, groups)
    ones = x.new_ones(1, 1, *weight.shape[2:])
    on_map = F.pad(x.new_ones(1, 1, *x.shape[2:]), amount)
    out = out * (ones.numel() / F.conv2d(on_map, ones, None, stride, 0, dilation).clamp_min(1))
    return out if bias is None else out + bias[:, None, None]


def _checked(padded: Tensor, x: Tensor, sides: Sides, name: str) -> Tensor:
    left, right, top, bottom = sides
    expected = (*x.shape[:2], top + x.shape[2] + bottom, left + x.shape[3] + right)
    if not isinstance(padded, Tensor) or padded.shape != expected:
        got = getattr(padded, "shape", type(padded).__name__)
        raise PaddingError(f"padding {name} gives {got}; expected maps of shape {expected}")
    return padded


def _check_size(x: Tensor, sides: Sides, name: str) -> None:
    limit = {"reflect": 1, "symmetric": 0, "circular": 0}.get(name, -math.inf)
    height, width = ("height", x.shape[2], max(sides[2:])), ("width", x.shape[3], max(sides[:2]))
    for axis, size, largest in (width, height):
        if largest > size - limit:
            raise PaddingError(
                f"padding amount {largest} is too large for {name} on a map of {axis} {size}; "
                f"at most {size - limit} is possible"
            )


def _wrapped(x: Tensor, before: int, after: int, axis: int) -> Tensor:
    size = x.shape[axis]
    parts = x.narrow(axis, size - before, before), x, x.narrow(axis, 0, after)
    return torch.cat(parts, axis)


def _empty(x: Tensor, sides: Sides) -> Tensor:
    """Return a padded map without its values, in the memory format of `x`."""
    left, right, top, bottom = sides
    n, channels, height, width = x.shape
    order = torch.channels_last if _channels_last(x) else torch.contiguous_format
    shape = n, channels, top + height + bottom, left + width + right
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _mirrored(size: int, before: int, after: int, device: torch.device) -> Tensor:
    index = torch.arange(-before, size + after, device=device)
    index = torch.where(index < 0, -1 - index, index)
    return torch.where(index >= size, 2 * size - 1 - index, index)


def _ring(x: Tensor) -> Tensor:
    """Return the cells of the one-pixel border ring, each once: (N, C, cells)."""
    height, width = x.shape[2:]
    mask = torch.ones(height, width, dtype=torch.bool, device=x.device)
    mask[1 : height - 1, 1 : width - 1] = False
    return x[:, :, mask]


def _fill(x: Tensor, sides: Sides, scheme: Scheme, generator: torch.Generator | None) -> Tensor:
    """Fill the border with one mean a channel (mean) or draws around it (randn)."""
    if not x.is_floating_point():
        raise PaddingError(f"padding {scheme} needs floating-point maps, got {x.dtype}")
    left, _, top, _ = sides
    n, channels, height, width = x.shape
    from_ring = scheme.border_only or scheme.name == "mean"
    work = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    cells, axes = (_ring(x), (2,)) if from_ring else (x, (2, 3))
    cells = cells.to(work)
    mean = cells.mean(axes, keepdim=True)
    variance = (cells - mean).square().mean(axes)  # ten times as fast as torch.var_mean
    mean = mean.view(n, channels)
    padded = _empty(x, sides)
    rows = padded[:, :, top : top + height]
    rows[..., left : left + width] = x
    strips = padded[:, :, :top], padded[:, :, top + height :], rows[..., :left]
    # sqrt has no gradient at 0, where a dead channel would turn every gradient into NaN
    varies = variance > 0
    spread = (variance.where(varies, 1.0).sqrt() * varies)[:, :, None, None]
    centre = mean[:, :, None, None]
    for strip in (*strips, rows[..., left + width :]):
        if scheme.name == "mean":
            strip.copy_(centre.expand_as(strip))
        else:
            noise = torch.randn(strip.shape, dtype=work, device=x.device, generator=generator)
            strip.copy_(noise * spread + centre)
    return padded
