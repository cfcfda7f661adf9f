import json
import struct
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from checks import refused
from safetensors import safe_open
from safetensors.numpy import save_file
from toys import LAYERS, network

import ppp
from ppp.errors import DocumentError
from ppp.statistics import sign_flip_test


@pytest.fixture(scope="module")
def measured(coverage, windows):
    return ppp.measure(
        network(), windows, LAYERS, ["zeros", "randn"], coverage=coverage,
        checkpoints=[2, 24], distributions=True,
    )  # fmt: skip


@pytest.fixture
def saved(measured, tmp_path):
    return measured.save(tmp_path / "deep" / "one.safetensors")


def same(first: object, second: object) -> bool:
    """Compare field by field: arrays by their bits, and NaN equals NaN."""
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, float):
        return repr(first) == repr(second)
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(v, second[k]) for k, v in first.items())
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(same, first, second))
    return same(vars(first), vars(second)) if hasattr(first, "__dict__") else first == second


def test_what_is_saved_is_loaded_as_it_was(measured, saved):
    again = ppp.Measurement.load(saved)
    assert again.table().equals(measured.table())
    assert same(dict(again), dict(measured)) and same(again.provenance, measured.provenance)
    assert again.audit == measured.audit and again.audit.runs == measured.audit.runs
    for name in ("input_size", "stride", "sites", "margin", "tail"):
        assert getattr(again.coverage, name) == getattr(measured.coverage, name)
    assert same(dict(again.coverage), dict(measured.coverage))
    assert again.coverage.table().equals(measured.coverage.table())
    assert [c.summary.n for c in again["randn", "4"].checkpoints] == [2, 24]
    for key, result in again.items():
        assert result.products.shape == (5, 5) and result.spreads.tolist() != [[0, 0]] * 4
        assert sign_flip_test(result.products) == result.p == measured[key].p
        assert result.influenced == again.coverage[key[1]].influence.mean()
        assert result.mae_influenced == measured[key].mae_influenced
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert measured.save(saved) == saved and ppp.Measurement.load(saved) is not again


def test_a_folder_takes_a_file_and_others_can_read_it(measured, tmp_path):
    path = measured.save(tmp_path)
    assert path.name == "measurement.safetensors"
    assert ppp.Measurement.load(tmp_path).table().equals(measured.table())
    with safe_open(path, "np") as file:
        (name,) = (n for n in file.keys() if n.endswith("randn 4 pattern"))  # noqa: SIM118
        assert np.array_equal(file.get_tensor(name), measured["randn", "4"].pattern)
        content = json.loads(file.metadata()["content"])
    assert content["provenance"]["windows"] == 24 and len(content["audit"]) == 4


def test_what_json_does_not_know_is_refused_and_nothing_is_written(measured, tmp_path):
    measured.provenance["odd"] = {1, 2}
    try:
        assert "set" in refused(measured.save, tmp_path / "a", error=DocumentError)
    finally:
        del measured.provenance["odd"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["empty", "half", "a bit of an array", "a digit", "text"])
