import contextlib
import hashlib
import http.server
import json
import os
import pickle
import shutil
import socket
import threading
from functools import partial

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torchvision.models import Weights

import ppp
from ppp.errors import LayerError, PaddingError, PPPError, WeightsError
from studies import networks
from studies.networks import (
    SHIPPED,
    fetch,
    layers_of_interest,
    load_network,
    manifest,
    normalise,
    rebuilt,
    small_resnet,
    small_vgg,
)


def refused(*arguments, **options) -> str:
    with pytest.raises(WeightsError) as caught:
        load_network(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "sides"), [(small_resnet, (48, 48, 24, 12, 6)), (small_vgg, (96, 48, 24, 12, 6))]
)
def test_small_networks_have_the_declared_maps(make, sides):
    model = make(classes=5).eval()
    layers = {
        small_resnet: ["relu", "layer1", "layer2", "layer3", "layer4"],
        small_vgg: [f"features.{i}" for i in (2, 9, 16, 23, 30)],
    }
    assert layers_of_interest(model) == layers[make]
    seen = []
    for layer in layers_of_interest(model):
        hook = lambda _, __, out: seen.append(tuple(out.shape[1:]))  # noqa: E731
        model.get_submodule(layer).register_forward_hook(hook)
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 96, 96)).shape == (2, 5)
    widths = (16, 16, 32, 48, 80) if make is small_resnet else (16, 24, 32, 48, 64)
    assert seen == [(c, s, s) for c, s in zip(widths, sides)]


def test_initialisation_follows_the_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = small_resnet(seed=3), small_resnet(seed=3), small_resnet(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.layer3.conv1.weight, again.layer3.conv1.weight)
    assert not torch.equal(first.layer3.conv1.weight, other.layer3.conv1.weight)


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_padding_changes_the_border_and_not_the_weights(make):
    zeros, reflect = make().eval(), make(padding="reflect").eval()
    assert zeros.state_dict().keys() == reflect.state_dict().keys()
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    layer = layers_of_interest(zeros)[0]
    maps = []
    for model in (zeros, reflect):
        model.get_submodule(layer).register_forward_hook(
            lambda _, __, out: maps.append(out.clone())
        )
        with torch.inference_mode():
            model(pixels)
    differ = (maps[0] != maps[1]).any(1)[0]
    assert bool(differ[0].any()) and not bool(differ[4:-4, 4:-4].any())
    with pytest.raises(PaddingError, match="did you mean 'reflect'"):
        make(padding="refelct")


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_padding_touches_all_of_the_last_layer_and_not_of_the_one_before(make):
    model = make().eval()
    layers = layers_of_interest(model)
    clean = [reach.clean_fraction for reach in ppp.coverage(model, layers, 96).values()]
    assert clean[-1] == 0 < clean[-2]
    assert clean == sorted(clean, reverse=True)


def busy(make, **options):
    """Make a network in evaluation mode whose batch norm does something."""
    model = make(**options)
    draw = torch.Generator().manual_seed(6)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2, generator=draw)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2, generator=draw)
    return model.eval()


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_a_surrounded_network_gives_what_padding_far_away_cannot_touch(make):
    padded = busy(make, seed=4)
    surrounded = rebuilt(padded, "optimal")
    before, after = surrounded.surroundings
    assert make(padding="optimal").surroundings == (before, after)
    layers = layers_of_interest(padded)
    far, window = 192, slice(192 - before, 192 + 96 + after)  # 192 is a multiple of all strides
    picture = torch.rand(2, 3, 480, 480, generator=torch.Generator().manual_seed(5)) * 4 - 2
    wide = ppp.extract(padded, picture, layers)
    close = ppp.extract(surrounded, picture[..., window, window], layers)
    probe = ppp.coverage(padded, layers, 480)
    for layer in layers:
        stride = probe[layer].stride[0]
        side, first = 96 // stride, far // stride
        expected = wide[layer][..., first : first + side, first : first + side]
        assert not probe[layer].influence[first : first + side, first : first + side].any()
        # Deeper layers have less of the surroundings left: find where the window begins.
        left = close[layer].shape[-1] - side
        scale = float(expected.abs().max())
        fits = [
            offset
            for offset in range(left + 1)
            if torch.allclose(
                close[layer][..., offset : offset + side, offset : offset + side],
                expected, rtol=0, atol=1e-5 * scale,
            )
        ]  # fmt: skip
        assert len(fits) == 1, layer
    assert close[layers[-1]].shape[-1] >= 6
    features = wide[layers[-1]][..., first : first + side, first : first + side]
    with torch.inference_mode():
        if make is small_vgg:
            features = torch.nn.functional.max_pool2d(features, 2)
        pooled = features.mean((2, 3))
        scores = (padded.fc if make is small_resnet else padded.classifier)(pooled)
        found = surrounded(picture[..., window, window])
    torch.testing.assert_close(found, scores, rtol=0, atol=1e-5 * float(scores.abs().max()))


