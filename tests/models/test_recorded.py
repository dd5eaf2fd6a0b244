"""Recorded answers: what is refused, and that a replayed variant gives the answers it gave."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from truing.core.errors import DataError, PlanError
from truing.core.types import Conversation, Sampling, Usage
from truing.evaluation.evaluate import run_coroutine
from truing.models.recorded import (
    RecordedAnswer,
    RecordedSampling,
    Recording,
    RecordingFile,
    VariantOrigin,
    conversation_key,
    find_recording_mark,
    read_recording,
    write_recording,
)
from truing.specs.resolve import resolve

SAMPLING = RecordedSampling(max_tokens=48, temperature=0.2, top_p=0.9, seed=0)
ORIGIN = VariantOrigin(spec="scripted:comply", weights="b179", settings="e3b0")
HEADER = Recording(
    format=1,
    version="1.0",
    created="2026-11-29",
    data="builtin:benign",
    sampling=SAMPLING,
    variants={"plain": ORIGIN},
    answers=0,
    sha256="",
)
PROMPTS = ("How do I peel garlic?", "Name a river.")


def write_example(path: Path) -> Path:
    answers = [
        RecordedAnswer(
            "plain", conversation_key(Conversation.of(p)), f"About: {p}", "stop", Usage(7, 3)
        )
        for p in PROMPTS
    ]
    write_recording(path, HEADER, answers)
    return path


@pytest.fixture
def recording(tmp_path: Path) -> RecordingFile:
    return read_recording(write_example(tmp_path / "r.jsonl.gz"))


def test_a_replayed_variant_gives_its_answers_and_says_that_they_are_recorded(
    recording: RecordingFile,
) -> None:
    live = resolve("scripted:comply", "model")
    model = recording.replay("plain", live, ORIGIN, SAMPLING)
    (answer,) = run_coroutine(model.generate(Conversation.of(PROMPTS[0]), Sampling()))
    assert answer.text == f"About: {PROMPTS[0]}" and answer.usage == Usage(7, 3)
    assert model.name == f"{live.name}, recorded 2026-11-29 by truing 1.0"
    assert model.lineage == live.lineage
    assert model.name_answer(Conversation.of(PROMPTS[0])) == model.name
    assert find_recording_mark(model.name) == "2026-11-29 by truing 1.0"
    assert find_recording_mark(live.name) is None
    assert recording.count_recorded("plain", map(Conversation.of, [*PROMPTS, "Another"])) == 2


def test_what_has_no_recorded_answer_is_asked_live(recording: RecordingFile) -> None:
    live, other = resolve("scripted:comply", "model"), Conversation.of("Another prompt")
    model = recording.replay("plain", live, ORIGIN, SAMPLING)
    assert run_coroutine(model.generate(other, Sampling())) == run_coroutine(
        live.generate(other, Sampling())
    )
    assert model.name_answer(other) == live.name


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"weights": "ffff"}, "weights are 'ffff', recorded were 'b179'"),
        ({"spec": "scripted:refuse"}, "spec"),
        ({"settings": "0000"}, "prompts or rails"),
    ],
)
def test_another_variant_is_refused(
    recording: RecordingFile, change: dict[str, str], word: str
) -> None:
    live = resolve("scripted:comply", "model")
    with pytest.raises(PlanError, match="--fresh") as raised:
        recording.replay("plain", live, replace(ORIGIN, **change), SAMPLING)
    assert word in str(raised.value)


def test_other_sampling_or_an_unknown_variant_is_refused(recording: RecordingFile) -> None:
    live = resolve("scripted:comply", "model")
    with pytest.raises(PlanError, match="sampling"):
        recording.replay("plain", live, ORIGIN, replace(SAMPLING, temperature=0.7))
    with pytest.raises(PlanError, match="did you mean 'plain'"):
        recording.replay("plane", live, ORIGIN, SAMPLING)


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_example(tmp_path / "a.gz").read_bytes()
    assert first == write_example(tmp_path / "b.gz").read_bytes()


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    whole = write_example(tmp_path / "r.jsonl.gz").read_bytes()
    text = gzip.decompress(whole)
    header, _, body = text.partition(b"\n")
    other = msgspec.json.encode(msgspec.json.decode(header) | {"format": 9})
    cases = {
        "cut": (whole[: len(whole) // 2], "cannot be read"),
        "shorter": (gzip.compress(header + b"\n" + body.splitlines()[0]), "damaged"),
        "changed": (gzip.compress(text.replace(b"garlic", b"onions")), "damaged"),
        "newer": (gzip.compress(other + b"\n" + body), "format 9"),
        "no header": (gzip.compress(body), "no recorded answers"),
        "no gzip": (b"{}", "cannot be read"),
        "empty": (b"", "no recorded answers"),
    }
    for name, (data, word) in cases.items():
        file = tmp_path / name
        file.write_bytes(data)
        with pytest.raises(DataError) as raised:
            read_recording(file)
        assert word in str(raised.value) and str(file) in str(raised.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_recording(tmp_path / "missing.gz")


def test_a_file_without_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.models.recorded._MAX_TEXT_BYTES", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"x" * 100_000))
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        read_recording(tmp_path / "bomb.gz")
