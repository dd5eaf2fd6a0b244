"""The manifest of a run, and whether its folder holds the same run, finished or not.

`manifest.json` has the settings, the data and the base of a supervised or RL run; `run.json` those
of a moderation run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, RunError
from truing.core.lineage import digest
from truing.core.private_files import replace_file
from truing.train import checkpoint as ck
from truing.train.checkpoint import CheckpointIdentity
from truing.train.data_mix import benign_share
from truing.train.examples import TrainingSet
from truing.train.model_card import TrainedModelCard, is_exported_as_set, read_model_card
from truing.train.run_settings import RunSettings
from truing.train.settings import TrainingSettings
from truing.train.trainable_model import BaseModel

MANIFEST_FILE = "manifest.json"


def write_manifest(path: Path, content: Any) -> None:
    """Writes the manifest of a run, a Struct or a table, as JSON."""
    replace_file(path, msgspec.json.format(msgspec.json.encode(content), indent=2))


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns the table in a manifest; empty if there is none or it cannot be read.

    The identity of the checkpoints decides whether a folder is of the same run.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}


def check_same_run(path: Path, expected_digest: str, found_digest: str, run: RunSettings) -> None:
    """Raises PlanError if a folder's run has another digest, and names the settings that differ.

    `path` is the file with the digest that was found, beside or below the manifest of the run.
    """
    if found_digest == expected_digest:
        return
    stored: dict[str, Any] = {}
    for name in (MANIFEST_FILE, "run.json"):
        stored |= read_manifest(run.folder / name).get("settings") or {}
    stored = _with_used_values(stored, type(run))
    # Through JSON, as the stored ones: tuples become lists.
    current = msgspec.json.decode(msgspec.json.encode(run.result_settings()))
    changed = [name for name in current if name in stored and stored[name] != current[name]]
    difference = (
        f"other settings ({', '.join(changed)})" if changed else "other settings or other data"
    )
    raise PlanError(
        f"{path}: belongs to a run with {difference}; repeat the same command, "
        "or give another --out"
    )


def _with_used_values(stored: dict[str, Any], kind: type[RunSettings]) -> dict[str, Any]:
    """Returns stored settings, each with the value that was used where it was not set."""
    try:
        used = msgspec.convert(stored, kind).used_settings()
    except msgspec.ValidationError:  # of a version with other settings
        return stored
    values = msgspec.json.decode(msgspec.json.encode(used))
    return {name: values.get(name, value) for name, value in stored.items()}


def find_finished(
    settings: RunSettings, expected: CheckpointIdentity, export_dtype: str
) -> TrainedModelCard | None:
    """Returns the card of this run if it is finished in its folder, else None.

    `expected` is the identity of the checkpoint after the last step. A model that was written in
    another type than `export_dtype` is to be written again. Raises PlanError if the folder holds
    another run, RunError if it holds a model without a checkpoint.
    """
    folder = settings.folder
    card, path = read_model_card(folder), ck.latest_checkpoint(folder)
    if path is None:
        if card is None:
            return None
        raise RunError(f"{folder}: holds a finished model without a checkpoint; give another --out")
    identity = ck.read_identity(path)
    if (identity.kind, identity.base_sha256) == (expected.kind, expected.base_sha256):
        check_same_run(path, expected.digest, identity.digest, settings)
    ck.check_identity(path, expected)
    is_finished = identity.step >= expected.step and is_exported_as_set(card, export_dtype)
    return card if is_finished else None


class RunManifest(Struct, frozen=True, kw_only=True):
    """What is trained, on what, from where. Two runs with the same digest are the same run."""

    settings: TrainingSettings
    sources: list[dict[str, Any]]
    base: str
    base_sha256: str
    steps: int
    benign_share: float
    red_model: str | None
    digest: str

    def identity(self, step: int) -> CheckpointIdentity:
        """Returns the identity of this run's checkpoint at a step."""
        return CheckpointIdentity(
            step=step,
            kind=self.settings.kind,
            digest=self.digest,
            base_sha256=self.base_sha256,
        )


def build_manifest(
    settings: TrainingSettings,
    sources: Sequence[TrainingSet],
    base: BaseModel,
    steps: int,
    red_model: str | None,
) -> RunManifest:
    """Returns the manifest of a run over these training sets."""
    source_facts = [
        {
            "spec": source.spec,
            "sha256": source.sha256,
            "rows": len(source.items),
            "weight": source.weight,
            "licence": source.licence,
            "dropped": source.dropped,
            "measurement_prompts": source.n_frozen,
            "synthetic": sum(item.synthetic for item in source.items),
            "benign": sum(item.benign for item in source.items),
        }
        for source in sources
    ]
    # The texts of the digest are part of the file format: checkpoints of older versions carry it.
    source_texts = [f"{s.spec} {s.sha256} {len(s.items)} {s.weight}" for s in sources]
    return RunManifest(
        settings=settings,
        sources=source_facts,
        base=base.weights.name,
        base_sha256=base.weights.sha256,
        steps=steps,
        benign_share=benign_share(sources),
        red_model=red_model,
        digest=digest(settings.digest(), *source_texts),
    )
