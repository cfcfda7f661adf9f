"""Fetching, against a server on the loopback interface that does everything wrong."""

import contextlib
import hashlib
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
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from torchvision.models import Weights

from companion import cli
from companion.notebooks import staleness
from ppp.errors import DataError, ParameterError, PictureError, PPPError, WeightsError
from studies import networks, parameters
from studies.pictures import datasets, downloads
from studies.pictures.datasets import fetch, read_list
from studies.pictures.downloads import SUMS, Item, Limits
from studies.pictures.photographs import folder_photographs, photographs

QUICK = Limits(timeout=0.4, attempts=3, pause=0.01, longest_pause=0.05, size=2**20)
CONTENT = random.Random(0).randbytes(150_000)
OTHER = random.Random(1).randbytes(140_000)
HALF = 70_000
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


def sha256(content: bytes = CONTENT) -> str:
    return hashlib.sha256(content).hexdigest()


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

    def give(self, content=CONTENT, *, etag='"one"', upto=None, **headers):
        """Answer as a good server does, or break off after `upto` bytes."""
        headers |= {"ETag": etag} if etag else {}
        asked = self.headers.get("Range")
        if asked and (not etag or self.headers.get("If-Range") == etag):
            self.rest(content, int(asked[6:-1]), upto=upto, **headers)
        else:
            self.send(200, content, upto=upto, **headers)

    def rest(self, content, start, stop=None, whole=None, **headers):
        """Give a range of a file, whether that is asked for or not."""
        part, whole = content[start:stop], whole or len(content)
        place = f"bytes {start}-{start + len(part) - 1}/{whole}"
        self.send(206, part, Content_Range=place, **headers)

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
        self.give(upto=0 if self.headers.get("Range") else HALF)

    def drops(self):
        """Close the connection without a word, once."""
        if self.first:
            self.close_connection = True
        else:
            self.give()

    def no_range(self):
        """Break off once; then give all of it whatever was asked for."""
        self.send(200, CONTENT, upto=self.cut, ETag='"one"')

    def changes(self):
        """Break off once; then have another file, of which it says so."""
        self.give(upto=HALF) if self.first else self.give(OTHER, etag='"two"')

    def changes_secretly(self):
        """Break off once; then give the rest of another file, with another ETag, as asked."""
        if self.first:
            self.give(upto=HALF)
        elif self.headers.get("Range"):
            self.rest(OTHER, HALF, whole="*", ETag='"two"')
        else:
            self.give(OTHER, etag='"two"')

    def wrong_range(self):
        """Break off once; then give bytes that were not asked for."""
        if self.headers.get("Range"):
            self.rest(CONTENT, 0, 10)
        else:
            self.give(upto=self.cut)

    def short_range(self):
        """Break off once; then give only the next 10 bytes; then the rest."""
        begun = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if 0 < begun <= HALF:
            self.rest(CONTENT, begun, begun + 10)
        else:
            self.give(upto=self.cut)

    def unsatisfiable(self):
        if self.headers.get("Range"):
            self.send(416, Content_Range=f"bytes */{len(CONTENT)}")
        else:
            self.give(upto=self.cut)

    def weak(self):
        """Break off once, with an ETag that other bytes have, too."""
        content = OTHER if self.headers.get("Range") else CONTENT
        self.give(content, etag='W/"one"', upto=self.cut)

    def dated(self):
        if self.headers.get("If-Range") != DATE:
            del self.headers["Range"]
        self.give(etag="", upto=self.cut, Last_Modified=DATE)

    def corrupts(self):
        self.give(OTHER if self.first else CONTENT)

    def corrupts_ever(self):
        self.give(OTHER)

    def error500(self):
        self.send(500) if self.first else self.give()

    def error503(self):
        self.send(503)

    def absurd(self):
        """Give numbers that Python refuses to read."""
        many = "9" * 5000
        self.send(429, Retry_After=many) if self.first else self.give(Content_Range=many)

    def busy(self):
        self.send(429, Retry_After="3600") if self.first else self.give()

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

    def endless(self):
        """Give 64 MiB in pieces, and do not say so beforehand."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(2000):
                self.wfile.write(b"8000\r\n" + bytes(0x8000) + b"\r\n")

    def slow(self):
        """Give a beginning and then wait for permission; go on quickly when asked to."""
        if self.headers.get("Range"):
            return self.give()
        self.give(upto=HALF)
        self.wfile.flush()
        self.server.go.wait(20)


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
def get(server, tmp_path):
    """Fetch a list whose lines may leave out the server; return the folder and what was said."""

    def run(*lines, jobs=2, limits=QUICK):
        path = tmp_path / "list.txt"
        text = "\n".join(server.address + line if line[0] == "/" else line for line in lines)
        path.write_text(text)
        run.said = []
        return fetch(path, tmp_path / "to", jobs=jobs, limits=limits, say=run.said.append)

    run.folder = tmp_path / "to"
    return run


def refused(get, *lines, **options) -> str:
    with pytest.raises(DataError) as caught:
        get(*lines, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


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
    ("line", "words"),
    [
        ("file:///etc/passwd", "expected http"),
        ("ftp://a.org/a.png", "expected http"),
        ("/good/a.png", "expected http"),
        ("http:///a.png", "expected http"),
        ("http://a.org:99999/a.png", "Port"),
        ("http://a.org/a.png abc", "64 hexadecimal digits"),
        (f"http://a.org/a.png {'g' * 64}", "64 hexadecimal digits"),
        ("http://a.org/", "name ''"),
        ("http://a.org/..", "name '..'"),
        ("http://a.org/%2e%2e%2fb.png", "name '../b.png'"),
        ("http://a.org/a.png - ../b.png", "name '../b.png'"),
        ("http://a.org/a.png - /tmp/b.png", "name '/tmp/b.png'"),
        ("http://a.org/a.png - a\\b.png", "inside the folder"),
        ("http://a.org/a.png - .hidden", "visible"),
        ("http://a.org/a.png - SHA256SUMS", "visible"),
        ("http://a.org/a%00.png", "visible"),
        (f"http://a.org/{'a' * 201}", "visible"),
        ("http://b.org/First.png", "name 'First.png' comes twice"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, words):
    path = tmp_path / "list.txt"
    path.write_text(f"# first\nhttp://a.org/first.png\n{line}\n")
    with pytest.raises(DataError, match="line 3: ") as caught:
        read_list(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_without_files_or_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    for content, words in ((b"# none\n\n", "names no file"), (b"\xff\xfe", "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_list(path)
    with pytest.raises(DataError, match="No such file"):
        read_list(tmp_path / "none.txt")


# --------------------------------------------------------------------------- what is fetched


def test_files_are_fetched_verified_and_not_fetched_again(get, server):
    lines = [f"/good/a.png {sha256()}", "/good/b.png", "/good/c - c.png"]
    assert get(*lines) == get.folder
    assert visible(get.folder) == [SUMS, "a.png", "b.png", "c.png"]
    assert all((get.folder / f"{name}.png").read_bytes() == CONTENT for name in "abc")
    assert {headers["Accept-Encoding"] for _, headers in server.asked} == {"identity"}
    sums = "".join(f"{sha256()}  {name}.png\n" for name in "abc")
    assert (get.folder / SUMS).read_text() == sums
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
    get("/good/a b.png".replace(" ", "%20"), "/good/c.png")
    checked = subprocess.run(
        ["sha256sum", "-c", SUMS], cwd=get.folder, capture_output=True, text=True
    )
    assert checked.stdout == "a b.png: OK\nc.png: OK\n"


def test_files_are_fetched_at_the_same_time(get, server):
    get(*(f"/together/{i}.png" for i in range(4)), jobs=2)
    assert server.peak == 2 and not server.meet.broken


def test_no_more_jobs_than_asked_for(get, server):
    get(*(f"/good/{i}.png" for i in range(6)), jobs=1)
    assert server.peak == 1 and server.count() == 6


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
    for line in ("/good/a.png", f"/good/a.png {sha256()}"):
        assert "that no fetch wrote; move it away" in refused(get, line, "/good/b.png")
    assert (get.folder / "a.png").read_bytes() == b"mine"
    assert (get.folder / "b.png").read_bytes() == CONTENT
    (get.folder / "a.png").write_bytes(CONTENT)
    get(f"/good/a.png {sha256()}")  # the very file, put there by hand


def test_trust_on_first_use_refuses_another_file_later(get, server):
    get("/good/a.png")
    (get.folder / "a.png").unlink()
    path = get.folder.parent / "list.txt"
    path.write_text(f"{server.address}/corrupts-ever/a.png")
    with pytest.raises(DataError) as caught:
        fetch(path, get.folder, limits=QUICK, say=print)
    for words in (sha256(OTHER), sha256(), SUMS):
        assert words in str(caught.value)
    assert visible(get.folder) == [SUMS]


# ---------------------------------------------------------------------------- hostile servers


@pytest.mark.parametrize(
    ("how", "requests"),
    [
        ("stalls", 2),
        ("truncates", 2),
        ("drops", 2),
        ("no-range", 2),
        ("wrong-range", 3),
        ("unsatisfiable", 3),
        ("weak", 2),
        ("dated", 2),
        ("error500", 2),
        ("busy", 2),
        ("absurd", 2),
        ("corrupts", 2),
        ("moved/4", 6),
    ],
)
def test_a_failure_that_passes_is_overcome(get, server, how, requests):
    get(f"/{how}/a.png {sha256()}", limits=QUICK)
    assert (get.folder / "a.png").read_bytes() == CONTENT
    assert visible(get.folder) == [SUMS, "a.png"]
    assert server.count() == requests


@pytest.mark.parametrize("how", ["stalls", "truncates", "dated"])
def test_what_has_arrived_is_not_asked_for_again(get, server, how):
    get(f"/{how}/a.png")
    first, second = (headers.get("Range") for _, headers in server.asked)
    begun = int(second.removeprefix("bytes=").removesuffix("-"))
    assert server.asked[1][1]["If-Range"] in ('"one"', DATE)
    assert first is None and HALF - 2**14 <= begun <= HALF


@pytest.mark.parametrize("how", ["changes", "changes-secretly"])
def test_parts_of_two_versions_are_never_joined(get, how):
    get(f"/{how}/a.png")  # no hash would tell
    assert (get.folder / "a.png").read_bytes() == OTHER


def test_a_rest_of_a_few_bytes_is_gone_on_from(get, server):
    get("/short-range/a.png")  # no hash would tell
    assert (get.folder / "a.png").read_bytes() == CONTENT and server.count() == 3


def test_a_corrupt_file_is_refused_with_both_hashes_and_leaves_nothing(get, server):
    message = refused(get, f"/corrupts-ever/a.png {sha256()}")
    assert sha256() in message and sha256(OTHER) in message and "twice" in message
    assert server.count() == 2 and visible(get.folder) == []


@pytest.mark.parametrize(
    ("how", "requests", "words"),
    [
        ("gone/404", 1, "answered 404 Not Found"),
        ("gone/403", 1, "answered 403"),
        ("gone/410", 1, "answered 410"),
        ("gone/204", 1, "answered 204"),
        ("gone/304", 1, "answered 304"),
        ("error503", 3, "answered 503 Service Unavailable, in 3 attempts"),
        ("mute", 3, "gave no answer (timed out), in 3 attempts"),
        ("truncates-ever", 3, "broke off"),
        ("loop", 6, "more than 5 redirections"),
        ("moved/5", 6, "more than 5 redirections"),
        ("page", 1, "is a page (text/html"),
        ("zipped", 1, "compressed"),
        ("unsized", 1, "no length"),
        ("endless", 1, "larger than 1048576 bytes"),
    ],
)
def test_a_failure_that_stays_is_one_line_and_stops_no_other_file(
    get, server, how, requests, words
):
    message = refused(get, f"/{how}/bad.png", "/good/a.png", "/good/b.png", jobs=1)
    assert message.startswith(
        f"1 of 3 files could not be fetched into {get.folder}; the first, bad"
    )
    assert words in message, message
    assert server.count() == requests + 2
    assert {"a.png", "b.png"} <= set(visible(get.folder))
    assert "bad.png" not in visible(get.folder)
    assert read_sums(get.folder).keys() == {"a.png", "b.png"}


def read_sums(folder):
    lines = (folder / SUMS).read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_a_file_that_says_it_is_too_large_is_not_begun(get, server):
    message = refused(get, "/good/a.png", limits=Limits(size=1000))
    assert "larger than 1000 bytes" in message and visible(get.folder) == []


def test_the_content_of_a_redirection_is_not_read(get, server):
    get(f"/heavy/a.png {sha256()}")
    assert (get.folder / "a.png").read_bytes() == CONTENT
    assert server.sent < 5 * 10**7


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://a.org/", "http://[", "http://a..b/", "http://127.0.0.1:99999/"],
)
def test_a_redirection_to_anything_else_is_refused(get, server, target):
    server.elsewhere = target
    message = refused(get, "/elsewhere/a.png")
    assert "leads to" in message or "cannot be asked for" in message, message
    assert server.count() == 1


def test_a_redirection_from_https_to_http_is_refused(tmp_path):
    class Answer:
        is_redirect, headers, close = True, {"Location": "http://a.org/a.png"}, lambda self: None

    class Session:
        asked = 0

        def get(self, url, **_):
            self.asked += 1
            return Answer()

    session = Session()
    item = Item("a.png", "HTTPS://a.org/a.png")
    transfer = downloads._Transfer(downloads._Run(tmp_path, QUICK), session, item)
    with pytest.raises(downloads._Failed, match=r"leads to http://a.org/a.png; expected https"):
        transfer._answer({})
    assert session.asked == 1


def test_a_long_pause_is_asked_for_in_vain_and_a_short_one_is_kept(get):
    start = time.perf_counter()
    get("/busy/a.png", limits=Limits(pause=0, longest_pause=0.3))
    assert 0.3 <= time.perf_counter() - start < 5


@pytest.fixture
def nobody():
    """An address at which nothing listens."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def test_no_network_is_one_line_and_soon_over(get, nobody):
    start = time.perf_counter()
    lines = [f"{nobody}/{i}.png" for i in range(100)]
    message = refused(get, *lines, limits=Limits(pause=0.1, attempts=3))
    assert message.startswith("100 of 100 files") and "Connection refused" in message
    assert "127.0.0.1" in message and "in 3 attempts" in message
    assert time.perf_counter() - start < 3  # each by itself would take 15 s