@pytest.mark.parametrize("make", [small_resnet, small_vgg])
@pytest.mark.parametrize("training", [True, False])
def test_rebuilding_keeps_the_weights_and_the_mode(make, training):
    model = busy(make, classes=5, padding="reflect", seed=2).train(training)
    state = torch.get_rng_state()
    there = rebuilt(model, "optimal")
    back = rebuilt(there, "reflect")
    assert torch.equal(torch.get_rng_state(), state)
    before = model.state_dict()
    for other in (there, back, rebuilt(back, "zeros")):
        assert other.training == training and type(other) is type(model)
        assert other.state_dict().keys() == before.keys()
        assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
        assert next(other.parameters()) is not next(model.parameters())
    assert back.surroundings == model.surroundings == (0, 0)
    pixels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(pixels), back.eval()(pixels))


def test_only_small_networks_are_rebuilt():
    with torch.device("meta"):
        other = torchvision.models.resnet18()
    with pytest.raises(PPPError, match=r"ResNet is no small network; see ppp\.with_padding"):
        rebuilt(other, "optimal")
    with pytest.raises(PaddingError, match="did you mean 'reflect'"):
        rebuilt(small_vgg(), "refelct")


def test_the_name_optimal_gives_zero_padding():
    network = load_network("plane-resnet-optimal", "random", seed=3)
    assert network.provenance["padding"] == "optimal"
    zeros = load_network("plane-resnet", "random", seed=3).model
    assert network.model.surroundings == (0, 0) and network.model.conv1.padding == (2, 2)
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network.model(pixels), zeros(pixels))


def test_stochastic_padding_draws_from_the_given_generator():
    pixels = torch.rand(1, 3, 96, 96)
    outputs = []
    for seed in (1, 1, 2):
        model = small_vgg(padding="randn", generator=torch.Generator().manual_seed(seed)).eval()
        with torch.inference_mode():
            outputs.append(model(pixels))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def test_layers_of_interest():
    expected = ["relu", "layer1", "layer2", "layer3", "layer4"]
    with torch.device("meta"):
        assert layers_of_interest(torchvision.models.resnet18()) == expected
        vgg = layers_of_interest(torchvision.models.vgg16(init_weights=False))
        assert vgg == [f"features.{i}" for i in (3, 8, 15, 22, 29)]
        for model in (torchvision.models.alexnet(), torch.nn.Conv2d(3, 3, 3)):
            with pytest.raises(LayerError, match="name the layers explicitly"):
                layers_of_interest(model)


def test_normalise_keeps_leading_axes():
    pixels = torch.rand(2, 4, 3, 5, 6)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    plain = torchvision.transforms.functional.normalize(pixels, mean, std)
    torch.testing.assert_close(normalise(pixels, mean, std), plain)


# ---------------------------------------------------------------------- the shipped networks


