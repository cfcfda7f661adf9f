"""Fetch photographs: Urban100, or any list of addresses; parallel, resumed and verified. [ours]

What has arrived is kept: the same call goes on where it was broken off, killed or cut off.
``.NAME.part`` holds the beginning of a file and ``.NAME.from`` says which version on which
address it began; a file gets its name only when it is whole and its SHA-256 is right.

A file whose SHA-256 is not known beforehand is *trusted on first use*: its hash is written to
``SHA256SUMS`` in the folder (``sha256sum -c SHA256SUMS`` reads it too), and every later fetch
verifies against that. It says that a file has not changed since, not that it was right.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from ppp.errors import DataError, PictureError, PPPError, unknown
from ppp.files import write

if TYPE_CHECKING:
    from requests import Response, Session

SETS = ("urban100",)
"""Known sets; the addresses of each are a list in the folder `data`."""
SUMS = "SHA256SUMS"

_DATA = Path(__file__).resolve().parents[2] / "data"
_CHUNK = 2**14  # bytes
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may pass


@dataclass(frozen=True)
class Item:
    """A file to fetch; `sha256` is empty where it is not known."""

    name: str
    url: str
    sha256: str = ""


@dataclass(frozen=True)
class Limits:
    """How patient a fetch is, and how much it takes."""

    timeout: float = 30  # longest silence of a server, s
    attempts: int = 5  # of each file, before it counts as failed
    pause: float = 1  # before the second attempt, s; doubled before each further one
    longest_pause: float = 60  # that a server may ask for ("Retry-After"), s
    size: int = 2**30  # of the largest file that is taken, bytes
    redirects: int = 5  # followed for one file


LIMITS = Limits()


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

    return Path(os.environ.get("PPP_CACHE") or pooch.os_cache("ppp-companion")).expanduser()


def located(photos: str | os.PathLike[str]) -> Path:
    """Return the folder that a path, or the name of a set, stands for.

    Parameters
    ----------
    photos : path-like
        A folder goes before a set of the same name; what is neither is returned as it is.

    Raises
    ------
    PictureError
        A set that has not been fetched, or only in part.

    Examples
    --------
    >>> located("my-photographs").name
    'my-photographs'
    """
    path = Path(photos).expanduser()
    name = os.fspath(photos)
    if name not in SETS or path.is_dir():
        return path
    folder = cache() / name
    names = [item.name for item in read_list(_DATA / f"{name}.txt")]
    here = sum((folder / item).is_file() for item in names)
    if here < len(names):
        part = f" in full ({here} of {len(names)} files are here)" if here else ""
        raise PictureError(f"{name} has not been fetched{part}; run: ppp fetch {name}")
    return folder


# ----------------------------------------------------------------------------------- lists


def read_list(path: str | Path) -> list[Item]:
    """Read what is to be fetched: a line each, ``URL [SHA256] [NAME]``.

    Without a name, a file is called as in its address. A ``-`` for the SHA-256 says that it is
    not known. Empty lines and lines that begin with ``#`` are skipped.

    Raises
    ------
    DataError
        With the number of the line: an address that is not http or https, a hash that is none,
        a name that is not a plain visible one or comes twice. Or a list without any file, or
        that cannot be read.

    Examples
    --------
    >>> read_list(_DATA / "urban100.txt")[99].name
    'img_100_SRF_2_HR.png'
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {path} cannot be read: {_reason(error)}") from None
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
    if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
        raise ValueError(f"address {url!r}; expected http://... or https://...")
    if sha256 != "-" and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"SHA-256 {sha256!r}; expected 64 hexadecimal digits, or - for unknown")
    name = name or unquote(address.path.rpartition("/")[2])
    plain = name.isprintable() and not re.search(r"[/\\]", name) and len(name.encode()) <= 200
    if not plain or not name or name.startswith(".") or name == SUMS:
        raise ValueError(
            f"name {name!r}; expected that of a visible file inside the folder: give one as "
            "URL - NAME"
        )
    return Item(name, url, sha256.lower().strip("-"))


# ---------------------------------------------------------------------------------- fetching


