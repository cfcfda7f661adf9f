"""The inventory of every padding in a network: :func:`audit`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

import pandas as pd
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ppp import display
from ppp.errors import PPPError, first_line
from ppp.extraction import Finished, plain, require_eval
from ppp.operators import Held, ModuleStack, PaddedCall, watch
from ppp.padding import Sides
from ppp.swapping import Pad2d, current_scheme, refusal


@dataclass(frozen=True)
class PaddingSite:
    """One place at which a network pads.

    Attributes
    ----------
    module : str
        Name of the innermost module that was running.
    kind : str
        convolution, same, transposed, max-pool, average-pool, ceil_mode (an overhang and
        nothing else), interpolation (an enlargement whose border reads the outermost cells
        again), unfold, or pad (an explicit padding).
    origin : {"module", "functional"}
        Whether the module itself pads, or a function call inside its ``forward``.
    fill : str
        What is padded: a scheme's name, "-inf", "zeros, not counted", or "joined" (strips
        put around a map by ``torch.cat``).
    declared, used : (left, right, top, bottom)
        Cells a side asked for, and those some output cell reads at this input size: stride
        2 on an even size never reads the far side; ceil_mode reads an overhang instead.
    ceil_mode : bool
    swappable : bool
        Whether :func:`ppp.with_padding` replaces it (pools: with ``pools="swap"``).
    reason : str
        Why it is not swappable, empty otherwise.
    calls : int
        How often it ran in one forward pass.
    """

    module: str
    kind: str
    origin: str
    fill: str
    declared: Sides
    used: Sides
    ceil_mode: bool
    swappable: bool
    reason: str
    calls: int = 1


class Audit(tuple[PaddingSite, ...]):
    """The padding sites of a network, in the order in which they run.

    Attributes
    ----------
    runs, outputs : Counter of str
        How often each module ran, and the bytes of the map that it gave last.
    peak, padded : int
        Bytes that the pass held at most, beside the weights, and of all maps that are padded.
    """

    runs: Counter[str]
    outputs: Counter[str]
    peak: int
    padded: int

    def __repr__(self) -> str:
        kinds = Counter(site.kind for site in self).items()
        return f"Audit({len(self)} padding sites: {', '.join(f'{n} {kind}' for kind, n in kinds)})"

    def _repr_html_(self) -> str:
        return display.table(repr(self), self.table().to_dict("records"))

    def table(self) -> pd.DataFrame:
        """Return one row per site."""
        rows = [asdict(site) for site in self]
        return pd.DataFrame(rows, columns=list(PaddingSite.__annotations__))

    def unswappable(self, *, pools: bool = False) -> list[PaddingSite]:
        """Return the sites that no swap replaces; pools and enlargements only if asked for."""
        others = ("max-pool", "average-pool", "ceil_mode", "interpolation")
        return [s for s in self if not s.swappable and (pools or s.kind not in others)]


def input_shape(input_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of an input size given as one or two positive integers."""
    try:
        sizes = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    except TypeError:  # neither a number nor a sequence
        sizes = ()
    if len(sizes) != 2 or not all(type(side) is int and side > 0 for side in sizes):
        raise PPPError(f"input size {input_size!r}: expected one or two positive integers (px)")
    return sizes[0], sizes[1]


def input_channels(model: nn.Module, size: tuple[int, int]) -> int:
    """Return the channels of the pictures that a network reads.

    With 3, 1, or as many as one of its weights takes: the first number with which the first
    convolution runs on a picture of this size (height, width).

    Raises
    ------
    PPPError
        A network without a convolution.

    Examples
    --------
    >>> input_channels(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)), (8, 8))
    3
    """

    def stop(function: Callable, _args: tuple, run: Callable[[], object]) -> object:
        out = run()
        if function is torch.ops.aten.convolution.default:
            raise Finished
        return out

    weights = [weight for weight in model.parameters() if not is_lazy(weight)]
    known = [weight.shape[1] for weight in weights if weight.ndim == 4]
    known += [m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels]
    for channels in dict.fromkeys((3, 1, *known)) if known else ():
        try:
            with plain(), watch(lambda call: call.filled(0.0, 0.0), around=stop):
                model(weights[0].new_zeros(1, channels, *size))
        except Finished:
            return channels
        except Exception:
            continue
    if not known:
        raise PPPError("the model has no Conv2d; expected a convolutional network over images")
    return known[-1]  # what is wrong shows when the network is run


def channel_joins(model: nn.Module, channels: int, size: tuple[int, int]) -> set[Key]:
    """Return the joins that put channels beside each other, as in maps (N, H, W, C).

    They look like strips put around a map, but on a larger input they are no wider.
    """
    weight, widths = next(model.parameters()), ({}, {})
    for scale, found in enumerate(widths, 1):

        def look(key: Key, call: PaddedCall, found: dict = found) -> object:
            if call.fill == "joined":
                found[key] = call.input.shape[3 if any(call.declared[:2]) else 2]
            return call.filled(0.0, 0.0)

        x = weight.new_zeros(1, channels, *(scale * side for side in size))
        with suppress(Exception), plain(), keyed(ModuleStack(model), look):
            model(x)
        if not found:
            break
    return {key for key, width in widths[0].items() if widths[1].get(key) == width}


