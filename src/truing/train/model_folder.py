"""The model folder that training leaves: the Hugging Face layout, with `truing.json`.

config.json  model.safetensors  tokenizer...   adapters merged, so that every tool can load it
adapter/                                       the LoRA adapter alone, in peft's layout
head.safetensors                               the linear head of a reward or cost model
truing.json                                    kind, base, dimension, data, lineage
README.md                                      the same for people: the model card
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch

from truing.core.licences import join_licences
from truing.core.lineage import digest, hash_prompts
from truing.core.measurement_set import frozen_hashes
from truing.core.private_files import create_folder, replace_file
from truing.core.types import Lineage
from truing.hf.loading import DTYPES
from truing.hf.pretrained import stored_dtype
from truing.hf.weights import sha256_folder
from truing.train.checkpoint import WRITE_ERRORS, describe_write_error
from truing.train.examples import TrainingSet
from truing.train.frozen_base import merge_adapters
from truing.train.labelled_answers import LabelledAnswers
from truing.train.model_card import (
    CARD_FILE,
    README_FILE,
    TrainedModelCard,
    render_model_card,
)
from truing.train.settings import TrainingSettings
from truing.train.trainable_model import BaseModel

_DIMENSIONS = {"reward": "helpful", "cost": "safe"}


class ModelSettings(Protocol):
    """The settings that a model folder depends on; supervised training and RL have them."""

    @property
    def kind(self) -> str:
        """The kind of training."""
        ...

    @property
    def folder(self) -> Path:
        """The folder to write."""
        ...

    @property
    def scalar(self) -> bool:
        """Whether the model returns a number instead of text."""
        ...

    @property
    def lora(self) -> int:
        """The rank of the adapters that have to be merged; 0 without any."""
        ...

    @property
    def export_dtype(self) -> str:
        """The type of the weights: auto, float32 or bfloat16."""
        ...

    @property
    def template(self) -> str:
        """How messages become one text."""
        ...

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt with its answer."""
        ...

    def used_settings(self) -> dict[str, Any]:
        """Returns all settings by name."""
        ...


class ExportedModel(Protocol):
    """A model after its training."""

    model: Any
    tokenizer: Any

    @property
    def settings(self) -> ModelSettings:
        """The settings of its training."""
        ...


def build_lineage(
    settings: TrainingSettings,
    base: BaseModel,
    sources: Sequence[TrainingSet],
    red_model: str | None,
) -> Lineage:
    """Returns the lineage of the trained model: what it and its base learned from.

    It holds the data, the hashes of the training prompts, and the judges that labelled or chose
    answers, each with those of the base.
    """
    name = f"{settings.kind}:{settings.folder.name}"
    return inherit_lineage(name, base, sources, red_model)


def inherit_lineage(
    name: str,
    base: BaseModel,
    sources: Sequence[TrainingSet] | Sequence[LabelledAnswers],
    red_model: str | None,
) -> Lineage:
    """Returns the lineage of what is trained on the base and these data sets."""
    inherited = base.lineage
    prompts = hash_prompts(i.conversation.prompt for s in sources for i in s.items)
    judges = {
        judge.hash or judge.name: judge
        for judge in (*(j for s in sources for j in s.judges), *inherited.judges)
    }
    return Lineage(
        name=name,
        base=inherited.base or inherited.name,
        base_sha256=inherited.base_sha256,
        data=(*inherited.data, *(s.spec for s in sources)),
        prompts=tuple(sorted({*prompts, *inherited.prompts})),
        judges=tuple(judges.values()),
        licence=join_licences(inherited.licence, *(source.licence for source in sources)),
        red_model=red_model,
    )


def save_model(trainable: ExportedModel, base: BaseModel, lineage: Lineage) -> Path:
    """Writes the model folder and returns it; raises RunError if the disk is full.

    All files go to a temporary folder first and are then moved, the card last: a folder with a card
    is complete. Adapters are merged into the base on the way, so the model cannot be trained
    further. The weights get the type of `settings.export_dtype`; the adapters stay in float32.
    """
    settings, folder = trainable.settings, trainable.settings.folder
    temporary = folder / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    (folder / CARD_FILE).unlink(missing_ok=True)
    try:
        create_folder(temporary)
        _write_weights(trainable, temporary, export_dtype(settings, base))
        for path in sorted(temporary.iterdir()):
            target = folder / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.rename(target)
        temporary.rmdir()
        model_hash = digest(settings.kind, sha256_folder(folder))
        card = _build_card(settings, base, msgspec.structs.replace(lineage, hash=model_hash))
        replace_file(folder / README_FILE, render_model_card(card).encode())
        replace_file(folder / CARD_FILE, msgspec.json.format(msgspec.json.encode(card), indent=2))
    except WRITE_ERRORS as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise describe_write_error(folder, error) from error
    return folder


def _build_card(settings: ModelSettings, base: BaseModel, lineage: Lineage) -> TrainedModelCard:
    used_settings = settings.used_settings()
    for name in (
        "out",
        "kind",
        "base",
        "device",
    ):  # stand in fields of their own, or depend on the machine
        used_settings.pop(name, None)
    return TrainedModelCard(
        kind=settings.kind,
        base=base.weights.title or base.weights.name,
        base_sha256=base.weights.sha256,
        dimension=_DIMENSIONS.get(settings.kind, ""),
        data=lineage.data,
        lineage=lineage,
        template=settings.template,
        max_length=settings.max_length,
        red_model=lineage.red_model,
        measurement_prompts=len(frozen_hashes().intersection(lineage.prompts)),
        settings=used_settings,
    )


def export_dtype(settings: ModelSettings, base: BaseModel) -> torch.dtype:
    """Returns the type of the weights in the model folder: as set, or that of the base's folder."""
    name = settings.export_dtype
    return DTYPES[stored_dtype(base.weights.path) if name == "auto" else name]


def _write_weights(trainable: ExportedModel, folder: Path, dtype: torch.dtype) -> None:
    """Writes the body with its adapters merged, the adapters alone, the tokenizer and the head."""
    from safetensors.torch import save_file

    is_scalar = trainable.settings.scalar
    body = trainable.model.body if is_scalar else trainable.model
    if trainable.settings.lora:
        body.save_pretrained(str(folder / "adapter"))
        body = merge_adapters(body, body.active_adapter, dtype)
        if is_scalar:
            trainable.model.body = body
        else:
            trainable.model = body
    body.to(dtype)
    body.save_pretrained(str(folder))
    trainable.tokenizer.save_pretrained(str(folder))
    if is_scalar:
        weight = trainable.model.head.weight.detach().float().cpu().contiguous()
        save_file({"weight": weight}, str(folder / "head.safetensors"))