def fetch(
    what: str | Path,
    to: str | Path | None = None,
    *,
    jobs: int = 4,
    limits: Limits = LIMITS,
    say: Callable[[str], None] = print,
) -> Path:
    """Fetch a set, or the files of a list, unless they are there and verified.

    Parameters
    ----------
    what : path-like
        A name of :data:`SETS`, or a list for :func:`read_list`.
    to : path-like, optional
        The folder; by default that of the set in :func:`cache`, where its name is known.
    jobs : int
        Files at a time, 1 to 64.
    limits : Limits
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
    ppp.errors.DataError: unknown set 'urban101'; did you mean 'urban100'? known: urban100, ...
    """
    if type(jobs) is not int or not 1 <= jobs <= 64:
        raise DataError(f"jobs = {jobs!r}; expected an integer from 1 to 64")
    name = os.fspath(what)
    if name not in SETS and not Path(what).expanduser().is_file():
        raise DataError(unknown("set", name, [*SETS, "the path of a list"]))
    if name not in SETS and to is None:
        raise DataError(f"list {name}: no folder is given for its files; add --to FOLDER")
    folder = Path(to or cache() / name).expanduser()
    items = read_list(_DATA / f"{name}.txt" if name in SETS else Path(what).expanduser())
    try:
        missing = _missing(items, folder)
        if missing:
            command = f"ppp fetch {name}" + (f" --to {shlex.quote(str(to))}" if to else "")
            online(f"{missing[0].name} of {name}", f"run `{command}` first")
            with _alone(folder):
                _fetch(_missing(missing, folder), folder, jobs, limits, say)
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be used: {_reason(error)}; make room or give another with "
            "--to: what has arrived is kept"
        ) from None
    say(f"fetched {len(missing)} of {len(items)} files; all are there and verified: {folder}")
    return folder


def _missing(items: Sequence[Item], folder: Path) -> list[Item]:
    """Return the files that are not there with the right SHA-256."""
    import pooch

    sums = _read_sums(folder)
    known = {item: item.sha256 or sums.get(item.name, "") for item in items}
    return [
        item
        for item, sha256 in known.items()
        if not (sha256 and (path := folder / item.name).is_file())
        or pooch.file_hash(str(path)) != sha256
    ]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other fetches out of a folder."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"folder {folder}: another fetch is at work there; wait until it is done"
            ) from None
        yield


def _fetch(items: list[Item], folder: Path, jobs: int, limits: Limits, say: Callable) -> None:
    """Fetch what is missing, and say at the end what failed."""
    from tqdm import tqdm

    run = _Run(folder, limits)
    run.record()
    for item in items:
        if item.name in run.sums and (folder / item.name).exists():
            say(f"{item.name} has changed since it was fetched; it is fetched again")
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Item, Exception | None]] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    failed: dict[Item, _Failed] = {}
    try:
        # Daemons, so that an interrupted program need not wait for a silent server.
        for _ in range(min(jobs, len(items))):
            threading.Thread(target=run.work, args=(waiting, done), daemon=True).start()
        with tqdm(total=len(items), unit="file", disable=None, file=sys.stderr) as bar:
            while bar.n < len(items):
                with contextlib.suppress(queue.Empty):
                    item, error = done.get(timeout=0.2)
                    if isinstance(error, _Failed):
                        failed[item] = error
                    elif error:
                        raise error
                    bar.n += 1
                bar.set_postfix_str(f"{run.received / 2**20:.1f} MiB")
    finally:
        run.stop.set()
        with run.lock:
            run.record()
            if run.trusted:
                say(
                    f"{len(run.trusted)} of {len(items)} files had no known SHA-256: trusted on "
                    f"first use, and recorded in {folder / SUMS}"
                )
    if failed:
        item = next(item for item in items if item in failed)
        raise DataError(
            f"{len(failed)} of {len(items)} files could not be fetched into {folder}; the first, "
            f"{item.name}: {failed[item]}; the same command tries again what is missing"
        )


class _Failed(Exception):
    """Why a file cannot be fetched; never leaves this module."""


class _Passing(Exception):
    """Why an attempt failed that may be repeated, after a pause of so many seconds."""

    def __init__(self, reason: str, pause: float = 0, *, reached: bool = True) -> None:
        super().__init__(reason)
        self.pause, self.reached = pause, reached


