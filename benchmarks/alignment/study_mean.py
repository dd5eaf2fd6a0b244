"""Trained models of the study averaged weight by weight, or moved a part of the way from the base.

    python benchmarks/alignment/study_mean.py --out STUDY --name dpo-mean --levers dpo-0 dpo-1 dpo-2
    python benchmarks/alignment/study_mean.py --out STUDY --name soft-0 --levers larger-0 --share 0.6

Each of them is the base with a merged adapter, so their mean is the base with the mean of the
adapters (model soups: Wortsman et al. 2022, 2203.05482). What differs between seeds by chance, such
as how often a model declines at all, is averaged out. Writes STUDY/train/TARGET/NAME-mean, a model
folder like any other. With `--share` the result is the base and that share of the mean's difference
from it (Wortsman et al. 2022, 2109.01903), which sets how much a lever declines; above 1 it goes on
in the same direction (Zheng et al. 2024, 2404.16792). It is taken from the adapters, in float32: the merged
weights are rounded.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from study import TARGETS, Study

from truing.core.errors import UserError
from truing.core.lineage import digest

WEIGHTS = "model.safetensors"
MAX_SHARE = 8.0
COPIED = ("config.json", "generation_config.json", "chat_template.jinja", "tokenizer*.json")


def mean_weights(folders: list[Path]) -> dict[str, torch.Tensor]:
    """Returns the mean of each tensor, computed in float32, in the type of the first folder."""
    first = load_file(folders[0] / WEIGHTS)
    sums = {name: tensor.float() for name, tensor in first.items()}
    for folder in folders[1:]:
        for name, tensor in load_file(folder / WEIGHTS).items():
            sums[name] += tensor.float()
    return {name: (total / len(folders)).to(first[name].dtype) for name, total in sums.items()}


def part_of_the_way(
    base: dict[str, torch.Tensor], difference: dict[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Returns the base plus `share` of a difference: 0 is the base, 1 the lever, and above 1 it lies
    beyond the lever. Tensors without a difference stay as they are.

    Raises UserError for a difference of a tensor that the base lacks.
    """
    if unknown := sorted(difference.keys() - base.keys()):
        raise UserError(f"the base has no {unknown[0]}, of which an adapter has a difference")
    return {
        name: (tensor.float() + share * difference[name]).to(tensor.dtype)
        if name in difference
        else tensor
        for name, tensor in base.items()
    }


def adapter_difference(folder: Path) -> dict[str, torch.Tensor]:
    """Returns what a trained lever's adapter adds to the weights that it was trained on, in float32.

    Raises UserError for a lever without an adapter.
    """
    if not (folder / "adapter").is_dir():
        raise UserError(f"{folder}: no adapter; --share needs levers as they were trained")
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    suffix = ".lora_A.weight"
    return {
        f"{name.removeprefix('base_model.model.').removesuffix(suffix)}.weight": scale
        * adapter[name.replace("lora_A", "lora_B")].float()
        @ tensor.float()
        for name, tensor in adapter.items()
        if name.endswith(suffix)
    }


def mean_difference(folders: list[Path]) -> dict[str, torch.Tensor]:
    """Returns the mean of what the levers' adapters add to the base's weights."""
    first, *others = [adapter_difference(folder) for folder in folders]
    for difference in others:
        for name, tensor in difference.items():
            first[name] += tensor
    return {name: tensor / len(folders) for name, tensor in first.items()}


def mean_card(name: str, folders: list[Path], share: float = 1.0) -> dict[str, Any]:
    """Returns the card of the mean: the first one's, with a lineage that names all of them.

    Raises UserError if they did not learn the same prompts from the same base: then one card could
    not speak for all.
    """
    cards = [json.loads((folder / "truing.json").read_text()) for folder in folders]
    if any(
        card["base_sha256"] != cards[0]["base_sha256"]
        or card["lineage"]["prompts"] != cards[0]["lineage"]["prompts"]
        for card in cards
    ):
        raise UserError(f"{name}: its parts have different bases or prompts")
    hashes = [card["lineage"]["hash"] for card in cards]
    parts = hashes if share == 1.0 else [*hashes, f"share {share} of the adapters"]
    lineage = {**cards[0]["lineage"], "name": f"mean:{name}", "hash": digest("mean", *parts)}
    return {**cards[0], "lineage": lineage}


def write_mean(study: Study, name: str, levers: list[str], share: float = 1.0) -> Path:
    """Writes the mean of trained levers and returns its folder.

    Raises UserError for a share outside of ]0, MAX_SHARE], or a share of the way to levers that were
    trained on another one.
    """
    if not 0 < share <= MAX_SHARE:
        raise UserError(f"--share {share}: above 0 (the base; 1 is the lever), at most {MAX_SHARE}")
    if name in levers:
        # The newest folder of a name is the lever: the mean would take its place.
        raise UserError(f"--name {name}: the name of one of its parts")
    folders = [study.model_folder(lever) for lever in levers]
    card = mean_card(name, folders, share)
    target = study.out / "train" / study.name / f"{name}-mean"
    if share == 1:
        weights = mean_weights(folders)
    else:
        if card["base"] != study.target.base:
            raise UserError(f"{name}: its parts were trained on {card['base']}, not on the base")
        base = load_file(study.out / study.target.base / WEIGHTS)
        weights = part_of_the_way(base, mean_difference(folders), share)
    target.mkdir()
    for pattern in COPIED:
        for file in folders[0].glob(pattern):
            shutil.copyfile(file, target / file.name)
    save_file(weights, target / WEIGHTS, metadata={"format": "pt"})
    (target / "truing.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return target


def main() -> None:
    """Writes one mean."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", choices=TARGETS, default="qwen")
    parser.add_argument("--name", required=True)
    parser.add_argument("--levers", nargs="+", required=True)
    parser.add_argument("--share", type=float, default=1.0, help="of the way from the base")
    arguments = parser.parse_args()
    study = Study(arguments.out, arguments.target)
    print(write_mean(study, arguments.name, arguments.levers, arguments.share))


if __name__ == "__main__":
    main()
