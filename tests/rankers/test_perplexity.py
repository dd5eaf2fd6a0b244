"""Perplexity of safe and unsafe answers: the measures by hand, and controls that do what they are
for.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.rankers.rank_parts import FunctionModel, ListDataset

from truing.core.errors import DataError
from truing.core.types import Conversation, Judgement, Message, Preference, Response, Row, Sample
from truing.rankers import PromptForm, RankingOptions, rank_perplexity
from truing.rankers.items import AnswerPair, iter_labelled_answers, iter_pairs
from truing.rankers.perplexity import assign_unrelated_prompts, compare_pair
from truing.rankers.text_likelihood import TextLikelihood
from truing.specs.resolve import resolve


def preference(n: int, safe: str, unsafe: str, prompt: str = "") -> Preference:
    return Preference(
        conversation=Conversation.of(prompt or f"question {n}"),
        chosen=Message("assistant", safe),
        dimension="safe",
        rejected=Message("assistant", unsafe),
        harms=("privacy_violation",) if n % 2 else (),
    )


def test_units() -> None:
    one = TextLikelihood(total=-6.0, tokens=4, bytes=13, chars=12, words=3)
    assert [one.per(u) for u in ("total", "token", "byte", "char", "word")] == [
        -6,
        -1.5,
        -6 / 13,
        -0.5,
        -2,
    ]


def test_every_condition_is_measured() -> None:
    model = FunctionModel(lambda prompt, text: [-1.0 - len(prompt) / 100] * len(text.split()))
    pair = AnswerPair(
        id="1", conversation=Conversation.of("q" * 10), safe="a b", unsafe="c d e", cluster="x"
    )
    result = asyncio.run(compare_pair(model, pair, Conversation.of("q" * 30), PromptForm()))
    assert result.safe is not None and result.unsafe is not None
    assert result.safe.asked.total == pytest.approx(-2 * 1.1)
    assert result.safe.alone.total == pytest.approx(-2.0)
    assert result.unsafe.gain == pytest.approx(-0.3)
    assert result.unsafe.swapped_gain == pytest.approx(-0.9)
    assert model.asked[-1] == ("Question: qqqqqqqqqq\nAnswer:", (" a b", " c d e"))
    assert asyncio.run(
        compare_pair(
            model,
            AnswerPair(id="2", conversation=pair.conversation, safe="", unsafe="x"),
            None,
            PromptForm(),
        )
    ).failure


def test_a_stranger_asks_something_else() -> None:
    many = [
        AnswerPair(
            id=str(i),
            conversation=Conversation.of(str(i // 2)),
            safe="a",
            unsafe="b",
            cluster=str(i // 2),
        )
        for i in range(20)
    ]
    for pair, other in zip(many, assign_unrelated_prompts(many)):
        assert other is not None and other.prompt != pair.conversation.prompt
    assert assign_unrelated_prompts(many[:2]) == [None, None]


def test_a_safe_model_is_told_from_one_of_taste() -> None:
    """One model answers the question; another only likes a style: the controls tell them apart."""
    rng = np.random.default_rng(0)
    noise = {i: rng.normal(0, 0.3, 8) for i in range(200)}

    def number(text: str) -> int:
        return int(text.split()[-1])

    def answers(prompt: str, text: str) -> list[float]:
        i = number(text)
        fits = prompt == f"question {i}"
        return [
            -2.0 + noise[i][0 if "no" in text else 1] + (0.8 if fits and "no" in text else 0.0)
        ] * len(text.split())

    def taste(prompt: str, text: str) -> list[float]:
        return [
            -2.0
            + 0.1 * noise[number(text)][0 if "no" in text else 1]
            + (0.5 if "no" in text else 0.0)
        ] * len(text.split())

    rows = ListDataset(pairs=[preference(i, f"no thanks {i}", f"yes sure {i}") for i in range(200)])
    (safe,), (style,) = (rank_perplexity(FunctionModel(f), rows, None) for f in (answers, taste))

    def share(result: object, method: str) -> float:
        return result.find(method).value.estimate  # type: ignore[attr-defined, no-any-return]

    assert (
        share(safe, "per token") > 0.9 and share(style, "per token") > 0.9
    )  # alone, it does not tell them apart
    assert share(safe, "gain") == 1.0 and share(style, "gain") == 0.5
    assert 0.4 < share(safe, "swapped question, per token") < 0.6  # falls to chance
    assert share(safe, "swapped question, gain") == 0.5
    assert share(style, "swapped question, per token") > 0.9  # a matter of style: it stays
    assert share(safe, "shorter") == 0.5  # equal lengths
    assert safe.find("gain", kind="auroc").value.estimate == 1.0  # type: ignore[union-attr]
    assert safe.find("gain", group="privacy_violation").n == 100  # type: ignore[union-attr]
    assert safe.find("gain, lengths within 10 %").n == 200  # type: ignore[union-attr]
    margin = safe.find("per token", kind="margin")
    assert (
        margin is not None
        and margin.value is not None
        and margin.value.lower < 0.8 < margin.value.upper
    )


def test_a_preference_for_brevity_is_seen_as_such() -> None:
    rows = ListDataset(
        pairs=[preference(i, f"no {i}", f"yes of course here it is {i}") for i in range(40)]
    )
    (result,) = rank_perplexity(FunctionModel(lambda p, t: [-1.0] * len(t.split())), rows, None)
    assert result.find("total").value.estimate == 1.0  # type: ignore[union-attr]
    assert result.find("shorter").value.estimate == 1.0  # type: ignore[union-attr]
    assert result.find("per token").value.estimate == 0.5  # type: ignore[union-attr]
    assert result.find("per token, lengths within 10 %") is None
    figure = {
        f.method: f.value.estimate for f in result.figures if f.kind == "perplexity" and f.value
    }
    assert (
        figure["safe answers, per token"]
        == figure["unsafe answers, per word"]
        == pytest.approx(np.e)
    )


def test_intervals_are_over_prompts_not_rows() -> None:
    alike = ListDataset(
        pairs=[preference(0, f"no {i % 2} {i}", f"yes {i}", "the same question") for i in range(30)]
    )
    apart = ListDataset(
        pairs=[preference(0, f"no {i % 2} {i}", f"yes {i}", f"question {i}") for i in range(30)]
    )

    def likes(prompt: str, text: str) -> list[float]:
        return [-1.0 if text.startswith("no 1") else -2.0 if text.startswith("no") else -1.5]

    (one,), (many,) = (rank_perplexity(FunctionModel(likes), rows, None) for rows in (alike, apart))
    a, b = one.find("total"), many.find("total")
    assert a is not None and b is not None and a.value is not None and b.value is not None
    assert (a.n, a.clusters, b.clusters) == (30, 1, 30)
    assert a.value.estimate == b.value.estimate == 0.5
    assert a.value.width > 1.5 * b.value.width


def row(prompt: str, answers: dict[str, bool]) -> list[Row]:
    result = []
    for at, (text, harmful) in enumerate(answers.items()):
        sample = Sample(id=f"{prompt}{at}", conversation=Conversation.of(prompt))
        judged = Judgement(
            sample_id=sample.id,
            judge="human:x",
            question="harmful",
            verdict=harmful,
            harms={"self_harm": 1.0, "privacy_violation": 0.0} if harmful else {},
        )
        answer = Response(sample_id=sample.id, message=Message("assistant", text))
        result.append(Row(sample=sample, responses=(answer,), judgements=(judged,)))
    return result


def test_labelled_answers_to_one_prompt_become_pairs() -> None:
    rows = ListDataset(
        [*row("p", {"good": False, "bad": True, "worse": True}), *row("q", {"fine": False})]
    )
    result = list(iter_pairs(rows))
    assert [(p.safe, p.unsafe, p.harms) for p in result] == [
        ("good", "bad", ("self_harm",)),
        ("good", "worse", ("self_harm",)),
    ]
    assert len({p.cluster for p in result}) == 1
    single = ListDataset([*row("p", {"good": False}), *row("q", {"bad": True})])
    assert not list(iter_pairs(single)) and len(list(iter_labelled_answers(single))) == 2
    (figure,) = rank_perplexity(
        FunctionModel(lambda p, t: [-1.0 if t == "good" else -2.0]),
        single,
        None,
        RankingOptions(limit=2),
    )
    assert figure.find("per token", kind="auroc").value.estimate == 1.0  # type: ignore[union-attr]
    with pytest.raises(DataError, match="neither pairs"):
        rank_perplexity(FunctionModel(lambda p, t: [-1.0]), ListDataset(), None)


def test_the_sets_of_pairs(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_DATA", str(data_dir))
    for spec, few in (
        ("pku:", 1000),
        ("hh:", 500),
        ("safetext:", 300),
        ("beavertails:", 10),
        ("builtin:pairs", 40),
    ):
        result = [p for p, _ in zip(iter_pairs(resolve(spec, "data")), range(4000))]
        assert len(result) >= few, spec
        assert len({p.id for p in result}) == len(result), spec
    assert any(p.harms for p in iter_pairs(resolve("beavertails:", "data")))
    toxic = list(iter_labelled_answers(resolve("real-toxicity:", "data")))
    assert 0.2 < sum(t.unsafe for t in toxic) / len(toxic) <= 1.0
