"""Adapters of the package: W + B A in bfloat16, and errors where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from truing.core.errors import UserError
from truing.hf.low_rank import ADAPTER_FILE, merge_low_rank


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    torch.manual_seed(0)
    tensors = {"layer.weight": torch.randn(4, 6), "norm.weight": torch.randn(6)}
    save_file({**tensors, "steps": torch.tensor([3])}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    for name in ("truing.json", "truing-weights.json"):
        (folder / name).write_text('{"of": "the base"}')
    return folder


def write_adapter(folder: Path, name: str = "layer", inputs: int = 6) -> Path:
    folder.mkdir()
    torch.manual_seed(1)
    tensors = {f"{name}.A": torch.randn(2, inputs), f"{name}.B": torch.randn(4, 2)}
    save_file(tensors, folder / ADAPTER_FILE)
    (folder / "truing.json").write_text('{"of": "the adapter"}')
    return folder


def test_the_product_is_added_and_other_weights_stay(base: Path, tmp_path: Path) -> None:
    adapter, target = write_adapter(tmp_path / "adapter"), tmp_path / "target"
    target.mkdir()
    merge_low_rank(base, adapter, target)
    before, after = (load_file(f / "model.safetensors") for f in (base, target))
    change = load_file(adapter / ADAPTER_FILE)
    expected = before["layer.weight"] + change["layer.B"] @ change["layer.A"]
    assert torch.equal(after["layer.weight"], expected.to(torch.bfloat16))
    assert torch.equal(after["norm.weight"], before["norm.weight"].to(torch.bfloat16))
    assert torch.equal(after["steps"], before["steps"])
    assert json.loads((target / "truing.json").read_text()) == {"of": "the adapter"}
    assert (target / "config.json").is_file() and not (target / "truing-weights.json").exists()


def test_an_adapter_without_a_part_is_an_error(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    save_file({"layer.A": torch.randn(2, 6)}, adapter / ADAPTER_FILE)
    with pytest.raises(UserError, match="is damaged: it has no layer.B"):
        merge_low_rank(base, adapter, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"name": "other"}, "has no other.weight"), ({"inputs": 5}, "of another size")],
)
def test_an_adapter_of_another_model_is_an_error(
    base: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        merge_low_rank(base, adapter, tmp_path)
