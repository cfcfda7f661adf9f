"""The notebook parameters: one registry, in which a name means the same in every notebook.

A *kind* says which values a parameter may take. Adding a parameter is one line of
:data:`PARAMETERS`; adding a kind is a small class with ``describe``, ``check`` and ``parse``.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ppp.errors import ParameterError, PPPError, shown, unknown
from studies.pictures import datasets
from studies.storage import documents

PROFILES = ("quick", "standard", "paper")

# Keys of ppp.padding.SCHEMES and of studies.bhv.variants, repeated so that listing parameters
# need not load torch; a test keeps them equal.
SCHEMES = (
    *("zeros", "constant", "reflect", "symmetric", "replicate", "circular"),
    *("randn", "mean", "nan"),
)
VARIANTS = (
    *("V", "S-zero", "S-circular", "S-circular-2", "F-zero"),
    *("S-reflect", "S-replicate", "S-randn", "S-optimal", "F-optimal"),
)
PROTOCOLS = ("published", "clean")
TEXTURES = ("noise", "photograph")
"""Canvases of the BHV test that are no constant value."""
TARGETS = ("H", "V", "G", "HS", "VS")
"""Names of read-outs' targets: ramps to the right and downwards, a Gaussian, stripes."""
IMAGES = ("photographs", "plane", "black", "white", "noise")
"""What read-outs are tested on; the photographs are not those they are trained on."""
GPUS = ("A100 80GB", "V100 16GB")
PRECISIONS = ("single", "mixed")

MOST = 2**63 - 1
"""Largest integer that NumPy, PyTorch and tables take alike."""


class Kind:
    """What a parameter may be."""

    def describe(self) -> str:
        """Say in a few words which values are allowed."""
        raise NotImplementedError

    def check(self, value: Any) -> Any:
        """Return `value` in the parameter's own type, or raise ``ValueError``."""
        raise NotImplementedError

    def parse(self, value: Any) -> Any:
        """Check a value that may still be text, as the command line gives it."""
        return self.check(value)


@dataclass(frozen=True)
class Text(Kind):
    """A text that fits a pattern."""

    pattern: str = r".*\S"
    meaning: str = "text"

    def describe(self) -> str:
        return self.meaning

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError(f"expected {self.describe()}")
        return value


