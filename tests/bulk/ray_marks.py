"""The marks of tests on a real Ray, which leaves its processes to the operating system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

RAY_MARKS = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    *(
        pytest.mark.filterwarnings(f"ignore::{category}")
        for category in (
            "ResourceWarning",
            "pytest.PytestUnraisableExceptionWarning",
            "DeprecationWarning",
            "FutureWarning",
        )
    ),
]


def on_ray(test: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a test these marks."""
    for mark in RAY_MARKS:
        test = mark(test)
    return test
