"""Generation options: every option has a shape, and a fault shows it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.rails.config.generation_options import (
    SHAPES,
    OptionsError,
    find_option_faults,
    require_options,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"rails": ["input", "output"]},
        {"rails": {"dialog": False, "input": None}},
        {"log": {"activated_rails": True, "llm_calls": False}},
        {"output_vars": True, "llm_output": False, "llm_params": {"temperature": 0}},
        {"output_vars": ["a"], "log": None},
    ],
)
def test_right_shapes(options: Any) -> None:
    assert list(find_option_faults(options or {})) == []
    require_options(options)  # raises nothing


@given(name=st.sampled_from(sorted(SHAPES)), value=JSON)
def test_a_wrong_value_names_its_option(name: str, value: Any) -> None:
    for option, what in find_option_faults({name: value}):
        assert option == name
        assert SHAPES[name] in what or "there is no" in what


def test_all_faults_are_reported() -> None:
    with pytest.raises(OptionsError) as caught:
        require_options({"log": True, "outputvars": 1, "rails": ["inptu"]})
    assert len(caught.value.faults) == 3
    assert "did you mean 'output_vars'" in str(caught.value)
    assert "did you mean 'input'" in str(caught.value)