@dataclass(frozen=True)
class Folder(Kind):
    """A path to a folder, or the name of a fetched set; with `default`, "" stands for that."""

    default: str = ""
    exists: bool = True
    filled: bool = False

    def describe(self) -> str:
        return "a folder" + (f', or "" for {self.default}' if self.default else "")

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or not (value or self.default):
            raise ValueError(f"expected {self.describe()}")
        documents.as_path(value, "folder")
        if value and self.exists and not datasets.located(value).is_dir():
            raise ValueError("no such folder; expected " + self.describe())
        if value and self.filled and not datasets.visible(value):
            raise ValueError("the folder is empty; put photographs (PNG, JPEG, ...) in it")
        return value


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few names."""

    allowed: tuple[str, ...]
    what: str

    def describe(self) -> str:
        return ", ".join(self.allowed)

    def check(self, value: Any) -> str:
        if value not in self.allowed:
            raise ValueError(unknown(self.what, value, self.allowed))
        return value


@dataclass(frozen=True)
class PaddingScheme(Kind):
    """A padding scheme, possibly with its option in brackets."""

    def describe(self) -> str:
        return ", ".join(SCHEMES)

    def check(self, value: Any) -> str:
        if value in SCHEMES:
            return value
        if not isinstance(value, str) or value.partition("(")[0] not in SCHEMES:
            raise ValueError(unknown("padding", value, SCHEMES))
        from ppp.padding import Scheme  # loads torch, so only for an option in brackets

        Scheme.parse(value)
        return value


@dataclass(frozen=True)
class Integer(Kind):
    """An integer of a closed range; ``bool`` is none."""

    low: int
    high: int = MOST

    def describe(self) -> str:
        top = f", <= {self.high}" if self.high < MOST else ""
        return f"an integer >= {self.low}{top}"

    def check(self, value: Any) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError(f"expected {self.describe()}")
        return value

    def parse(self, value: Any) -> int:
        whole = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(_\d+)*", value.strip())
        return self.check(int(value) if whole and len(value) < 100 else value)


@dataclass(frozen=True)
class Float(Kind):
    """A finite number of a closed range; an integer is taken as one."""

    low: float = -math.inf
    high: float = math.inf

    def describe(self) -> str:
        bounds = [f">= {self.low:g}"] * (self.low > -math.inf)
        bounds += [f"<= {self.high:g}"] * (self.high < math.inf)
        return " ".join(["a number", ", ".join(bounds)]).strip()

    def check(self, value: Any) -> float:
        number = type(value) in (int, float) and abs(value) <= sys.float_info.max
        if not number or not self.low <= value <= self.high:
            raise ValueError(f"expected {self.describe()}")
        return float(value)

    def parse(self, value: Any) -> float:
        try:
            return self.check(float(value) if isinstance(value, str) else value)
        except ValueError:
            raise ValueError(f"expected {self.describe()}") from None


@dataclass(frozen=True)
class Canvas(Kind):
    """A grey value, or the name of a texture."""

    def describe(self) -> str:
        return "a value >= 0, <= 1, " + ", ".join(TEXTURES)

    def check(self, value: Any) -> float | str:
        if isinstance(value, str):
            return Choice(TEXTURES, "canvas").check(value)
        return Float(0, 1).check(value)

    def parse(self, value: Any) -> float | str:
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)
        return self.check(value)


@dataclass(frozen=True)
class FileName(Kind):
    """The name of a file, whatever it is; with `default`, "" stands for that."""

    default: str = ""

    def describe(self) -> str:
        return "a file's name" + (f', or "" for {self.default}' if self.default else "")

    def check(self, value: Any) -> str:
        named = isinstance(value, str) and (value or self.default)
        if not named or value in (".", "..") or re.search(r"[/\0]", value):
            raise ValueError(f"expected {self.describe()}")
        return value


@dataclass(frozen=True)
class ListOf(Kind):
    """A list of distinct values of one kind."""

    kind: Kind
    minimum: int = 1
    increasing: bool = False

    def describe(self) -> str:
        order = "an increasing list" if self.increasing else "a list"
        empty = "" if self.minimum else " (may be empty)"
        return f"{order}{empty}, each of it: {self.kind.describe()}"

    def check(self, value: Any) -> list[Any]:
        return self._each(value, self.kind.check)

    def parse(self, value: Any) -> list[Any]:
        """Also take a tuple, ``a``, ``a,b``, ``[a, b]`` and ``(a, b)``, each value as it stands or
        in quotes."""
        if isinstance(value, tuple):
            value = list(value)
        if isinstance(value, str):
            value = [_unquoted(part.strip()) for part in _parts(value.strip())]
        return self._each(value, self.kind.parse)

    def _each(self, value: Any, check: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) < self.minimum:
            raise ValueError(f"expected {self.describe()}")
        values = [check(item) for item in value]
        if len(set(values)) < len(values):
            raise ValueError("a value comes twice; expected distinct ones")
        if self.increasing and values != sorted(values):
            raise ValueError("expected the values in increasing order")
        return values


def _parts(text: str) -> list[str]:
    if text[:1] + text[-1:] in ("[]", "()"):
        text = text[1:-1].strip().removesuffix(",")
    return text.split(",") if text else []


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


@dataclass(frozen=True)
class Parameter:
    """A notebook parameter: the values it may take, and what it means."""

    kind: Kind
    meaning: str


_NETWORK = Text(
    r"[A-Za-z][\w.+-]*",
    "a network's name: plane-resnet, plane-vgg, plane-resnet-reflect, ..., efficientnet-lite0, "
    "hed-vgg16, or of torchvision, such as resnet18",
)
_WEIGHTS = Text(r"\S(.*\S)?", "a name of weights, or a file")
_LAYER = Text(r"[A-Za-z_][\w.]*", "a layer's name, such as layer3")
_SEED = Integer(0, 2**32 - 1)

PARAMETERS: dict[str, Parameter] = {
    "profile": Parameter(Choice(PROFILES, "profile"), "how much is computed"),
    "photos": Parameter(
        Folder("the photographs shipped with scikit-image", filled=True),
        "folder of the photographs, or a fetched set: debian, urban100-large",
    ),
    "photograph": Parameter(
        FileName("coffee, or the first one that is large enough"),
        "name of the one photograph that is shown",
    ),
    "network": Parameter(_NETWORK, "the network"),
    "networks": Parameter(ListOf(_NETWORK), "the networks that are compared"),
    "weights": Parameter(_WEIGHTS, "the networks' weights"),
    "imagenet_networks": Parameter(ListOf(_NETWORK), "networks of torchvision"),
    "scheme": Parameter(PaddingScheme(), "the padding scheme"),
    "schemes": Parameter(ListOf(PaddingScheme()), "the padding schemes that are compared"),
    "layer": Parameter(_LAYER, "the layer"),
    "layers": Parameter(ListOf(_LAYER, minimum=0), "the layers; none means those of interest"),
    "n": Parameter(Integer(2), "number of windows, the samples of the estimate"),
    "checkpoints": Parameter(
        ListOf(Integer(2), increasing=True), "numbers of windows at which the estimate is kept"
    ),
    "pictures": Parameter(
        Choice(("photographs", "plane"), "kind of pictures"), "what is measured on"
    ),
    "per_photo": Parameter(Integer(1), "windows cut from each photograph"),
    "window": Parameter(Integer(1), "height and width of a window, px"),
    "family": Parameter(Choice(("resnet", "vgg"), "family"), "the family of small networks"),
    "metric": Parameter(
        Choice(("mae", "snr", "rms", "share"), "metric"), "the metric that is shown"
    ),
    "live_steps": Parameter(Integer(0, 1280), "training steps taken live; 0 for none"),
    "variants": Parameter(
        ListOf(Choice(VARIANTS, "variant")), "the border handlings that are compared"
    ),
    "canvas": Parameter(Canvas(), "what the blocks stand on"),
    "shift": Parameter(Integer(1), "rows by which the blocks are moved"),
    "protocol": Parameter(Choice(PROTOCOLS, "protocol"), "how networks are trained"),
    "targets": Parameter(ListOf(Choice(TARGETS, "target")), "what read-outs are to paint"),
    "trials": Parameter(Integer(1), "trainings of each network or read-out, seeds from 0"),
    "readout": Parameter(
        Choice(("published", "ridge"), "readout"),
        "how it is fitted: by the published optimiser, or in closed form",
    ),
    "images": Parameter(Choice(IMAGES, "kind of image"), "what read-outs are tested on"),
    "epochs": Parameter(Integer(1), "epochs of training, at most"),
    "snapshots": Parameter(Integer(1), "states of a training that are kept and measured"),
    "batch": Parameter(Integer(1, 256), "images in a pass that is timed"),
    "repeats": Parameter(Integer(1), "passes that are timed"),
    "gpu": Parameter(Choice(GPUS, "gpu"), "the graphics card that time is computed for"),
    "precision": Parameter(Choice(PRECISIONS, "precision"), "precision of training on it"),
    "price": Parameter(Float(0), "dollars for an hour of it; 0 for the listed prices"),
    "jobs": Parameter(Integer(1), "trainings at the same time"),
    "seed": Parameter(_SEED, "seed of every random draw"),
    "seeds": Parameter(ListOf(_SEED), "seeds of the repetitions"),
    "scene_seed": Parameter(_SEED, "seed of the synthetic scene"),
    "amount": Parameter(Integer(0), "cells padded on each side, px"),
    "sweep": Parameter(Folder("the shipped sweep"), "folder that `ppp sweep run` wrote"),
    "results": Parameter(Folder(exists=False), "folder that takes tables, figures, numbers.json"),
}


def lookup(name: str) -> Parameter:
    """Return the registry's entry, or raise :class:`~ppp.errors.ParameterError`.

    Examples
    --------
    >>> lookup("amount").kind.describe()
    'an integer >= 0'
    """
    if name not in PARAMETERS:
        raise ParameterError(unknown("parameter", name, PARAMETERS))
    return PARAMETERS[name]


def checked(values: Mapping[str, Any], *, text: bool = False) -> dict[str, Any]:
    """Return `values`, each in its parameter's own type.

    Parameters
    ----------
    values : mapping of str to object
        Parameter names and values.
    text : bool
        Whether values may still be text, as on the command line: ``"3"`` is then an integer,
        and ``"zeros,reflect"`` or ``"[zeros, reflect]"`` a list. The text of a name, a folder
        or a file is taken as it stands.

    Returns
    -------
    dict of str to object

    Raises
    ------
    ParameterError
        An unknown name, a wrong type, or a value out of range.

    Examples
    --------
    >>> checked({"n": "64", "schemes": "zeros,reflect"}, text=True)
    {'n': 64, 'schemes': ['zeros', 'reflect']}
    """
    result = {}
    for name, value in values.items():
        kind = lookup(name).kind
        try:
            result[name] = kind.parse(value) if text else kind.check(value)
        except (ValueError, PPPError) as error:
            raise ParameterError(f"parameter {name} = {shown(value)}: {error}") from None
    return result


def check(**values: Any) -> None:
    """Refuse a parameter that is unknown or has a value it may not take.

    A notebook calls it without arguments, straight after its parameters are set: then every
    name of :data:`PARAMETERS` is checked that the caller's module, or notebook, holds as a
    number, text, list, truth value or None. A variable of the same name that holds anything
    else, such as photographs read by a later cell, is no parameter and is left out. The text of
    a list, which is what papermill makes of ``-p schemes '["zeros", "randn"]'``, and a tuple of
    texts or of numbers become that list.

    Parameters
    ----------
    **values
        Parameter names of :data:`PARAMETERS`, and their values.

    Raises
    ------
    ParameterError
        Says in one line which parameter, its value, and what was expected; or that without
        arguments no parameter is set.

    Examples
    --------
    >>> check(profile="quick", n=64, scheme="randn(border)")
    >>> check(n=1)
    Traceback (most recent call last):
    ppp.errors.ParameterError: parameter n = 1: expected an integer >= 2
    >>> check(scheme="refelct")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ppp.errors.ParameterError: parameter scheme = 'refelct': unknown padding 'refelct'; did ...
    >>> layer, epochs = "layer2", 0
    >>> check()
    Traceback (most recent call last):
    ppp.errors.ParameterError: parameter epochs = 0: expected an integer >= 1
    >>> epochs, schemes = 1, '["zeros", "randn"]'
    >>> check()
    >>> schemes
    ['zeros', 'randn']
    """
    if not values:
        namespace = sys._getframe(1).f_globals
        values = {
            name: namespace[name]
            for name in PARAMETERS
            if name in namespace and _is_plain(name, namespace[name])
        }
        if not values:
            raise ParameterError("no parameter is set; set them before parameters.check()")
        written = {name: value for name, value in values.items() if _is_written(name, value)}
        namespace.update(checked(written, text=True))
        values = {name: namespace[name] for name in values}
    checked(values)


def _is_written(name: str, value: Any) -> bool:
    """Say whether a list is given in another form, as text or as a tuple."""
    return isinstance(PARAMETERS[name].kind, ListOf) and isinstance(value, str | tuple)


def _is_plain(name: str, value: Any) -> bool:
    """Say whether a notebook's parameter is written like that; later cells make other things."""
    if isinstance(value, tuple):
        alike = any(all(isinstance(one, kind) for one in value) for kind in (str, int | float))
        return alike and isinstance(PARAMETERS[name].kind, ListOf)
    return isinstance(value, type(None) | bool | int | float | str | list)


def check_whole(name: str, value: object, least: int, most: float = MOST) -> int:
    """Return a whole number of a closed range, or refuse what is none.

    Raises
    ------
    ParameterError
        Names the number, its value and the range.

    Examples
    --------
    >>> check_whole("jobs", 2, 1)
    2
    >>> check_whole("jobs", 0, 1)
    Traceback (most recent call last):
    ppp.errors.ParameterError: jobs = 0; expected a whole number of at least 1
    """
    if type(value) is not int or not least <= value <= most:
        above = most < MOST or (type(value) is int and value > most)
        span = f", {least} to {most}" if above else f" of at least {least}"
        raise ParameterError(f"{name} = {shown(value)}; expected a whole number{span}")
    return value
