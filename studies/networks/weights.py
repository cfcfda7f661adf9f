"""Weights are data only: safetensors, or pickles restricted to tensors, each verified.

Where a SHA-256 is known, a file that has another is refused before it is parsed.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from ppp.errors import WeightsError, first_words, shown
from ppp.files import digest
from studies.pictures.datasets import online
from studies.storage import documents

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
"""Endings of files of weights."""

_PARTS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params",
          "weights", "state_dict_ema", "model_ema", "ema", "params_ema")  # fmt: skip
"""Under which names training scripts put the weights, beside the optimiser and the epoch."""

_NUMBERS = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
_HARMLESS = [np.dtype, np.float64(0).__reduce__()[0], *_NUMBERS]
"""What makes NumPy's numbers, such as the best accuracy, and can do nothing else."""


def fetch(weights, *, folder: str | Path | None = None) -> Path:
    """Download a checkpoint unless it is there already, and verify its hash either way.

    Parameters
    ----------
    weights : torchvision.models.Weights or WeightsEnum
        Anything with a ``url`` whose file name carries the first 8 or more hexadecimal
        digits of the file's SHA-256, as in ``resnet18-f37072fd.pth``.
    folder : path, optional
        Where to keep it; by default the folder of torch.hub.

    Returns
    -------
    Path

    Raises
    ------
    WeightsError
        No hash in the name, a wrong hash, an address that cannot be reached, or a file that is
        not there where ``PPP_OFFLINE`` is set.

    Examples
    --------
    >>> import torchvision
    >>> fetch(torchvision.models.Weights("file:///net.pth", None, {}))
    Traceback (most recent call last):
    ...
    ppp.errors.WeightsError: file:///net.pth carries no SHA-256 in its name ...
    """
    url = weights.url
    name = Path(urlparse(url).path).name
    match = re.search(r"-([0-9a-f]{8,64})\.", name)
    if not match:
        raise WeightsError(
            f"{url} carries no SHA-256 in its name (NAME-0123abcd.pth), so it cannot be "
            "verified; download it yourself and give the local file"
        )
    path = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / name
    if not path.exists():
        online(str(path), "load these weights once without it", WeightsError)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), match[1])
        except RuntimeError as error:  # torch.hub's report of a wrong hash
            raise WeightsError(f"{url} is not the expected file: {first_words(error)}") from None
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"{url} could not be reached ({first_words(error)}); give the path of a local file"
            ) from None
    found = digest(documents.read_bytes(path, most=None, error=WeightsError))
    if not found.startswith(match[1]):
        raise WeightsError(
            f"{path} has SHA-256 {found}, expected {match[1]}...; delete it to download it again"
        )
    return path


