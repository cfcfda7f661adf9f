"""Networks by their names: shipped, initial and random ones, and those of torchvision."""

import hashlib
import json
import shutil

import pytest
import torch
import torchvision
from checks import refused

from ppp.errors import WeightsError
from studies.networks import SHIPPED, load_network, manifest, normalise


def test_normalise_keeps_leading_axes():
    pixels = torch.rand(2, 4, 3, 5, 6)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    plain = torchvision.transforms.functional.normalize(pixels, mean, std)
    torch.testing.assert_close(normalise(pixels, mean, std), plain)


def test_the_name_optimal_gives_zero_padding():
    network = load_network("plane-resnet-optimal", "random", seed=3)
    assert network.provenance["padding"] == "optimal"
    zeros = load_network("plane-resnet", "random", seed=3).model
    assert network.model.surroundings == (0, 0) and network.model.conv1.padding == (2, 2)
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network.model(pixels), zeros(pixels))


def test_every_shipped_file_is_listed_and_small():
    listed = manifest()
    assert "plane-resnet-zeros-seed0" in listed
    files = {path.stem: path for path in SHIPPED.glob("plane-*.safetensors")}
    assert files.keys() == listed.keys()
    for stem, record in listed.items():
        content = files[stem].read_bytes()
        assert len(content) < 4e6
        assert hashlib.sha256(content).hexdigest() == record["sha256"]
        assert record["test_accuracy"] >= 0.95 and record["n_test"] >= 2000
        assert record["train_scenes"][1] <= record["test_scenes"][0]


def test_trained_initial_and_random():
    trained = load_network("plane-resnet", "trained")
    initial = load_network("plane-resnet", "initial")
    drawn = load_network("plane-resnet", "random", seed=0)
    assert trained.window == 96 and trained.layers[0] == "relu" and not trained.model.training
    assert trained.mean == (0.5,) * 3 and trained.std == (0.25,) * 3
    assert trained.provenance["accuracy"] >= 0.95
    assert "before the first" in initial.provenance["source"]
    weight = [n.model.conv1.weight for n in (trained, initial, drawn)]
    assert torch.equal(weight[1], weight[2]) and not torch.equal(weight[0], weight[1])
    assert all(p.dtype == torch.float32 for p in trained.model.parameters())


def test_padding_is_part_of_a_plane_networks_name():
    from ppp.swapping import PaddedConv2d

    network = load_network("plane-resnet-circular", "random")
    assert isinstance(network.model.conv1, PaddedConv2d)
    assert network.provenance["padding"] == "circular"
    mixed = load_network("plane-resnet-mixed", "random", seed=1)
    assert mixed.provenance["padding"] == "mixed" and mixed.model.conv1.padding == (2, 2)
    assert "'plane-resnet-mixed-seed5'" in refused(
        load_network, "plane-resnet-mixed", "trained", seed=5
    )
    assert "'plane-resnet-mean-seed0'" in refused(load_network, "plane-resnet-mean", "trained")
    assert "did you mean 'randn'" in refused(load_network, "plane-vgg-rand", "random")
    assert "seed99" in refused(load_network, "plane-resnet", "initial", seed=99)


def test_a_changed_shipped_file_is_refused_before_it_is_parsed(tmp_path):
    record = dict(manifest()["plane-resnet-zeros-seed0"])
    path = tmp_path / record["file"]
    (tmp_path / "manifest.json").write_text(json.dumps({"plane-resnet-zeros-seed0": record}))
    message = refused(load_network, "plane-resnet", "trained", models=tmp_path)
    assert str(path) in message and "No such file" in message
    shutil.copy(SHIPPED / record["file"], path)
    load_network("plane-resnet", "trained", models=tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    message = refused(load_network, "plane-resnet", "trained", models=tmp_path)
    assert str(path) in message and record["sha256"] in message
    assert hashlib.sha256(content).hexdigest() in message


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"file": 1}}', "{", "\xff", None])
def test_a_broken_or_missing_manifest_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
    message = refused(load_network, "plane-resnet", "trained", models=tmp_path, error=WeightsError)
    assert "manifest" in message


def test_torchvision_by_name():
    network = load_network("resnet18", "random", seed=5)
    again = load_network("resnet18", "random", seed=5)
    assert torch.equal(network.model.fc.weight, again.model.fc.weight)
    assert network.window == 224 and network.mean == (0.485, 0.456, 0.406)
    assert load_network("mobilenet_v3_small", "random").layers == ()
    assert "did you mean 'resnet18'" in refused(load_network, "resnet8", "random")
    assert "did you mean 'plane-resnet'" in refused(load_network, "plane-resnt", "trained")
    assert "did you mean 'IMAGENET1K_V1'" in refused(load_network, "resnet18", "IMAGENET1K_V3")
    assert "did you mean 'trained'" in refused(load_network, "plane-resnet", "traned")
