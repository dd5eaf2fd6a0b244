"""Attacked samples: created once, stored before they are answered, read again later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.model_stand_ins import SeedModel

from truing.core import output_filter
from truing.core.errors import BudgetExceeded, RunError
from truing.core.ids import content_id
from truing.core.types import Conversation, Sample
from truing.evaluation.attacked_samples import AttackedSamples
from truing.runs.folder import Manifest, RunWriter
from truing.runs.index import SampleStore

PARENTS = [Sample(id=f"p{i}", conversation=Conversation.of(f"prompt {i}")) for i in range(3)]


class UpperCaseAttack:
    name = "test:upper"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0

    async def attack(self, sample: Sample, target: object) -> Sample:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return replace(sample, conversation=Conversation.of(sample.prompt.upper()))


def open_samples(tmp_path: Path, attack: UpperCaseAttack) -> tuple[RunWriter, AttackedSamples]:
    writer = RunWriter(tmp_path / "run", Manifest())
    if not (writer.path / "parents.jsonl").exists():
        for parent in PARENTS:
            writer.append("parents.jsonl", parent)
    parents = SampleStore(writer.path / "parents.jsonl")
    return writer, AttackedSamples(writer, parents, attack)


def test_created_samples_are_stored_and_found_again(tmp_path: Path) -> None:
    writer, samples = open_samples(tmp_path, UpperCaseAttack())
    sample, failure = asyncio.run(samples.create(1, SeedModel()))
    assert failure is None
    assert (sample.prompt, sample.parent) == ("PROMPT 1", "p1")
    # The attack kept the parent's id, so the sample gets one of its own.
    assert sample.id == content_id(replace(sample, id=""))
    assert samples.read(1) == sample
    writer.close()
    writer, samples = open_samples(tmp_path, UpperCaseAttack())
    assert (0 in samples, 1 in samples) == (False, True)
    assert samples.read(1) == sample
    assert samples.ids.get(sample.id) == 1
    writer.close()


def test_failed_attack_stores_the_conversation_of_the_parent(tmp_path: Path) -> None:
    writer, samples = open_samples(tmp_path, UpperCaseAttack(RuntimeError("no\nidea")))
    sample, failure = asyncio.run(samples.create(0, SeedModel()))
    assert sample.conversation == PARENTS[0].conversation
    assert failure is not None
    assert (failure.stage, failure.message) == ("attack", "RuntimeError: no idea")
    writer.close()


def test_prohibited_result_of_an_attack_is_withheld(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    match = output_filter.FilterMatch("child_abuse", "abc")
    monkeypatch.setattr(
        "truing.evaluation.attacked_samples.find_prohibited_content",
        lambda text: match if text == "PROMPT 2" else None,
    )
    writer, samples = open_samples(tmp_path, UpperCaseAttack())
    sample, failure = asyncio.run(samples.create(2, SeedModel()))
    assert sample.conversation == PARENTS[2].conversation
    assert failure is not None
    assert (failure.stage, failure.kind) == ("floor", "withheld")
    writer.close()


def test_budget_error_stores_nothing(tmp_path: Path) -> None:
    writer, samples = open_samples(tmp_path, UpperCaseAttack(BudgetExceeded("spent")))
    with pytest.raises(BudgetExceeded):
        asyncio.run(samples.create(0, SeedModel()))
    assert 0 not in samples
    writer.close()


def test_stored_sample_without_a_parent_is_an_error(tmp_path: Path) -> None:
    writer, _ = open_samples(tmp_path, UpperCaseAttack())
    writer.append("samples.jsonl", replace(PARENTS[0], id="x", parent="unknown"))
    parents = SampleStore(writer.path / "parents.jsonl")
    with pytest.raises(RunError, match="x belongs to no sample of this run"):
        AttackedSamples(writer, parents, UpperCaseAttack())
    writer.close()
