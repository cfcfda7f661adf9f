"""What a notebook parameter may be, in a notebook and as text on the command line."""

from pathlib import Path

import pytest
from checks import refused

from ppp.errors import ParameterError
from ppp.padding import SCHEMES
from studies import parameters


def test_registry_knows_the_names_of_the_library():
    from studies.bhv import variants

    assert parameters.SCHEMES == SCHEMES
    assert tuple(variants.VARIANTS) == parameters.VARIANTS
    assert tuple(variants.PROTOCOLS) == parameters.PROTOCOLS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profile", "paper"),
        ("n", 2),
        ("scheme", "constant(0.5)"),
        ("schemes", ["zeros", "randn(border)"]),
        ("layers", []),
        ("layer", "features.30"),
        ("checkpoints", [2, 8, 64]),
        ("photos", ""),
        ("weights", "IMAGENET1K_V2"),
        ("amount", 0),
        ("seed", 0),
    ],
)
def test_a_value_is_accepted_as_it_is(name, value):
    assert parameters.checked({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("profile", "quik", "did you mean 'quick'"),
        ("nn", 3, "unknown parameter 'nn'"),
        ("scheem", "zeros", "did you mean 'scheme'"),
        ("n", 1, "an integer >= 2"),
        ("n", True, "an integer >= 2"),
        ("n", "3", "an integer >= 2"),
        ("n", 3.0, "an integer >= 2"),
        ("seed", 2**32, "<= 4294967295"),
        ("scheme", "refelct", "did you mean 'reflect'"),
        ("scheme", "constant(x)", "expected a number in the brackets"),
        ("scheme", None, "unknown padding None"),
        ("schemes", "zeros", "a list"),
        ("schemes", [], "a list"),
        ("schemes", ["zeros", "zeros"], "comes twice"),
        ("checkpoints", [8, 2], "increasing order"),
        ("photos", "/no/such/folder", "no such folder"),
        ("layer", "layer 3", "a layer's name"),
        ("network", "", "a network's name"),
        ("network", "a\nb", "a network's name"),
        ("results", "", "a folder"),
        ("canvas", "nois", "did you mean 'noise'"),
        ("canvas", "0.5", "unknown canvas '0.5'"),
        *(("canvas", value, "<= 1") for value in (1.5, -0.1, float("nan"), True, None)),
        *(("price", value, "a number >= 0") for value in (True, "x", float("nan"), -1)),
    ],
)
def test_any_other_value_is_refused_by_name(name, value, words):
    assert words in refused(parameters.check, error=ParameterError, **{name: value})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "3", 3),
        ("price", "1e-3", 0.001),
        ("price", "1", 1.0),
        ("canvas", "0.5", 0.5),
        ("canvas", "0", 0.0),
        ("canvas", "noise", "noise"),
        ("photograph", "no", "no"),  # YAML 1.1 would make it False
        ("schemes", "mean", ["mean"]),
        ("schemes", "zeros,constant(0.5)", ["zeros", "constant(0.5)"]),
        ("schemes", " zeros, constant(0.5) ", ["zeros", "constant(0.5)"]),
        ("schemes", "[zeros, constant(0.5)]", ["zeros", "constant(0.5)"]),
        ("schemes", "[ 'zeros', \"constant(0.5)\" , ]", ["zeros", "constant(0.5)"]),
        ("layers", "[]", []),
        ("layers", "()", []),
        ("schemes", '("zeros", "constant(0.5)")', ["zeros", "constant(0.5)"]),
        ("schemes", ("zeros", "mean"), ["zeros", "mean"]),
        ("checkpoints", "(2, 8)", [2, 8]),
        *(
            ("photograph", name, name)
            for name in ("018.png", "2024-05-01.jpg", "my cat.jpg", "#1 (a).PNG", "ü&.tif", "", "-")
        ),
    ],
)
def test_a_text_is_read_in_the_type_of_its_parameter(name, text, value):
    (found,) = parameters.checked({name: text}, text=True).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("n", "true", "an integer >= 2"),
        ("n", "9" * 10_000, "an integer >= 2"),
        ("n", str(2**63), "an integer >= 2"),
        ("canvas", "1.5", "<= 1"),
        ("canvas", "nan", "<= 1"),
        ("schemes", "[zeros", "unknown padding '[zeros'"),
        ("schemes", "[zeros, refelct]", "did you mean 'reflect'"),
        *(("photograph", name, "expected a file's name") for name in ("a/b.png", "..", "a\0.png")),
        *(
            ("networks", text, "expected a network's name")
            for text in ("[set #2, b]", "[a b, c]", "!t a", "a,,b", "[a, [b]]", "&a b")
        ),
    ],
)
def test_any_other_text_is_refused_by_name(name, text, words):
    said = refused(parameters.checked, {name: text}, text=True, error=ParameterError)
    assert words in said and len(said) < 1000


def test_an_empty_folder_of_photographs_is_refused(tmp_path):
    (tmp_path / ".hidden").touch()
    said = refused(parameters.checked, {"photos": str(tmp_path)}, error=ParameterError)
    assert "empty" in said and str(tmp_path) in said
    (tmp_path / "a b.png").touch()
    parameters.check(photos=str(tmp_path))


TEXTS = ["set #2", "!tag x", "a: b", "'set'", '"set"', "- a", "&a", "*a", "a%b", "{a}", "no", "1e3"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_taken_as_they_stand(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(text).mkdir()
    Path(text, "a.png").touch()
    asked = {"photos": text, "weights": f"{text}.pth"}
    assert parameters.checked(asked, text=True) == asked
