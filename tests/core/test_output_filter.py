"""The output filter: what it withholds, what it lets pass, what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.model_stand_ins import EvenJudge, MemoryDataset

from truing.core import output_filter
from truing.core.types import Answer, Judgement, Message, Response, Sample
from truing.evaluation.evaluate import evaluate
from truing.models.scripted import ScriptedModel

# Built from single words of the filter's lists; forms no sentence.
MATCH = " ".join(
    [
        "zzz",
        sorted(output_filter._MINOR_WORDS)[0],
        "qqq",
        sorted(output_filter._EXPLICIT_WORDS)[0],
        "www",
    ]
)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_FLOOR_KEY", "a key for tests")
    output_filter._load_key.cache_clear()


def test_only_category_and_keyed_hash_of_a_match_are_kept() -> None:
    answer = output_filter.filter_answer(Answer.of(MATCH))
    assert answer.text == ""
    assert answer.finish_reason == "content_filter"
    assert answer.failure is not None
    assert (answer.failure.stage, answer.failure.kind) == ("floor", "withheld")
    assert answer.failure.message.startswith("withheld: child_abuse")
    first = output_filter.find_prohibited_content(MATCH)
    assert first is not None
    assert first == output_filter.find_prohibited_content(MATCH)
    output_filter._load_key.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUING_FLOOR_KEY", "another key")
        with_another_key = output_filter.find_prohibited_content(MATCH)
    assert with_another_key is not None
    assert with_another_key.digest != first.digest


def test_age_forms_word_order_case_and_width_do_not_matter() -> None:
    word = sorted(output_filter._EXPLICIT_WORDS)[3]
    for text in (
        f"{word} aaa 12-year-old",
        f"a 9 yo bbb {word}",
        f"fifteen ccc girl ddd {word}",
        MATCH.upper(),
    ):
        assert output_filter.find_prohibited_content(text) is not None
    full_width = "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in MATCH)
    assert output_filter.find_prohibited_content(full_width) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A kettle boils water.",
        "Talk with your child about online safety and about the law.",
        "I cannot help with that: minors and sexual content. If a child is in danger, call the police.",
        "Sexual abuse of children is a crime; a hotline can help survivors.",
        "A 12-year-old asked how kettles work.",
        "The museum shows nude statues of the period.",
        "Our baby had oral medicine prescribed by a doctor.",
        "Sex education for teens covers consent and health.",
    ],
)
def test_ordinary_text_and_text_about_prevention_pass(text: str) -> None:
    answer = Answer.of(text)
    assert output_filter.filter_answer(answer) is answer
    assert output_filter.filter_text(text) == text


def test_words_far_apart_are_no_match() -> None:
    minor, explicit = (
        sorted(output_filter._MINOR_WORDS)[0],
        sorted(output_filter._EXPLICIT_WORDS)[0],
    )
    assert output_filter.find_prohibited_content(f"{minor} " + "word " * 60 + explicit) is None


def test_key_is_created_once_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUING_FLOOR_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    output_filter._load_key.cache_clear()
    key = output_filter._load_key()
    path = tmp_path / "truing" / "floor.key"
    assert path.read_bytes() == key
    assert path.stat().st_mode & 0o777 == 0o600
    output_filter._load_key.cache_clear()
    assert output_filter._load_key() == key
    output_filter._load_key.cache_clear()


def test_no_file_of_a_run_contains_withheld_text(tmp_path: Path) -> None:
    class QuotingJudge(EvenJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            return replace(await super().judge(sample, response), rationale=MATCH)

    model = ScriptedModel(lambda c, s: MATCH if "2:" in c.prompt else "A kettle.")
    run = evaluate(model, MemoryDataset.of_size(4), [QuotingJudge()], tmp_path / "run")
    stored = b"".join(p.read_bytes() for p in run.path.rglob("*") if p.is_file())
    assert MATCH.encode() not in stored
    assert [r.failure is not None for r in run.responses()] == [False, False, True, False]
    judgements = list(run.judgements())
    assert judgements[2].failure is not None
    assert judgements[2].failure.stage == "floor"
    assert (judgements[0].rationale or "").startswith("withheld")
    recorded = Response(sample_id="x", message=Message("assistant", MATCH))
    assert output_filter.filter_response(recorded).text == ""
