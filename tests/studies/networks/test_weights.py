"""Weights: files that are read as data alone, and downloads that are verified."""

import contextlib
import hashlib
import os
import pickle
import socket

import loopback
import numpy as np
import pytest
import torch
import torchvision
from checks import refused
from safetensors.torch import save_file, save_model
from torchvision.models import Weights

from ppp.errors import WeightsError
from studies import networks
from studies.networks import fetch, load, load_network, small_vgg
from studies.storage import documents


def test_local_files_in_either_format(tmp_path):
    state = {k: v.clone() for k, v in small_vgg(seed=8).state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    torch.save(state, tmp_path / "net.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pt")
    for name in ("net.safetensors", "net.pth", "wrapped.pt"):
        network = load_network("plane-vgg", str(tmp_path / name))
        assert torch.equal(network.model.classifier.weight, state["classifier.weight"])
        found = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert network.provenance["sha256"] == found


def test_missing_truncated_and_foreign_files_are_refused(tmp_path):
    assert "No such file" in refused(load_network, "plane-vgg", str(tmp_path / "none.pth"))
    state = small_vgg().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    for suffix in (".safetensors", ".pth"):
        content = (tmp_path / f"a{suffix}").read_bytes()
        for broken in (content[: len(content) // 2], b"", b"<html>not found</html>"):
            path = tmp_path / f"broken{suffix}"
            path.write_bytes(broken)
            message = refused(load_network, "plane-vgg", str(path))
            assert str(path) in message and hashlib.sha256(broken).hexdigest() in message
    message = refused(load_network, "plane-resnet", str(tmp_path / "a.pth"))
    assert "bn1.bias is missing" in message and message.count(" is missing") == 3
    torch.save([1, 2], tmp_path / "list.pth")
    assert "no state dict" in refused(load_network, "plane-vgg", str(tmp_path / "list.pth"))
    save_file(small_vgg(classes=3).state_dict(), tmp_path / "three.safetensors")
    message = refused(load_network, "plane-vgg", str(tmp_path / "three.safetensors"))
    assert "classifier.weight is (3, 64), not (8, 64)" in message


class _Bomb:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path(MARK).touch()",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    monkeypatch.setattr("builtins.MARK", str(mark), raising=False)
    for name, write in (
        ("a.pth", torch.save),
        ("b.pth", lambda o, p: p.write_bytes(pickle.dumps(o, 2))),
    ):
        write({"classifier.weight": _Bomb()}, tmp_path / name)
        assert "no file of tensors alone" in refused(
            load_network, "plane-vgg", str(tmp_path / name)
        )
    assert not mark.exists()


@pytest.fixture
def served(tmp_path):
    """A folder and its address on the loopback interface."""
    folder = tmp_path / "served"
    folder.mkdir()

    with loopback.serve(folder) as address:
        yield folder, address


def _publish(folder, state, digits=8, digest=None):
    torch.save(state, folder / "plain.pth")
    digest = digest or hashlib.sha256((folder / "plain.pth").read_bytes()).hexdigest()
    return (folder / "plain.pth").rename(folder / f"net-{digest[:digits]}.pth").name


def test_a_download_is_verified_kept_and_verified_again(served, tmp_path):
    folder, address = served
    name = _publish(folder, {"weight": torch.ones(3)})
    entry = Weights(url=f"{address}/{name}", transforms=None, meta={})
    path = fetch(entry, folder=tmp_path / "cache")
    assert path.read_bytes() == (folder / name).read_bytes()
    (folder / name).unlink()
    assert fetch(entry, folder=tmp_path / "cache") == path  # no second download
    path.write_bytes(path.read_bytes()[:-10])
    assert str(path) in refused(fetch, entry, folder=tmp_path / "cache", error=WeightsError)


def test_a_wrong_download_is_refused_and_leaves_nothing(served, tmp_path):
    folder, address = served
    name = _publish(folder, {"weight": torch.ones(3)}, digest="0123abcd" * 8)
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for url in (
        f"{address}/{name}",
        f"{address}/gone-0123abcd.pth",
        f"{nobody}/net-0123abcd.pth",
        f"{address}/plain.pth",
    ):
        entry = Weights(url, None, {})
        assert url in refused(fetch, entry, folder=tmp_path / "cache", error=WeightsError)
    assert list((tmp_path / "cache").iterdir()) == []


def test_torchvision_weights_go_through_fetch(served, tmp_path, monkeypatch):
    folder, address = served
    state = torchvision.models.squeezenet1_1(num_classes=1000).state_dict()
    name = _publish(folder, state)
    monkeypatch.setattr(
        load,
        "fetch",
        lambda entry: fetch(Weights(f"{address}/{name}", None, {}), folder=tmp_path / "cache"),
    )
    network = load_network("squeezenet1_1", "IMAGENET1K_V1")
    weight = "classifier.1.weight"
    assert torch.equal(network.model.state_dict()[weight], state[weight])
    assert network.provenance["sha256"].startswith(name[4:12])
    assert 0.5 < network.provenance["accuracy"] < 0.7
    assert "does not fit" in refused(load_network, "mobilenet_v2", "IMAGENET1K_V1")


# ---- kinds of numbers


def _with(change, key="0.weight"):
    """Return a small network, and its state with one tensor changed."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state[key] = change(state[key])
    return model, state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.to(torch.complex64) * 1j, "0.weight is of complex64, not float32"),
        (lambda w: w.to(torch.int8), "0.weight is of int8, not float32"),
        (lambda w: w > 0, "0.weight is of bool, not float32"),
        (lambda w: w.to_sparse(), "0.weight is sparse or nested"),
        (lambda w: torch.empty_like(w, device="meta"), "0.weight is on the meta device"),
        (
            lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
            "0.weight is quantised (qint8)",
        ),
    ],
)
def test_weights_of_another_kind_are_refused_by_name(tmp_path, change, words):
    model, state = _with(change)
    before = networks.weights_sha256(model)
    torch.save(state, tmp_path / "w.pth")
    message = refused(networks.load_file, model, tmp_path / "w.pth", error=WeightsError)
    assert words in message
    assert networks.weights_sha256(model) == before


def test_counters_are_whole_numbers_and_keys_are_names(tmp_path):
    model, state = _with(lambda n: n.float(), "1.num_batches_tracked")
    torch.save(state, tmp_path / "w.pth")
    message = refused(networks.load_file, model, tmp_path / "w.pth", error=WeightsError)
    assert "num_batches_tracked is of float32, not int64" in message
    torch.save(state | {7: torch.zeros(1)}, tmp_path / "w.pth")
    message = refused(networks.load_file, model, tmp_path / "w.pth", error=WeightsError)
    assert "key 7" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_taken_and_told(tmp_path, dtype):
    model, state = _with(lambda w: w.to(dtype))
    torch.save(state, tmp_path / "w.pth")
    found = networks.load_file(model, tmp_path / "w.pth")
    assert found["dtype"] == ", ".join(sorted(["float32", str(dtype).removeprefix("torch.")]))
    assert torch.equal(model[0].weight, state["0.weight"].float())
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert "dtype" not in networks.load_file(model, tmp_path / "w.pth")


def test_the_bytes_that_are_hashed_are_those_that_are_loaded(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    model, state = _with(lambda w: w + 1)
    torch.save(state, path)
    content = path.read_bytes()
    read = documents.read_bytes

    def replaced(*arguments, **options):
        found = read(*arguments, **options)
        path.write_bytes(b"other")
        return found

    monkeypatch.setattr(documents, "read_bytes", replaced)
    assert networks.load_file(model, path)["sha256"] == hashlib.sha256(content).hexdigest()
    assert torch.equal(model[0].weight, state["0.weight"])


def test_a_pipe_of_weights_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    message = refused(networks.load_file, torch.nn.Conv2d(3, 4, 3), tmp_path / "w.pth")
    assert "a pipe" in message


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + key: value for key, value in state.items()}


WRITTEN = {
    "DataParallel": ("a.pth", lambda s: prefixed("module.", s)),
    "torch.compile": ("a.pt", lambda s: {"state_dict": prefixed("_orig_mod.module.", s)}),
    "Lightning": (
        "last.ckpt",
        lambda s: {"state_dict": prefixed("model.", s) | {"loss.weight": torch.ones(3)}},
    ),
    "torchvision": ("a.pth", lambda s: {"model": s, "optimizer": {"state": {0: 1}}, "epoch": 3}),
    "tutorial": ("a.pth", lambda s: {"model_state_dict": s, "loss": 0.1}),
    "BasicSR": ("a.pth", lambda s: {"params_ema": s}),
    "averages beside": ("a.pth", lambda s: {"ema": prefixed("x", s), "state_dict": s}),
    "ImageNet example": ("b.pth.tar", lambda s: {"state_dict": s, "best_acc1": np.float64(0.9)}),
    "Hugging Face": ("pytorch_model.bin", lambda s: s),
}


@pytest.mark.parametrize("script", WRITTEN)
def test_weights_load_as_training_scripts_write_them(tmp_path, script):
    name, written = WRITTEN[script]
    state = {k: v.clone() for k, v in small_vgg(seed=8).state_dict().items()}
    torch.save(written(state), tmp_path / name)
    model = load_network("plane-vgg", str(tmp_path / name)).model
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_weights_that_layers_share_may_be_named_once(tmp_path):
    def tied(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        model = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 3) for _ in range(3)])
        model[2].weight = model[1].weight
        return model

    source, model = tied(1), tied(2)
    save_model(source, str(tmp_path / "tied.safetensors"))
    networks.load_file(model, tmp_path / "tied.safetensors")
    assert torch.equal(model[2].weight, source[1].weight)


def test_what_holds_no_weights_says_what_it_holds(tmp_path):
    torch.save({"optimizer": {"lr": 0.1}, "epoch": 3}, tmp_path / "a.pth")
    message = refused(load_network, "plane-vgg", str(tmp_path / "a.pth"), error=WeightsError)
    assert "only optimizer, epoch" in message and "model_state_dict" in message
