"""Results, written whole and never over what this program did not write.

A folder of results holds ``.ppp.json``: the command that made it and the SHA-256 of every file.
What is not in that list, or has changed since, belongs to somebody else: no command removes or
replaces it. A result that is there is replaced only if ``--force`` asks for it.

There are four ways to write, by what becomes of the place:

=====================  ===========================================================================
:func:`made`           a folder that is made in one go, beside its place, and moved there at the end
:func:`working`        a folder in which a command keeps what is finished, and goes on
:func:`update`         a few files of a folder, such as the tables of a study
:func:`write_page`     one page, which carries its own hash
=====================  ===========================================================================

Each holds a lock while it writes, see :func:`held`.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ppp.errors import DocumentError, PPPError
from ppp.files import digest, sha256, write
from studies.storage import documents

MARKER = ".ppp.json"
"""In a folder of results: which command made it, and the SHA-256 of its files."""

EARLIER = {f"ppp {name}": f"ppp study {name}" for name in ("bhv", "posenet", "patterns", "survey")}
EARLIER |= dict.fromkeys(["ppp zoo train", "ppp zoo collect"], "ppp study zoo")
"""Names that commands had when some folders were marked, and the present ones."""

LOCK = ".lock"
LOCKS = "PPP_LOCKS"
"""In the environment of a process that was started: descriptors of the locks that it holds."""

_MAKING = ".making-"
_SIGNED = "ppp lock\n"
_SEAL = re.compile(rb"<!-- made by ppp [\w ]+, SHA-256 ([0-9a-f]{64}) -->\n\Z")
_held: list[int] = []


class OutputError(PPPError):
    """A place for results that is taken, or somebody else's."""


class InUse(OutputError):
    """A place where another command is at work."""


# ------------------------------------------------------------------------------- locks


@contextlib.contextmanager
def held(path: str | Path, command: str) -> Iterator[IO[str]]:
    """Hold a lock, for as long as this process or one that inherits its descriptor lives.

    The file is made and removed with the lock. It is never followed if it is a link, nor
    emptied if it is anything else than a lock. On a system without ``flock`` (Windows) nothing
    keeps a second writer out.

    Parameters
    ----------
    path : path-like
        Its folder must be there.
    command : str
        Who holds it, such as ``ppp run``.

    Yields
    ------
    file

    Raises
    ------
    InUse
        Somebody else holds it: says which process, since when.
    OutputError
        There is something that is no lock.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp(), ".lock")
    >>> with held(path, "ppp run"), held(path, "ppp run"):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    studies.storage.outputs.InUse: ...: 'ppp run' is at work here (process ..., since ...
    >>> path.exists()
    False
    """
    path = Path(path)
    lock = _locked(path)
    _held.append(lock.fileno())
    try:
        lock.seek(0)
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S UTC}"
        lock.write(f"{_SIGNED}{command}\n{os.getpid()}\n{socket.gethostname()}\n{now}\n")
        lock.truncate()
        lock.flush()
        yield lock
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        _held.remove(lock.fileno())
        lock.close()


def _locked(path: Path) -> IO[str]:
    """Open the file and lock it; whoever held it before may have removed it just now."""
    try:
        import fcntl
    except ImportError:  # Windows
        return open(path, "a+", encoding="utf-8")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    foreign = OutputError(f"{path}: no lock of ppp; move it away")
    while True:
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            raise foreign if path.is_symlink() or path.is_dir() else error from None
        with contextlib.ExitStack() as closing:
            closing.callback(os.close, descriptor)
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
                raise foreign
            said = os.read(descriptor, 1000).decode(errors="replace")
            if said and not said.startswith(_SIGNED):
                raise foreign
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse(_taken(path, said)) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(about, os.stat(path, follow_symlinks=False)):
                    closing.pop_all()  # the caller closes it
                    return os.fdopen(descriptor, "r+", encoding="utf-8")


def _taken(path: Path, said: str) -> str:
    lines = said.removeprefix(_SIGNED).splitlines()
    beside = path.name.removeprefix(".").removesuffix(LOCK)  # of the place that is locked
    where = path.parent if path.name == LOCK else path.with_name(beside)
    if len(lines) != 4:  # it has only just been locked
        return f"{where}: another command is at work here; wait for its end"
    command, process, host, since = lines
    elsewhere = "" if host == socket.gethostname() else f" on {host}"
    return (
        f"{where}: {command!r} is at work here (process {process}{elsewhere}, since {since}); "
        "wait for its end"
    )