def audit(model: nn.Module, input_size: int | tuple[int, int]) -> Audit:
    """List every padding in a network: by module, by function call, by pool, by ceil_mode.

    The network runs once on zeros while its operators are watched, so a padding that is
    written as a function call inside a ``forward`` is found too, circular ones included.
    Convolutions are not worked out: their maps are constant.

    Parameters
    ----------
    model : nn.Module
        In eval mode, on any device.
    input_size : int or (height, width)
        Pixels; the amounts in use depend on it.

    Returns
    -------
    Audit
        A tuple of :class:`PaddingSite` with ``.table()``.

    Raises
    ------
    PPPError
        The model is in train mode, or does not run at this input size.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, stride=2))
    >>> audit(net.eval(), 8)[0].used  # stride 2 on an even size never reads the far side
    (1, 0, 1, 0)
    """
    shape = input_shape(input_size)
    require_eval(model)
    found: list[PaddingSite] = []
    joined: dict[Key, PaddingSite] = {}
    stack = ModuleStack(model)
    entered, padded, held = -1, 0, Held(model.state_dict().values())

    def record(key: Key, call: PaddedCall) -> object:
        nonlocal entered, padded
        if not call.pads:
            return call.filled(0.0, 0.0)
        padded += call.input.nbytes
        site = _site(call, stack)
        if site.kind == "same" and entered == stack.entered:  # the odd cell, then the rest
            odd = found.pop()
            both = zip(odd.declared + odd.used, site.declared + site.used)
            total = tuple(cell + rest for cell, rest in both)
            site = replace(site, declared=total[:4], used=total[4:])
        entered = stack.entered
        seen = [i for i, other in enumerate(found) if replace(other, calls=1) == site]
        if site.origin == "module" and seen:
            found[seen[0]] = replace(found[seen[0]], calls=found[seen[0]].calls + 1)
        else:
            found.append(site)
        if site.fill == "joined":
            joined[key] = site
        return call.filled(0.0, 0.0) if call.constant else NotImplemented

    channels, weight = input_channels(model, shape), next(model.parameters())
    with plain(), running(shape), keyed(stack, record, around=held):
        model(torch.zeros(1, channels, *shape, device=weight.device, dtype=weight.dtype))
    for key in channel_joins(model, channels, shape) if joined else ():
        found = [site for site in found if site is not joined.get(key)]
    listed = Audit(found)
    listed.runs, listed.outputs = stack.runs, stack.outputs
    listed.peak, listed.padded = held.peak, padded
    return listed


@contextmanager
def running(shape: tuple[int, int]) -> Iterator[None]:
    """Say of any error that the model does not run on an input of this size."""
    try:
        yield
    except PPPError:
        raise
    except Exception as error:
        raise PPPError(
            f"the model does not run on a {shape[0]} x {shape[1]} input: {first_line(error)}"
        ) from error


#: The modules that pad by themselves, by the kind of call that they make.
_OWNERS = {
    "convolution": (nn.Conv2d, nn.ConvTranspose2d),
    "transposed": (nn.Conv2d, nn.ConvTranspose2d),
    "pad": (nn.Conv2d, nn.ConvTranspose2d, Pad2d),
    "max-pool": nn.MaxPool2d,
    "average-pool": nn.AvgPool2d,
    "unfold": nn.Unfold,
    "interpolation": nn.Upsample,
}


def _padder(call: PaddedCall, stack: ModuleStack) -> tuple[str, str]:
    """Return the module that pads and the kind."""
    convolution = call.kind == "pad" and isinstance(stack.module, nn.Conv2d)
    return stack.name, "convolution" if convolution else call.kind


def _site(call: PaddedCall, stack: ModuleStack) -> PaddingSite:
    module = stack.module
    own = isinstance(module, _OWNERS[call.kind]) or (
        call.kind == "pad" and module is not None and current_scheme(module) is not None
    )
    name, kind = _padder(call, stack)
    if own and kind == "convolution" and getattr(module, "padding", None) == "same":
        kind = "same"
    if not any(call.declared) and call.ceil_mode:
        kind = "ceil_mode"
    if call.ceil_mode:
        reason = "an overhang that takes no scheme"
    elif call.fill == "joined":
        reason = "strips joined by torch.cat take no scheme; pad with torch.nn.functional.pad"
    elif kind in ("unfold", "interpolation") or (kind == "transposed" and not own):
        reason = f"{kind} takes no scheme"
    elif "pool" in kind and not own:
        reason = "a function call inside a forward; no module to replace"
    elif call.input.ndim != 4:
        reason = f"pads maps of {call.input.ndim} axes, which take no scheme"
    else:
        reason = refusal(module) or ""
    origin = "module" if own else "functional"
    used = call.declared, call.used, call.ceil_mode
    return PaddingSite(name, kind, origin, call.fill, *used, not reason, reason)


#: Module, kind and number of a call: by it, a call of one pass is found in another.
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Site:
    """A call that pads when a window runs.

    Attributes
    ----------
    module, kind : str
        As in :class:`ppp.inventory.PaddingSite`.
    number : int
        Among the calls of this kind in this module, from 0.
    size : (height, width)
        Cells of the map that is padded.
    border : (left, right, top, bottom)
        Cells needed around it; negative where some of its own are not read.
    stride : (y, x)
        Input pixels between its cells; 0 where its size does not follow the input's.
    varies : bool
        Whether the network pads larger inputs by other amounts; there, the window's are taken.
    """

    module: str
    kind: str
    number: int
    size: tuple[int, int]
    border: Sides
    stride: tuple[Fraction, Fraction]
    varies: bool = False

    @property
    def key(self) -> Key:
        return self.module, self.kind, self.number


@contextmanager
def keyed(
    stack: ModuleStack, work: Callable[[Key, PaddedCall], object], **others: Callable
) -> Iterator[None]:
    """Watch every call that could pad; ``work(key, call)`` may replace what it gives."""
    seen: Counter[tuple[str, str]] = Counter()

    def numbered(call: PaddedCall) -> object:
        pads = _padder(call, stack)
        seen[pads] += 1
        return work((*pads, seen[pads] - 1), call)

    with stack.watching(), watch(numbered, **others):
        yield
