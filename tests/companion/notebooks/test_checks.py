"""What is asked of a chapter is refused from names and heads of files, before a kernel starts."""

from pathlib import Path

import pytest
from PIL import Image

from companion import cli, notebooks
from companion.notebooks import checks
from studies.networks import PLANE_WINDOW


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with photographs whose names a camera gives; no kernel can start."""

    def fail(*arguments, **options):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(notebooks, "execute", fail)
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, size in {"018.png": (300, 200), "my cat.jpg": (500, 400)}.items():
        Image.new("RGB", size).save(Path("photos", name))
    Path("empty").mkdir()
    Path("other").mkdir()
    Path("other", "notes.txt").write_text("no picture")
    return tmp_path


def test_the_window_of_the_small_networks_is_theirs():
    assert checks.PLANE_WINDOW == PLANE_WINDOW


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("01 -p photos=empty", ["photos", "empty"]),
        ("01 -p photos=other", ["photos", "no usable picture"]),
        ("01 -p photograph=cofee", ["photograph", "did you mean 'coffee'"]),
        ("01 -p photos=photos -p photograph=019.png", ["did you mean '018.png'"]),
        ("01 -p photos=photos -p photograph=018.png -p window=180", ["200 x 300", "228 x 228"]),
        ("01 -p photos=photos -p window=400", ["none fits", "448 x 448"]),
        ("01 -p amount=96", ["amount = 96", "reflect", "95"]),
        ("01 -p schemes=zeros,nan", ["schemes", "nan"]),
        ("01 -p weights=trainde", ["weights = 'trainde'", "did you mean 'trained'"]),
        ("01 -p seed=9", ["seed = 9", "seed9"]),
        ("02 -p network=resnet5", ["network = 'resnet5'", "did you mean 'resnet50'"]),
        ("02 -p networks=resnet18,vgg61", ["networks", "unknown network 'vgg61'"]),
        ("03 -p layer=layer9", ["layer = 'layer9'", "did you mean 'layer4'"]),
        ("03 -p network=plane-vgg", ["layer = 'layer2'", "network 'plane-vgg'"]),
        ("03 -p network=plane-vgg-refelct", ["network", "did you mean 'reflect'"]),
        ("03 -p weights=no.pth", ["weights = 'no.pth'", "no such file"]),
        ("04 -p seeds=0,9", ["seeds = [0, 9]", "seed9"]),
        ("04 -p layers=layer9", ["layers", "did you mean 'layer4'"]),
        ("05 -p networks=plane-resnet-zeros,pixls", ["networks", "pixls"]),
        ("08 -p schemes=mean", ["padding 'mean'"]),
        ("08 -p seeds=0,99", ["seed 99"]),
        ("08 -p layers=layer9", ["layers", "did you mean 'layer4'"]),
        ("10 -p window=5000", ["window = 5000", "1411"]),
        ("A -p sweep=empty", ["sweep", "runs.parquet"]),
        ("B -p imagenet_networks=resnet5", ["imagenet_networks", "did you mean 'resnet50'"]),
    ],
)
def test_a_request_that_cannot_work_is_refused_before_a_kernel_starts(here, capsys, line, words):
    assert cli.main(["run", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("ppp: ") and err.count("\n") == 1
    assert [word for word in words if word not in err] == []
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "changes",
    [
        ["01"],
        ["01", "-p", "photos=photos"],
        ["01", "-p", "photos", "photos", "-p", "photograph", "my cat.jpg"],
        ["02", "-p", "networks", "[densenet121, mobilenet_v2, googlenet]"],
        ["03", "-p", "network", "plane-vgg", "-p", "layer", "features.9"],
        ["05", "-p", "networks=plane-vgg-zeros,pixels"],
        ["07", "-p", "network=resnet18", "-p", "layer=layer2", "-p", "weights=random"],
    ],
)
def test_what_can_work_reaches_the_kernel(here, changes, capsys):
    assert cli.main(["run", *changes]) == 70
    assert "a kernel was started" in capsys.readouterr().err
