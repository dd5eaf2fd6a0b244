"""Trained models of the study averaged, or moved a part of the way from the base."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from truing.core.errors import UserError


@pytest.fixture
def mean(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "alignment"))
    return importlib.import_module("study_mean")


def write_model(folder: Path, value: float, *, prompts: str = "p", base: str = "qwen15") -> None:
    folder.mkdir(parents=True)
    weights = {"w.weight": torch.full((1, 2), value, dtype=torch.bfloat16)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # An adapter of rank 1 whose product is `value` - 1, the difference from a base of ones.
    (folder / "adapter").mkdir()
    parts = {"lora_A": torch.ones(1, 2), "lora_B": torch.full((1, 1), (value - 1) / 2)}
    tensors = {f"base_model.model.w.{name}.weight": part for name, part in parts.items()}
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    (folder / "adapter" / "adapter_config.json").write_text('{"r": 1, "lora_alpha": 2}')
    lineage = {"prompts": [prompts], "hash": f"hash of {value}", "name": "lever"}
    card = {"base": base, "base_sha256": "b", "lineage": lineage}
    (folder / "truing.json").write_text(json.dumps(card))
    (folder / "config.json").write_text("{}")


def test_a_share_of_the_way_from_the_base(mean: Any, tmp_path: Path) -> None:
    study = mean.Study(tmp_path, "qwen15")
    write_model(tmp_path / study.target.base, 1.0)
    for seed, value in enumerate((2.0, 4.0)):
        write_model(tmp_path / "train" / study.name / f"larger-{seed}-x", value)
    whole = mean.write_mean(study, "whole", ["larger-0", "larger-1"])
    part = mean.write_mean(study, "part", ["larger-0", "larger-1"], 0.25)
    beyond = mean.write_mean(study, "beyond", ["larger-0", "larger-1"], 2.0)
    folders = (whole, part, beyond)
    values = [load_file(folder / "model.safetensors")["w.weight"] for folder in folders]
    # The base is 1, the mean 3: a quarter of the way from 1 to 3 is 1.5, twice the way ends at 5.
    assert [v.tolist() for v in values] == [[[3.0, 3.0]], [[1.5, 1.5]], [[5.0, 5.0]]]
    assert values[1].dtype == torch.bfloat16
    cards = [
        json.loads((folder / "truing.json").read_text())["lineage"] for folder in (whole, part)
    ]
    assert cards[0]["hash"] != cards[1]["hash"] and cards[1]["name"] == "mean:part"
    assert (part / "config.json").is_file()


@pytest.mark.parametrize("share", [0.0, -0.5, 8.5, float("nan")])
def test_a_share_is_positive_and_at_most_eight(mean: Any, tmp_path: Path, share: float) -> None:
    with pytest.raises(UserError, match="above 0 .the base; 1 is the lever., at most 8"):
        mean.write_mean(mean.Study(tmp_path, "qwen15"), "soft", ["larger-0"], share)


def test_a_mean_does_not_take_the_place_of_its_part(mean: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the name of one of its parts"):
        mean.write_mean(mean.Study(tmp_path, "qwen15"), "larger-0", ["larger-0"], 0.5)


def test_without_the_base_nothing_is_written(mean: Any, tmp_path: Path) -> None:
    study = mean.Study(tmp_path, "qwen15")
    write_model(tmp_path / "train" / study.name / "larger-0-x", 1.0)
    with pytest.raises(FileNotFoundError):
        mean.write_mean(study, "soft-0", ["larger-0"], 0.5)
    assert [folder.name for folder in (tmp_path / "train" / study.name).iterdir()] == ["larger-0-x"]


def test_parts_that_learned_other_prompts_have_no_mean(mean: Any, tmp_path: Path) -> None:
    study = mean.Study(tmp_path, "qwen15")
    for seed, prompts in enumerate("pq"):
        folder = tmp_path / "train" / study.name / f"larger-{seed}-x"
        write_model(folder, 1.0, prompts=prompts)
    with pytest.raises(UserError, match="different bases or prompts"):
        mean.write_mean(study, "mixed", ["larger-0", "larger-1"])


def test_a_share_is_of_the_way_from_the_base_and_from_no_other_lever(
    mean: Any, tmp_path: Path
) -> None:
    study = mean.Study(tmp_path, "qwen15")
    write_model(tmp_path / study.target.base, 1.0)
    folder = tmp_path / "train" / study.name / "grpo-0-x"
    write_model(folder, 2.0, base="train/qwen15/sft-0-x")
    with pytest.raises(UserError, match="trained on train/qwen15/sft-0-x, not on the base"):
        mean.write_mean(study, "soft", ["grpo-0"], 0.5)
    with pytest.raises(UserError, match="the base has no w.weight"):
        mean.part_of_the_way({}, mean.adapter_difference(folder), 0.5)
    shutil.rmtree(folder / "adapter")
    with pytest.raises(UserError, match="no adapter; --share needs levers as they were trained"):
        mean.adapter_difference(folder)
