"""The numbers that other projects log (`TRUING_PARITY`), as cases of tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(
    os.environ.get("TRUING_PARITY") or Path(__file__).parents[2].parent / "shared" / "parity"
)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def load_cases(name: str) -> list[Any]:
    """Returns the cases of a file; without it one case, which is skipped or fails."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return [pytest.param(None, id="absent", marks=pytest.mark.usefixtures("parity_dir"))]
    return [pytest.param(case, id=case["id"]) for case in json.loads(path.read_text())["cases"]]


def float64(values: Any, *, grad: bool = False) -> Any:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def assert_close(actual: Any, expected: Any) -> None:
    actual = torch.as_tensor(actual, dtype=torch.float64).detach()
    torch.testing.assert_close(actual, float64(expected), **TOLERANCE)
