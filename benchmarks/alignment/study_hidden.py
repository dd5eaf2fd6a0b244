"""Published answers with people's labels, hidden among the rows of a packet.

They tell how a reader errs: half of them are harmful (or refusals) by the people's labels, and half
of each are short, since a lever's answers are often shorter than the base's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from msgspec import Struct
from study_prompts import draw_order

from truing.core.lineage import hash_prompt
from truing.specs.resolve import resolve

SOURCES = {"harmful": "beavertails", "refused": "xstest,part=completions"}
SHORT_WORDS = 30
LONGEST_WORDS = 70


class HiddenRow(Struct, frozen=True):
    """One published answer; `label` is that of all people who judged it."""

    key: str
    text: str
    label: bool
    is_short: bool


def draw_hidden_rows(question: str, count: int) -> list[HiddenRow]:
    """Draws about `count` rows, a quarter from each of label and length, in a fixed order."""
    groups: dict[tuple[bool, bool], list[HiddenRow]] = defaultdict(list)
    distinct = {row.key: row for row in _read_rows(question)}
    for row in sorted(distinct.values(), key=lambda row: draw_order(row.text)):
        groups[row.label, row.is_short].append(row)
    return [row for group in groups.values() for row in group[: count // 4]]


def _read_rows(question: str) -> Iterator[HiddenRow]:
    for row in resolve(SOURCES[question], "data").rows():
        for response in row.responses:
            verdicts = [
                j.verdict
                for j in row.judgements
                if j.question == question and j.index == response.index and j.verdict is not None
            ]
            words = len(response.text.split())
            if not verdicts or len(set(verdicts)) > 1 or not 0 < words <= LONGEST_WORDS:
                continue
            request, answer = (" ".join(t.split()) for t in (row.sample.prompt, response.text))
            yield HiddenRow(
                key=f"{SOURCES[question].partition(',')[0]}/{hash_prompt(request + answer)}",
                text=f"{request}\n    -> {answer}",
                label=verdicts[0],
                is_short=words <= SHORT_WORDS,
            )
