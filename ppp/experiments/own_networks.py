"""Networks of your own: made by a function of a Python file, or by timm. [ours]"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ppp.errors import PPPError, WeightsError, unknown
from ppp.experiments.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SUFFIXES,
    Network,
    load_file,
)
from ppp.inventory import first_line

_WINDOW = 224
_TIMM = "timm:"


def is_own(name: str) -> bool:
    """Tell whether a name is for :func:`load_own` rather than for ``networks.load_network``.

    Examples
    --------
    >>> is_own("nets/my_net.py:make_net"), is_own("timm:resnet18"), is_own("resnet18")
    (True, True, False)
    """
    return name.startswith(_TIMM) or name.endswith(".py") or ".py:" in name


def load_own(
    name: str, weights: str = "random", *, seed: int = 0, window: int | None = None
) -> Network:
    """Make a network with the user's own code, or with timm.

    The file is run: give only code that you trust. Its folder is importable meanwhile, so that
    it can use its neighbours.

    Parameters
    ----------
    name : str
        ``FILE.py:FACTORY``, a function (or class) that is called without arguments and returns
        a network; or ``timm:NAME``, if timm is installed.
    weights : str
        "random": as the factory makes them, torch's generator being seeded with `seed`; or a
        path to a .safetensors, .pth or .pt file.
    seed : int
    window : int, optional
        Side of the square input (px); without it 224, or what timm says.

    Returns
    -------
    Network
        In evaluation mode, float32, on the CPU; no layers of interest; the normalisation of
        ImageNet, or what timm says.

    Raises
    ------
    WeightsError
        No such file or factory; a file or a factory that raises, needs arguments, or gives no
        network; weights that do not fit.
    PPPError
        The network does not run on (1, 3, window, window).

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "net.py")
    >>> _ = path.write_text("import torch\\ndef make(): return torch.nn.Conv2d(3, 4, 3)")
    >>> load_own(f"{path}:make", window=32).model
    Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
    """
    if weights != "random" and not weights.endswith(SUFFIXES):
        known = ("random", "a path to a .safetensors or .pth file")
        raise WeightsError(f"network {name!r}: {unknown('weights', weights, known)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = _from_timm if name.startswith(_TIMM) else _from_file
        network = made(name, window)
    model = network.model
    if weights == "random":
        network.provenance.update(source=f"as {name} makes it", seed=seed)
    else:
        network.provenance.update(load_file(model, weights))
    model.cpu().float().eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, network.window, network.window))
    except Exception as error:  # whatever the user's code raises
        shape = (1, 3, network.window, network.window)
        raise PPPError(
            f"network {name!r} does not run on an input of shape {shape}: {_kind(error)}; give "
            "the window that it is made for"
        ) from None
    return Network(
        model,
        name,
        weights,
        (),
        network.window,
        network.mean,
        network.std,
        network.provenance,
    )


def _from_file(name: str, window: int | None) -> Network:
    file, _, factory = name.rpartition(":") if ".py:" in name else (name, "", "")
    path = Path(file).expanduser()
    try:
        source = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"network file {file} cannot be read: {error.strerror}") from None
    with _importable(path.resolve().parent):
        module = _run(path, source)
        make = _factory(module, factory, file)
        try:
            model = make()
        except (Exception, SystemExit) as error:
            raise WeightsError(
                f"factory {factory!r} of {file} fails: {_kind(error)}{_line_in(path, error)}"
            ) from None
    if not isinstance(model, nn.Module):
        raise WeightsError(
            f"factory {factory!r} of {file} returns {type(model).__name__}; expected a "
            "torch.nn.Module"
        )
    provenance = {"file": path.name, "file_sha256": hashlib.sha256(source).hexdigest()}
    return Network(model, name, "", (), window or _WINDOW, IMAGENET_MEAN, IMAGENET_STD, provenance)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _run(path: Path, source: bytes) -> ModuleType:
    """Import the file from the bytes that were hashed, under a name nothing else has."""
    spec = importlib.util.spec_from_file_location(f"ppp_own_network_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise WeightsError(
            f"network file {path} cannot be imported: {_kind(error)}{_line_in(path, error)}"
        ) from None
    return module


def _factory(module: ModuleType, name: str, file: str) -> Callable[[], object]:
    own = [
        key
        for key, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]
    if not name:
        raise WeightsError(
            f"network {file!r} names no factory; expected FILE.py:FACTORY, with one of: "
            f"{', '.join(own) or 'none, the file defines no function'}"
        )
    if not hasattr(module, name):
        known = own or ["none, the file defines no function"]
        raise WeightsError(f"{file}: {unknown('factory', name, known)}")
    make = getattr(module, name)
    if isinstance(make, nn.Module) or not callable(make):
        raise WeightsError(
            f"factory {name!r} of {file} is a {type(make).__name__}; expected a function that "
            "returns a network"
        )
    try:
        needed = [
            key
            for key, parameter in inspect.signature(make).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except ValueError:  # of built-in functions
        needed = []
    if needed:
        raise WeightsError(
            f"factory {name!r} of {file} needs arguments: {', '.join(needed)}; expected none: "
            "give them defaults, or write a function that calls it"
        )
    return make


def _from_timm(name: str, window: int | None) -> Network:
    if importlib.util.find_spec("timm") is None:
        raise WeightsError(f"network {name!r} needs timm, which is not here: pip install timm")
    timm = importlib.import_module("timm")
    plain = name.removeprefix(_TIMM)
    if plain not in timm.list_models():
        raise WeightsError(unknown("network of timm", plain, timm.list_models()))
    model = timm.create_model(plain, pretrained=False)
    config = model.pretrained_cfg
    return Network(
        model,
        name,
        "",
        (),
        window or config["input_size"][-1],
        tuple(config["mean"]),
        tuple(config["std"]),
        {"timm": timm.__version__},
    )


def _kind(error: BaseException) -> str:
    """Return an error's type and the first line of its text."""
    kind, text = type(error).__name__, str(error).strip()
    return f"{kind}: {first_line(error)}" if text else kind


def _line_in(path: Path, error: BaseException) -> str:
    """Say at which line of this file an error came up, if in this file at all."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return "" if "line" in str(error) else f" (line {error.lineno})"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f" (line {lines[-1]})" if lines else ""
