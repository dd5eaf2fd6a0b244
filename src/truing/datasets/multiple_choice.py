"""Sets whose answer is one of several: TruthfulQA, BBQ, model-written evaluations, SafetyBench,
SafeText.

`Sample.answer` holds the indexes of the right choices. Where a set lists the right ones first, the
choices are put into an order that depends on the prompt alone, so that no position is favoured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from truing.core.taxonomy import load_crosswalk
from truing.core.types import Conversation, Message, Preference, Row, Sample
from truing.datasets.base import (
    DatasetOptions,
    PublishedDataset,
    make_builder,
    recorded_judgement,
    recorded_response,
)
from truing.datasets.readers import Record


def shuffle_choices(
    prompt: str, correct: list[str], incorrect: list[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns all choices in an order fixed by the prompt, and the indexes of the correct ones."""

    def place(text: str) -> bytes:
        return hashlib.sha256(f"{prompt}\n{text}".encode()).digest()

    # dict.fromkeys drops duplicates: the best answer is also among the correct ones.
    choices = tuple(sorted(dict.fromkeys((*correct, *incorrect)), key=place))
    return choices, tuple(index for index, c in enumerate(choices) if c in correct)


def _read_answers(record: Record, *keys: str) -> list[str]:
    key = next((k for k in keys if k in record.data), keys[0])
    value = record.value(key)
    # The published CSV joins answers by semicolons; the Parquet form has lists.
    parts = value.split(";") if isinstance(value, str) else record.list_value(key)
    return [str(p).strip() for p in parts if str(p).strip()]


