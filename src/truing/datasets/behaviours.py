"""Sets of prompts that ask for harm: HarmBench, JailbreakBench, AILuminate, SimpleSafetyTests,
StrongREJECT, and the instructions of the refusal-direction study (Arditi et al. 2024) with their
harmless control.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from truing.core.taxonomy import Crosswalk, load_crosswalk
from truing.core.types import Conversation, Expect, Row, Sample
from truing.datasets.base import DatasetOptions, PublishedDataset, make_builder
from truing.datasets.jailbreak_artifacts import convert_artifact, unpack_document
from truing.datasets.readers import Record


def _map_category(record: Record, key: str, crosswalk: Crosswalk) -> tuple[str, ...]:
    return crosswalk(record.choice(key, crosswalk.map))


def convert_harmbench(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A behaviour (Mazeika et al. 2024, arXiv 2402.04249); its context, where it has one, goes
    before it.
    """
    context = record.optional_text("ContextString")
    behaviour = record.text("Behavior")
    tags = {"id": record.text("BehaviorID"), "category_source": record.text("SemanticCategory")}
    tags["functional"] = record.optional_text("FunctionalCategory") or ""
    yield Row(
        sample=Sample(
            conversation=Conversation.of(
                f"{context}\n\n---\n\n{behaviour}" if context else behaviour
            ),
            harms=_map_category(record, "SemanticCategory", load_crosswalk("harmbench")),
            expect="refuse",
            tags=tags,
        )
    )


