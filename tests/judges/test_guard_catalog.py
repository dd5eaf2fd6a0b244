"""The specs of guards: names, settings, questions; and every guard against texts nobody expects."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.judges.guard_stand_in import GuardStandIn, ask_guard

from truing.core.errors import SpecError
from truing.core.types import Conversation
from truing.judges.guard_catalog import GUARD_NAMES, PLAIN_FORMATS
from truing.judges.guard_formats import GuardFormat, GuardReading
from truing.judges.guard_formats_multilingual import make_qwen_format
from truing.judges.guard_formats_nvidia import make_reasoning_format, make_topic_format
from truing.judges.guard_policy import make_policy_format
from truing.rankers.judge_ranker import JudgeRanker
from truing.specs.resolve import resolve

ALL_FORMATS: dict[str, GuardFormat] = {
    **PLAIN_FORMATS,
    "qwen3guard": make_qwen_format("strict"),
    "qwen3guard,mode=loose": make_qwen_format("loose"),
    "nemotron-reasoning": make_reasoning_format(thinks=True),
    "nemoguard-topic-control": make_topic_format("bicycles"),
    "gpt-oss-safeguard": make_policy_format(None, "low"),
}
MODEL = "model=(scripted:echo)"


def test_settings_are_part_of_name_and_hash(tmp_path: Path) -> None:
    policy = tmp_path / "policy.md"
    policy.write_text("no spam")
    specs = [
        f"guard:qwen3guard,{MODEL}",
        f"guard:qwen3guard,mode=loose,{MODEL}",
        f"guard:qwen3guard,question=refused,{MODEL}",
        f"guard:nemotron-reasoning,{MODEL}",
        f"guard:nemotron-reasoning,reasoning=true,{MODEL}",
        f"guard:gpt-oss-safeguard,{MODEL}",
        f"guard:gpt-oss-safeguard,effort=high,{MODEL}",
        f"guard:gpt-oss-safeguard,policy={policy},{MODEL}",
        f"guard:nemoguard-topic-control,policy={policy},{MODEL}",
        f"guard:nemoguard-content-safety,{MODEL}",
        f"guard:polyguard,{MODEL}",
        f"guard:llama-guard-4,{MODEL}",
    ]
    judges = [resolve(spec, "judge") for spec in specs]
    assert len({judge.lineage.hash for judge in judges}) == len(specs)
    assert {judges[7].question, judges[8].question} == {"breaks_policy", "off_topic"}
    prompt_questions = {judge.of_prompts().question for judge in judges}
    assert prompt_questions == {"harmful_prompt", "prompt_breaks_policy", "off_topic"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (f"guard:qwen4guard,{MODEL}", "did you mean 'qwen3guard'"),
        (f"guard:qwen3guard,mode=lose,{MODEL}", "neither strict nor loose"),
        (f"guard:polyguard,question=jailbreak,{MODEL}", "answers harmful, harmful_prompt"),
        (f"guard:gpt-oss-safeguard,effort=max,{MODEL}", "none of low, medium, high"),
        (f"guard:gpt-oss-safeguard,policy=/no/such/file,{MODEL}", "cannot read the policy"),
        (f"guard:nemoguard-topic-control,{MODEL}", "policy="),
        ("guard:harmaug", "path="),
        ("guard:prompt-guard-2,path=x,question=harmful", "answers jailbreak"),
        ("guard:nemoguard-jailbreak", "base_url="),
    ],
)
def test_wrong_specs_say_what_is_right(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(spec, "judge")


def test_the_catalogue_names_every_guard() -> None:
    assert {name.partition(",")[0] for name in ALL_FORMATS} <= set(GUARD_NAMES)
    assert {"harmaug", "duoguard", "prompt-guard-2", "nemoguard-jailbreak"} <= set(GUARD_NAMES)


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_every_guard_reads_any_text_and_calls_none_of_it_safe_by_chance(name: str) -> None:
    guard_format = ALL_FORMATS[name]
    for text in ("x", "word " * 100_000, "\x00\xff\udc80", "שלום мир 你好 ⁦x⁩", "{prompt}{response}"):
        judgement = ask_guard(
            guard_format, GuardStandIn("I cannot tell."), prompt=text, answer=text
        )
        assert judgement.verdict is None and judgement.failure is not None
    empty = ask_guard(guard_format, GuardStandIn("safe"), prompt="", answer=" ")
    assert empty.verdict is None and empty.failure is not None and empty.failure.kind == "empty"


@settings(max_examples=60)
@given(st.text(max_size=80))
def test_no_parser_reads_a_verdict_from_noise(reply: str) -> None:
    verdicts = {"safe", "unsafe", "yes", "no", "on-topic", "off-topic"}
    if any(word in reply.casefold() for word in verdicts):
        return
    for name, guard_format in ALL_FORMATS.items():
        assert isinstance(guard_format.parse(reply), str), name


def test_a_guard_ranks_answers_as_a_reward() -> None:
    model = GuardStandIn(
        "Safety: Unsafe\nCategories: PII\nRefusal: No",
        "Safety: Safe\nCategories: None\nRefusal: No",
        "nonsense",
    )
    from truing.judges.guards import GuardJudge

    ranker = JudgeRanker(GuardJudge("qwen3guard", ALL_FORMATS["qwen3guard"], model))
    scores = asyncio.run(ranker.rank(Conversation.of("q"), ["a", "b", "c"]))
    assert scores == [-1.0, 0.0, float("-inf")]


def test_readings_are_immutable_and_compare() -> None:
    assert GuardReading({"harmful": True}) == GuardReading({"harmful": True})
    assert GuardReading({}, ("S1",)).labels_for("harmful") == ("S1",)