class _Run:
    """One fetch of a folder: what its threads do and share."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.sums = _read_sums(folder)
        self.trusted: list[str] = []
        self.received = 0  # bytes
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.silent: dict[str, str] = {}

    def record(self) -> None:
        """Write all of SHA256SUMS, without a line that a killed fetch left cut off."""
        if self.sums or (self.folder / SUMS).exists():
            lines = (f"{sha256}  {name}\n" for name, sha256 in sorted(self.sums.items()))
            write(self.folder / SUMS, "".join(lines).encode())

    def work(self, waiting: queue.SimpleQueue, done: queue.SimpleQueue) -> None:
        import requests

        with requests.Session() as session:
            # Else requests would read all of a redirection's content, however large.
            session.get_redirect_target = lambda response: None
            while not self.stop.is_set():
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._one(session, item)
                except Exception as error:
                    done.put((item, error))
                else:
                    done.put((item, None))

    def _one(self, session: Session, item: Item) -> None:
        import pooch

        if (self.folder / item.name).exists() and item.name not in self.sums:
            raise _Failed("a file of that name is there that no fetch wrote; move it away")
        part = _Part(self.folder, item)
        expected = item.sha256 or self.sums.get(item.name, "")
        for again in (False, True):
            self._persist(session, item, part, bool(expected))
            found = pooch.file_hash(str(part.path))
            if not expected or found == expected:
                return self._publish(item, part, found)
            part.discard()
            if again:
                source = "the list" if item.sha256 else f"{SUMS}, written at the first fetch"
                raise _Failed(
                    f"{item.url} gave SHA-256 {found} twice, expected {expected} after {source}"
                )

    def _publish(self, item: Item, part: _Part, found: str) -> None:
        with self.lock:
            if self.stop.is_set():
                return
            if not item.sha256 and item.name not in self.sums:
                self.trusted.append(item.name)
            # Its hash is recorded before a file gets its name: none is there without.
            with open(self.folder / SUMS, "a", encoding="utf-8") as sums:
                sums.write(f"{found}  {item.name}\n")
            self.sums[item.name] = found
            os.replace(part.path, self.folder / item.name)
            part.discard()

    def _persist(self, session: Session, item: Item, part: _Part, known: bool) -> None:
        """Receive a file in as many attempts as it takes."""
        host = urlsplit(item.url).netloc
        for attempt in range(self.limits.attempts):
            if host in self.silent:
                raise _Failed(self.silent[host])
            try:
                return self._receive(session, item, part, known)
            except _Passing as error:
                failure = error
            if attempt + 1 < self.limits.attempts:
                self.stop.wait(max(self.limits.pause * 2**attempt, failure.pause))
            if self.stop.is_set():
                raise _Failed("stopped")
        reason = f"{failure}, in {self.limits.attempts} attempts"
        if not failure.reached:
            self.silent[host] = reason  # its other files need not wait as long
        raise _Failed(reason)

    def _receive(self, session: Session, item: Item, part: _Part, known: bool) -> None:
        """Receive what is missing of a file, in one attempt."""
        from urllib3.exceptions import HTTPError

        start = part.begun()
        if start and start == part.total:
            return
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": part.validator}
        with self._answer(session, item.url, headers) as response:
            start = self._accept(response, item.url, part, start, known)
            try:
                with open(part.path, "ab", buffering=0) as file:
                    for chunk in response.raw.stream(_CHUNK, decode_content=False):
                        if self.stop.is_set():
                            raise _Failed("stopped")
                        start += len(chunk)
                        self.received += len(chunk)
                        self._bound(start, item.url, part)
                        file.write(chunk)
            except HTTPError as error:
                raise _Passing(f"{item.url} broke off ({_reason(error)})") from None
        if part.total and start != part.total:
            raise _Passing(f"{item.url} broke off after {start} of {part.total} bytes")

    def _bound(self, size: int, url: str, part: _Part) -> None:
        if size > self.limits.size:
            part.discard()
            raise _Failed(f"{url} is larger than {self.limits.size} bytes, the most that is taken")

    def _answer(self, session: Session, url: str, headers: dict[str, str]) -> Response:
        """Follow an address to an answer that is not a redirection."""
        from requests import exceptions
        from urllib3.exceptions import HTTPError, MaxRetryError

        for _ in range(self.limits.redirects + 1):
            host = urlsplit(url).netloc
            try:
                response = session.get(
                    url,
                    headers=headers,
                    timeout=self.limits.timeout,
                    stream=True,
                    allow_redirects=False,
                )
            except exceptions.SSLError as error:
                raise _Failed(f"{url} has no valid certificate ({_reason(error)})") from None
            except (exceptions.ConnectionError, exceptions.Timeout) as error:
                reached = not any(isinstance(part, MaxRetryError) for part in error.args)
                text = f"{url} gave no answer" if reached else f"{host} cannot be reached"
                raise _Passing(f"{text} ({_reason(error)})", reached=reached) from None
            except (exceptions.RequestException, HTTPError) as error:
                raise _Failed(f"{url} cannot be asked for ({_reason(error)})") from None
            if not response.is_redirect:
                return response
            response.close()
            target = response.headers["Location"]
            allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
            try:
                right = urlsplit(urljoin(url, target)).scheme in allowed
            except ValueError:
                right = False
            if not right:
                raise _Failed(f"{url} leads to {_shown(target)}; expected {' or '.join(allowed)}")
            url = urljoin(url, target)
        raise _Failed(f"{url}: more than {self.limits.redirects} redirections")

    def _accept(self, response: Response, url: str, part: _Part, start: int, known: bool) -> int:
        """Refuse a wrong answer; return at which byte its content begins."""
        status, headers = response.status_code, response.headers
        if status in _TRANSIENT:
            pause = min(_number(headers.get("Retry-After")), self.limits.longest_pause)
            raise _Passing(f"{url} answered {status} {_shown(response.reason)}", pause)
        etag = headers.get("ETag", "W/")  # a weak one does not stand for the very bytes
        validator = headers.get("Last-Modified", "") if etag.startswith("W/") else etag
        if status == 206 and start and part.goes_on(headers.get("Content-Range", ""), validator):
            return start
        if status in (206, 416):
            part.discard()
            raise _Passing(f"{url} did not give the rest of the file (status {status})")
        if status != 200:
            raise _Failed(f"{url} answered {status} {_shown(response.reason)}")
        if headers.get("Content-Encoding", "identity") != "identity":
            raise _Failed(f"{url} is sent compressed; expected the file as it is")
        total = _number(headers.get("Content-Length"))
        if not known:
            kind = headers.get("Content-Type", "")
            if kind.startswith("text/html"):
                raise _Failed(f"{url} is a page ({_shown(kind)}), no file; expected a photograph")
            if not total and headers.get("Transfer-Encoding") != "chunked":
                raise _Failed(
                    f"{url} gives no length, so whole or not looks the same; give its SHA-256"
                )
        self._bound(total, url, part)
        part.begin(validator, total)
        return 0


class _Part:
    """The beginning of a file, and what it is the beginning of."""

    def __init__(self, folder: Path, item: Item) -> None:
        self.path = folder / f".{item.name}.part"
        self.origin = folder / f".{item.name}.from"
        self.url, self.validator, self.total = item.url, "", 0

    def begun(self) -> int:
        """Return how many bytes are there that can be gone on from."""
        try:
            about = json.loads(self.origin.read_text(encoding="utf-8"))
            self.validator, self.total = str(about["validator"]), int(about["total"])
            size = self.path.stat().st_size
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0
        return size if self.validator and about["url"] == self.url else 0

    def goes_on(self, content_range: str, validator: str) -> bool:
        """Return whether an answer begins where this ends, in the same version of the file."""
        given = re.fullmatch(r"bytes (\d{1,15})-\d+/(\d+|\*)", content_range)
        return bool(
            given
            and int(given[1]) == self.path.stat().st_size
            and given[2] in ("*", str(self.total or given[2]))
            and validator in ("", self.validator)
        )

    def begin(self, validator: str, total: int) -> None:
        """Begin anew."""
        self.discard()
        self.validator, self.total = validator, total
        about = {"url": self.url, "validator": validator, "total": total}
        write(self.origin, json.dumps(about).encode())

    def discard(self) -> None:
        # The other order could leave a beginning with the origin of another.
        self.path.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the recorded SHA-256 of each file."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    found = {}
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        entry = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)\n", line)
        if entry:
            found[entry[2]] = entry[1]
        elif line.endswith("\n"):  # the last line of a killed fetch may be cut off
            raise DataError(
                f"{folder / SUMS}, line {number}: expected SHA-256 and name; mend it, or move it "
                "and the files away to fetch them again"
            )
    return found


def _number(text: str | None) -> int:
    """Read a number that a server gives, 0 if it gives none."""
    return int(text) if text and re.fullmatch(r"\d{1,15}", text) else 0


def _reason(error: BaseException) -> str:
    """Say in a few words what an error comes from."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return _shown(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _shown(text: object) -> str:
    """Make one short printable line of what a server says."""
    line = " ".join(str(text).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in line)
