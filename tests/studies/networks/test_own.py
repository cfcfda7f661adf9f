"""Networks from a file of the user's: what is loaded, and what is refused in which words."""

import hashlib
import importlib.util
import os
import shutil
import sys

import checks
import loopback
import pytest
import torch
from safetensors.torch import save_file

from ppp.errors import DataError, PPPError, WeightsError
from studies import networks
from studies.networks import own
from studies.networks.own import is_own, load_own

MAKE = """\
import torch
from torch import nn

def make_net(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
"""


@pytest.fixture
def file(tmp_path):
    """Write a file of the user's and return its path."""

    def write(text=MAKE, name="my_net.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def refused(name, weights="random", window=16, error=WeightsError) -> str:
    return checks.refused(load_own, name, weights, window=window, error=error)


def test_factory_gives_a_network_ready_to_measure(file):
    path = file()
    network = load_own(f"{path}:make_net", window=16)
    assert not network.model.training and network.layers == () and network.window == 16
    assert (network.mean, network.std) == (networks.IMAGENET_MEAN, networks.IMAGENET_STD)
    assert network.provenance["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_own(f"{path}:make_net").window == 224


def test_random_weights_follow_the_seed_and_leave_the_generator_alone(file):
    name = f"{file()}:make_net"
    torch.manual_seed(5)
    first, again, other = (load_own(name, seed=seed, window=16).model for seed in (1, 1, 2))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    digests = [networks.weights_sha256(model) for model in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_weights_come_from_a_file(file, tmp_path):
    name, weights = f"{file()}:make_net", tmp_path / "w.safetensors"
    state = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}
    save_file(state, weights)
    network = load_own(name, str(weights), window=16)
    assert torch.equal(network.model[0].weight, state["0.weight"])
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert network.provenance["sha256"] == digest

    save_file({"0.weight": torch.ones(4, 3, 3, 3), "extra": torch.zeros(1)}, weights)
    text = refused(name, str(weights))
    assert "0.bias is missing" in text and "extra is not in the network" in text
    assert "unknown weights 'IMAGENET1K_V1'" in refused(name, "IMAGENET1K_V1")
    assert "cannot be read: No such file" in refused(name, str(tmp_path / "none.pth"))


def test_double_precision_and_train_mode_are_mended(file):
    path = file(MAKE.replace("nn.ReLU())", "nn.ReLU()).double().train()"))
    model = load_own(f"{path}:make_net", window=16).model
    assert model[0].weight.dtype == torch.float32 and not model.training


def test_neighbours_can_be_imported_while_loading_only(file, tmp_path):
    file("WIDTH = 7\n", "width_of_mine.py")
    text = MAKE.replace(
        "def make_net(width=4):", "def make_net():\n    from width_of_mine import W"
    )
    path = file(text.replace("import W", "import WIDTH as width"))
    before = list(sys.path)
    assert load_own(f"{path}:make_net", window=16).model[0].out_channels == 7
    assert sys.path == before
    del sys.modules["width_of_mine"]


@pytest.mark.parametrize("package", ["__init__.py", ""], ids=["package", "namespace"])
def test_what_a_network_imports_is_noted_and_its_own(file, tmp_path, package):
    for width, folder in ((5, "a"), (6, "b")):
        (tmp_path / folder / "parts").mkdir(parents=True)
        file(f"from shared_width import extra\nwidth = {width} + extra\n", f"{folder}/side.py")
        if package:
            file("", f"{folder}/parts/__init__.py")
        file("from torch import nn\n", f"{folder}/parts/late.py")
        file("", f"{folder}/unused.py")
        file(
            "import sys\nfrom pathlib import Path\nfrom torch import nn\n"
            "sys.path.append(str(Path(__file__).parents[1]))\nfrom side import width\n"
            "class Net(nn.Conv2d):\n"
            "    def __init__(self): super().__init__(3, width, 3)\n"
            "    def forward(self, x):\n"
            "        from parts import late\n"
            "        return super().forward(x)\n",
            f"{folder}/net.py",
        )
    file("extra = 0\n", "shared_width.py")
    mine = sys.modules["side"] = type(sys)("side")  # the caller's, of the same name
    mine.__file__ = str(tmp_path / "side.py")
    before = list(sys.path)
    try:
        for folder, extra in (("a", 0), ("b", 0), ("a", 0), ("a", 1)):
            file(f"extra = {extra}\n", "shared_width.py")  # of the same size, at the same time
            network = load_own(f"{tmp_path / folder / 'net.py'}:Net", window=16)
            assert network.model.out_channels == (5 if folder == "a" else 6) + extra
            network.model(torch.zeros(1, 3, 16, 16))
            found = network.provenance["modules"]
            parts = ["parts/__init__.py"] * bool(package) + ["parts/late.py"]
            assert list(found) == ["../shared_width.py", *parts, "side.py"]
            for name, digest in found.items():
                content = (tmp_path / folder / name).read_bytes()
                assert digest == hashlib.sha256(content).hexdigest()
            assert sys.modules["side"] is mine
    finally:
        sys.path[:] = before
        del sys.modules["side"]


def test_networks_that_have_no_values_yet(file, tmp_path):
    path = file("import torch\ndef m(): return torch.nn.Conv2d(3, 4, 3, device='meta')\n")
    assert "on the meta device, where weight has no values" in refused(f"{path}:m")
    path = file("import torch\ndef m(): return torch.nn.LazyConv2d(4, 3)\n")
    assert load_own(f"{path}:m", window=16).model.weight.shape == (4, 3, 3, 3)
    save_file({"weight": torch.ones(4, 3, 3, 3)}, tmp_path / "w.safetensors")
    text = refused(f"{path}:m", str(tmp_path / "w.safetensors"))
    assert "weight has no shape before the network is run" in text


def test_a_pipe_is_no_network_file(tmp_path):
    os.mkfifo(tmp_path / "net.py")
    assert "net.py cannot be read: it is a pipe" in refused(f"{tmp_path / 'net.py'}:m")
    assert "no such user" in refused("~no-such-user/net.py:m")


def test_an_interrupt_is_nobodys_fault(file):
    path = file("def m(): raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_own(f"{path}:m")


@pytest.mark.parametrize(
    ("text", "factory", "words"),
    [
        (MAKE, "make_nte", "unknown factory 'make_nte'; did you mean 'make_net'?"),
        (MAKE, "", "names no factory; expected FILE.py:FACTORY, with one of: make_net"),
        ("x = 1\n", "make", "known: none, the file defines no function"),
        ("x = 1\n\ny = undefined\n", "m", "NameError: name 'undefined' is not defined (line 3)"),
        ("x = 1\ndef broken(:\n", "m", "cannot be imported: SyntaxError: invalid syntax"),
        ("import no_such_module_here\n", "m", "No module named 'no_such_module_here' (line 1)"),
        ("import sys\nsys.exit(3)\n", "m", "cannot be imported: SystemExit: 3 (line 2)"),
        ("def m():\n    raise OSError('a\\nb')\n", "m", "factory 'm' of"),
        ("def m():\n    raise OSError('a\\nb')\n", "m", "fails: OSError: a (line 2)"),
        ("def m(depth, *, width, n=1): pass\n", "m", "needs arguments: depth, width;"),
        ("def m(): return 3\n", "m", "returns int; expected a torch.nn.Module"),
        ("def m(): raise GeneratorExit\n", "m", "fails: GeneratorExit (line 1)"),
        ("class E(BaseException): pass\nraise E('x')\n", "m", "imported: E: x (line 2)"),
        ("m = 3\n", "m", "is a int; expected a function that returns a network"),
        ("import torch\nm = torch.nn.ReLU()\n", "m", "is a ReLU; expected a function"),
    ],
)
def test_files_and_factories_at_fault(file, text, factory, words):
    path = file(text)
    said = refused(f"{path}:{factory}" if factory else str(path))
    assert words in said and str(path) in said


def test_missing_file(tmp_path):
    text = refused(f"{tmp_path / 'none.py'}:make")
    assert text.endswith("none.py cannot be read: No such file or directory")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("nn.Conv2d(3, 4, 17)", "can't be greater than actual input size"),
        ("nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(5, 1))", "RuntimeError"),
    ],
)
def test_network_that_does_not_run_on_the_window(file, body, words):
    path = file(f"from torch import nn\ndef m(): return {body}\n")
    text = refused(f"{path}:m", error=PPPError)
    assert "does not run on an input of shape (1, 3, 16, 16)" in text and words in text


def published(folder, tag, seed):
    """Put weights of timm's test network where its hub would have them; return the network."""
    timm = pytest.importorskip("timm", reason="no timm here; pip install timm")
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet")
    path = folder / f"timm/test_resnet.{tag}/resolve/main/model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(model.state_dict(), path)
    return model


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Serve a folder in the place of timm's hub; return the folder."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="no timm here")
    monkeypatch.setenv("PPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("PPP_OFFLINE", raising=False)
    (tmp_path / "hub").mkdir()
    with loopback.serve(tmp_path / "hub") as address:
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield tmp_path / "hub"


def test_weights_of_timm_are_fetched_kept_and_refused_where_they_change(hub, tmp_path, monkeypatch):
    tag = "r160_in1k"
    theirs = published(hub, tag, 1)
    assert own.fetch_timm("timm:test_resnet", "random") is None
    for weights in ("trained", tag):
        network = load_own("timm:test_resnet", weights)
        pixels = torch.rand(1, 3, 160, 160)
        assert torch.equal(network.model(pixels), theirs.eval()(pixels))
        assert network.weights == weights and network.window == 160
        assert "state_dict" not in {**network.model.pretrained_cfg, **network.model.default_cfg}
    path = tmp_path / "cache" / "timm" / f"test_resnet.{tag}.safetensors"
    assert network.provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"/timm/test_resnet.{tag}/resolve/main/" in network.provenance["source"]

    shutil.rmtree(hub / "timm")
    monkeypatch.setenv("PPP_OFFLINE", "1")
    load_own("timm:test_resnet", tag)  # from the cache
    monkeypatch.delenv("PPP_OFFLINE")
    path.unlink()
    published(hub, tag, 2)
    said = refused("timm:test_resnet", tag, error=DataError)
    assert network.provenance["sha256"] in said and not path.exists()


def test_what_timm_does_not_publish_is_one_line(hub, tmp_path, monkeypatch):
    assert "unknown weights 'r161_in1k'; did you mean 'r160_in1k'?" in refused(
        "timm:test_resnet", "r161_in1k"
    )
    assert "test_resnet.r160_in1k.safetensors" in refused(
        "timm:test_resnet", "trained", error=DataError
    )
    other = hub / "timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    other.parent.mkdir(parents=True)
    save_file({"conv1.weight": torch.zeros(3)}, other)
    assert "does not fit 'timm:test_resnet'" in refused("timm:test_resnet", "trained")
    monkeypatch.setenv("PPP_OFFLINE", "1")
    monkeypatch.setenv("PPP_CACHE", str(tmp_path / "empty"))
    assert "PPP_OFFLINE" in refused("timm:test_resnet", "trained", error=DataError)


def test_timm_that_is_not_installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "timm" else find(name)
    )
    text = refused("timm:resnet18")
    assert text == "network 'timm:resnet18' needs timm, which is not here: pip install timm"


def test_which_names_are_own():
    assert is_own("a.py:b") and is_own("a.py") and is_own("timm:x")
    assert not is_own("resnet18") and not is_own("plane-vgg")


def test_a_network_of_one_channel_reads_luminance(tmp_path):
    path = tmp_path / "grey.py"
    path.write_text(
        "import torch.nn as nn\n"
        "def grey(): return nn.Conv2d(1, 4, 3, padding=1)\n"
        "def four(): return nn.Conv2d(4, 4, 3, padding=1)\n"
    )
    network = load_own(f"{path}:grey", window=16)
    pixels = torch.stack([torch.full((2, 2), value) for value in (0.2, 0.5, 0.8)])
    grey = 0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.8
    expected = (grey - network.mean[0]) / network.std[0]
    torch.testing.assert_close(network.prepare(pixels), torch.full((1, 2, 2), expected))
    assert network.mean == pytest.approx((0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406,))
    with pytest.raises(PPPError, match="reads 4 channels, photographs have 3"):
        load_own(f"{path}:four", window=16)