def descriptors() -> tuple[int, ...]:
    """Return the descriptors of all locks of this process, for ``subprocess`` to pass on.

    A process that inherits them keeps the locks, should this one be killed.

    Examples
    --------
    >>> with held(Path(tempfile.mkdtemp(), ".lock"), "ppp run") as lock:
    ...     descriptors() == (lock.fileno(),)
    True
    """
    if os.name == "nt":
        return ()
    inherited = []
    for word in os.environ.get(LOCKS, "").split(","):
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISREG(os.fstat(int(word)).st_mode):
                inherited.append(int(word))
    return tuple(sorted({*_held, *inherited}))


def environment() -> dict[str, str]:
    """Return what tells a process that is started which locks it inherits."""
    return {LOCKS: ",".join(map(str, descriptors()))}


# --------------------------------------------------------------------------- ownership


def _marker(folder: Path) -> tuple[str, dict[str, object]]:
    """Return what a folder says of itself, command and files; an empty command if nothing."""
    path = folder / MARKER
    if not os.path.lexists(path):
        return "", {}
    with contextlib.suppress(DocumentError):
        match documents.read_json(path):
            case {"command": str(command), "files": dict(files)}:
                return EARLIER.get(command, command), files
    raise OutputError(f"{path} is damaged; move {folder} away")


def _mark(folder: Path, command: str, files: Mapping[str, object]) -> None:
    about = {"command": command, "files": dict(sorted(files.items()))}
    write(folder / MARKER, (json.dumps(about, indent=1) + "\n").encode())