def load_file(model: nn.Module, weights: str | Path) -> dict[str, object]:
    """Put the weights of a file into a network; every key, shape and kind of number must match.

    Floating-point numbers of another precision are taken, and told; the bytes that are hashed
    are those that are loaded.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    weights : path
        Ends in one of :data:`SUFFIXES`.

    Returns
    -------
    dict
        ``source``, the file's name, and its ``sha256``; the ``dtype`` of numbers that are no
        float32.

    Raises
    ------
    WeightsError
        A file that is missing, holds more than tensors, or does not fit; the first keys that
        are missing, too many, or of another shape or kind are named.

    Examples
    --------
    >>> from studies.networks import SHIPPED, small_vgg
    >>> load_file(small_vgg(), SHIPPED / "plane-vgg-zeros-seed0.safetensors")["source"]
    'plane-vgg-zeros-seed0.safetensors'
    """
    path = documents.as_path(weights, "weights", WeightsError)
    state, sha256 = read(path)
    fit(model, state, path)
    kinds = {_dtype(value) for value in state.values() if value.is_floating_point()}
    cast = {"dtype": ", ".join(sorted(kinds))} if kinds - {"float32"} else {}
    return {"source": path.name, "sha256": sha256} | cast


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of a network's state: names, types, shapes and values in name order.

    Unlike the hash of a file, it names weights that were drawn or made, too.

    Examples
    --------
    >>> from studies.networks import small_vgg
    >>> weights_sha256(small_vgg(seed=1)) == weights_sha256(small_vgg(seed=1))
    True
    """
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def read(
    path: Path, expected: str = "", mend: str = "restore the original file"
) -> tuple[dict[str, Tensor], str]:
    """Read a state dict and its SHA-256; a hash that differs is refused before parsing.

    Raises
    ------
    WeightsError
        A file that is missing, has another SHA-256, or holds anything else.
    """
    content = documents.read_bytes(path, most=None, error=WeightsError)
    found = digest(content)
    if expected and found != expected:
        raise WeightsError(f"{path} has SHA-256 {found}, expected {expected}; {mend}")
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(content), found
        with (
            warnings.catch_warnings(action="ignore"),  # of kinds that are refused below
            torch.serialization.safe_globals(_HARMLESS),
        ):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own exceptions for a broken file
        raise WeightsError(
            f"{path} (SHA-256 {found}) is no file of tensors alone: {first_words(error)}"
        ) from None
    while isinstance(state, dict) and not _tensors(state):
        part = next((name for name in _PARTS if isinstance(state.get(name), dict)), None)
        if part is None:
            break
        state = state[part]
    if not isinstance(state, dict) or not _tensors(state):
        names = f", only {', '.join(map(str, state))}" if isinstance(state, dict) else ""
        raise WeightsError(
            f"{path} (SHA-256 {found}) holds no state dict of tensors{names[:80]}; expected one, "
            f"or one under one of the names {', '.join(_PARTS)}"
        )
    for key, value in state.items():
        if not isinstance(key, str):
            raise WeightsError(f"{path} has a key {shown(key)}; expected names of parameters")
        if kind := _unusable(value):
            raise WeightsError(f"{path}: {key} is {kind}; save it as a dense tensor with values")
    return state, found


def _tensors(state: dict) -> bool:
    return all(isinstance(value, Tensor) for value in state.values())


def _without_prefix(state: dict[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Take off what wrappers put before every name, such as ``module.`` or ``_orig_mod.``."""
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    before = {key.removesuffix(names[0]) for key in state if names and key.endswith(names[0])}
    for prefix in sorted(before - {""}, key=len):
        if all(prefix + name in state for name in names):
            return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return state


def _unusable(value: Tensor) -> str:
    """Say what a tensor is that no parameter can be, or nothing."""
    if value.is_meta:
        return "on the meta device, without values"
    if value.is_quantized:
        return f"quantised ({_dtype(value)})"
    return "" if value.layout == torch.strided and not value.is_nested else "sparse or nested"


def fit(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Put a state dict into a network; every key, shape and kind of number must match.

    A prefix that all names have, such as ``module.``, is taken off; what has none then, such as a
    loss's weights beside a Lightning module's ``model.``, is left.

    Raises
    ------
    WeightsError
        Names the first keys that do not fit.
    """
    # DenseNet checkpoints have names from before dots were refused in module names.
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
    state = {old.sub(r"\1\2", key): value for key, value in state.items()}
    own = model.state_dict()
    if not own.keys() <= state.keys():
        state = _without_prefix(state, own)
    given_too = {own[key].data_ptr() for key in state.keys() & own.keys()}
    faults = []
    for key, value in own.items():
        given = state.get(key)
        if given is None:
            # Old checkpoints lack the counters, which no computation in evaluation mode reads;
            # others name weights that layers share once.
            if not key.endswith("num_batches_tracked") and value.data_ptr() not in given_too:
                faults.append(f"{key} is missing")
        elif given.shape != value.shape:
            faults.append(f"{key} is {tuple(given.shape)}, not {tuple(value.shape)}")
        elif given.dtype != value.dtype and not _both_floating(given, value):
            faults.append(f"{key} is of {_dtype(given)}, not {_dtype(value)}")
    faults += [f"{key} is not in the network" for key in sorted(state.keys() - own.keys())]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{path} does not fit {type(model).__name__}: {'; '.join(faults[:3])}{more}; "
            "check that it belongs to this network"
        )
    model.load_state_dict(state, strict=False)


def _both_floating(one: Tensor, other: Tensor) -> bool:
    """Tell whether only precision is lost where one tensor takes the values of the other."""
    return one.is_floating_point() and other.is_floating_point()


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
