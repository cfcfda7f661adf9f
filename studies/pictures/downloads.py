"""Download files: in parallel, resumed and verified. [ours]

What has arrived is kept: the same call goes on where it was broken off, killed or cut off.
``.NAME.part`` holds the beginning of a file and ``.NAME.from`` says which version on which
address it began; a file gets its name only when it is whole and its SHA-256 is right.

A file whose SHA-256 is not known beforehand is *trusted on first use*: its hash is written to
``SHA256SUMS`` in the folder (``sha256sum -c SHA256SUMS`` reads it too), and every later download
verifies against that. It says that a file has not changed since, not that it was right.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ppp.errors import DataError
from ppp.files import sha256, write
from studies.storage import documents, outputs

if TYPE_CHECKING:
    from requests import Response, Session

SUMS = "SHA256SUMS"

_CHUNK = 2**14  # bytes
_REDIRECTS = 5  # followed for one file
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may pass


@dataclass(frozen=True)
class Item:
    """A file to download; `sha256` is empty where it is not known."""

    name: str
    url: str
    sha256: str = ""


@dataclass(frozen=True)
class Limits:
    """How patient a download is, and how much it takes."""

    timeout: float = 30  # longest silence of a server, s
    attempts: int = 5  # of each file, before it counts as failed
    pause: float = 1  # before the second attempt, s; doubled before each further one
    longest_pause: float = 60  # that a server may ask for ("Retry-After"), s
    size: int = 2**30  # of the largest file that is taken, bytes


def missing(items: Sequence[Item], folder: Path) -> list[Item]:
    """Return the files that are not in a folder with the right SHA-256.

    Examples
    --------
    >>> missing([Item("a.png", "http://localhost/a.png")], Path("none"))
    [Item(name='a.png', url='http://localhost/a.png', sha256='')]
    """
    sums = _read_sums(folder)
    expected = {item: item.sha256 or sums.get(item.name) for item in items}
    return [item for item in items if _sha256(folder / item.name) != expected[item]]


def download(
    items: Sequence[Item], folder: Path, *, jobs: int, limits: Limits, say: Callable[[str], None]
) -> None:
    """Download the files that are :func:`missing`, `jobs` at a time.

    Parameters
    ----------
    items : sequence of Item
    folder : Path
        It is made if need be.
    jobs : int
    limits : Limits
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
    >>> items, folder = [Item("a.png", "http://localhost:1/a.png")], Path(tempfile.mkdtemp())
    >>> download(items, folder, jobs=1, limits=Limits(attempts=1), say=print)
    Traceback (most recent call last):
    ppp.errors.DataError: 1 of 1 files could not be fetched into ...
    """
    folder.mkdir(parents=True, exist_ok=True)
    with outputs.held(folder / outputs.LOCK, "ppp fetch"):
        items = missing(items, folder)
        run = _Run(folder, limits)
        run.record()
        for item in items:
            if item.name in run.sums and (folder / item.name).exists():
                say(f"{item.name} has changed since it was fetched; it is fetched again")
        try:
            failed = run.receive(items, jobs)
        finally:
            run.stop.set()
            with run.lock:
                run.record()
            if run.trusted:
                say(
                    f"{run.trusted} of {len(items)} files had no known SHA-256: trusted on first "
                    f"use, and recorded in {folder / SUMS}"
                )
    if failed:
        item = next(item for item in items if item in failed)
        raise DataError(
            f"{len(failed)} of {len(items)} files could not be fetched into {folder}; the first, "
            f"{item.name} of {item.url}: {failed[item]}; the same command tries again what is "
            "missing"
        )


class _Failed(Exception):
    """Why a file cannot be downloaded; never leaves this module."""


class _Passing(Exception):
    """Why an attempt failed that may be repeated, after a pause of so many seconds."""

    def __init__(self, why: str, *, pause: float = 0, host: str = "") -> None:
        super().__init__(why)
        self.pause, self.host = pause, host  # `host`: one that cannot be reached


class _Run:
    """One download: what its threads do and share."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.sums = _read_sums(folder)
        self.trusted, self.received = 0, 0  # files, bytes
        self.silent: dict[str, str] = {}  # hosts that cannot be reached, and why
        self.stop, self.lock = threading.Event(), threading.Lock()

    def record(self) -> None:
        """Write all of SHA256SUMS, without a line that a killed download left cut off."""
        if self.sums or (self.folder / SUMS).exists():
            lines = (f"{sha256}  {name}\n" for name, sha256 in sorted(self.sums.items()))
            write(self.folder / SUMS, "".join(lines).encode())

    def receive(self, items: Sequence[Item], jobs: int) -> dict[Item, _Failed]:
        """Receive files; return why which of them failed."""
        from tqdm import tqdm

        waiting, done = queue.SimpleQueue(), queue.SimpleQueue()
        for item in items:
            waiting.put(item)
        # Daemons, so that an interrupted program need not wait for a silent server.
        for _ in range(min(jobs, len(items))):
            threading.Thread(target=self._work, args=(waiting, done), daemon=True).start()
            waiting.put(None)
        failed = {}
        with tqdm(total=len(items), unit="file", disable=None) as bar:
            while bar.n < len(items):
                with contextlib.suppress(queue.Empty):
                    item, error = done.get(timeout=0.2)
                    if isinstance(error, _Failed):
                        failed[item] = error
                    elif error:
                        raise error
                    bar.n += 1
                bar.set_postfix_str(f"{self.received / 2**20:.1f} MiB")
        return failed

    def _work(self, waiting: queue.SimpleQueue, done: queue.SimpleQueue) -> None:
        import requests

        with requests.Session() as session:
            # Else requests would read all of a redirection's content, however large.
            session.get_redirect_target = lambda response: None
            for item in iter(waiting.get, None):
                try:
                    done.put((item, _Transfer(self, session, item).finish()))
                except Exception as error:
                    done.put((item, error))


