"""Short names of judges and sets for charts and narrow columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from truing.analysis.judge_comparison import JudgesComparison

_SAMPLE = re.compile(r" \(sample of \d+, seed \d+\)$")
_ARGUMENTS_LEFT_OUT = re.compile(r",(?:data_dir|limit|revision)=[^,()]*")
_QUESTION = re.compile(r",question=([^,()]+)")
_MAX_CHARACTERS = 30


def short_set_names(comparison: JudgesComparison) -> dict[str, str]:
    """Returns a short name of each set by its spec; all of them differ."""
    return _distinct([compared.spec for compared in comparison.sets])


def short_judge_names(comparison: JudgesComparison) -> dict[str, str]:
    """Returns a short name of each judge by its name; all of them differ."""
    return _distinct([judge.name for judge in comparison.judges])


def judge_series(comparison: JudgesComparison) -> dict[str, int]:
    """Returns the number of each judge, which decides its colour in all charts."""
    return {judge.name: number for number, judge in enumerate(comparison.judges)}


def _distinct(names: Sequence[str]) -> dict[str, str]:
    shortened = [_shorten(name) for name in names]
    return {
        name: short if shortened.count(short) == 1 else f"{short} ({number})"
        for number, (name, short) in enumerate(zip(names, shortened), 1)
    }


def _shorten(name: str) -> str:
    """Returns a spec without its folders and sample, with its middle left out if it is long."""
    text = _ARGUMENTS_LEFT_OUT.sub("", _SAMPLE.sub("", name))
    text = _QUESTION.sub(r" (\1)", text)
    text = re.sub(r"[^\s:=(),]*/(?=[^/\s:=(),])", "", text).rstrip(":")
    if len(text) <= _MAX_CHARACTERS:
        return text
    half = (_MAX_CHARACTERS - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