def test_a_damaged_file_is_refused(saved, how):
    content = bytearray(saved.read_bytes())
    if how == "a bit of an array":
        content[-1] ^= 1
    elif how == "a digit":
        place = content.index(b"groups") + 12
        content[place : place + 1] = b"7"
    end = {"empty": 0, "half": len(content) // 2}.get(how, len(content))
    saved.write_bytes(b"a text\n" * 99 if how == "text" else bytes(content[:end]))
    assert str(saved) in refused(ppp.Measurement.load, saved, error=DocumentError)


def test_other_formats_and_other_things_are_refused(saved, tmp_path):
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    load = ppp.Measurement.load
    assert "'pt'" in refused(load, tmp_path / "other.safetensors", error=DocumentError)
    assert "no such file" in refused(load, tmp_path / "absent", error=DocumentError)
    assert "no such file" in refused(load, tmp_path, error=DocumentError)
    content = saved.read_bytes()
    huge = struct.pack("<Q", 2**40) + content[8:]  # a header of a terabyte
    saved.write_bytes(huge)
    refused(load, saved, error=DocumentError)


def test_only_known_kinds_are_made(saved, tmp_path, monkeypatch):
    monkeypatch.setattr("ppp.results._digest", lambda *_: "sha256")
    for content in ('{"ppp": "Path"}', '{"results": [1]}', "[" * 9999, '{"ppp": ["a"]}', "{}"):
        header = {"format": "ppp.Measurement 1", "sha256": "sha256", "content": content}
        save_file({"a": np.zeros(3)}, tmp_path / "odd", header)
        refused(ppp.Measurement.load, tmp_path / "odd", error=DocumentError)


def test_metrics_are_one_step_away_and_equal_the_summary(measured):
    result = measured["zeros", "4"]
    assert result.mae.low <= result.mae.value <= result.mae.high
    assert result.mae == result.summary.mae and result.n == result.summary.n == 24
    row = measured.table().set_index(["scheme", "layer"]).loc["zeros", "4"]
    assert row["snr_low"] == result.snr.low and row["sigma"] == result.sigma


def test_results_are_found_by_layer_when_there_is_one_scheme(measured):
    one = ppp.Measurement({k: r for k, r in measured.items() if k[0] == "zeros"})
    assert one["4"] is one["zeros", "4"] is measured["zeros", "4"]
    for found, key in ((one, "5"), (measured, "4"), (measured, ("reflect", "4"))):
        with pytest.raises(KeyError, match="known"):
            found[key]


def test_everything_is_shown_in_a_line_or_two(measured, windows, coverage):
    picture = next(iter(windows))
    truth = ppp.optimal(network(), picture.pixels, picture.tops, picture.lefts, coverage)
    result = measured["zeros", "4"]
    for shown, named in (
        (measured, "zeros, randn"), (result, "MAE-PPP"), (result.null_test, "cells"),
        (measured.coverage, "2, 4, 6"), (measured.coverage["4"], "clean"), (truth, "6 windows"),
        (measured.audit, "3 convolution"), (windows, "24"), (result.completeness, "1e-"),
        (ppp.Scheme("zeros"), "zeros"), (ppp.Measurement(), "Measurement"), (result.mae, "low"),
    ):  # fmt: skip
        assert named in repr(shown) and "\n" not in repr(shown) and len(repr(shown)) < 250


def test_notebooks_are_shown_maps_and_numbers_and_nothing_that_a_name_says(measured):
    tags = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    odd = "<script>alert(1)</script>"
    result = measured["zeros", "4"]
    renamed = ppp.Measurement({(odd, "4"): type(result)(**vars(result) | {"scheme": odd})})
    shown = (measured, renamed, result, measured.coverage, measured.audit)
    for html in (one._repr_html_() for one in shown):
        Parser().feed(html)
        assert html.startswith("<table>") and "script>" not in html and "color" not in html
    images = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(images) == 6 + 1 + 1 + 3
    assert all(source.startswith("data:image/png;base64,") for source in images)


def test_the_public_names_are_those_of_the_table_and_of_the_checker():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(ppp.__file__).read_text())
    typed = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ppp.")
        for alias in node.names
    }
    assert typed == {f"ppp.{module}.{name}" for name, module in ppp._MODULES.items()}
    assert sorted(ppp.__all__) == sorted([*ppp._MODULES, "__version__"]) == sorted(dir(ppp))
    assert all(getattr(ppp, name) for name in ppp.__all__) and ppp.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ppp.nothing


def test_results_are_handed_on_as_csv_and_as_one_page(measured, tmp_path):
    table = pd.read_csv(measured.to_csv(tmp_path / "ppp.csv"), dtype={"layer": str})
    pd.testing.assert_frame_equal(table, measured.table(), check_dtype=False)
    page = measured.to_html(tmp_path / "ppp.html").read_text(encoding="utf-8")
    assert page.count("<img ") == len(measured) and "http" not in page
