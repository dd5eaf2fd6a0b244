"""The settings that supervised, moderation and RL runs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Struct

from truing.core.lineage import digest

BaseDtype = Literal["auto", "float32", "bfloat16", "int8"]
"""The storage type of the weights of a frozen base; see `frozen_base.storage_dtype` for auto."""
BASE_DTYPES: tuple[BaseDtype, ...] = ("auto", "float32", "bfloat16", "int8")


Tracker = Literal["none", "wandb", "trackio"]
"""The experiment tracker that a run also logs to."""

# Where and how often a run is saved and logged never changes its result.
_NEVER_IN_DIGEST = ("out", "save_every", "tensorboard", "track")


class RunSettings(Struct, frozen=True, kw_only=True):
    """The settings of every training run, and the hash that identifies a run in its folder.

    `not_in_digest` names the settings that do not change the result: a run may be resumed, and a
    finished run repeated, with other values of them. `older_values` holds settings that older
    versions lacked, with the value that reproduces those versions: a setting at this value stays
    out of the digest, so that runs begun by older versions can be resumed. The field names enter
    the digest, so renaming one breaks the resuming of old runs. `least_values` holds
    the settings that may not lie below a value: the value, and their names in one text.

    Attributes:
        out: Folder for the log, the checkpoints and the model.
        base: The model to start from: smollm2, a folder in the Hugging Face layout, or a hub id.
        dtype: auto (bfloat16 if the hardware has it), float32 or bfloat16; what is trained stays in
            float32.
        device: Device to train on: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.
        seed: Seed of the initialisation and of the order of the rows.
        save_every: Steps between checkpoints.
        tensorboard: Write TensorBoard event files to OUT/tb.
        track: Also log to an experiment tracker: wandb or trackio.
    """

    not_in_digest: ClassVar[tuple[str, ...]] = ()
    older_values: ClassVar[Mapping[str, Any]] = {}
    least_values: ClassVar[Mapping[float, str]] = {}

    out: str
    base: str = "smollm2"
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    save_every: int = 50
    tensorboard: bool = True
    track: Tracker = "none"

    @property
    def folder(self) -> Path:
        """The folder of the run: log, checkpoints and the trained model."""
        return Path(self.out)

    def _least_value_faults(self) -> list[str]:
        """Returns the settings that lie below their least value, or are no number."""
        return [
            f"{name} = {getattr(self, name)}: must be at least {least:g}"
            for least, names in self.least_values.items()
            for name in names.split()
            if not getattr(self, name) >= least  # so, and not with <, NaN is a fault too
        ]

    def used_settings(self) -> dict[str, Any]:
        """Returns all settings by name, each with the value that is used where it is not set."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values

    def result_settings(self) -> dict[str, Any]:
        """Returns the settings that decide the result, by name."""
        return {
            name: value
            for name, value in self.used_settings().items()
            if name not in (*_NEVER_IN_DIGEST, *self.not_in_digest)
            and (name not in self.older_values or value != self.older_values[name])
        }

    def digest(self) -> str:
        """Returns a hash of the settings that decide the result; a resumed run must match it."""
        values = self.result_settings()
        return digest(*(f"{name}={values[name]}" for name in sorted(values)))
