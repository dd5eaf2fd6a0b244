"""Recorded answers in a plan: which data sets have them, and whether they are of these variants.

    [data.benign]
    spec = "builtin:benign"
    recorded = "builtin:default-run"      # or the path of a recording

Where the file has an answer of a variant to a prompt, it is taken and judged like any other; the
rest is drawn, and so are all answers of the variants in `not_recorded`. A recording of other
weights, prompts, rails or sampling is a fault of the plan: `--fresh` draws all answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import msgspec
from msgspec.structs import replace

from truing.align.prompted import Prompted
from truing.core.errors import UserError, did_you_mean
from truing.core.lineage import digest
from truing.core.protocols import Dataset, Model, iterate_models
from truing.models.cached_model import CachedModel
from truing.models.recorded import (
    RecordedSampling,
    RecordingFile,
    ReplayedModel,
    VariantOrigin,
    read_recording,
)
from truing.plan.evaluation import DataPlan, Plan
from truing.specs.parser import parse_spec

_BUILTIN = "builtin:"


def recordings_folder() -> Path:
    """Returns the folder of the recordings that come with the package."""
    return Path(str(files("truing"))) / "resources" / "recorded"


def locate_recording(name: str) -> Path:
    """Returns the file of a recording: that of the package for `builtin:NAME`, else a path."""
    if not name.startswith(_BUILTIN):
        return Path(name)
    folder = recordings_folder()
    name = name.removeprefix(_BUILTIN)
    shipped = sorted(path.name.removesuffix(".jsonl.gz") for path in folder.glob("*.jsonl.gz"))
    if name not in shipped:
        raise UserError(f"there is no recording builtin:{name}{did_you_mean(name, shipped)}")
    return folder / f"{name}.jsonl.gz"


def describe_origin(spec: str, model: Model) -> VariantOrigin:
    """Returns what identifies a variant: its spec, its weights, the prompts and rails around it.

    The type in which this machine computes is left out: it rounds otherwise, and is no other model.
    """
    settings: list[bytes] = []
    innermost = model
    for innermost in iterate_models(model):
        if isinstance(innermost, Prompted):
            settings.append(msgspec.json.encode(innermost.prefix))
        elif (config := getattr(innermost, "config", None)) is not None:
            raw = json.dumps(getattr(config, "raw", ""), sort_keys=True, default=str)
            flows = [flow.source or flow.name for flow in getattr(config, "flows", ())]
            settings.append(json.dumps([raw, *flows]).encode())
        elif not isinstance(innermost, CachedModel) and hasattr(innermost, "model"):
            settings.append(innermost.lineage.hash.encode())
    lineage = innermost.lineage
    weights = lineage.base_sha256 or lineage.hash
    if lineage.data:
        # A trained model: the hash is of its own weights, the SHA-256 of its base's.
        weights = f"{weights}+{lineage.hash}"
    return VariantOrigin(spec=str(parse_spec(spec)), weights=weights, settings=digest(*settings))


def data_sampling(plan: Plan, data: DataPlan) -> RecordedSampling:
    """Returns the sampling of a data set of a plan."""
    return RecordedSampling(
        max_tokens=data.max_tokens or plan.run.max_tokens,
        temperature=plan.run.temperature,
        top_p=plan.run.top_p,
        stop=plan.run.stop,
        seed=plan.run.seed,
    )


def replay_recorded(
    plan: Plan, models: Mapping[str, Model], data: Mapping[str, Dataset], faults: list[str]
) -> dict[tuple[str, str], ReplayedModel]:
    """Returns the replayed variants by (variant, data set); adds what does not fit to `faults`."""
    replayed: dict[tuple[str, str], ReplayedModel] = {}
    recordings: dict[str, RecordingFile] = {}
    for name, data_plan in plan.data.items():
        faults.extend(
            f"data.{name}.not_recorded: no model {other!r}{did_you_mean(other, plan.models)}"
            for other in data_plan.not_recorded
            if other not in plan.models
        )
        if not data_plan.recorded:
            continue
        where = f"data.{name}.recorded"
        if data_plan.attack or plan.run.n > 1:
            faults.append(f"{where}: recorded answers are one to a prompt, and without an attack")
            continue
        try:
            if data_plan.recorded not in recordings:
                path = locate_recording(data_plan.recorded)
                recordings[data_plan.recorded] = read_recording(path)
            recording = recordings[data_plan.recorded]
            conversations = [row.sample.conversation for row in data[name].rows()]
            for variant in data_plan.models or plan.models:
                if variant in data_plan.not_recorded:
                    continue
                origin = describe_origin(plan.models[variant], models[variant])
                replayed[variant, name] = recording.replay(
                    variant, models[variant], origin, data_sampling(plan, data_plan)
                )
                if not recording.count_recorded(variant, conversations):
                    faults.append(f"{where}: no prompt has a recorded answer of {variant}")
        except UserError as error:
            faults.extend(f"{where}: {fault}" for fault in error.faults)
    return replayed


def without_recordings(plan: Plan) -> Plan:
    """Returns the plan with all answers drawn anew."""
    data = {name: replace(data, recorded="", not_recorded=()) for name, data in plan.data.items()}
    return replace(plan, data=data)
