"""What stands in a moderation folder besides the tensors: `truing.json` and `thresholds.json`.

    truing.json        base, base_sha256, form (full, delta), layers that are used (0 = all), categories, token windows,
                       languages, lineage, licence
    thresholds.json    per mode (pair, prompt, response) a temperature and a threshold; per category a threshold
    head.safetensors   the linear head         model.safetensors or delta.safetensors   the body
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct, field

from truing.errors import UserError
from truing.types import Lineage

Mode = Literal["pair", "prompt", "response"]
MODES: tuple[Mode, ...] = ("pair", "prompt", "response")
T = TypeVar("T")


class Settings(Struct, frozen=True, kw_only=True):
    """`truing.json` of a moderation folder."""

    kind: str
    base: str
    base_sha256: str
    form: Literal["full", "delta"] = "full"
    layers: int = 0
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


class Thresholds(Struct, frozen=True, kw_only=True):
    """Where a probability becomes a verdict. A logit is divided by its mode's temperature, then shifted by its bias."""

    temperature: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MODES, 1.0))
    bias: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MODES, 0.0))
    harmful: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MODES, 0.5))
    categories: dict[str, float] = field(default_factory=dict)
    refused: float = 0.5

    def of(self, category: str) -> float:
        """The threshold of a category; 0.5 where none was fitted."""
        return self.categories.get(category, 0.5)


def read(path: Path, kind: type[T]) -> T:
    """A JSON file as a struct; UserError with path and reason otherwise."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing, so this is no moderation folder") from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from error


def read_settings(folder: Path) -> Settings:
    """`truing.json`, checked."""
    made = read(folder / "truing.json", Settings)
    if made.kind != "moderation":
        raise UserError(f"{folder / 'truing.json'}: kind is {made.kind!r}, not 'moderation'")
    if not made.categories or len(set(made.categories)) != len(made.categories):
        raise UserError(f"{folder / 'truing.json'}: categories must be distinct and at least one")
    if not (8 <= made.prompt_tokens <= 4096 and 8 <= made.response_tokens <= 4096):
        raise UserError(f"{folder / 'truing.json'}: prompt_tokens and response_tokens must lie in 8..4096")
    return made


def read_thresholds(folder: Path, settings: Settings) -> Thresholds:
    """`thresholds.json`, checked against the categories."""
    path = folder / "thresholds.json"
    made = read(path, Thresholds)
    faults = [f"{path}: categories.{c}: no such category" for c in made.categories if c not in settings.categories]
    for name in ("temperature", "bias", "harmful"):
        table: dict[str, float] = getattr(made, name)
        faults += [f"{path}: {name}.{mode}: missing" for mode in MODES if mode not in table]
    faults += [f"{path}: temperature.{m}: must be positive" for m, t in made.temperature.items() if not t > 0]
    inside = {**{f"harmful.{m}": t for m, t in made.harmful.items()}, **made.categories, "refused": made.refused}
    faults += [f"{path}: {k}: {t} is no probability" for k, t in inside.items() if not 0 <= t <= 1]
    if faults:
        raise UserError(*faults)
    return made


def write(path: Path, value: Struct) -> None:
    """A struct as indented JSON, replaced whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")
    temporary.replace(path)