def _files(folder: Path) -> list[str]:
    """Name everything in a folder that is not itself a folder, but for its marker."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sorted({path.relative_to(folder).as_posix() for path in paths} - {MARKER})


def _is(path: Path, hashes: object) -> bool:
    """Tell whether a file is what was written: has the hash, or one of them."""
    return path.is_file() and not path.is_symlink() and sha256(path) in _listed(hashes)


def check_free(target: Path, command: str, *, force: bool = False) -> None:
    """Refuse a place for a folder of results, unless it is empty, or `force` may replace it.

    Parameters
    ----------
    target : Path
    command : str
        Such as ``ppp run``; `force` replaces only what it made itself.
    force : bool

    Raises
    ------
    OutputError
        Says what is there.

    Examples
    --------
    >>> place = Path(tempfile.mkdtemp())
    >>> check_free(place, "ppp run")
    >>> (place / "notes.txt").touch()
    >>> check_free(place, "ppp run", force=True)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    studies.storage.outputs.OutputError: ... holds 'notes.txt', which 'ppp run' did not make; ...
    """
    if target.name in ("", ".."):
        raise OutputError(f"--output {target}: expected the name of a new folder")
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        what = "a link" if target.is_symlink() else "no folder"
        raise OutputError(f"{target} is {what}; give another --output")
    if not any(target.iterdir()):
        return
    made_by, known = _marker(target)
    foreign = [
        name
        for name in _files(target)
        if not _is(target / name, known.get(name)) and not sealed(target / name)
    ]
    if foreign or made_by != command:
        name = [*foreign, *known, MARKER][0]
        own = name in known and made_by == command
        said = "which was changed" if own else f"which {command!r} did not make"
        raise OutputError(f"{target} holds {name!r}, {said}; give another --output")
    if not force:
        raise OutputError(f"{target} exists; give another --output, or --force to replace it")


# -------------------------------------------------------------------- a folder, in one go


@contextlib.contextmanager
def made(target: str | Path, command: str, *, force: bool = False) -> Iterator[Path]:
    """Fill a folder beside `target`, which takes its place at the end, or leave all as it is.

    Parameters
    ----------
    target : path-like
        Absent, or an empty folder; with `force` also one that `command` made and nobody changed.
    command : str
        Such as ``ppp run``.
    force : bool

    Yields
    ------
    Path
        The folder to fill.

    Raises
    ------
    OutputError
        The place is taken, somebody else's, or in use.
    OSError
        It cannot be written.

    Examples
    --------
    >>> place = Path(tempfile.mkdtemp(), "made")
    >>> with made(place, "ppp run") as folder:
    ...     (folder / "a.txt").touch()
    >>> sorted(path.name for path in place.iterdir())
    ['.ppp.json', 'a.txt']
    >>> with made(place, "ppp run"):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    studies.storage.outputs.OutputError: ... exists; give another --output, or --force to ...
    """
    target = Path(target)
    check_free(target, command, force=force)
    with _parents(target), held(_beside(target), command):
        _recover(target)
        check_free(target, command, force=force)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}{_MAKING}"))
        try:
            folder.chmod(0o755)
            _mark(folder, command, {})
            yield folder
            _mark(folder, command, {name: sha256(folder / name) for name in _files(folder)})
            check_free(target, command, force=force)  # it may have come meanwhile
            replace(folder, target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}{LOCK}")


@contextlib.contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folder that `target` lies in, and take it away again if nothing is in it then."""
    fresh = [path for path in target.parents if not path.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for path in fresh:
            with contextlib.suppress(OSError):
                path.rmdir()


def _recover(target: Path) -> None:
    """Take away what a killed command was making, and put back what it had moved aside."""
    aside = _aside(target)
    if _own(aside) and not target.exists():
        os.replace(aside, target)
    for left in [*target.parent.glob(f".{glob.escape(target.name)}{_MAKING}*"), aside]:
        if _own(left):
            shutil.rmtree(left, ignore_errors=True)


def _own(folder: Path) -> bool:
    with contextlib.suppress(OutputError):
        return not folder.is_symlink() and bool(_marker(folder)[0])
    return False


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def replace(folder: Path, target: Path) -> None:
    """Put a folder in the place of another, which goes: in one step where the system can.

    Whether it may go is for the caller to know.

    Examples
    --------
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / "new").mkdir()
    >>> replace(place / "new", place / "made")
    >>> [path.name for path in place.iterdir()]
    ['made']
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_dir() or not any(target.iterdir()):
        os.replace(folder, target)
        return
    if not _swapped(folder, target):
        os.replace(target, _aside(target))
        os.replace(folder, target)
        folder = _aside(target)
    shutil.rmtree(folder, ignore_errors=True)


def _swapped(one: Path, other: Path) -> bool:
    """Let two paths change their names, if the system has a call for it (Linux)."""
    import ctypes

    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


# ------------------------------------------------------------ a folder that is gone on with


def claim(folder: str | Path, command: str, remedy: str = "give another --output") -> None:
    """Mark a folder as one in which `command` keeps what is finished, or refuse it.

    Parameters
    ----------
    folder : path-like
        Absent, empty, or marked by the same command; a link to a folder counts as that.
    command : str
    remedy : str
        What the user may do instead.

    Raises
    ------
    OutputError
        It holds files of somebody else.

    Examples
    --------
    >>> place = Path(tempfile.mkdtemp())
    >>> claim(place, "ppp sweep")
    >>> claim(place, "ppp run", "give another --out")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    studies.storage.outputs.OutputError: ... is of 'ppp sweep', not of 'ppp run'; give another --out
    """
    folder = Path(folder)
    if not check_claim(folder, command, remedy):
        folder.mkdir(parents=True, exist_ok=True)
        _mark(folder, command, {})


def check_claim(folder: Path, command: str, remedy: str = "give another --output") -> bool:
    """Return whether a folder is marked by `command`; refuse one that may not be."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is no folder; {remedy}")
    made_by, _ = _marker(folder)
    if made_by not in ("", command):
        raise OutputError(f"{folder} is of {made_by!r}, not of {command!r}; {remedy}")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not made_by and names - {LOCK}:
        raise OutputError(
            f"{folder} holds {min(names - {LOCK})!r}, and {command!r} has not worked there; "
            f"{remedy}"
        )
    return bool(made_by)


@contextlib.contextmanager
def working(
    folder: str | Path, command: str, remedy: str = "give another --output"
) -> Iterator[IO[str]]:
    """Hold a folder in which `command` keeps what is finished, and goes on; see :func:`claim`.

    It goes again if nothing was kept in it.

    Raises
    ------
    OutputError
        It holds files of somebody else, or is in use.

    Examples
    --------
    >>> place = Path(tempfile.mkdtemp(), "runs")
    >>> with working(place, "ppp run"):
    ...     sorted(path.name for path in place.iterdir())
    ['.lock', '.ppp.json']
    >>> place.exists()
    False
    """
    folder = Path(folder)
    known = check_claim(folder, command, remedy)
    with _parents(folder / LOCK):
        with held(folder / LOCK, command) as lock:
            claim(folder, command, remedy)
            try:
                yield lock
            finally:
                if {path.name for path in folder.iterdir()} <= {LOCK, MARKER}:
                    (folder / MARKER).unlink()
        if known:
            with contextlib.suppress(OSError):
                folder.rmdir()