class _Transfer:
    """The transfer of one file: what has arrived of it, and of which version."""

    def __init__(self, run: _Run, session: Session, item: Item) -> None:
        self.run, self.limits, self.session, self.item = run, run.limits, session, item
        self.expected = item.sha256 or run.sums.get(item.name, "")
        self.path = run.folder / item.name
        self.part, self.origin = (run.folder / f".{item.name}.{end}" for end in ("part", "from"))
        self.validator, self.total = "", 0

    def finish(self) -> None:
        if self.path.exists() and self.item.name not in self.run.sums:
            raise _Failed("a file of that name is there that no fetch wrote; move it away")
        for _ in range(2):
            self._persist()
            found = _sha256(self.part)
            if found == (self.expected or found):
                return self._publish(found)
            self._discard()
        source = "the list" if self.item.sha256 else f"{SUMS}, written at the first fetch"
        raise _Failed(f"gave SHA-256 {found} twice, expected {self.expected} after {source}")

    def _publish(self, found: str) -> None:
        with self.run.lock:
            if self.run.stop.is_set():
                return
            self.run.trusted += not self.expected
            # Its hash is recorded before a file gets its name: none is there without.
            with open(self.run.folder / SUMS, "a", encoding="utf-8") as sums:
                sums.write(f"{found}  {self.item.name}\n")
            self.run.sums[self.item.name] = found
            os.replace(self.part, self.path)
            self._discard()

    def _persist(self) -> None:
        """Receive the file in as many attempts as it takes."""
        pause = 0.0
        for attempt in range(self.limits.attempts):
            if self.run.stop.wait(pause):
                raise _Failed("stopped")
            try:
                return self._receive()
            except _Passing as error:
                failure, pause = error, max(self.limits.pause * 2**attempt, error.pause)
        why = f"{failure}, in {self.limits.attempts} attempts"
        if failure.host:
            self.run.silent[failure.host] = why  # other files need not wait as long
        raise _Failed(why)

    def _receive(self) -> None:
        """Receive what is missing of the file, in one attempt."""
        from urllib3.exceptions import HTTPError

        size = self._begun()
        if size and size == self.total:
            return
        rest = {"Range": f"bytes={size}-", "If-Range": self.validator} if size else {}
        with self._answer(rest | {"Accept-Encoding": "identity"}) as response:
            size = self._accept(response, size)
            try:
                with open(self.part, "ab") as file:
                    for chunk in response.raw.stream(_CHUNK, decode_content=False):
                        if self.run.stop.is_set():
                            raise _Failed("stopped")
                        size += len(chunk)
                        self.run.received += len(chunk)
                        self._bound(size)
                        file.write(chunk)
            except HTTPError as error:
                raise _Passing(f"broke off ({reason(error)})") from None
        if self.total and size != self.total:
            raise _Passing(f"broke off after {size} of {self.total} bytes")

    def _answer(self, headers: dict[str, str]) -> Response:
        """Follow the address to an answer that is not a redirection."""
        url = self.item.url
        for _ in range(_REDIRECTS + 1):
            response = self._ask(url, headers)
            if not response.is_redirect:
                return response
            response.close()
            url = _onward(url, response.headers["Location"])
        raise _Failed(f"more than {_REDIRECTS} redirections")

    def _ask(self, url: str, headers: dict[str, str]) -> Response:
        from requests import exceptions
        from urllib3.exceptions import HTTPError, MaxRetryError

        host = urlsplit(url).netloc
        if host in self.run.silent:
            raise _Failed(self.run.silent[host])
        options = {"timeout": self.limits.timeout, "stream": True, "allow_redirects": False}
        try:
            return self.session.get(url, headers=headers, **options)
        except exceptions.SSLError as error:
            raise _Failed(f"{host} has no valid certificate ({reason(error)})") from None
        except (exceptions.ConnectionError, exceptions.Timeout) as error:
            if any(isinstance(part, MaxRetryError) for part in error.args):
                why = f"{host} cannot be reached ({reason(error)})"
                raise _Passing(why, host=host) from None
            raise _Passing(f"{host} gave no answer ({reason(error)})") from None
        except (exceptions.RequestException, HTTPError) as error:
            raise _Failed(f"{_shown(url)} cannot be asked for ({reason(error)})") from None

    def _accept(self, response: Response, begun: int) -> int:
        """Refuse a wrong answer; return at which byte its content begins."""
        status, headers = response.status_code, response.headers
        if status in _TRANSIENT:
            pause = min(_number(headers.get("Retry-After")), self.limits.longest_pause)
            raise _Passing(f"answered {status} {_shown(response.reason)}", pause=pause)
        etag = headers.get("ETag", "W/")  # a weak one does not stand for the very bytes
        validator = headers.get("Last-Modified", "") if etag.startswith("W/") else etag
        if status == 206 and begun and self._goes_on(begun, headers, validator):
            return begun
        if status in (206, 416):
            self._discard()
            raise _Passing(f"did not give the rest of the file (status {status})")
        if status != 200:
            raise _Failed(f"answered {status} {_shown(response.reason)}")
        total = _number(headers.get("Content-Length"))
        self._check(headers, total)
        self._begin(validator, total)
        return 0

    def _check(self, headers: Mapping[str, str], total: int) -> None:
        """Refuse what is too large, or not the file as it is."""
        self._bound(total)
        if headers.get("Content-Encoding", "identity") != "identity":
            raise _Failed("is sent compressed; expected the file as it is")
        if self.expected:
            return  # the SHA-256 tells the rest
        kind = headers.get("Content-Type", "")
        if kind.startswith("text/html"):
            raise _Failed(f"is a page ({_shown(kind)}), no file; expected a photograph")
        if not total and headers.get("Transfer-Encoding") != "chunked":
            raise _Failed("gives no length, so whole or not looks the same; give its SHA-256")

    def _bound(self, size: int) -> None:
        if size > self.limits.size:
            self._discard()
            raise _Failed(f"is larger than {self.limits.size} bytes, the most that is taken")

    def _begun(self) -> int:
        """Return how many bytes are there that can be gone on from."""
        try:
            about = documents.read_json(self.origin)
            self.validator, self.total = str(about["validator"]), int(about["total"])
            size = self.part.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return size if self.validator and about["url"] == self.item.url else 0

    def _goes_on(self, begun: int, headers: Mapping[str, str], validator: str) -> bool:
        """Return whether an answer goes on from `begun`, in the same version of the file."""
        place, _, whole = headers.get("Content-Range", "").partition("/")
        same = whole in ("*", str(self.total or whole)) and validator in ("", self.validator)
        return same and place.startswith(f"bytes {begun}-")

    def _begin(self, validator: str, total: int) -> None:
        """Begin anew."""
        self._discard()
        self.validator, self.total = validator, total
        about = {"url": self.item.url, "validator": validator, "total": total}
        write(self.origin, json.dumps(about).encode())

    def _discard(self) -> None:
        # The other order could leave a beginning with the origin of another.
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)


