"""The folder of a step's result, named by a hash of everything that decides the result.

    OUT/sft-1f2e3d4c/step.json    the record that is hashed

The hash covers the settings that decide the result, the inputs, the content of the data sets, and
the weights of the base and of the steps that this step builds on. A step whose hash is new runs
into a folder of its own; earlier results stay, and are found again if the plan is changed back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.core.errors import RunError
from truing.core.input_files import read_input_bytes
from truing.core.lineage import digest
from truing.core.private_files import create_folder, replace_file
from truing.plan.cost_limits import parse_constraint
from truing.plan.evaluation import Plan, RunPlan
from truing.plan.step_inputs import RLInputs, SampledInputs
from truing.plan.training_plan import (
    StepInputs,
    StepPlan,
    find_references,
    replace_references,
)
from truing.plan.training_steps import spec_for_training
from truing.specs.parser import parse_spec
from truing.specs.resolve import resolve

STEP_FILE = "step.json"
_KEY_CHARS = 8  # of the hash, in the name of the folder
_RUN_OPTIONS_WITHOUT_EFFECT = ("concurrency", "rate", "authorised", "margin", "max_harm")
# Left out altogether, so that the folders of plans before these settings are found.
_RUN_OPTIONS_LEFT_OUT = ("budget", "budget_tokens", "prices")


class StepRecord(Struct, frozen=True, kw_only=True):
    """`step.json`: what decides the result of a step.

    In `base` and `inputs` a reference `{steps.NAME}` is replaced by `NAME@HASH`, the hash of that
    step's weights. `data` maps specs of data sets, and of judges that are folders, to their hashes.
    """

    kind: str
    base: str
    settings: dict[str, Any]
    inputs: dict[str, Any]
    data: dict[str, str]

    def key(self) -> str:
        """Returns the hash of the record."""
        encoded = msgspec.json.encode(self, order="sorted").decode()
        return digest("step", encoded)

    def differences(self, other: StepRecord) -> list[str]:
        """Returns the changes from this record to another, as `lr: 0.0001 -> 0.0002`."""
        return [
            f"{name}: {_show(before.get(name))} -> {_show(after.get(name))}"
            for before, after in zip(self._flat(), other._flat())
            for name in dict.fromkeys([*before, *after])
            if before.get(name) != after.get(name)
        ]

    def _flat(self) -> tuple[dict[str, Any], ...]:
        """Returns the parts of the record as tables, in an order that is always the same."""
        return {"kind": self.kind, "base": self.base}, self.settings, self.inputs, self.data


def _show(value: object) -> str:
    """Returns a value as text of at most 60 characters."""
    text = str(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."


def describe_step(
    step: StepPlan, base_sha256: str, weights: Mapping[str, str], folders: Mapping[str, Path]
) -> StepRecord:
    """Returns the record of a step.

    `weights` and `folders` are the hashes and the folders of the steps that it builds on,
    `base_sha256` the weights of its base. Raises UserError if a data set cannot be read.
    """
    by_hash = {name: f"{name}@{sha256}" for name, sha256 in weights.items()}
    settings = step.settings.result_settings()
    for name in ("base", "out", "kind", "method"):
        settings.pop(name, None)  # in other fields of the record, or (out) derived from it
    located = replace_references(step.inputs, {name: str(path) for name, path in folders.items()})
    specs = list(located.data)
    if isinstance(located, RLInputs):
        specs += located.ptx_data
    recorded = [*step.inputs.data, *getattr(step.inputs, "ptx_data", ())]
    data_hashes = {
        replace_references(text, by_hash): resolve(spec_for_training(spec), "data").sha256()
        for text, spec in zip(recorded, specs)
    }
    data_hashes |= _hash_judges(step.inputs)
    if isinstance(step.inputs, SampledInputs) and Path(step.inputs.prompt).is_file():
        data_hashes["prompt"] = digest(read_input_bytes(Path(step.inputs.prompt)))
    inputs = msgspec.to_builtins(replace_references(step.inputs, by_hash))
    if not getattr(step.settings, "sample_every", 0):
        for name in ("sample_data", "sample_judge", "sample_limit"):
            inputs.pop(name, None)  # settings of the evaluation during training, which is off
    record = StepRecord(
        kind=step.kind,
        base=f"{replace_references(step.settings.base, by_hash)} {base_sha256[:16]}",
        settings=settings,
        inputs=inputs,
        data=data_hashes,
    )
    # Through JSON, so that it equals the record that is read back: tuples become lists.
    return msgspec.json.decode(msgspec.json.encode(record), type=StepRecord)


def _hash_judges(inputs: StepInputs) -> dict[str, str]:
    """Returns the lineage hash of each judge that is a model folder of truing, by its spec.

    Such a folder can be trained anew under the same spec.
    """
    from truing.train.model_card import read_model_card

    specs = [*getattr(inputs, "reward", ()), *getattr(inputs, "cost", ())]
    if isinstance(inputs, RLInputs):
        specs += [str(parse_constraint(text)[1]) for text in inputs.cost_limit]
    specs += [spec for spec in (getattr(inputs, "by", ""), getattr(inputs, "ceiling", "")) if spec]
    hashes = {}
    for spec in specs:
        name = "" if find_references(spec) else parse_spec(spec).name
        card = read_model_card(name) if name and Path(name).is_dir() else None
        if card is not None:
            hashes[spec] = card.lineage.hash
    return hashes


def step_folder(out: Path, name: str, record: StepRecord) -> Path:
    """Returns the folder of a step's result: `OUT/NAME-HASH8`."""
    return out / f"{name}-{record.key()[:_KEY_CHARS]}"


def evaluation_folder(out: Path, plan: Plan) -> Path:
    """Returns the folder of the runs of an evaluation plan: `OUT/evaluation-HASH8`.

    The hash covers what decides the answers and verdicts of a model; not the models, which have
    folders of their own in it, nor how fast or under whose authority they are measured, nor what
    only the report shows.
    """
    defaults = RunPlan()
    without_effect = {name: getattr(defaults, name) for name in _RUN_OPTIONS_WITHOUT_EFFECT}
    run = msgspec.structs.replace(plan.run, **without_effect)
    settings = msgspec.to_builtins(msgspec.structs.replace(plan, run=run))
    for name in ("models", "title", "baseline", "with_text", "rank"):
        settings.pop(name)
    for name in _RUN_OPTIONS_LEFT_OUT:
        settings["run"].pop(name)
    key = digest("evaluation", msgspec.json.encode(settings, order="sorted").decode())
    return out / f"evaluation-{key[:_KEY_CHARS]}"


def write_record(folder: Path, record: StepRecord) -> None:
    """Writes `step.json` into the folder of a step."""
    create_folder(folder)
    text = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=1)
    replace_file(folder / STEP_FILE, text)


def find_earlier_record(out: Path, name: str, record: StepRecord) -> StepRecord | None:
    """Returns the record of the newest other result of a step, or None if there is none.

    Raises RunError if a record cannot be read.
    """
    current = step_folder(out, name, record)
    files = [
        path
        for path in out.glob(f"{name}-*/{STEP_FILE}")
        if path.parent != current and len(path.parent.name) == len(name) + 1 + _KEY_CHARS
    ]
    if not files:
        return None
    newest = max(files, key=lambda path: path.stat().st_mtime)
    try:
        return msgspec.json.decode(read_input_bytes(newest), type=StepRecord)
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{newest}: {error}; remove this folder") from error
