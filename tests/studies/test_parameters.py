"""The registry of notebook parameters, and the one line by which a notebook checks its own."""

import numpy as np
import pytest

from ppp.errors import ParameterError

CELL = "from studies import parameters\nparameters.check()"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"n": 1}, ["n = 1"]),
        ({"profile": "quick", "schemes": ["zeros", "refelct"]}, ["schemes", "refelct"]),
        ({"seed": None}, ["seed = None"]),
        ({"seed": 1.5, "profile": "quick"}, ["seed = 1.5"]),
    ],
)
def test_check_reads_the_parameters_of_a_notebook(values, named):
    with pytest.raises(ParameterError) as caught:
        exec(CELL, {"unrelated": -1, **values})
    assert all(word in str(caught.value) for word in named)


def test_check_takes_what_no_parameter_can_hold_for_a_variable():
    # A cell that is run again finds what later cells have made under a parameter's name.
    exec(CELL, {"n": 64, "pictures": {"a": np.zeros(3)}, "layers": ("a", 1), "unrelated": -1})


@pytest.mark.parametrize("given", ['["zeros", "randn"]', "zeros,randn", ("zeros", "randn")])
def test_a_list_as_papermill_s_users_write_it_becomes_one(given):
    cell = {"schemes": given, "n": 64, "window": (96, 96)}
    exec(CELL, cell)
    assert cell["schemes"] == ["zeros", "randn"] and cell["window"] == (96, 96)


@pytest.mark.parametrize("given", ['["zeros", "refelct"]', ("zeros", "refelct")])
def test_a_list_in_another_form_is_checked_too(given):
    with pytest.raises(ParameterError, match="did you mean 'reflect'"):
        exec(CELL, {"schemes": given})


def test_check_refuses_where_nothing_is_set():
    with pytest.raises(ParameterError):
        exec(CELL, {"pictures": np.zeros(3)})
