"""The face: few names, nothing heavy, and the whole sentence in a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

import truing


def test_every_name_is_there_and_documented() -> None:
    assert 20 <= len(truing.__all__) <= 30
    for name in truing.__all__:
        assert getattr(truing, name).__doc__, name
    assert set(truing.__all__) <= set(dir(truing))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = truing.nothing  # type: ignore[attr-defined]


def test_the_sentence_in_a_few_lines(tmp_path: Path) -> None:
    data, judge = truing.data("builtin:safety,half=report"), truing.judge("rules:refusal")
    before = truing.evaluate(truing.model("scripted:comply"), data, [judge], tmp_path / "before")
    after = truing.evaluate(truing.model("scripted:refuse"), data, [judge], tmp_path / "after")
    refused = {r.question: r for r in truing.summarise(after).rates if r.category is None}[
        "refused"
    ]
    assert refused.raw.estimate == 1.0 and refused.n == len(list(data.rows()))
    assert {f.question for f in truing.compare(before, after).flips} == {"refused", "outcome"}
    assert callable(truing.evaluate)  # not the module of that name


def test_asking_waits_and_a_failure_is_an_error() -> None:
    assert truing.ask(truing.model("scripted:echo"), "hello") == "hello"
    with pytest.raises(truing.TruingError, match="scripted"):
        truing.ask(truing.model("scripted:fail"), "hello")


def test_a_guarded_model_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("rails:\n  input:\n    flows: [polite]\n")
    (tmp_path / "polite.co").write_text(
        'define bot ask nicely\n  "Could you say that nicely?"\n\n'
        'define subflow polite\n  if "rude" in $user_message\n    bot ask nicely\n    stop\n'
    )
    bot = truing.guard(truing.model("scripted:echo"), tmp_path)
    assert truing.ask(bot, "hello") == "hello"
    assert truing.ask(bot, "a rude word") == "Could you say that nicely?"
