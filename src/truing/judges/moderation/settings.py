"""What stands in a moderation folder besides the tensors: `truing.json` and `thresholds.json`.

truing.json        base, base_sha256, form (full, delta), layers that are used (0 = all), categories, token windows,
                   languages, lineage, licence
thresholds.json    per mode (pair, prompt, response) a temperature and a threshold; per category a threshold
head.safetensors   the linear head         model.safetensors or delta.safetensors   the body
blend.json         of a folder with members (folders in it): how much each one's logits weigh
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Struct, field

from truing.core.errors import UserError
from truing.core.types import Lineage

InputMode = Literal["pair", "prompt", "response"]
INPUT_MODES: tuple[InputMode, ...] = ("pair", "prompt", "response")
T = TypeVar("T")


class ClassifierSettings(Struct, frozen=True, kw_only=True):
    """`truing.json` of a moderation folder."""

    kind: str
    base: str
    base_sha256: str
    form: Literal["full", "delta"] = "full"
    layers: int = 0
    members: tuple[str, ...] = ()
    version: int = 1
    dimension: str = "harmful"
    taxonomy: str = "beavertails"
    categories: tuple[str, ...] = ()
    prompt_tokens: int = 72
    response_tokens: int = 116
    languages: tuple[str, ...] = ("en",)
    data: tuple[str, ...] = ()
    lineage: Lineage = Lineage()
    licence: str = ""
    notice: str = ""


class BlendWeights(Struct, frozen=True, kw_only=True):
    """One logit of several members': `weights` `[member][output]`, `gate` (of the first member's harmful logit) for each
    category, `bias` for each output."""

    weights: tuple[tuple[float, ...], ...]
    gate: tuple[float, ...]
    bias: tuple[float, ...]

    def apply(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """`[n, outputs]` of the members' logits, each `[n, outputs]`."""
        made = np.asarray(
            sum(np.asarray(w) * z for w, z in zip(self.weights, logits, strict=True))
            + np.asarray(self.bias)
        )
        made[:, len(self.bias) - len(self.gate) :] += logits[0][:, :1] * np.asarray(self.gate)
        return made


class ClassifierThresholds(Struct, frozen=True, kw_only=True):
    """Where a probability becomes a verdict. A logit is divided by its mode's temperature, then shifted by its bias."""

    temperature: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INPUT_MODES, 1.0))
    bias: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INPUT_MODES, 0.0))
    harmful: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INPUT_MODES, 0.5))
    categories: dict[str, float] = field(default_factory=dict)
    refused: float = 0.5

    def of(self, category: str) -> float:
        """The threshold of a category; 0.5 where none was fitted."""
        return self.categories.get(category, 0.5)


def read_json(path: Path, kind: type[T]) -> T:
    """A JSON file as a struct; UserError with path and reason otherwise."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing, so this is no moderation folder") from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def read_settings(folder: Path) -> ClassifierSettings:
    """`truing.json`, checked."""
    made = read_json(folder / "truing.json", ClassifierSettings)
    if made.kind != "moderation":
        raise UserError(f"{folder / 'truing.json'}: kind is {made.kind!r}, not 'moderation'")
    if not made.categories or len(set(made.categories)) != len(made.categories):
        raise UserError(f"{folder / 'truing.json'}: categories must be distinct and at least one")
    if any("/" in m or m in ("", ".", "..") for m in made.members):
        raise UserError(f"{folder / 'truing.json'}: members are folders beside it")
    if not (8 <= made.prompt_tokens <= 4096 and 8 <= made.response_tokens <= 4096):
        raise UserError(
            f"{folder / 'truing.json'}: prompt_tokens and response_tokens must lie in 8..4096"
        )
    return made


def read_blend(folder: Path, settings: ClassifierSettings) -> BlendWeights:
    """`blend.json`, checked against members and categories."""
    path = folder / "blend.json"
    made = read_json(path, BlendWeights)
    outputs = len(settings.categories) + 3
    whole = len(made.weights) == len(settings.members) and len(made.gate) == len(
        settings.categories
    )
    if not whole or any(len(row) != outputs for row in (*made.weights, made.bias)):
        raise UserError(
            f"{path}: wants {len(settings.members)} rows of {outputs} weights, a bias each and a gate a category"
        )
    if not all(math.isfinite(v) for row in (*made.weights, made.bias, made.gate) for v in row):
        raise UserError(f"{path}: holds values that are no numbers")
    return made


def read_thresholds(folder: Path, settings: ClassifierSettings) -> ClassifierThresholds:
    """`thresholds.json`, checked against the categories."""
    path = folder / "thresholds.json"
    made = read_json(path, ClassifierThresholds)
    faults = [
        f"{path}: categories.{c}: no such category"
        for c in made.categories
        if c not in settings.categories
    ]
    for name in ("temperature", "bias", "harmful"):
        table: dict[str, float] = getattr(made, name)
        faults += [f"{path}: {name}.{mode}: missing" for mode in INPUT_MODES if mode not in table]
    faults += [
        f"{path}: temperature.{m}: must be positive"
        for m, t in made.temperature.items()
        if not t > 0
    ]
    inside = {
        **{f"harmful.{m}": t for m, t in made.harmful.items()},
        **made.categories,
        "refused": made.refused,
    }
    faults += [f"{path}: {k}: {t} is no probability" for k, t in inside.items() if not 0 <= t <= 1]
    if faults:
        raise UserError(*faults)
    return made


def write_json(path: Path, value: Struct) -> None:
    """A struct as indented JSON, replaced whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
    temporary.replace(path)
