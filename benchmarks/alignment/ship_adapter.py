"""Packs a trained adapter as the weights that come with truing, and prints its pinned digests.

    python benchmarks/alignment/ship_adapter.py --trained STUDY/train/smol/sft-0-HASH --name smollm2-careful

Writes src/truing/resources/weights/adapters/NAME: adapter.safetensors (bfloat16, the scale of LoRA
multiplied in), truing.json (the lineage) and card.json (licences; its figures are filled in by
hand, from the study). The digests go to `truing.hf.named_weights`. Refuses a lineage with a licence
that does not permit every use, with a judge, or with prompts of the frozen measurement set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file

from truing.core.errors import UserError
from truing.core.licences import collect_licences, find_unfree
from truing.core.measurement_set import count_frozen_by_source
from truing.hf.low_rank import ADAPTER_FILE, CARD_FILE
from truing.hf.named_weights import ADAPTERS_FOLDER
from truing.hf.weights import sha256_file
from truing.train.model_card import TrainedModelCard, read_model_card

_PEFT_PREFIX = "base_model.model."
ORIGINS = (
    {"kind": "base", "name": "SmolLM2-135M-Instruct", "licence": "Apache-2.0"},
    {"kind": "data", "name": "refusals and benign twins in our own words", "licence": "Apache-2.0"},
    {"kind": "data", "name": "the base's own answers to builtin:helpful", "licence": "Apache-2.0"},
)


def convert_adapter(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the matrices A and B of a PEFT adapter, B multiplied by LoRA's scale."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    tensors = {}
    for key, tensor in load_file(folder / "adapter_model.safetensors").items():
        name, _, part = key.removeprefix(_PEFT_PREFIX).removesuffix(".weight").rpartition(".lora_")
        value = tensor.float() * (scale if part == "B" else 1.0)
        tensors[f"{name}.{part}"] = value.to(torch.bfloat16).contiguous()
    return tensors


def read_free_card(folder: Path) -> TrainedModelCard:
    """Returns the card of a trained model; raises UserError if it may not ship."""
    card = read_model_card(folder)
    if card is None:
        raise UserError(f"{folder}: no finished model")
    unfree = find_unfree(collect_licences(card.lineage))
    frozen = count_frozen_by_source(card.lineage.prompts)
    if unfree or frozen or card.lineage.judges:
        raise UserError(f"{folder}: may not ship: {unfree} {frozen} {card.lineage.judges}")
    return card


def main() -> None:
    """Writes the folder and prints the digests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    card = read_free_card(arguments.trained)
    folder = ADAPTERS_FOLDER / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    save_file(convert_adapter(arguments.trained / "adapter"), folder / ADAPTER_FILE)
    (folder / CARD_FILE).write_bytes(
        msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n"
    )
    path = folder / "card.json"
    if not path.is_file():
        about = {"model": arguments.name, "licence": "Apache-2.0", "origins": ORIGINS}
        path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for name in (ADAPTER_FILE, CARD_FILE):
        print(name, sha256_file(folder / name), (folder / name).stat().st_size)


if __name__ == "__main__":
    main()
