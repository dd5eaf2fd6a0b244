"""`manifest.json` of a supervised run: settings, data, base, and the digest that identifies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from truing.core.lineage import digest
from truing.train.checkpoint import CheckpointIdentity
from truing.train.data_mix import benign_share
from truing.train.examples import TrainingSet
from truing.train.settings import TrainingSettings
from truing.train.trainable_model import BaseModel


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