def test_a_host_that_is_down_does_not_stop_files_of_another(get, nobody):
    message = refused(get, f"{nobody}/a.png", "/good/b.png", f"{nobody}/c.png", jobs=1)
    assert message.startswith("2 of 3 files") and "b.png" in visible(get.folder)


def test_a_redirection_to_a_host_that_is_down_stops_no_other_file(get, server, nobody):
    server.elsewhere = f"{nobody}/a.png"
    message = refused(get, "/elsewhere/a.png", "/good/b.png", jobs=1)
    assert message.startswith("1 of 2 files") and "b.png" in visible(get.folder)


# --------------------------------------------------------------------- interruptions, folders


def command(*arguments, **options):
    environment = os.environ | {"no_proxy": "*"}
    return subprocess.Popen(
        [sys.executable, "-m", "companion", "fetch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
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
    path.write_text(f"{server.address}/slow/a.png {sha256()}\n{server.address}/good/b.png\n")
    part = folder / ".a.png.part"
    folder.mkdir()
    (folder / SUMS).write_text("0123")  # of an earlier fetch, killed in the middle of a line
    process = command(path, "--to", folder)
    wait_for(lambda: part.exists() and part.stat().st_size >= HALF - 2**14)
    wait_for((folder / "b.png").exists)
    process.send_signal(how)
    start = time.perf_counter()
    _, errors = process.communicate(timeout=10)
    assert time.perf_counter() - start < 5  # it does not wait for the server
    if how == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in errors
        assert "the same command goes on" in errors.splitlines()[-1]
    begun = part.stat().st_size
    assert not (folder / "a.png").exists()

    process = command(path, "--to", folder)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert output == f"fetched 1 of 2 files; all are there and verified: {folder}\n"
    assert (folder / "a.png").read_bytes() == CONTENT
    assert server.asked[-1][1]["Range"] == f"bytes={begun}-" and server.count("b.png") == 1
    assert visible(folder) == [SUMS, "a.png", "b.png"]


def test_a_whole_part_is_not_asked_for_again(get, server):
    refused(get, "/truncates-ever/a.png")
    part = get.folder / ".a.png.part"
    part.write_bytes(CONTENT)
    asked = server.count()
    get("/truncates-ever/a.png")
    assert (get.folder / "a.png").read_bytes() == CONTENT and server.count() == asked


@pytest.mark.parametrize("about", ["", "[]", "{}", '{"url": "http://a.org/a.png"}'])
def test_a_part_of_unknown_origin_is_not_used(get, about):
    get.folder.mkdir()
    (get.folder / ".a.png.part").write_bytes(OTHER[:1000])
    (get.folder / ".a.png.from").write_text(about)
    get("/good/a.png")
    assert (get.folder / "a.png").read_bytes() == CONTENT


def test_a_part_of_another_address_is_not_used(get):
    refused(get, "/truncates-ever/a.png")
    (get.folder / ".a.png.part").write_bytes(OTHER[:1000])
    get("/good/a.png")  # with the same ETag
    assert (get.folder / "a.png").read_bytes() == CONTENT


def test_a_cut_off_line_of_the_hashes_is_mended_and_a_wrong_one_refused(get):
    get("/good/a.png")
    with (get.folder / SUMS).open("a") as sums:
        sums.write("0123")
    get("/good/a.png", "/good/b.png")
    assert read_sums(get.folder) == {"a.png": sha256(), "b.png": sha256()}
    (get.folder / SUMS).write_text(f"{sha256()}  a.png\nhello\n")
    assert f"{get.folder / SUMS}, line 2" in refused(get, "/good/a.png")


def test_a_second_fetch_of_the_same_folder_is_refused(server, tmp_path):
    path, folder = tmp_path / "list.txt", tmp_path / "to"
    path.write_text(f"{server.address}/slow/a.png {sha256()}")
    options = {"limits": Limits(pause=0), "say": print}
    first = threading.Thread(target=fetch, args=(path, folder), kwargs=options, daemon=True)
    first.start()
    wait_for(lambda: server.count() == 1)
    with pytest.raises(PPPError, match="'ppp fetch' is at work here"):
        fetch(path, folder)
    server.go.set()
    first.join(10)
    assert (folder / "a.png").read_bytes() == CONTENT
    assert fetch(path, folder, say=print) == folder


@pytest.mark.parametrize("room", [50_000, len(CONTENT) - 1])
def test_a_full_disk_is_one_line_and_what_arrived_is_kept(server, tmp_path, room):
    path, folder = tmp_path / "list.txt", tmp_path / "to"
    path.write_text(f"{server.address}/good/a.png")  # no hash would tell

    def small():  # no file above so many bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    process = command(path, "--to", folder, preexec_fn=small)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 2 and errors.count("\n") == 1, errors
    assert errors.startswith(f"ppp: folder {folder} cannot be used: File too large; make room")
    assert (folder / ".a.png.part").stat().st_size == room
    fetch(path, folder, say=print)
    assert server.asked[-1][1]["Range"] == f"bytes={room}-"
    assert (folder / "a.png").read_bytes() == CONTENT


def test_a_folder_that_is_a_file_is_one_line(get):
    get.folder.write_bytes(b"")
    message = refused(get, "/good/a.png")
    assert message.startswith(f"folder {get.folder} cannot be used: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(get):
    get.folder.mkdir(mode=0o500)
    assert "Permission denied" in refused(get, "/good/a.png")


# ----------------------------------------------------------------------------------- offline


def test_offline_nothing_is_asked_for_and_what_is_there_is_enough(get, server, monkeypatch):
    get("/good/a.png")
    monkeypatch.setenv("PPP_OFFLINE", "1")
    get("/good/a.png")
    message = refused(get, "/good/a.png", "/good/b.png")
    assert message.startswith("b.png of ") and f"--to {get.folder}` first" in message
    assert "is not here, and PPP_OFFLINE forbids the network; run `ppp fetch " in message
    assert server.count() == 1
    monkeypatch.setenv("PPP_OFFLINE", "0")
    get("/good/a.png", "/good/b.png")


def test_offline_weights_come_from_the_cache_alone(server, tmp_path, monkeypatch):
    name = f"net-{sha256()[:8]}.pth"
    weights = Weights(f"{server.address}/good/{name}", None, {})
    monkeypatch.setenv("PPP_OFFLINE", "1")
    with pytest.raises(WeightsError, match="is not here, and PPP_OFFLINE forbids") as caught:
        networks.fetch(weights, folder=tmp_path)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
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
        with pytest.raises(PictureError) as caught:
            use("urban100")
        assert str(caught.value) == "urban100 has not been fetched; run: ppp fetch urban100"
    monkeypatch.setenv("PPP_OFFLINE", "1")
    with pytest.raises(DataError, match=r"PPP_OFFLINE forbids .*; run `ppp fetch urban100` first"):
        fetch("urban100")
    monkeypatch.delenv("PPP_OFFLINE")
    assert server.count() == 0  # only `ppp fetch` fetches
    assert fetch("urban100", say=print) == tmp_path / "cache" / "urban100"
    assert [photo.name for photo in photographs("urban100")] == ["blue.png", "red.png"]
    found = folder_photographs("urban100")
    assert len(found.outcomes) == 2 and found.photos[0].source == "folder urban100"
    (tmp_path / "cache" / "urban100" / "red.png").unlink()
    with pytest.raises(PictureError, match=r"not been fetched in full \(1 of 2 files are here\)"):
        photographs("urban100")


def test_a_folder_goes_before_a_set_of_the_same_name(toy_set, tmp_path):
    (tmp_path / "urban100").mkdir()
    shutil.copy(tmp_path / "red.png", tmp_path / "urban100" / "mine.png")
    assert [photo.name for photo in photographs("urban100")] == ["mine.png"]


def test_the_name_of_a_set_is_a_value_of_photos(toy_set, tmp_path):
    with pytest.raises(ParameterError, match="photos = 'urban100': urban100 has not been fetched"):
        parameters.check(photos="urban100")
    with pytest.raises(ParameterError, match="no such folder"):
        parameters.check(photos="urban101")
    fetch("urban100", say=print)
    parameters.check(photos="urban100")
    state = staleness.given({"photos": "urban100"})
    assert str(tmp_path / "cache" / "urban100" / "red.png") in state
    fetch("urban100", say=print)
    assert staleness.given({"photos": "urban100"}) == state  # nothing was fetched: nothing stale


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
    calls = [
        (DataError, lambda: datasets.fetch(place)),
        (DataError, lambda: datasets.fetch(path, place)),
        (DataError, lambda: datasets.read_list(place)),
        (PictureError, lambda: datasets.located(place)),
    ]
    for error, call in calls:
        with pytest.raises(error) as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    if "\0" not in place:  # the environment can hold none
        monkeypatch.setenv("PPP_CACHE", place)
        with pytest.raises(DataError, match=r"^PPP_CACHE "):
            datasets.located("urban100")


def test_only_a_regular_file_is_a_list(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in [(tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")]:
        with pytest.raises(DataError, match=f"list .* cannot be read: it is {words}"):
            datasets.fetch(path, tmp_path / "to")


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"none\n"])
def test_damaged_sums_are_told_in_one_line(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_text("https://example.org/a.png\n")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / datasets.SUMS).write_bytes(content)
    with pytest.raises(DataError) as caught:
        datasets.fetch(path, tmp_path / "to")
    assert datasets.SUMS in str(caught.value) and "\n" not in str(caught.value)