def test_every_shipped_file_is_listed_and_small():
    listed = manifest()
    assert "plane-resnet-zeros-seed0" in listed
    files = {path.stem: path for path in SHIPPED.glob("*.safetensors")}
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
    assert "'plane-resnet-mean-seed0'" in refused("plane-resnet-mean", "trained")
    assert "did you mean 'randn'" in refused("plane-vgg-rand", "random")
    assert "seed99" in refused("plane-resnet", "initial", seed=99)


def test_a_changed_shipped_file_is_refused_before_it_is_parsed(tmp_path):
    record = dict(manifest()["plane-resnet-zeros-seed0"])
    path = tmp_path / record["file"]
    (tmp_path / "manifest.json").write_text(json.dumps({"plane-resnet-zeros-seed0": record}))
    message = refused("plane-resnet", "trained", models=tmp_path)
    assert str(path) in message and "No such file" in message
    shutil.copy(SHIPPED / record["file"], path)
    load_network("plane-resnet", "trained", models=tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    message = refused("plane-resnet", "trained", models=tmp_path)
    assert str(path) in message and record["sha256"] in message
    assert hashlib.sha256(content).hexdigest() in message


@pytest.mark.parametrize("text", ["", "{", '{"a": '])
def test_a_broken_or_missing_manifest_is_named(tmp_path, text):
    assert "manifest.json" in refused("plane-resnet", "trained", models=tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    assert "manifest.json" in refused("plane-resnet", "trained", models=tmp_path)


# ------------------------------------------------------------------------------- local files


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
    assert "No such file" in refused("plane-vgg", str(tmp_path / "none.pth"))
    state = small_vgg().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    for suffix in (".safetensors", ".pth"):
        content = (tmp_path / f"a{suffix}").read_bytes()
        for broken in (content[: len(content) // 2], b"", b"<html>not found</html>"):
            path = tmp_path / f"broken{suffix}"
            path.write_bytes(broken)
            message = refused("plane-vgg", str(path))
            assert str(path) in message and hashlib.sha256(broken).hexdigest() in message
    message = refused("plane-resnet", str(tmp_path / "a.pth"))
    assert "bn1.bias is missing" in message and message.count(" is missing") == 3
    torch.save([1, 2], tmp_path / "list.pth")
    assert "no state dict" in refused("plane-vgg", str(tmp_path / "list.pth"))
    save_file(small_vgg(classes=3).state_dict(), tmp_path / "three.safetensors")
    message = refused("plane-vgg", str(tmp_path / "three.safetensors"))
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
        assert "no file of tensors alone" in refused("plane-vgg", str(tmp_path / name))
    assert not mark.exists()


# ------------------------------------------------------------------------ torchvision, network


def test_torchvision_by_name():
    network = load_network("resnet18", "random", seed=5)
    again = load_network("resnet18", "random", seed=5)
    assert torch.equal(network.model.fc.weight, again.model.fc.weight)
    assert network.window == 224 and network.mean == (0.485, 0.456, 0.406)
    assert load_network("mobilenet_v3_small", "random").layers == ()
    assert "did you mean 'resnet18'" in refused("resnet8", "random")
    assert "did you mean 'plane-resnet'" in refused("plane-resnt", "trained")
    assert "did you mean 'IMAGENET1K_V1'" in refused("resnet18", "IMAGENET1K_V3")
    assert "did you mean 'trained'" in refused("plane-resnet", "traned")


@pytest.fixture
def served(tmp_path):
    """A folder and its address on the loopback interface."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _publish(folder, state, digits=8, digest=None):
    torch.save(state, folder / "plain.pth")
    digest = digest or hashlib.sha256((folder / "plain.pth").read_bytes()).hexdigest()
    return (folder / "plain.pth").rename(folder / f"net-{digest[:digits]}.pth").name


def test_a_download_is_verified_kept_and_verified_again(served, tmp_path, capsys):
    folder, address = served
    name = _publish(folder, {"weight": torch.ones(3)})
    weights = Weights(url=f"{address}/{name}", transforms=None, meta={})
    kept = tmp_path / "cache"
    path = fetch(weights, folder=kept)
    assert path.read_bytes() == (folder / name).read_bytes()
    (folder / name).unlink()
    assert fetch(weights, folder=kept) == path  # no second download
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="delete it to download it again"):
        fetch(weights, folder=kept)


def test_a_wrong_download_is_refused_and_leaves_nothing(served, tmp_path):
    folder, address = served
    name = _publish(folder, {"weight": torch.ones(3)}, digest="0123abcd" * 8)
    for url, words in (
        (f"{address}/{name}", "expected \"0123abcd\""),
        (f"{address}/gone-0123abcd.pth", "could not be reached"),
        (f"{address}/plain.pth", "no SHA-256"),
    ):  # fmt: skip
        with pytest.raises(WeightsError) as caught:
            fetch(Weights(url, None, {}), folder=tmp_path / "cache")
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert url in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unreachable_address_is_one_line(tmp_path):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/net-0123abcd.pth"
    with pytest.raises(WeightsError, match="could not be reached") as caught:
        fetch(Weights(url, None, {}), folder=tmp_path)
    assert "local file" in str(caught.value) and "\n" not in str(caught.value)


def test_torchvision_weights_go_through_fetch(served, tmp_path, monkeypatch):
    folder, address = served
    state = torchvision.models.squeezenet1_1(num_classes=1000).state_dict()
    name = _publish(folder, state)
    real = networks.fetch
    monkeypatch.setattr(
        networks,
        "fetch",
        lambda entry: real(Weights(f"{address}/{name}", None, {}), folder=tmp_path / "cache"),
    )
    network = load_network("squeezenet1_1", "IMAGENET1K_V1")
    weight = "classifier.1.weight"
    assert torch.equal(network.model.state_dict()[weight], state[weight])
    assert network.provenance["sha256"].startswith(name[4:12])
    assert 0.5 < network.provenance["accuracy"] < 0.7
    assert "does not fit" in refused("mobilenet_v2", "IMAGENET1K_V1")


def test_reading_back_equals_what_was_saved():
    record = manifest()["plane-resnet-zeros-seed0"]
    state = load_network("plane-resnet", "trained").model.state_dict()
    for key, value in load_file(SHIPPED / record["file"]).items():
        assert torch.equal(state[key], value)


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
    with pytest.raises(WeightsError) as caught:
        networks.load_file(model, tmp_path / "w.pth")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert networks.weights_sha256(model) == before


def test_counters_are_whole_numbers(tmp_path):
    model, state = _with(lambda n: n.float(), "1.num_batches_tracked")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="num_batches_tracked is of float32, not int64"):
        networks.load_file(model, tmp_path / "w.pth")


def test_keys_that_are_no_names_are_refused(tmp_path):
    model, state = _with(lambda w: w)
    torch.save(state | {7: torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="has a key 7; expected names of parameters"):
        networks.load_file(model, tmp_path / "w.pth")


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
    read = networks.documents.read_bytes

    def replaced(*arguments, **options):
        found = read(*arguments, **options)
        path.write_bytes(b"other")
        return found

    monkeypatch.setattr(networks.documents, "read_bytes", replaced)
    assert networks.load_file(model, path)["sha256"] == hashlib.sha256(content).hexdigest()
    assert torch.equal(model[0].weight, state["0.weight"])


def test_a_pipe_of_weights_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="it is a pipe; expected a file"):
        networks.load_file(torch.nn.Conv2d(3, 4, 3), tmp_path / "w.pth")


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"file": 1}}', "{", "\xff"])
def test_a_damaged_manifest_is_told_in_one_line(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(WeightsError) as caught:
        networks.load_network("plane-vgg", "trained", models=tmp_path)
    assert "manifest" in str(caught.value) and "\n" not in str(caught.value)