def convert_truthfulqa(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A question with true and false answers (Lin et al. 2022, arXiv 2109.07958).

    `mode=mc2` (the default): all true answers are right; `mode=mc1`: the best answer against the
    false ones.
    """
    question = record.text("Question" if "Question" in record.data else "question")
    best = record.text("Best Answer" if "Best Answer" in record.data else "best_answer").strip()
    correct = _read_answers(record, "Correct Answers", "correct_answers")
    incorrect = _read_answers(record, "Incorrect Answers", "incorrect_answers")
    single = options.extra.get("mode", "mc2") == "mc1"
    choices, answer = shuffle_choices(
        question, [best] if single else [best, *correct], [w for w in incorrect if w not in correct]
    )
    tags = {
        k.lower(): v
        for k in ("Type", "Category", "type", "category")
        if (v := record.optional_text(k))
    }
    tags["topic"] = tags.pop("category", "")
    sample = Sample(
        conversation=Conversation.of(question),
        choices=choices,
        answer=answer,
        expect="comply",
        tags=tags,
    )
    yield Row(sample=sample)


def convert_bbq(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A bias question (Parrish et al. 2022, arXiv 2110.08193): with an ambiguous context "unknown"
    is right.

    Tags name the index of the unknown answer and of the one that speaks of the stereotyped group,
    for the bias score.
    """
    answer_info = record.nested("answer_info")
    groups = [str(g) for g in record.nested("additional_metadata").list_value("stereotyped_groups")]
    # answer_info holds [text, group] for each answer.
    kinds = [str(answer_info.list_value(f"ans{index}")[1]) for index in range(3)]
    target = [
        str(index)
        for index, kind in enumerate(kinds)
        if kind in groups or kind.split("-")[-1] in groups
    ]
    context = record.choice("context_condition", ("ambig", "disambig"))
    tags = {
        "context": context,
        "polarity": record.choice("question_polarity", ("neg", "nonneg")),
        "topic": record.text("category"),
        "unknown": str(kinds.index("unknown")) if "unknown" in kinds else "",
        "target": "|".join(target),
        "id": str(record.value("example_id")),
    }
    sample = Sample(
        conversation=Conversation.of(f"{record.text('context')}\n{record.text('question')}"),
        choices=tuple(record.text(f"ans{index}") for index in range(3)),
        answer=(record.integer("label", low=0, high=2),),
        expect="abstain" if context == "ambig" else "comply",
        tags=tags,
    )
    yield Row(sample=sample)


def convert_model_written(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A question whose one answer matches a behaviour (Perez et al. 2022, arXiv 2212.09251).

    `answer` is the matching choice, which is rarely the right one: what is measured is how often a
    model matches.
    """
    behaviour = Path(record.path).name.split(".")[0]
    if options.extra.get("behaviour", behaviour) != behaviour:
        return
    lists = [
        _read_choices(record, f"answer_{polarity}_behavior")
        for polarity in ("matching", "not_matching")
    ]
    # The files list the matching answer first; sorting hides which one it is.
    choices = tuple(sorted({*lists[0], *lists[1]}))
    sample = Sample(
        conversation=Conversation.of(record.text("question")),
        choices=choices,
        answer=tuple(index for index, c in enumerate(choices) if c in lists[0]),
        tags={"behaviour": behaviour},
    )
    yield Row(sample=sample)


def _read_choices(record: Record, key: str) -> list[str]:
    value = record.value(key)
    return (
        [str(v).strip() for v in value] if isinstance(value, list) else [record.text(key).strip()]
    )


def convert_safetybench(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A multiple choice about safety (Zhang et al. 2023, arXiv 2309.07045); the test answers are
    not published.
    """
    choices = tuple(str(o) for o in record.list_value("options"))
    answer: tuple[int, ...] | None = None
    if record.has("answer"):
        answer_text = str(record.value("answer")).strip()
        index = (
            "ABCDEFGH".find(answer_text)
            if answer_text.isalpha() and len(answer_text) == 1
            else int(answer_text)
            if answer_text.isdigit()
            else -1
        )
        if not 0 <= index < len(choices):
            raise record.error("answer: names none of the options")
        answer = (index,)
    kind = record.text("category")
    language = "zh" if "_zh" in Path(record.path).name else "en"
    sample = Sample(
        conversation=Conversation.of(record.text("question")),
        choices=choices,
        answer=answer,
        harms=load_crosswalk("safetybench")(
            record.choice("category", load_crosswalk("safetybench").map)
        ),
        tags={"topic": kind, "language": language, "id": record.optional_text("id") or ""},
    )
    yield Row(sample=sample)


def _unpack_by_category(document: Any) -> Iterable[tuple[str, Any]]:
    # Few-shot examples are grouped by category; the test questions are one array.
    if isinstance(document, dict):
        lists = [(key, rows) for key, rows in document.items() if isinstance(rows, list)]
        return ((f".{key}[{index}]", row) for key, rows in lists for index, row in enumerate(rows))
    if isinstance(document, list):
        return ((f"[{index}]", row) for index, row in enumerate(document))
    raise ValueError("expected an array of objects, or one by category")


def _unpack_situations(document: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(document, dict):
        raise ValueError("expected an object: situation -> safe and unsafe advice")
    for index, (situation, advice) in enumerate(document.items()):
        yield (
            f"[{index}]",
            {"situation": situation, **advice} if isinstance(advice, dict) else advice,
        )


def convert_safetext(record: Record, options: DatasetOptions) -> Iterable[Row]:
    """A situation with safe and unsafe advice for the body (Levy et al. 2022, arXiv 2210.10045)."""
    prompt = record.text("situation")
    safe, unsafe = [[str(a) for a in record.list_value(k)] for k in ("safe", "unsafe")]
    choices, answer = shuffle_choices(prompt, safe, unsafe)
    judgements = [
        recorded_judgement("safetext", "harmful", index >= len(safe), index=index)
        for index in range(len(safe) + len(unsafe))
    ]
    yield Row(
        sample=Sample(conversation=Conversation.of(prompt), choices=choices, answer=answer),
        responses=tuple(
            recorded_response(text, index) for index, text in enumerate((*safe, *unsafe))
        ),
        judgements=tuple(judgements),
    )


def convert_safetext_pairs(record: Record, options: DatasetOptions) -> Iterable[Preference]:
    """Yields each safe advice over each unsafe one."""
    prompt = Conversation.of(record.text("situation"))
    for safe in record.list_value("safe"):
        for unsafe in record.list_value("unsafe"):
            yield Preference(
                conversation=prompt,
                chosen=Message("assistant", str(safe)),
                dimension="safe",
                signs=(1, -1),
                rejected=Message("assistant", str(unsafe)),
            )


build_truthfulqa = make_builder(
    TRUTHFULQA := PublishedDataset(
        kind="truthfulqa",
        title="TruthfulQA",
        source="https://github.com/sylinrl/TruthfulQA",
        licence="Apache-2.0",
        parts={"questions": ("TruthfulQA.jsonl", "TruthfulQA.csv", "generation/*.parquet")},
        hub={"questions": "truthfulqa/truthful_qa"},
        convert=convert_truthfulqa,
        extra_arguments=("mode",),
    )
)
build_bbq = make_builder(
    BBQ := PublishedDataset(
        kind="bbq",
        title="BBQ",
        source="https://github.com/nyu-mll/BBQ",
        licence="CC BY 4.0",
        parts={"questions": ("*.jsonl", "data/*.jsonl")},
        convert=convert_bbq,
    )
)
_MWE = "advanced-ai-risk/"
build_model_written = make_builder(
    MODEL_WRITTEN := PublishedDataset(
        kind="model-written",
        title="Model-written evaluations",
        source="https://github.com/anthropics/evals",
        licence="CC BY 4.0",
        folder="model_written_evals",
        convert=convert_model_written,
        extra_arguments=("behaviour",),
        parts={
            "human": (f"{_MWE}human_generated_evals/*.jsonl",),
            "lm": (f"{_MWE}lm_generated_evals/*.jsonl",),
            "few-shot": (f"{_MWE}prompts_for_few_shot_generation/*.jsonl",),
            "persona": ("persona/*.jsonl",),
            "sycophancy": ("sycophancy/*.jsonl",),
        },
        hub={"human": "Anthropic/model-written-evals", "lm": "Anthropic/model-written-evals"},
    )
)
build_safetybench = make_builder(
    SAFETYBENCH := PublishedDataset(
        kind="safetybench",
        title="SafetyBench",
        source="https://github.com/thu-coai/SafetyBench",
        licence="MIT",
        parts={
            "test": ("test_en.json", "test_*.json"),
            "test-zh": ("test_zh.json",),
            "dev": ("dev_en.json",),
            "dev-zh": ("dev_zh.json",),
        },
        hub={"test": "thu-coai/SafetyBench", "dev": "thu-coai/SafetyBench"},
        convert=convert_safetybench,
        unpack=_unpack_by_category,
    )
)
build_safetext = make_builder(
    SAFETEXT := PublishedDataset(
        kind="safetext",
        title="SafeText",
        source="https://github.com/sharonlevy/SafeText",
        licence="MIT",
        parts={"situations": ("SafeText.json", "**/SafeText.json")},
        labels=("harmful",),
        convert=convert_safetext,
        convert_pairs=convert_safetext_pairs,
        unpack=_unpack_situations,
    )
)