# ------------------------------------------------------------------------ files of a folder


def update(
    folder: str | Path,
    contents: Mapping[str, bytes],
    command: str,
    *,
    remedy: str = "give another --data",
) -> None:
    """Write files into a folder that may hold others; each that is there must be `command`'s own.

    Parameters
    ----------
    folder : path-like
    contents : mapping of str to bytes
        By name.
    command : str
    remedy : str
        What the user may do instead.

    Raises
    ------
    OutputError
        A file of that name was not written by `command`, or was changed since; nothing is
        written then.

    Examples
    --------
    >>> place = Path(tempfile.mkdtemp())
    >>> update(place, {"a.csv": b"1"}, "ppp run")
    >>> update(place, {"a.csv": b"2"}, "ppp run")
    >>> _ = (place / "a.csv").write_bytes(b"mine")
    >>> update(place, {"a.csv": b"3"}, "ppp run")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    studies.storage.outputs.OutputError: .../a.csv was changed since 'ppp run' wrote it; give ...
    """
    folder = Path(folder)
    check_update(folder, contents, command, remedy=remedy)
    with _parents(folder / LOCK), held(folder / LOCK, command):
        known = check_update(folder, contents, command, remedy=remedy)
        after = {name: digest(content) for name, content in contents.items()}
        both = {name: [*_listed(known.get(name)), new] for name, new in after.items()}
        _mark(folder, command, known | both)  # a killed update leaves old files and new ones
        for name, content in contents.items():
            write(folder / name, content)
        _mark(folder, command, known | after)


def check_update(
    folder: Path,
    contents: Mapping[str, bytes | None],
    command: str,
    *,
    remedy: str = "give another --data",
) -> dict[str, object]:
    """Refuse what :func:`update` would, before anything is computed; return what is known.

    Content that is not known yet is None.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is no folder; {remedy}")
    made_by, files = _marker(folder)
    known = files if made_by == command else {}
    for name, content in contents.items():
        path = folder / name
        hashes = [*_listed(known.get(name)), *([] if content is None else [digest(content)])]
        if os.path.lexists(path) and not _is(path, hashes):
            if name in known:
                raise OutputError(f"{path} was changed since {command!r} wrote it; {remedy}")
            raise OutputError(f"{path} was not written by {command!r}; {remedy}")
    return known


def _listed(hashes: object) -> list[object]:
    return hashes if isinstance(hashes, list) else [hashes] if hashes else []


# --------------------------------------------------------------------------------- one page


def write_page(path: str | Path, page: str, command: str, *, force: bool = False) -> None:
    """Write one page of HTML; its last line holds its hash, so that `force` knows its own.

    Raises
    ------
    OutputError
        There is a file already; with `force`, one that this program did not write, or that was
        changed.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp(), "a.html")
    >>> write_page(path, "<p>a</p>", "ppp compare")
    >>> write_page(path, "<p>b</p>", "ppp compare", force=True)
    >>> write_page(path, "<p>b</p>", "ppp compare")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    studies.storage.outputs.OutputError: .../a.html exists; give another --output, or --force ...
    """
    path = Path(path)
    check_page(path, force=force)
    with _parents(path), held(_beside(path), command):
        check_page(path, force=force)
        content = page.rstrip("\n").encode() + b"\n"
        mark = f"<!-- made by {command}, SHA-256 {digest(content)} -->\n"
        write(path, content + mark.encode())


def check_page(path: Path, *, force: bool = False) -> None:
    """Refuse a place for a page, as :func:`write_page` does."""
    if path.name in ("", ".."):
        raise OutputError(f"--output {path}: expected the name of a new file")
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise OutputError(f"{path} is no file; give another --output")
    if not sealed(path):
        raise OutputError(f"{path} was not written by ppp, or was changed; give another --output")
    if not force:
        raise OutputError(f"{path} exists; give another --output, or --force to replace it")


def sealed(path: Path) -> bool:
    """Tell whether a page is as :func:`write_page` wrote it."""
    if path.suffix != ".html" or path.is_symlink() or not path.is_file():
        return False
    content = path.read_bytes()
    seal = _SEAL.search(content[-200:])
    return bool(seal) and digest(content.removesuffix(seal[0])) == seal[1].decode()
