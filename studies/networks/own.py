"""Networks of your own: made by a function of a Python file, or by timm."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ppp.errors import PPPError, WeightsError, first_line, first_words, unknown
from ppp.files import digest
from ppp.inventory import input_channels
from studies.networks import IMAGENET_MEAN, IMAGENET_STD, SUFFIXES, Network, load_file
from studies.networks.load import LUMINANCE, unknown_weights
from studies.networks.weights import read
from studies.pictures import datasets
from studies.pictures.downloads import Item, download, missing
from studies.storage import documents

_WINDOW = 224
_TIMM = "timm:"


def is_own(name: str) -> bool:
    """Tell whether a name is for :func:`load_own` rather than for ``networks.load_network``.

    Examples
    --------
    >>> is_own("nets/my_net.py:make_net"), is_own("timm:resnet18"), is_own("resnet18")
    (True, True, False)
    """
    return is_timm(name) or name.endswith(".py") or ".py:" in name


def is_timm(name: str) -> bool:
    """Tell whether a name is of a network of timm.

    Examples
    --------
    >>> is_timm("timm:resnet18"), is_timm("resnet18")
    (True, False)
    """
    return name.startswith(_TIMM)


def load_own(
    name: str, weights: str = "random", *, seed: int = 0, window: int | None = None
) -> Network:
    """Make a network with the user's own code, or with timm.

    The file is run: give only code that you trust. Its folder is importable meanwhile, so that
    it can use its neighbours. What it imports from there, or from elsewhere outside of
    installed packages, belongs to the network: it is read anew, never from a cache, and its
    SHA-256 is noted.

    Parameters
    ----------
    name : str
        ``FILE.py:FACTORY``, a function (or class) that is called without arguments and returns
        a network; or ``timm:NAME``, if timm is installed.
    weights : str
        "random": as the factory makes them, torch's generator being seeded with `seed`; a
        path to a .safetensors, .pth or .pt file; or for timm "trained" or one of its tags, such
        as "a1_in1k": :func:`fetch_timm`.
    seed : int
    window : int, optional
        Side of the square input (px); without it 224, or what timm says.

    Returns
    -------
    Network
        In evaluation mode, float32, on the CPU; no layers of interest; the normalisation of
        ImageNet, or what timm says. Its provenance holds ``file``, ``file_sha256``, and
        ``modules``: the SHA-256 of each module that was imported, by its path from the file's
        folder.

    Raises
    ------
    WeightsError
        No such file or factory; a file or a factory that raises, needs arguments, or gives no
        network, or one on the meta device; weights that do not fit.
    DataError
        Weights of timm that cannot be fetched, or that are others than they were.
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
    if is_timm(name):
        with _seeded(seed):
            network = _from_timm(name, weights, window)
        return _ready(network, name, weights, seed)
    if weights != "random" and not weights.endswith(SUFFIXES):
        raise unknown_weights(name, weights, ("random",))
    file, _, factory = name.rpartition(":") if ".py:" in name else (name, "", "")
    path = documents.as_path(file, "network file", WeightsError)
    content = documents.read_bytes(path, "network file", error=WeightsError)
    folder = path.resolve().parent
    with _importable(folder) as modules:
        with _seeded(seed):
            model = _from_file(path, content, factory, file)
        normal = IMAGENET_MEAN, IMAGENET_STD
        provenance = {"file": path.name, "file_sha256": digest(content)}
        network = Network(model, name, weights, (), window or _WINDOW, *normal, provenance)
        network = _ready(network, name, weights, seed)  # it may import more when it is run
    named = {Path(os.path.relpath(file, folder)).as_posix(): file for file in modules}
    network.provenance["modules"] = {file: modules[named[file]] for file in sorted(named)}
    return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _ready(network: Network, name: str, weights: str, seed: int) -> Network:
    """Return a network with its weights, having seen it run."""
    model = network.model
    for key, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_meta:
            raise WeightsError(
                f"network {name!r} is on the meta device, where {key} has no values; expected one "
                "on the CPU"
            )
        if weights != "random" and is_lazy(value):
            raise WeightsError(
                f"network {name!r}: {key} has no shape before the network is run, so that no "
                "weights can be loaded; run it once in the factory"
            )
    if weights == "random":
        network.provenance.update(source=f"as {name} makes it", seed=seed)
    elif "source" not in network.provenance:
        network.provenance.update(load_file(model, weights))
    size = network.window, network.window
    shape = (1, 3, *size)
    try:
        model.cpu().float().eval()
        with suppress(PPPError):  # none of its own convolutions runs: the pass says why
            shape = (1, input_channels(model, size), *size)
        with torch.no_grad():
            model(torch.zeros(shape))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's code raises
        raise PPPError(
            f"network {name!r} does not run on an input of shape {shape}: {_kind(error)}; give "
            "the window that it is made for"
        ) from None
    if shape[1] not in (1, 3):
        raise PPPError(
            f"network {name!r} reads {shape[1]} channels, photographs have 3 (or 1, grey); measure "
            "it in Python, with ppp.measure and pictures of your own"
        )
    if shape[1] == 1 and len(network.mean) == 3:
        mean = sum(share * value for share, value in zip(LUMINANCE, network.mean))
        network = replace(network, mean=(mean,), std=(sum(network.std) / 3,))
    return replace(network, weights=weights)


