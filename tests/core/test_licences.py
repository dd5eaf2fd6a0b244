"""Which licences are free, and which lie behind a judge."""

from __future__ import annotations

import pytest

from truing.core.licences import (
    FREE_LICENCES,
    collect_licences,
    describe_restriction,
    find_unfree,
    is_free,
    join_licences,
    split_licences,
)
from truing.core.types import Lineage
from truing.datasets.catalogue import CATALOGUE


@pytest.mark.parametrize(
    "licence",
    [
        "CC BY-NC 4.0",
        "CC BY-NC-SA 4.0",
        "CC BY-SA 4.0",
        "GPL-3.0-only",
        "AGPL-3.0",
        "the completions under their models' terms",
        "Llama 3 Community License",
        "not stated",
        "unverified",
        "",
    ],
)
def test_restrictions_copyleft_terms_and_unknown_licences_are_not_free(licence: str) -> None:
    assert not is_free(licence)


def test_free_licences_are_known_in_both_spellings() -> None:
    assert all(map(is_free, (*FREE_LICENCES, "cc-by-4.0", "apache 2.0", " MIT ")))


def test_lists_are_split_and_joined_without_repetition() -> None:
    assert split_licences("MIT; CC BY 4.0;MIT; ") == ("MIT", "CC BY 4.0")
    assert join_licences("MIT", "", "CC BY 4.0; MIT") == "MIT; CC BY 4.0"
    assert find_unfree(["MIT; CC BY-NC 4.0", "CC BY-NC 4.0"]) == ("CC BY-NC 4.0",)


def test_licences_of_teachers_behind_teachers_are_collected() -> None:
    teacher = Lineage(name="t", licence="CC BY-NC 4.0")
    student = Lineage(name="s", licence="MIT", judges=(Lineage(licence="MIT", judges=(teacher,)),))
    assert collect_licences(student) == ("MIT", "CC BY-NC 4.0")


def test_the_sets_that_are_not_free_are_these() -> None:
    unfree = {data.kind for data in CATALOGUE if find_unfree([data.licence])}
    assert {"beavertails", "pku", "do-not-answer", "toxic-chat", "xstest", "file"} <= unfree
    assert not unfree & {"hh", "diasafety", "harmbench", "jailbreakbench", "builtin:safety"}


def test_a_restriction_is_a_sentence_and_what_is_free_has_none() -> None:
    assert describe_restriction("j", ["MIT; CC BY 4.0", "not stated"]) == ""
    assert describe_restriction("j", ["MIT; CC BY-NC 4.0"]) == (
        "j learned under licences that are not free (CC BY-NC 4.0): research only"
    )
    assert describe_restriction("j", ["Llama 3 Community License"]).endswith("License)")