def _onward(url: str, target: str) -> str:
    """Return where a redirection leads, unless it is not of the web, or not safe any more."""
    allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    with contextlib.suppress(ValueError):
        onward = urljoin(url, target)
        if urlsplit(onward).scheme in allowed:
            return onward
    raise _Failed(f"leads to {_shown(target)}; expected {' or '.join(allowed)}")


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the recorded SHA-256 of each file."""
    path = folder / SUMS
    text = documents.read_text(path, error=DataError) if os.path.lexists(path) else ""
    lines = text.splitlines(keepends=True)
    found = {}
    for number, line in enumerate(lines, 1):
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)\n", line)
        if entry:
            found[entry[2]] = entry[1]
        elif line.endswith("\n"):  # the last line of a killed download may be cut off
            raise DataError(
                f"{path}, line {number}: expected SHA-256 and name; mend it, or move it and the "
                "files away to fetch them again"
            )
    return found


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, "" if there is none."""
    return sha256(path) if path.is_file() else ""


def _number(text: str | None) -> int:
    """Read a number that a server gives, 0 if it gives none."""
    return int(text) if text and re.fullmatch(r"\d{1,15}", text) else 0


def reason(error: BaseException) -> str:
    """Say in a few words what an error comes from.

    Examples
    --------
    >>> reason(FileNotFoundError(2, "No such file or directory"))
    'No such file or directory'
    """
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return _shown(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _shown(text: object) -> str:
    """Make one short printable line of what a server says."""
    line = " ".join(str(text).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in line)
