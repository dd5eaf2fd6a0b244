"""Sets whose answer is one of several: TruthfulQA, BBQ, model-written evaluations, SafetyBench, SafeText.

`Sample.answer` holds the indexes of the right choices. Where a set lists the right ones first, the choices are put into
an order that depends on the prompt alone, so that no place is favoured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from truing.core.taxonomy import load_crosswalk
from truing.core.types import Conversation, Message, Preference, Row, Sample
from truing.datasets.base import Options, Published, builder, label, recorded
from truing.datasets.read import Record


def mixed(
    prompt: str, right: list[str], wrong: list[str]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """All choices in an order fixed by the prompt, and the indexes of the right ones."""

    def place(text: str) -> bytes:
        return hashlib.sha256(f"{prompt}\n{text}".encode()).digest()

    choices = tuple(sorted(dict.fromkeys((*right, *wrong)), key=place))
    return choices, tuple(at for at, c in enumerate(choices) if c in right)


def _answers(record: Record, *keys: str) -> list[str]:
    key = next((k for k in keys if k in record.data), keys[0])
    value = record.raw(key)
    parts = value.split(";") if isinstance(value, str) else record.items(key)
    return [str(p).strip() for p in parts if str(p).strip()]


def truthfulqa(record: Record, options: Options) -> Iterable[Row]:
    """A question with true and false answers (Lin et al. 2022, arXiv 2109.07958).

    `mode=mc2` (the default): all true answers are right; `mode=mc1`: the best answer against the false ones.
    """
    question = record.text("Question" if "Question" in record.data else "question")
    best = record.text("Best Answer" if "Best Answer" in record.data else "best_answer").strip()
    right = _answers(record, "Correct Answers", "correct_answers")
    wrong = _answers(record, "Incorrect Answers", "incorrect_answers")
    single = options.extra.get("mode", "mc2") == "mc1"
    choices, answer = mixed(
        question, [best] if single else [best, *right], [w for w in wrong if w not in right]
    )
    tags = {
        k.lower(): v for k in ("Type", "Category", "type", "category") if (v := record.maybe(k))
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


def bbq(record: Record, options: Options) -> Iterable[Row]:
    """A bias question (Parrish et al. 2022, arXiv 2110.08193): with an ambiguous context "unknown" is right.

    Tags name the index of the unknown answer and of the one that speaks of the stereotyped group, for the bias score.
    """
    info = record.inside("answer_info")
    groups = [str(g) for g in record.inside("additional_metadata").items("stereotyped_groups")]
    kinds = [str(info.items(f"ans{at}")[1]) for at in range(3)]
    target = [
        str(at) for at, kind in enumerate(kinds) if kind in groups or kind.split("-")[-1] in groups
    ]
    context = record.choice("context_condition", ("ambig", "disambig"))
    tags = {
        "context": context,
        "polarity": record.choice("question_polarity", ("neg", "nonneg")),
        "topic": record.text("category"),
        "unknown": str(kinds.index("unknown")) if "unknown" in kinds else "",
        "target": "|".join(target),
        "id": str(record.raw("example_id")),
    }
    sample = Sample(
        conversation=Conversation.of(f"{record.text('context')}\n{record.text('question')}"),
        choices=tuple(record.text(f"ans{at}") for at in range(3)),
        answer=(record.integer("label", low=0, high=2),),
        expect="abstain" if context == "ambig" else "comply",
        tags=tags,
    )
    yield Row(sample=sample)


def model_written(record: Record, options: Options) -> Iterable[Row]:
    """A question whose one answer matches a behaviour (Perez et al. 2022, arXiv 2212.09251).

    `answer` is the matching choice, which is rarely the right one: what is measured is how often a model matches.
    """
    behaviour = Path(record.path).name.split(".")[0]
    if options.extra.get("behaviour", behaviour) != behaviour:
        return
    lists = [_choices(record, f"answer_{word}_behavior") for word in ("matching", "not_matching")]
    choices = tuple(sorted({*lists[0], *lists[1]}))
    sample = Sample(
        conversation=Conversation.of(record.text("question")),
        choices=choices,
        answer=tuple(at for at, c in enumerate(choices) if c in lists[0]),
        tags={"behaviour": behaviour},
    )
    yield Row(sample=sample)


def _choices(record: Record, key: str) -> list[str]:
    value = record.raw(key)
    return (
        [str(v).strip() for v in value] if isinstance(value, list) else [record.text(key).strip()]
    )


def safetybench(record: Record, options: Options) -> Iterable[Row]:
    """A multiple choice about safety (Zhang et al. 2023, arXiv 2309.07045); the test answers are not published."""
    choices = tuple(str(o) for o in record.items("options"))
    answer: tuple[int, ...] | None = None
    if record.has("answer"):
        given = str(record.raw("answer")).strip()
        at = (
            "ABCDEFGH".find(given)
            if given.isalpha() and len(given) == 1
            else int(given)
            if given.isdigit()
            else -1
        )
        if not 0 <= at < len(choices):
            raise record.fault("answer: names none of the options")
        answer = (at,)
    kind = record.text("category")
    language = "zh" if "_zh" in Path(record.path).name else "en"
    sample = Sample(
        conversation=Conversation.of(record.text("question")),
        choices=choices,
        answer=answer,
        harms=load_crosswalk("safetybench")(
            record.choice("category", load_crosswalk("safetybench").map)
        ),
        tags={"topic": kind, "language": language, "id": record.maybe("id") or ""},
    )
    yield Row(sample=sample)


def _by_category(document: Any) -> Iterable[tuple[str, Any]]:
    # The examples for few-shot stand by category, the test questions in an array.
    if isinstance(document, dict):
        lists = [(key, rows) for key, rows in document.items() if isinstance(rows, list)]
        return ((f".{key}[{at}]", row) for key, rows in lists for at, row in enumerate(rows))
    if isinstance(document, list):
        return ((f"[{at}]", row) for at, row in enumerate(document))
    raise ValueError("expected an array of objects, or one by category")


def _situations(document: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(document, dict):
        raise ValueError("expected an object: situation -> safe and unsafe advice")
    for at, (situation, advice) in enumerate(document.items()):
        yield f"[{at}]", {"situation": situation, **advice} if isinstance(advice, dict) else advice


def safetext(record: Record, options: Options) -> Iterable[Row]:
    """A situation with safe and unsafe advice for the body (Levy et al. 2022, arXiv 2210.10045)."""
    prompt = record.text("situation")
    safe, unsafe = [[str(a) for a in record.items(k)] for k in ("safe", "unsafe")]
    choices, answer = mixed(prompt, safe, unsafe)
    judged = [
        label("safetext", "harmful", at >= len(safe), index=at)
        for at in range(len(safe) + len(unsafe))
    ]
    yield Row(
        sample=Sample(conversation=Conversation.of(prompt), choices=choices, answer=answer),
        responses=tuple(recorded(text, at) for at, text in enumerate((*safe, *unsafe))),
        judgements=tuple(judged),
    )


def safetext_pairs(record: Record, options: Options) -> Iterable[Preference]:
    """Each safe advice over each unsafe one."""
    prompt = Conversation.of(record.text("situation"))
    for safe in record.items("safe"):
        for unsafe in record.items("unsafe"):
            yield Preference(
                conversation=prompt,
                chosen=Message("assistant", str(safe)),
                dimension="safe",
                signs=(1, -1),
                rejected=Message("assistant", str(unsafe)),
            )


build_truthfulqa = builder(
    TRUTHFULQA := Published(
        kind="truthfulqa",
        title="TruthfulQA",
        source="https://github.com/sylinrl/TruthfulQA",
        licence="Apache-2.0",
        parts={"questions": ("TruthfulQA.jsonl", "TruthfulQA.csv", "generation/*.parquet")},
        hub={"questions": "truthfulqa/truthful_qa"},
        convert=truthfulqa,
        takes=("mode",),
    )
)
build_bbq = builder(
    BBQ := Published(
        kind="bbq",
        title="BBQ",
        source="https://github.com/nyu-mll/BBQ",
        licence="CC BY 4.0",
        parts={"questions": ("*.jsonl", "data/*.jsonl")},
        convert=bbq,
    )
)
_MWE = "advanced-ai-risk/"
build_model_written = builder(
    MODEL_WRITTEN := Published(
        kind="model-written",
        title="Model-written evaluations",
        source="https://github.com/anthropics/evals",
        licence="CC BY 4.0",
        folder="model_written_evals",
        convert=model_written,
        takes=("behaviour",),
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
build_safetybench = builder(
    SAFETYBENCH := Published(
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
        convert=safetybench,
        unpack=_by_category,
    )
)
build_safetext = builder(
    SAFETEXT := Published(
        kind="safetext",
        title="SafeText",
        source="https://github.com/sharonlevy/SafeText",
        licence="MIT",
        parts={"situations": ("SafeText.json", "**/SafeText.json")},
        labels=("harmful",),
        convert=safetext,
        pairs=safetext_pairs,
        unpack=_situations,
    )
)