def _from_file(path: Path, content: bytes, factory: str, file: str) -> nn.Module:
    module = _run(path, content)
    make = _factory(module, factory, file)
    try:
        model = make()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise WeightsError(
            f"factory {factory!r} of {file} fails: {_kind(error)}{_line_in(path, error)}"
        ) from None
    if not isinstance(model, nn.Module):
        raise WeightsError(
            f"factory {factory!r} of {file} returns {type(model).__name__}; expected a "
            "torch.nn.Module"
        )
    return model


# ------------------------------------------------------------------- what a network imports


_PLACES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_INSTALLED = tuple(
    os.path.realpath(place) + os.sep
    for place in [*_PLACES, *site.getsitepackages(), site.getusersitepackages()]
)
_OURS = ("ppp", "studies", "companion")


def _is_local(name: str, file: str | None) -> bool:
    """Tell whether a module is the user's own: not installed, and none of this project's."""
    installed = not file or os.path.realpath(file).startswith(_INSTALLED)
    return not installed and name.partition(".")[0] not in _OURS


def _place(file: str | None, folders: Iterable[str] | None) -> str | None:
    """Return where a module is: its file, or the folder of a package without one."""
    return file or next(iter(folders or ()), None)


class _Source(SourceFileLoader):
    """Runs a module from the very bytes whose SHA-256 it notes, never from a cache."""

    def __init__(self, name: str, path: str, modules: dict[str, str]) -> None:
        super().__init__(name, path)
        self.modules = modules

    def get_code(self, fullname: str) -> CodeType:
        content = documents.read_bytes(self.path, "module", error=WeightsError)
        self.modules[os.path.realpath(self.path)] = digest(content)
        return self.source_to_code(content, self.path)


class _Finder:
    """Finds modules where they lie, and notes those that are the user's own."""

    def __init__(self, modules: dict[str, str]) -> None:
        self.modules = modules
        self.names: list[str] = []

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not _is_local(
            name, _place(spec.origin, spec.submodule_search_locations)
        ):
            return spec
        self.names.append(name)
        if not spec.has_location:  # a folder without __init__.py
            return spec
        if type(spec.loader) is SourceFileLoader:
            spec.loader = _Source(name, spec.origin, self.modules)
        else:  # compiled
            content = documents.read_bytes(spec.origin, "module", error=WeightsError)
            self.modules[os.path.realpath(spec.origin)] = digest(content)
        return spec


_EARLIER: set[str] = set()
"""Names of modules that the networks loaded so far imported."""


