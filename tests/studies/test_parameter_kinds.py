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
        ("network", "", "a name"),
        ("network", "a\nb", "a name"),
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
        ("photograph", "~no-such-user/x", "expected a name"),
        *(
            ("networks", text, "expected a name")
            for text in ("[set #2, b]", "[a b, c]", "!t a", "a,,b", "[a, [b]]", "&a b")
        ),
    ],
)
def test_any_other_text_is_refused_by_name(name, text, words):
    said = refused(parameters.checked, {name: text}, text=True, error=ParameterError)
    assert words in said and len(said) < 1000


TEXTS = ["set #2", "!tag x", "a: b", "'set'", '"set"', "- a", "&a", "*a", "a%b", "{a}", "no", "1e3"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_taken_as_they_stand(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(text).mkdir()
    asked = {"photos": text, "weights": f"{text}.pth"}
    assert parameters.checked(asked, text=True) == asked
