"""Go on with a broken-off measurement: its state in a folder, whole after every picture.

The state is cut into parts: the moments of one group of pictures each, and what all
groups share. A picture rewrites its own group and the shared part, under new names; then
``state.json``, which says which files count, replaces the one before. So the folder is
valid at any moment, and what is not named in it is left over and goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ppp.errors import ResumptionError, first_words, shown
from ppp.files import digest, write
from ppp.metrics import Moments
from ppp.windows import Picture

#: Of the files; raised whenever another version could not read them.
_FORMAT = 4
_STATE = "state.json"
_ENTRIES = ("measurement", "finished", "files", "counts")
_SHARED = "shared"
_PART = rf"(group-\d+|{_SHARED})-\d+\.safetensors"
#: Files that may be in a folder besides the state: parts, and what a killed run left.
_OURS = re.compile(rf"{_PART}|\.({_PART}|state\.json)\..*")
_MEND = "give another folder, or delete this one to begin again"


class Kept:
    """The folder in which the finished pictures of one measurement are kept.

    What is kept of a measurement under way: the moments that its ``parts(group)`` names, of one
    group of pictures or, with None, of all; its ``generators``, one for each scheme; and what its
    ``counts()`` returns, as JSON takes it, for ``set_counts``. ``group`` is that of the picture
    just done.

    Parameters
    ----------
    folder : path-like
        Made if need be; it must be empty or belong to the same measurement.
    measurement : dict
        What makes it this measurement and no other; JSON's types.

    Raises
    ------
    ResumptionError
        The folder belongs to another measurement, to none, is damaged, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Kept(folder, {"seed": 0}).finished
    []
    >>> Kept(folder, {"seed": 1})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ppp.errors.ResumptionError: folder ... is of a measurement with seed = 0, not 1; give ...
    """

    def __init__(self, folder: str | Path, measurement: Mapping[str, object]) -> None:
        self.folder = Path(folder)
        self.measurement = json.loads(json.dumps({"format": _FORMAT, **measurement}))
        self.finished: list[str] = []
        self.files, self.counts, self.turn = {}, {}, 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            names = [path.name for path in self.folder.iterdir()]
            if _STATE in names:
                self._read()
            elif not all(_OURS.fullmatch(name) for name in names):
                raise ResumptionError(
                    f"folder {self.folder} holds files but no {_STATE}, so no measurement was kept "
                    "in it; give an empty or a new folder"
                )
            else:
                self._write_state()
            self._clear()
        except OSError as error:
            raise self._unusable(error) from None

    def _read(self) -> None:
        path = self.folder / _STATE
        try:
            record = json.loads(path.read_bytes())
            state = record["state"]
            if record["sha256"] != digest(_json(state)):
                raise ValueError("its digest is another")
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, error) from None
        theirs = state["measurement"]
        for name in [*self.measurement, *theirs]:
            if name not in theirs or theirs[name] != self.measurement.get(name):
                other, own = (shown(m.get(name), 60) for m in (theirs, self.measurement))
                raise ResumptionError(
                    f"folder {self.folder} is of a measurement with {name} = {other}, not {own}; "
                    f"{_MEND}"
                )
        _, self.finished, self.files, self.counts = (state[name] for name in _ENTRIES)

    def restore(self, run: Any) -> None:
        """Put the state kept last into a measurement that has just begun."""
        device = next(iter(run.generators.values())).device
        for part, kept in self.files.items():
            path = self.folder / kept["file"]
            try:
                content = path.read_bytes()
                if digest(content) != kept["sha256"]:
                    raise ValueError("its digest is another")
                tensors = load(content)
            except (OSError, ValueError, SafetensorError) as error:
                raise self._damaged(path, error) from None
            shared = part == _SHARED
            named = run.parts(None if shared else int(part.rpartition("-")[2]))
            for name, moments in named.items():
                moments.n = int(tensors[f"{name} n"])
                moments.mean = tensors[f"{name} mean"].to(device)
                moments.m2 = tensors[f"{name} m2"].to(device)
            for scheme in run.generators if shared else ():
                run.generators[scheme].set_state(tensors[f"{scheme} draws"])
        if self.files:
            run.set_counts(self.counts)

    def skips(self, picture: Picture) -> bool:
        """Whether the next picture is finished already; it must be the same as then."""
        if self.turn >= len(self.finished):
            return False
        if self.finished[self.turn] != fingerprint(picture):
            raise ResumptionError(
                f"folder {self.folder}: picture {self.turn + 1} was another one, or had other "
                f"pixels or windows, than {picture.name!r} has now; {_MEND}"
            )
        self.turn += 1
        return True

    def save(self, run: Any, picture: Picture) -> None:
        """Keep the state after a picture, whole or not at all."""
        self.turn += 1
        self.finished.append(fingerprint(picture))
        draws = {f"{scheme} draws": g.get_state() for scheme, g in run.generators.items()}
        try:
            self._write_part(f"group-{run.group}", dict(_packed(run.parts(run.group))))
            self._write_part(_SHARED, dict(_packed(run.parts(None))) | draws)
            self.counts = run.counts()
            self._write_state()
            self._clear()
        except OSError as error:
            raise self._unusable(error) from None

    def close(self) -> None:
        """Refuse to end before all finished pictures have been given again."""
        if self.turn < len(self.finished):
            raise ResumptionError(
                f"folder {self.folder} holds {len(self.finished)} finished pictures, but only "
                f"{self.turn} are given now; {_MEND}"
            )

    def _write_part(self, part: str, tensors: dict[str, Tensor]) -> None:
        content, name = save(tensors), f"{part}-{self.turn}.safetensors"
        write(self.folder / name, content)
        self.files[part] = {"file": name, "sha256": digest(content)}

    def _write_state(self) -> None:
        state = {name: getattr(self, name) for name in _ENTRIES}
        record = {"sha256": digest(_json(state)), "state": state}
        write(self.folder / _STATE, _json(record))

    def _clear(self) -> None:
        """Remove what a killed run left, and what has been replaced."""
        _remove(self.folder, {_STATE, *(entry["file"] for entry in self.files.values())})

    def _damaged(self, path: Path, error: Exception) -> ResumptionError:
        reason = first_words(error, 120)
        return ResumptionError(f"{path} is damaged ({reason}); delete {self.folder} to begin again")

    def _unusable(self, error: OSError) -> ResumptionError:
        reason = f"folder {self.folder} cannot be used: {error.strerror}"
        return ResumptionError(f"{reason}; give another, or make room or rights for it and go on")


def discard(folder: str | Path) -> None:
    """Remove what :class:`Kept` keeps in a folder, and the folder if it holds nothing else.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = Kept(folder, {"seed": 0})
    >>> discard(folder)
    >>> folder.exists()
    False
    """
    _remove(Path(folder), set())
    with contextlib.suppress(OSError):
        Path(folder).rmdir()


def _remove(folder: Path, but: set[str]) -> None:
    for path in folder.glob("*"):
        if path.name not in but and (path.name == _STATE or _OURS.fullmatch(path.name)):
            path.unlink(missing_ok=True)


def _packed(named: dict[str, Moments]) -> Iterator[tuple[str, Tensor]]:
    for name, moments in named.items():
        yield f"{name} n", torch.tensor(moments.n)
        yield f"{name} mean", moments.mean.cpu().contiguous()
        yield f"{name} m2", moments.m2.cpu().contiguous()


def fingerprint(picture: Picture) -> str:
    """Return the SHA-256 of a picture's name, pixels and windows.

    Examples
    --------
    >>> pixels = torch.zeros(3, 8, 8)
    >>> a, b = (Picture("a", pixels, np.array([0]), np.array([x])) for x in (0, 4))
    >>> fingerprint(a) == fingerprint(b)
    False
    """
    places = [[int(offset) for offset in side] for side in (picture.tops, picture.lefts)]
    found = hashlib.sha256(_json([picture.name, list(picture.pixels.shape), places]))
    found.update(_bytes(picture.pixels))
    return found.hexdigest()


def network_fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a network's modules, weights and buffers.

    Examples
    --------
    >>> first, second = (nn.Conv2d(1, 1, 3, padding=p) for p in (0, 1))
    >>> _ = second.load_state_dict(first.state_dict())
    >>> network_fingerprint(first) == network_fingerprint(second)
    False
    """
    structure = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    found = hashlib.sha256(structure.encode())
    for name, tensor in model.state_dict().items():
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
