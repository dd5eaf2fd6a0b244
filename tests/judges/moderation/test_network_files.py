"""Tensors of a folder: quantised changes are restored, damaged and hostile files refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from truing.core.errors import UserError
from truing.judges.moderation.network_files import (
    apply_delta,
    encode_delta,
    read_head,
    read_network,
)
from truing.judges.moderation.settings import read_settings


def load(folder: Path) -> None:
    """Reads the network and the head of a folder."""
    settings = read_settings(folder)
    network, _ = read_network(folder, settings)
    read_head(network, folder, settings)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_full_change_is_restored_within_the_quantum() -> None:
    torch.manual_seed(0)
    base = {"w": torch.randn(8, 6), "b": torch.randn(8), "same": torch.randn(3, 3)}
    tuned = {"w": base["w"] + torch.randn(8, 6) * 0.1, "b": base["b"] + 0.5, "same": base["same"]}
    delta = encode_delta(base, tuned)
    assert set(delta) == {"w.q", "w.s", "b.d"} and delta["w.q"].dtype == torch.int8
    restored = apply_delta(base, delta, Path("x"))
    quantum = (tuned["w"] - base["w"]).abs().amax(1) / 127
    error = (restored["w"] - tuned["w"]).abs().amax(1)
    assert bool((error <= 0.51 * quantum + 2e-4).all())
    assert torch.equal(restored["same"], base["same"])
    assert torch.allclose(restored["b"], tuned["b"], atol=1e-3)


def test_a_change_of_low_rank_is_kept_by_two_factors() -> None:
    torch.manual_seed(0)
    base = {"w": torch.zeros(40, 32)}
    change = torch.randn(40, 3) @ torch.randn(3, 32)
    delta = encode_delta(base, {"w": change}, rank=3)
    assert delta["w.a"].shape == (3, 40) and delta["w.b"].shape == (3, 32)
    restored = apply_delta(base, delta, Path("x"))["w"]
    assert float((restored - change).norm() / change.norm()) < 0.02


@pytest.mark.parametrize(
    ("delta", "fault"),
    [
        ({"v.d": torch.zeros(2)}, "no such tensor"),
        ({"w.d": torch.zeros(3, 2)}, "shape"),
        ({"w.q": torch.zeros(2, 2, dtype=torch.int8)}, "incomplete"),
        ({"w.d": torch.full((2, 2), float("nan"))}, "not finite"),
        ({"w.z": torch.zeros(2, 2)}, "no such tensor"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(delta: dict[str, torch.Tensor], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        apply_delta({"w": torch.zeros(2, 2)}, delta, Path("delta.safetensors"))


@pytest.mark.parametrize("name", ["model.safetensors", "head.safetensors"])
def test_damaged_and_hostile_files_are_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=name):
        load(folder)
    (folder / name).write_bytes(b"\x80\x04" + b"." * 30)  # the beginning of a pickle
    with pytest.raises(UserError, match=name):
        load(folder)
    (folder / name).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))  # is never read
    with pytest.raises(UserError, match="missing"):
        load(folder)


def test_tensors_of_another_architecture_are_refused(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(UserError, match="not of the architecture"):
        load(folder)
    edit_json(folder / "config.json", num_hidden_layers=2, hidden_size=8)
    with pytest.raises(UserError, match="shape"):
        load(folder)
    edit_json(folder / "config.json", model_type="no_such_type")
    with pytest.raises(UserError, match=r"config\.json"):
        load(folder)


def test_unknown_tensors_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "stowaway": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="unknown tensor stowaway"):
        load(folder)


def test_a_head_of_another_size_is_refused(folder: Path) -> None:
    edit_json(folder / "truing.json", categories=["self_harm"])
    with pytest.raises(UserError, match="weight: missing, or not of the shape"):
        load(folder)


def test_ngram_tensors_that_do_not_fit_are_refused(folder: Path) -> None:
    head = load_file(folder / "head.safetensors")
    ngrams = {
        "ngram.weight": torch.zeros(256, 4, dtype=torch.int8),
        "ngram.scale": torch.ones(4),
        "ngram.idf": torch.ones(256),
    }
    save_file({**head, **ngrams}, folder / "head.safetensors")
    with pytest.raises(UserError, match=r"ngram: weights .* for 5 outputs"):
        load(folder)