@contextmanager
def _importable(folder: Path) -> Iterator[dict[str, str]]:
    """Let modules of a folder be imported; give the SHA-256 of each of the user's own, by file.

    Modules of another network are forgotten first, and modules of the caller's that go by the
    name of a neighbour set aside: a network gets its own.
    """
    for name in _EARLIER:
        sys.modules.pop(name, None)
    _EARLIER.clear()
    neighbours = {name.partition(".")[0] for name in os.listdir(folder)}
    aside = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] in neighbours
        and name != "__main__"
        and _is_local(
            name, _place(*(getattr(module, key, None) for key in ("__file__", "__path__")))
        )
    }
    for name in aside:
        del sys.modules[name]
    modules: dict[str, str] = {}
    finder = _Finder(modules)
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    try:
        yield modules
    finally:
        sys.meta_path.remove(finder)
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        _EARLIER.update({*finder.names} - aside.keys())
        sys.modules.update(aside)


def _run(path: Path, source: bytes) -> ModuleType:
    """Import the file from the bytes that were hashed, under a name nothing else has."""
    spec = importlib.util.spec_from_file_location(f"ppp_own_network_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
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


# ------------------------------------------------------------------------------------- timm


def _timm(name: str) -> ModuleType:
    if importlib.util.find_spec("timm") is None:
        raise WeightsError(f"network {name!r} needs timm, which is not here: pip install timm")
    timm, plain = importlib.import_module("timm"), name.removeprefix(_TIMM)
    if plain not in timm.list_models():
        raise WeightsError(unknown("network of timm", plain, timm.list_models()))
    return timm


def fetch_timm(name: str, weights: str) -> tuple[str, Path, str] | None:
    """Download weights that timm publishes, unless they are in the cache and verified.

    The address is that of timm's own configuration. No SHA-256 comes with it: it is trusted on
    first use and recorded beside the file, and another file is refused from then on.

    Parameters
    ----------
    name, weights : str
        As for :func:`load_own`.

    Returns
    -------
    (name with tag, path, address), or None
        None if nothing needs to be downloaded.

    Raises
    ------
    WeightsError
        timm is not installed, or has no such network or weights.
    DataError
        They cannot be fetched, are others than they were, or ``PPP_OFFLINE`` is set.

    Examples
    --------
    >>> fetch_timm("timm:resnet18", "random") is None
    True
    """
    if weights == "random" or weights.endswith(SUFFIXES):
        return None
    timm, plain = _timm(name), name.removeprefix(_TIMM)
    tags = {full.partition(".")[2]: full for full in timm.list_pretrained(plain)}
    tag = timm.get_pretrained_cfg(plain).tag if weights == "trained" else weights
    if tag not in tags:
        raise unknown_weights(name, weights, ("random", *(["trained"] if tags else []), *tags))
    full, config = tags[tag], timm.get_pretrained_cfg(tags[tag])
    address = config.url
    if config.hf_hub_id:
        from huggingface_hub import hf_hub_url

        repository, _, revision = config.hf_hub_id.partition("@")
        file = config.hf_hub_filename or "model.safetensors"
        address = hf_hub_url(repository, file, revision=revision or None)
    item, folder = Item(full + Path(address).suffix, address), datasets.cache() / "timm"
    if missing([item], folder):
        datasets.online(f"{item.name} of {address}", "load these weights once without it")
        download([item], folder, 1, print)
    return full, folder / item.name, address


def _from_timm(name: str, weights: str, window: int | None) -> Network:
    timm, plain = _timm(name), name.removeprefix(_TIMM)
    provenance: dict[str, object] = {"timm": timm.__version__}
    if fetched := fetch_timm(name, weights):
        plain, path, address = fetched
        state, sha256 = read(path)
        try:  # timm knows what it has renamed since
            model = timm.create_model(
                plain, pretrained=True, pretrained_cfg_overlay={"state_dict": state}
            )
        except (RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{path} does not fit {name!r}: {first_words(error)}; give a file of your own"
            ) from None
        model.pretrained_cfg.pop("state_dict")
        provenance |= {"source": address, "sha256": sha256}
    else:
        model = timm.create_model(plain, pretrained=False)
    config = model.pretrained_cfg
    window = window or config["input_size"][-1]
    normal = tuple(config["mean"]), tuple(config["std"])
    return Network(model, name, "", (), window, *normal, provenance)


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
