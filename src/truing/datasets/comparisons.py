"""Sets of answers in order for judges and reward models: LLMBar and RM-Bench."""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.types import Conversation, Message, Preference, Row, Sample
from truing.datasets.base import Options, Published, builder, label, recorded
from truing.datasets.read import Record


def _llmbar(record: Record) -> tuple[str, list[str], int]:
    if "annotations" in record.data:
        inner = record.inside("instance")
        note = record.inside("annotations").inside("quality_single_turn")
        best = 0 if note.choice("majority_human", ("model_a", "model_b")) == "model_a" else 1
        names = ("output_a", "output_b")
    else:
        inner, names = record, ("output_1", "output_2")
        best = record.integer("label", low=1, high=2) - 1
    return inner.text("input"), [inner.text(n, empty=True) for n in names], best


def llmbar(record: Record, options: Options) -> Iterable[Row]:
    """An instruction and two answers, one better by experts' agreement (Zeng et al. 2024, arXiv 2310.07641)."""
    prompt, answers, best = _llmbar(record)
    yield Row(
        sample=Sample(conversation=Conversation.of(prompt), expect="comply"),
        responses=tuple(recorded(a, at) for at, a in enumerate(answers)),
        judgements=tuple(label("llmbar", "better", at == best, index=at) for at in (0, 1)),
    )


def llmbar_pairs(record: Record, options: Options) -> Iterable[Preference]:
    """The better answer over the other."""
    prompt, answers, best = _llmbar(record)
    yield Preference(
        conversation=Conversation.of(prompt),
        chosen=Message("assistant", answers[best]),
        dimension="helpful",
        rejected=Message("assistant", answers[1 - best]),
    )


def _styles(record: Record) -> tuple[list[str], list[str]]:
    chosen, rejected = (
        [str(a) for a in record.items("chosen")],
        [str(a) for a in record.items("rejected")],
    )
    if not chosen or len(chosen) != len(rejected):
        raise record.fault(
            "chosen and rejected: expected equally many answers (concise, detailed, with markdown)"
        )
    return chosen, rejected


def rm_bench(record: Record, options: Options) -> Iterable[Row]:
    """A prompt with three right and three wrong answers in three styles (Liu et al. 2025, arXiv 2410.16184)."""
    chosen, rejected = _styles(record)
    judged = [
        label("rm-bench", "better", at < len(chosen), index=at) for at in range(2 * len(chosen))
    ]
    sample = Sample(
        conversation=Conversation.of(record.text("prompt")),
        tags={"domain": record.text("domain"), "id": record.maybe("id") or ""},
    )
    answers = (*chosen, *rejected)
    yield Row(
        sample=sample,
        responses=tuple(recorded(a, at) for at, a in enumerate(answers)),
        judgements=tuple(judged),
    )


def rm_bench_pairs(record: Record, options: Options) -> Iterable[Preference]:
    """All pairs of styles; the tag `styles` holds both indexes (0 concise, 1 detailed, 2 with markdown)."""
    chosen, rejected = _styles(record)
    domain = record.text("domain")
    for i, right in enumerate(chosen):
        for j, wrong in enumerate(rejected):
            yield Preference(
                conversation=Conversation.of(record.text("prompt")),
                chosen=Message("assistant", right),
                rejected=Message("assistant", wrong),
                dimension="safe" if domain.startswith("safety") else "helpful",
                tags={"domain": domain, "styles": f"{i}-{j}"},
            )


build_llmbar = builder(
    LLMBAR := Published(
        kind="llmbar",
        title="LLMBar",
        source="https://github.com/princeton-nlp/LLMBar",
        licence="MIT",
        parts={
            "natural": ("natural.json", "**/Natural/dataset.json"),
            "adversarial": ("adversarial.json", "**/Adversarial/*/dataset.json"),
        },
        labels=("better",),
        convert=llmbar,
        pairs=llmbar_pairs,
    )
)
build_rm_bench = builder(
    RM_BENCH := Published(
        kind="rm-bench",
        title="RM-Bench",
        source="https://github.com/THU-KEG/RM-Bench",
        licence="ODC-BY",
        folder="rm_bench",
        parts={"all": ("total_dataset.json", "**/total_dataset.json", "*.json")},
        hub={"all": "THU-KEG/RM-Bench"},
        labels=("better",),
        convert=rm_bench,
        pairs=rm_bench_pairs,
        imitate=False,
    )
)
