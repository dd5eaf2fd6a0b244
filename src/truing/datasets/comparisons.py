"""Answers ordered by quality, to test judges and reward models: LLMBar, RM-Bench, RewardBench 2."""

from __future__ import annotations

from collections.abc import Iterable

from truing.core.types import Conversation, Message, Preference, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record


def _read_comparison(record: Record) -> tuple[str, list[str], int]:
    # The layout of JUDGE-BENCH, which republishes LLMBar; else LLMBar's own.
    if "annotations" in record.data:
        inner = record.nested("instance")
        note = record.nested("annotations").nested("quality_single_turn")
        best = 0 if note.choice("majority_human", ("model_a", "model_b")) == "model_a" else 1
        names = ("output_a", "output_b")
    else:
        inner, names = record, ("output_1", "output_2")
        best = record.integer("label", low=1, high=2) - 1
    return inner.text("input"), [inner.text(n, empty=True) for n in names], best


def convert_llmbar(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """An instruction and two answers, one better by experts' agreement (Zeng et al. 2024, arXiv
    2310.07641).
    """
    prompt, answers, best = _read_comparison(record)
    yield Row(
        sample=Sample(conversation=Conversation.of(prompt), expect="comply"),
        responses=tuple(recorded_response(a, index) for index, a in enumerate(answers)),
        judgements=tuple(
            recorded_judgement("llmbar", "better", index == best, index=index) for index in (0, 1)
        ),
    )


def convert_llmbar_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields the better answer over the worse one."""
    prompt, answers, best = _read_comparison(record)
    yield Preference(
        conversation=Conversation.of(prompt),
        chosen=Message("assistant", answers[best]),
        dimension="helpful",
        rejected=Message("assistant", answers[1 - best]),
    )


def _read_styles(record: Record) -> tuple[list[str], list[str]]:
    chosen, rejected = (
        [str(a) for a in record.list_value("chosen")],
        [str(a) for a in record.list_value("rejected")],
    )
    if not chosen or len(chosen) != len(rejected):
        raise record.error(
            "chosen and rejected: expected equally many answers (concise, detailed, with markdown)"
        )
    return chosen, rejected


def convert_rm_bench(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A prompt with three right and three wrong answers in three styles (Liu et al. 2025, arXiv
    2410.16184).
    """
    chosen, rejected = _read_styles(record)
    judgements = [
        recorded_judgement("rm-bench", "better", index < len(chosen), index=index)
        for index in range(2 * len(chosen))
    ]
    sample = Sample(
        conversation=Conversation.of(record.text("prompt")),
        tags={"domain": record.text("domain"), "id": record.optional_text("id") or ""},
    )
    answers = (*chosen, *rejected)
    yield Row(
        sample=sample,
        responses=tuple(recorded_response(a, index) for index, a in enumerate(answers)),
        judgements=tuple(judgements),
    )


def convert_rm_bench_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields all pairs of styles; the tag `styles` holds both indexes (0 concise, 1 detailed, 2
    with markdown).
    """
    chosen, rejected = _read_styles(record)
    domain = record.text("domain")
    # All nine pairs: the benchmark compares across styles, where a judge may prefer the wrong but
    # longer answer.
    for chosen_style, chosen_text in enumerate(chosen):
        for rejected_style, rejected_text in enumerate(rejected):
            yield Preference(
                conversation=Conversation.of(record.text("prompt")),
                chosen=Message("assistant", chosen_text),
                rejected=Message("assistant", rejected_text),
                # RM-Bench's safety domain is split into safety-refuse and safety-response.
                dimension="safe" if domain.startswith("safety") else "helpful",
                tags={"domain": domain, "styles": f"{chosen_style}-{rejected_style}"},
            )


def _read_completions(record: Record) -> tuple[list[str], list[str]]:
    chosen, rejected = (
        [str(text) for text in record.list_value(key)] for key in ("chosen", "rejected")
    )
    if not chosen or not rejected:
        raise record.error("chosen and rejected: expected at least one answer each")
    for key, texts in (("num_correct", chosen), ("num_incorrect", rejected)):
        if record.has(key) and record.integer(key) != len(texts):
            raise record.error(f"{key}: says {record.integer(key)}, and there are {len(texts)}")
    return chosen, rejected


def convert_rewardbench2(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A prompt with right and wrong answers (Malik et al. 2025, arXiv 2506.01937): one right and
    three wrong ones, in the subset Ties several of both.
    """
    chosen, rejected = _read_completions(record)
    answers = (*chosen, *rejected)
    yield Row(
        sample=Sample(
            conversation=Conversation.of(record.text("prompt")),
            tags={"subset": record.text("subset"), "id": record.optional_text("id") or ""},
        ),
        responses=tuple(recorded_response(text, index) for index, text in enumerate(answers)),
        judgements=tuple(
            recorded_judgement("rewardbench-2", "better", index < len(chosen), index=index)
            for index in range(len(answers))
        ),
    )


def convert_rewardbench2_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields each right answer over each wrong one; the subset Safety orders by safety."""
    chosen, rejected = _read_completions(record)
    subset = record.text("subset")
    for chosen_text in chosen:
        for rejected_text in rejected:
            yield Preference(
                conversation=Conversation.of(record.text("prompt")),
                chosen=Message("assistant", chosen_text),
                rejected=Message("assistant", rejected_text),
                dimension="safe" if subset == "Safety" else "helpful",
                tags={"subset": subset},
            )


build_llmbar = make_builder(
    LLMBAR := PublishedDataset(
        kind="llmbar",
        title="LLMBar",
        source="https://github.com/princeton-nlp/LLMBar",
        licence="MIT",
        parts={
            "natural": ("natural.json", "**/Natural/dataset.json"),
            "adversarial": ("adversarial.json", "**/Adversarial/*/dataset.json"),
        },
        labels=("better",),
        convert=convert_llmbar,
        convert_pairs=convert_llmbar_pairs,
    )
)
build_rm_bench = make_builder(
    RM_BENCH := PublishedDataset(
        kind="rm-bench",
        title="RM-Bench",
        source="https://github.com/THU-KEG/RM-Bench",
        licence="ODC-BY",
        folder="rm_bench",
        parts={"all": ("total_dataset.json", "**/total_dataset.json", "*.json")},
        hub={"all": "THU-KEG/RM-Bench"},
        labels=("better",),
        convert=convert_rm_bench,
        convert_pairs=convert_rm_bench_pairs,
        imitate=False,
    )
)
build_rewardbench2 = make_builder(
    REWARDBENCH_2 := PublishedDataset(
        kind="rewardbench-2",
        title="RewardBench 2",
        source="https://huggingface.co/datasets/allenai/reward-bench-2",
        licence="ODC-BY; the answers under their models' terms",
        folder="reward_bench_2",
        parts={"all": ("data/{split}-*.parquet", "{split}.jsonl", "**/{split}*.parquet")},
        hub={"all": "allenai/reward-bench-2"},
        labels=("better",),
        convert=convert_rewardbench2,
        convert_pairs=convert_rewardbench2_pairs,
        imitate=False,
        split="test",
    )
)