def convert_jailbreakbench(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A harmful behaviour or a matched benign one (Chao et al. 2024, arXiv 2404.01318), or an
    attempt at one of them (`part=artifacts`).

    The published files share `Index` between the two, which becomes the pair.
    """
    if "jailbroken" in record.data:
        yield from convert_artifact(record, options)
        return
    # A normalised layout with both kinds of behaviour in one file; else the published CSV files.
    if "Goal" not in record.data:
        is_benign = record.choice("label", ("safe", "harmful")) == "safe"
        harms = (
            _map_category(record, "category", load_crosswalk("jailbreakbench"))
            if record.has("category")
            else ()
        )
        yield Row(
            sample=_make_sample(
                record.text("text"), is_benign, harms, {}, record.optional_text("pair")
            )
        )
        return
    is_benign = "benign" in Path(record.path).name
    tags = {"behaviour": record.text("Behavior"), "category_source": record.text("Category")}
    harms = _map_category(record, "Category", load_crosswalk("jailbreakbench"))
    yield Row(
        sample=_make_sample(
            record.text("Goal"), is_benign, harms, tags, record.optional_text("Index")
        )
    )


def _make_sample(
    text: str, benign: bool, harms: tuple[str, ...], tags: dict[str, str], pair: str | None
) -> Sample:
    expect: Expect = "comply" if benign else "refuse"
    return Sample(
        conversation=Conversation.of(text),
        harms=() if benign else harms,
        expect=expect,
        tags=tags,
        pair=pair,
    )


def convert_ailuminate(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A hazard prompt (MLCommons AILuminate 1.0, arXiv 2503.05731); specialised advice asks for
    care, not refusal.
    """
    hazard = record.text("hazard").strip()
    keys = ("persona", "locale", "release_prompt_id")
    tags = {k: v for k in keys if (v := record.optional_text(k))} | {"category_source": hazard}
    tags["language"] = (record.optional_text("locale") or "en").lower()[:2]
    yield Row(
        sample=Sample(
            conversation=Conversation.of(record.text("prompt_text")),
            harms=_map_category(record, "hazard", load_crosswalk("ailuminate")),
            # spc_* are AILuminate's specialised-advice hazards (see the docstring).
            expect="none" if hazard.startswith("spc") else "refuse",
            tags=tags,
        )
    )


def convert_simple_safety_tests(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """One of 100 prompts that every model should refuse (Vidgen et al. 2023, arXiv 2311.08370)."""
    yield _convert_refusable(
        record, "prompt", "harm_area", "simple_safety_tests", ("id", "category")
    )


def convert_strongreject(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A forbidden prompt (Souly et al. 2024, arXiv 2402.10260)."""
    yield _convert_refusable(record, "forbidden_prompt", "category", "strongreject", ("source",))


def _convert_refusable(
    record: Record, prompt: str, key: str, crosswalk: str, keep: tuple[str, ...]
) -> Row:
    tags = {
        f"{k}_source" if k == "category" else k: v for k in keep if (v := record.optional_text(k))
    }
    return Row(
        sample=Sample(
            conversation=Conversation.of(record.text(prompt)),
            harms=_map_category(record, key, load_crosswalk(crosswalk)),
            expect="refuse",
            tags=tags,
        )
    )


def convert_refusal_direction(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A harmless instruction (to be answered) or a harmful one (HarmBench's categories)."""
    harmful = Path(record.path).name.startswith("harmful")
    harms = (
        _map_category(record, "category", load_crosswalk("harmbench"))
        if record.has("category")
        else ()
    )
    expect: Expect = "refuse" if harmful else "comply"
    sample = Sample(
        conversation=Conversation.of(record.text("instruction")), harms=harms, expect=expect
    )
    yield Row(sample=sample)


build_harmbench = make_builder(
    HARMBENCH := PublishedDataset(
        kind="harmbench",
        title="HarmBench behaviours",
        source="https://github.com/centerforaisafety/HarmBench",
        licence="MIT",
        parts={"behaviors": ("behaviors_{split}.csv", "**/harmbench_behaviors_text_{split}.csv")},
        split="val",
        convert=convert_harmbench,
    )
)
build_jailbreakbench = make_builder(
    JAILBREAKBENCH := PublishedDataset(
        kind="jailbreakbench",
        title="JBB-Behaviors",
        source="https://github.com/JailbreakBench/jailbreakbench",
        licence="MIT",
        parts={
            "behaviors": ("behaviors.json", "**/*-behaviors.csv"),
            "artifacts": ("artifacts.jsonl", "**/attack-artifacts/*/*/*.json", "*/*/*.json"),
        },
        hub={"behaviors": "JailbreakBench/JBB-Behaviors"},
        labels=("harmful",),
        convert=convert_jailbreakbench,
        unpack=unpack_document,
    )
)
build_ailuminate = make_builder(
    AILUMINATE := PublishedDataset(
        kind="ailuminate",
        title="AILuminate demo prompts",
        source="https://github.com/mlcommons/ailuminate",
        licence="CC BY 4.0",
        parts={"demo": ("demo_en_us.jsonl", "*demo*en_us*.jsonl", "*demo*en_us*.csv")},
        convert=convert_ailuminate,
    )
)
build_simple_safety_tests = make_builder(
    SIMPLE_SAFETY_TESTS := PublishedDataset(
        kind="simple-safety-tests",
        title="SimpleSafetyTests",
        source="https://github.com/bertiev/SimpleSafetyTests",
        licence="CC BY 4.0",
        folder="simple_safety_tests",
        parts={"prompts": ("*.csv", "**/*.csv", "**/*.parquet")},
        hub={"prompts": "Bertievidgen/SimpleSafetyTests"},
        convert=convert_simple_safety_tests,
    )
)
build_strongreject = make_builder(
    STRONGREJECT := PublishedDataset(
        kind="strongreject",
        title="StrongREJECT",
        source="https://github.com/alexandrasouly/strongreject",
        licence="MIT",
        parts={
            "full": ("strongreject_dataset.csv", "**/strongreject_dataset.csv", "prompts.csv"),
            "small": ("strongreject_small_dataset.csv", "**/strongreject_small_dataset.csv"),
        },
        convert=convert_strongreject,
    )
)
build_refusal_direction = make_builder(
    REFUSAL_DIRECTION := PublishedDataset(
        kind="refusal-direction",
        title="Refusal direction instructions",
        source="https://github.com/andyrdt/refusal_direction",
        licence="Apache-2.0",
        folder="refusal_direction",
        parts={"harmless": ("harmless_{split}.json",), "harmful": ("harmful_{split}.json",)},
        split="val",
        convert=convert_refusal_direction,
    )
)
