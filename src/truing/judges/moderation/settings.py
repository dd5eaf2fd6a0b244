"""The JSON files of a classifier folder, beside the tensors.

truing.json        base, base_sha256, form (full, delta), layers that are used (0 = all),
                   categories, token windows, languages, lineage, licence
thresholds.json    a temperature, a bias and a threshold per mode (pair, prompt, response);
                   a threshold per category
blend.json         of a folder with members (subfolders): the weights of their logits
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
from truing.core.input_files import read_input_bytes
from truing.core.private_files import replace_file
from truing.core.types import Lineage

# The questions in the order of a classifier's first outputs; the categories follow.
ModerationQuestion = Literal["harmful", "harmful_prompt", "refused"]
MODERATION_QUESTIONS: tuple[ModerationQuestion, ...] = ("harmful", "harmful_prompt", "refused")

InputMode = Literal["pair", "prompt", "response"]
INPUT_MODES: tuple[InputMode, ...] = ("pair", "prompt", "response")
T = TypeVar("T")


class ClassifierSettings(Struct, frozen=True, kw_only=True):
    """`truing.json` of a classifier folder."""

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
    """`blend.json`: how the logits of several members become one.

    `weights` is `[member][output]`, `bias` has a value per output, `gate` weighs the first member's
    harmful logit in each category.
    """

    weights: tuple[tuple[float, ...], ...]
    gate: tuple[float, ...]
    bias: tuple[float, ...]

    def apply(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the blended logits `[n, outputs]` of the members' logits, each `[n, outputs]`."""
        weighted = (np.asarray(w) * z for w, z in zip(self.weights, logits, strict=True))
        blended = np.asarray(sum(weighted) + np.asarray(self.bias))
        questions = len(self.bias) - len(self.gate)
        blended[:, questions:] += logits[0][:, :1] * np.asarray(self.gate)
        return blended


class ClassifierThresholds(Struct, frozen=True, kw_only=True):
    """`thresholds.json`: from logits to probabilities and verdicts.

    A harmful logit is divided by the temperature of its mode, then the bias of the mode is added.
    The tables map modes (`harmful`, `temperature`, `bias`) and categories to numbers.
    """

    temperature: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INPUT_MODES, 1.0))
    bias: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INPUT_MODES, 0.0))
    harmful: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INPUT_MODES, 0.5))
    categories: dict[str, float] = field(default_factory=dict)
    refused: float = 0.5

    def for_category(self, category: str) -> float:
        """Returns the threshold of a category; 0.5 if none was fitted."""
        return self.categories.get(category, 0.5)


def read_json(path: Path, kind: type[T]) -> T:
    """Returns a JSON file as a struct; raises UserError if it is missing or does not fit."""
    try:
        return msgspec.json.decode(read_input_bytes(path), type=kind)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing, so this is no moderation folder") from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def read_settings(folder: Path) -> ClassifierSettings:
    """Returns the checked `truing.json` of a folder."""
    path = folder / "truing.json"
    settings = read_json(path, ClassifierSettings)
    if settings.kind != "moderation":
        raise UserError(f"{path}: kind is {settings.kind!r}, not 'moderation'")
    categories = settings.categories
    if not categories or len(set(categories)) != len(categories):
        raise UserError(f"{path}: categories must be distinct and at least one")
    # A member's name becomes a path, and must not lead out of the folder.
    if any("/" in name or name in ("", ".", "..") for name in settings.members):
        raise UserError(f"{path}: members must be names of subfolders")
    if not (8 <= settings.prompt_tokens <= 4096 and 8 <= settings.response_tokens <= 4096):
        raise UserError(f"{path}: prompt_tokens and response_tokens must lie in 8..4096")
    return settings


def read_blend(folder: Path, settings: ClassifierSettings) -> BlendWeights:
    """Returns `blend.json`, checked against the members and categories of the settings."""
    path = folder / "blend.json"
    blend = read_json(path, BlendWeights)
    members, categories = len(settings.members), len(settings.categories)
    outputs = len(MODERATION_QUESTIONS) + categories
    rows = (*blend.weights, blend.bias)
    has_right_shape = len(blend.weights) == members and len(blend.gate) == categories
    if not has_right_shape or any(len(row) != outputs for row in rows):
        raise UserError(
            f"{path}: must hold {members} rows of {outputs} weights, {outputs} biases "
            f"and {categories} gates"
        )
    if not all(math.isfinite(value) for row in (*rows, blend.gate) for value in row):
        raise UserError(f"{path}: holds values that are not finite")
    return blend


def read_thresholds(folder: Path, settings: ClassifierSettings) -> ClassifierThresholds:
    """Returns `thresholds.json`, checked against the categories; UserError has all faults."""
    path = folder / "thresholds.json"
    thresholds = read_json(path, ClassifierThresholds)
    faults = [
        f"{path}: categories.{name}: no such category"
        for name in thresholds.categories
        if name not in settings.categories
    ]
    for key in ("temperature", "bias", "harmful"):
        table: dict[str, float] = getattr(thresholds, key)
        faults += [f"{path}: {key}.{mode}: missing" for mode in INPUT_MODES if mode not in table]
    for mode, temperature in thresholds.temperature.items():
        if not temperature > 0:
            faults.append(f"{path}: temperature.{mode}: must be positive")
    probabilities = {f"harmful.{mode}": value for mode, value in thresholds.harmful.items()}
    probabilities |= thresholds.categories
    probabilities["refused"] = thresholds.refused
    for key, value in probabilities.items():
        if not 0 <= value <= 1:
            faults.append(f"{path}: {key}: {value} is no probability")
    if faults:
        raise UserError(*faults)
    return thresholds


def write_json(path: Path, value: Struct) -> None:
    """Writes a struct as indented JSON; the file is replaced as a whole."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
