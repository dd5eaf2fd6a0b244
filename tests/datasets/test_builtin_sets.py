from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from truing.core.errors import SpecError
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Sample
from truing.datasets.builtin_sets import RESOURCES
from truing.specs.resolve import resolve

RUN = 9  # words


def samples(spec: str) -> list[Sample]:
    return [row.sample for row in resolve(spec, "data").rows()]


def pairs(rows: list[Sample]) -> dict[str, list[Sample]]:
    made: dict[str, list[Sample]] = {}
    for row in rows:
        made.setdefault(str(row.pair), []).append(row)
    return made


def test_safety() -> None:
    rows = samples("builtin:safety")
    harmful = [s for s in rows if s.expect == "refuse"]
    assert len(harmful) >= 84 and len(rows) == 2 * len(harmful)
    for category in load_taxonomy().ids:
        mine = [s for s in harmful if s.harms == (category,)]
        assert Counter(s.tags["direct"] for s in mine) == {"yes": 3, "no": 3}
    for twins in pairs(rows).values():
        assert sorted(s.expect for s in twins) == ["comply", "refuse"]
        assert {s.tags["category"] for s in twins} == {*twins[0].harms, *twins[1].harms}
    assert max(len(s.prompt.split()) for s in rows) <= 30
    minors = [s.prompt.lower() for s in harmful if s.harms == ("child_abuse",)]
    assert not any(re.search(r"\b(?:sex|nude|naked|touch|kiss|undress)", p) for p in minors)


def test_twins_look_alike() -> None:
    shared = []
    for a, b in pairs(samples("builtin:safety")).values():
        one, two = (set(re.findall(r"\w+", s.prompt.lower())) for s in (a, b))
        shared.append(len(one & two) / min(len(one), len(two)))
    assert sum(shared) / len(shared) > 0.5 and min(shared) > 0.15


def test_honest() -> None:
    rows = samples("builtin:honest")
    count = Counter(s.expect for s in rows)
    assert count["clarify"] >= 28 and count["abstain"] >= 28
    assert all(
        sorted(s.expect == "comply" for s in twins) == [False, True]
        for twins in pairs(rows).values()
    )
    assert all(s.check is not None for s in rows if s.expect == "comply")


def test_helpful() -> None:
    rows = samples("builtin:helpful")
    assert len(rows) >= 200 and all(s.check is not None and s.answer for s in rows)
    assert len({s.prompt for s in rows}) == len(rows) and len({s.tags["task"] for s in rows}) >= 6
    train, report = samples("builtin:helpful,half=train"), samples("builtin:helpful,half=report")
    assert len(train) + len(report) == len(rows) and min(len(train), len(report)) > 0.4 * len(rows)


def test_support() -> None:
    rows = samples("builtin:support")
    assert sum(s.expect == "support" for s in rows) >= 20
    assert all(sorted(s.expect for s in t) == ["comply", "support"] for t in pairs(rows).values())


def test_no_half_parts_a_prompt_from_its_twin() -> None:
    for name in ("safety", "honest", "support"):
        halves = [
            {s.pair for s in samples(f"builtin:{name},half={h}")} for h in ("train", "report")
        ]
        assert all(halves) and not halves[0] & halves[1]


def test_a_category_brings_its_twins() -> None:
    found = samples("builtin:safety,category=privacy_violation")
    assert Counter(s.expect for s in found) == {"refuse": 6, "comply": 6}


def test_unknown_set() -> None:
    with pytest.raises(SpecError, match="did you mean 'safety'"):
        resolve("builtin:safty", "data")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[at : at + RUN]) for at in range(len(found) - RUN + 1)}


def test_no_run_of_nine_words_stands_in_a_published_set(data_dir: Path) -> None:
    ours: dict[tuple[str, ...], str] = {}
    # The article's question is not in our words: others ask it too.
    for path in sorted(set(RESOURCES.glob("*.jsonl")) - {RESOURCES / "article.jsonl"}):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            ours |= dict.fromkeys(runs(line), f"{path.name}:{number}")
    assert len(ours) > 1000
    for folder in (
        "beavertails",
        "pku_saferlhf",
        "hh_rlhf",
        "do_not_answer",
        "xstest",
        "harmbench",
        "ailuminate",
        "jailbreakbench",
        "diasafety",
        "truthfulqa",
    ):
        for path in sorted(p for p in (data_dir / folder).rglob("*") if p.is_file()):
            theirs = words(path.read_text(encoding="utf-8"))
            shared = {
                ours[g]
                for at in range(len(theirs) - RUN + 1)
                if (g := tuple(theirs[at : at + RUN])) in ours
            }
            assert not shared, f"{path.name} shares {RUN} words with {sorted(shared)}"
