"""What a user names: paths, files, JSON and YAML are read, or refused in one line."""

import os
import socket
import subprocess
import sys

import pytest
import yaml
from checks import refused

from ppp.errors import DataError, DocumentError, shown, unknown
from studies.storage import documents, yaml_documents

# ---- paths


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("~no-such-user/photos", "no such user"),
        ("photos\0", "a character that no path may hold"),
        ("\ud800", "a character that no path may hold"),
        ("a" * 5000, "too long for a path (5000 characters)"),
        ("/".join(["a" * 200] * 100), "too long for a path"),
    ],
)
def test_texts_that_are_no_path(text, reason):
    words = refused(documents.as_path, text, "--photos", DataError, error=DataError)
    assert words.startswith("--photos ") and reason in words
    for read in (documents.regular, documents.read_bytes, documents.read_text):
        assert reason in refused(read, text)


def test_paths_are_taken_literally(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert documents.as_path("~/set #2") == tmp_path / "set #2"
    for text in ("", "a: b", "$HOME", "*", "not there"):
        assert str(documents.as_path(text)) == (text or ".")


# ---- kinds of files


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    pipe, folder, link = tmp_path / "pipe", tmp_path / "folder", tmp_path / "link"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, kind in [
            (pipe, "a pipe"),
            (link, "a pipe"),
            (folder, "a folder"),
            ("socket", "a socket"),
            ("/dev/zero", "a device"),
            ("/dev/null", "a device"),
            ("/dev/stdin", "a "),
        ]:
            for read in (documents.regular, documents.read_bytes, yaml_documents.read_yaml):
                words = refused(read, path, "list")
                assert words.startswith(f"list {path} cannot be read: it is {kind}"), words


def test_a_pipe_that_takes_the_place_of_a_file_does_not_hold_up(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    os.mkfifo(path)
    monkeypatch.setattr(documents, "regular", lambda path, *_: path)
    assert "it is a pipe" in refused(documents.read_bytes, path)


def test_files_are_read_through_links(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    (tmp_path / "link").symlink_to("a.txt")
    assert documents.read_text(tmp_path / "link") == "a\nb\n"
    assert documents.read_bytes(tmp_path / "link", most=8) == b"\xef\xbb\xbfa\r\nb\n"


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.json"
    assert "No such file" in refused(documents.read_bytes, path)
    path.write_bytes(b"{}\xff")
    assert "byte 3 is not UTF-8" in refused(documents.read_text, path)
    assert "larger than 2 bytes" in refused(documents.read_bytes, path, most=2)
    for content in ("", "{", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}", "[]", "1"):
        path.write_text(content)
        assert f"{path} cannot be read: not as expected in JSON" in refused(
            documents.read_json, path
        )


# ---- YAML


def bomb(levels: int, leaf: str = "lol", width: int = 9) -> str:
    lines = [f"- &a0 [{', '.join([leaf] * width)}]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


MERGES = "a0: &a0 {x0: 1}\n" + "".join(
    f"a{n}: &a{n} {{x{n}: 1, <<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(9), "with its aliases written out"),
        (bomb(60, width=2), "with its aliases written out"),
        (f"- &a {'x' * 100_000}\n- [{', '.join(['*a'] * 100)}]", "with its aliases written out"),
        (MERGES, "with its aliases written out"),
        ("&a [*a]", "'a' holds itself"),
        ("a: &a {b: {c: *a}}", "'a' holds itself"),
        ("[" * 100_000, "deeper than 50 levels"),
        ("{a: " * 60 + "1" + "}" * 60, "deeper than 50 levels"),
        ("x" * (2**20 + 1), "larger than 1,048,576 characters"),
        ("[a", "expected ',' or ']'"),
        ("a: \0", "special characters"),
        ("*a", "undefined alias"),
        ("!!python/object/apply:os.system [exit]", "could not determine a constructor"),
        ("9" * 10_000, "integer"),
        ("2001-13-45", "month"),
        ("? {a: b}\n: c", "unhashable"),
    ],
)
def test_yaml_is_bounded_before_it_is_built(text, reason):
    words = refused(yaml_documents.parse_yaml, text, "sweep.yaml", error=DocumentError)
    assert words.startswith("sweep.yaml: ") and reason in words and len(words) < 1000


def test_yaml_without_aliases_is_bounded_too(monkeypatch):
    monkeypatch.setattr(yaml_documents, "MOST_WRITTEN_OUT", 4000)
    yaml_documents.parse_yaml("- a\n" * 150)
    assert "4,000" in refused(yaml_documents.parse_yaml, "- a\n" * 250, error=DocumentError)


def test_yaml_takes_almost_no_memory_for_what_it_refuses(tmp_path):
    (tmp_path / "bomb.yaml").write_text(bomb(40))
    code = (
        "import resource, sys\n"
        "from ppp.errors import PPPError\nfrom studies.storage import yaml_documents\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (200 * 2**20,) * 2)\n"
        "try: yaml_documents.read_yaml(sys.argv[1])\n"
        "except PPPError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.yaml")], capture_output=True, text=True
    )
    assert done.stdout == "refused\n", done


def test_yaml_that_is_right_is_read_as_ever():
    text = "base: &b {n: 1, day: 2001-01-02}\nmore: {<<: *b, n: 2}\nlist: [*b, no, 1e3, 0x10, ~]\n"
    assert yaml_documents.parse_yaml(text) == yaml.safe_load(text)
    assert yaml_documents.parse_yaml(text, loader=yaml_documents.Texts) == yaml.load(
        text, yaml.BaseLoader
    )
    assert yaml_documents.parse_yaml("") is None


# ---- words


def test_values_are_shown_short():
    nested = "lol"
    for _ in range(30):
        nested = [nested] * 9
    for value in ("a" * 10**7, ["b"] * 10**6, 10**10_000, nested, {n: n for n in range(10**5)}):
        assert len(shown(value)) <= 240
        assert len(unknown("padding", "c" * 10**6, ["zeros"])) < 400
    assert shown({"a": [1, "b"]}) == "{'a': [1, 'b']}"


def test_the_start_needs_neither_torch_nor_pandas():
    code = "import sys, studies.storage.documents; "
    code += "print({'torch', 'pandas', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
